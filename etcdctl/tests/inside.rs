//! `snapshot get` on files of our own writer, without a member.

#[path = "../utl/tests/offline/sample.rs"]
mod sample;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use snapshot::bbolt::{Source, Unwritable, Visitor};
use snapshot::schema::{Bucket, KeyValue, Meta, RevisionKey};

fn run(file: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcdctl"));
    command.args(["snapshot", "get"]).arg(file).args(line.split_whitespace());
    // It warns of variables that it does not know.
    command.env_clear();
    command.stdin(Stdio::null()).output().expect("the tool can be started")
}

fn printed(file: &Path, line: &str) -> String {
    let output = run(file, line);
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The exit status, and what was said.
fn refused(file: &Path, line: &str) -> (Option<i32>, String) {
    let output = run(file, line);
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

/// Keys, and the revisions at which they became something, or nothing.
struct Store(Vec<(i64, &'static str, Option<Vec<u8>>)>);

impl Source for Store {
    type Error = Unwritable;

    fn visit(&self, visitor: &mut dyn Visitor<Unwritable>) -> Result<(), Unwritable> {
        visitor.bucket(Bucket::Key.name().as_bytes())?;
        for (main, key, value) in &self.0 {
            let (main, tombstone) = (*main, value.is_none());
            let mut kv = KeyValue { key: (*key).into(), ..KeyValue::default() };
            if let Some(value) = value {
                kv = KeyValue { create_revision: main, mod_revision: main, version: 1, ..kv };
                kv.value = value.clone().into();
            }
            visitor.row(RevisionKey { main, sub: 0, tombstone }.to_bytes().as_ref(), &kv.to_bytes())?;
        }
        visitor.bucket(Bucket::Meta.name().as_bytes())?;
        let meta = Meta {
            finished_compact_rev: Some(4),
            scheduled_compact_rev: Some(4),
            storage_version: Some("3.7.0".parse().expect("a version")),
            ..Meta::default()
        };
        for (key, value) in meta.rows() {
            visitor.row(key.as_bytes(), &value)?;
        }
        Ok(())
    }
}

#[test]
fn a_file_is_looked_into() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s.db");
    fs::write(&path, sample::file()).expect("written");
    let value = "v".repeat(100);
    let all = printed(&path, "");
    assert_eq!(all.lines().count(), 80, "a key without its value, or the other way round");
    assert!(all.starts_with(&format!("key 10\n{value}\nkey 11\n")), "{all}");
    assert_eq!(printed(&path, "--from-key --keys-only").lines().filter(|line| !line.is_empty()).count(), 40);
    assert_eq!(printed(&path, "--count-only -w fields").lines().last(), Some("\"Count\" : 40"));
    let two = "{\"header\":{\"revision\":41},\"kvs\":[{\"key\":\"a2V5IDI=\",\"create_revision\":2,\"mod_revision\":2,\"version\":1}],\"more\":true,\"count\":40}\n";
    assert_eq!(printed(&path, "--sort-by MODIFY --order ASCEND --limit 1 --keys-only -w json"), two);
    assert_eq!(printed(&path, "--rev 3 --keys-only"), "key 2\n\nkey 3\n\n");
    assert!(fs::read(&path).expect("there") == sample::file());
}

#[test]
fn objects_and_revisions_are_shown() {
    let object =
        br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x"},"data":{"a":"b"}}"#.to_vec();
    let large = vec![b'l'; 3 << 20];
    let store = Store(vec![
        (3, "/registry/configmaps/default/x", Some(object)),
        (5, "large", Some(large.clone())),
        (6, "large", None),
        (7, "bytes", Some(vec![0xff, 0])),
    ]);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s.db");
    fs::write(&path, sample::file_of(&store)).expect("written");

    let yaml = printed(&path, "/registry/ --prefix --decode=k8s");
    assert!(yaml.contains("kind: ConfigMap") && yaml.contains("  a: b"), "{yaml}");
    let output = run(&path, "--decode k8s -w json");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2, "{output:?}");
    assert_eq!(run(&path, "large --rev 5 --print-value-only").stdout, [&large[..], b"\n"].concat());
    assert_eq!(printed(&path, "large"), "");
    assert_eq!(run(&path, "bytes").stdout, b"bytes\n\xff\0\n");

    let compacted = "Error: etcdserver: mvcc: required revision has been compacted\n";
    assert_eq!(refused(&path, "bytes --rev 3"), (Some(1), compacted.to_owned()));
    let future = "Error: etcdserver: mvcc: required revision is a future revision\n";
    assert_eq!(refused(&path, "bytes --rev 8"), (Some(1), future.to_owned()));
    assert_eq!(printed(&path, "/registry/ --prefix --rev 4 --keys-only").lines().count(), 2);
    assert_eq!(refused(&path, "a --decode k8s --keys-only").0, Some(128));
    assert_eq!(refused(&path, "a b c").0, Some(128));
    let (status, text) = refused(&dir.path().join("none"), "");
    assert!(status == Some(1) && text.ends_with("/none: no such file or directory\n"), "{text}");
}

/// What of a file is not needed may be damaged; what is needed is not guessed.
#[test]
fn damage_is_told_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s.db");
    let bytes = sample::file();
    let mut told = 0;
    for page in 2..bytes.len() / 4096 {
        let mut damaged = bytes.clone();
        damaged[page * 4096 + 8..page * 4096 + 12].fill(0xff);
        fs::write(&path, damaged).expect("written");
        let (status, text) = refused(&path, "");
        if status != Some(0) {
            assert!(text.starts_with("Error: ") && text.contains(&format!("page {page}")), "{page}: {text}");
            told += 1;
        }
    }
    assert!(told > 0, "no page of keys was damaged");
    fs::write(&path, &bytes[..100]).expect("written");
    assert_eq!(refused(&path, "").0, Some(1));
}
