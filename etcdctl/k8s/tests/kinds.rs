//! Objects as Kubernetes' own Go code stores and shows them, and bytes that nobody ever stored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s::{Entry, Form, Options, decode};
use proptest::prelude::*;
use serde_json::Value;

struct Example {
    what: String,
    stored: Vec<u8>,
    shown: Value,
}

/// `testdata/objects.txt`: an empty object of each kind and full ones of many, written by `tests/kube/schema`.
fn examples() -> Vec<Example> {
    let lines = include_str!("../testdata/objects.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let [version, kind, stored, shown] = line.splitn(4, ' ').collect::<Vec<_>>().try_into().unwrap();
            Example {
                what: format!("{version} {kind}"),
                stored: STANDARD.decode(stored).unwrap(),
                shown: serde_json::from_str(shown).unwrap(),
            }
        })
        .collect()
}

#[test]
fn every_kind_is_shown_as_go_shows_it() {
    let examples = examples();
    assert!(examples.len() > 190);
    for example in examples {
        let decoded = decode(&example.stored).unwrap_or_else(|error| panic!("{}: {error}", example.what));
        assert_eq!(decoded.form, Form::Protobuf, "{}", example.what);
        assert_eq!(decoded.object, k8s_numbers(example.shown), "{}", example.what);
    }
}

/// JSON inside an object may have `1e2`, which is the number 100 also to Go.
fn k8s_numbers(value: Value) -> Value {
    decode(value.to_string().as_bytes()).unwrap().object
}

#[test]
fn yaml_reads_back_as_the_same_object() {
    for example in examples() {
        let entry = Entry {
            key: b"k",
            create_revision: 1,
            mod_revision: 1,
            version: 1,
            lease: 0,
            value: &example.stored,
        };
        let (text, error) = entry.yaml(Options { managed_fields: true });
        assert_eq!(error, None);
        let read: Value = serde_norway::from_str(&text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
        assert_eq!(read, k8s_numbers(example.shown), "{}:\n{text}", example.what);
    }
}

/// Shows a value in each way there is, and reads that again.
fn show_and_read(value: &[u8]) {
    for options in [Options { managed_fields: true }, Options { managed_fields: false }] {
        let (yaml, line) = show(value, options);
        serde_json::from_str::<Value>(&line).unwrap();
        serde_norway::from_str::<Value>(&yaml).unwrap();
    }
}

fn show(value: &[u8], options: Options) -> (String, String) {
    let entry = Entry { key: b"k", create_revision: 1, mod_revision: 1, version: 1, lease: 0, value };
    let (yaml, line) = (entry.yaml(options), entry.json(options));
    assert_eq!(yaml.1, line.1);
    (yaml.0, line.0)
}

proptest! {
    #[test]
    fn any_bytes_end_with_a_document(bytes in proptest::collection::vec(any::<u8>(), 0..200), head in 0..4usize) {
        let head: &[u8] = [&b"k8s\0"[..], b"k8s:enc:", b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12", b""][head];
        show_and_read(&[head, &bytes].concat());
    }

    #[test]
    fn a_damaged_object_ends_with_a_document(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut stored = which.get(&examples()).stored.clone();
        let at = at.index(stored.len());
        stored[at] = byte;
        if cut {
            stored.truncate(at);
        }
        show_and_read(&stored);
    }
}

/// A message inside a message, and so on: an attacker's way to a stack that ends.
#[test]
fn depth_is_bounded() {
    let (mut nested, number) = (Vec::new(), 0x0a);
    for _ in 0..10_000 {
        let mut outer = vec![number];
        let mut length = nested.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.append(&mut nested);
        nested = outer;
    }
    let options = Options { managed_fields: true };
    show(&[b"k8s\0\x12", &nested[1..]].concat(), options);
    show(&[b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12", &nested[1..]].concat(), options);
    let json = [b"{\"a\":".repeat(10_000), b"1".to_vec(), b"}".repeat(10_000)].concat();
    show(&json, options);
}
