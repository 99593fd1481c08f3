//! Encodings, byte for byte, as etcd 3.7 writes them.

use proptest::prelude::*;

use super::*;
use crate::bbolt::{Source, Unwritable, Visitor};

#[test]
fn names_are_ascending() {
    assert!(Bucket::ALL.map(Bucket::name).is_sorted());
    for bucket in Bucket::ALL {
        assert_eq!(Bucket::from_name(bucket.name().as_bytes()), Some(bucket));
    }
    assert_eq!(Bucket::from_name(b"test"), None);
}

#[test]
fn revision_keys() {
    let key = RevisionKey { main: 258, sub: 3, tombstone: true };
    assert_eq!(key.to_bytes().as_ref(), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t");
    assert_eq!(RevisionKey::parse(key.to_bytes().as_ref()), Ok(key));
    let put = RevisionKey { tombstone: false, ..key };
    assert_eq!(put.to_bytes().as_ref().len(), 17);
    assert_eq!(RevisionKey::parse(put.to_bytes().as_ref()), Ok(put));
    assert_eq!(RevisionKey::parse(b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03x"), Ok(put));
    for wrong in [
        &b""[..],
        b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0",
        b"\0\0\0\0\0\0\x01\x02-\0\0\0\0\0\0\0\x03",
        b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03tt",
        b"\x80\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03",
        b"\0\0\0\0\0\0\x01\x02_\x80\0\0\0\0\0\0\x03",
    ] {
        assert_eq!(RevisionKey::parse(wrong), Err(Malformed::RevisionKey), "{wrong:?}");
    }
}

#[test]
fn values_leave_zero_fields_out() {
    let kv = KeyValue {
        key: "a".into(),
        create_revision: 2,
        mod_revision: 300,
        version: 3,
        value: "x".into(),
        lease: 5,
    };
    assert_eq!(kv.to_bytes(), b"\x0a\x01a\x10\x02\x18\xac\x02\x20\x03\x2a\x01x\x30\x05");
    let tombstone = KeyValue { key: "a".into(), ..KeyValue::default() };
    assert_eq!(tombstone.to_bytes(), b"\x0a\x01a");
    assert_eq!(KeyValue::parse(kv.to_bytes().into()), Ok(kv));
    assert!(KeyValue::parse(bytes::Bytes::from_static(b"\x0a\x05a")).is_err());
}

#[test]
fn members_look_like_etcds() {
    let member = Member {
        id: 3319814642761637952,
        name: "n1".into(),
        peer_urls: vec!["http://a:2380".into(), "http://b:2380".into()],
        client_urls: vec!["http://a:2379".into()],
        is_learner: true,
    };
    assert_eq!(
        member.to_json(),
        r#"{"id":3319814642761637952,"peerURLs":["http://a:2380","http://b:2380"],"isLearner":true,"name":"n1","clientURLs":["http://a:2379"]}"#
    );
    let mut text = String::new();
    json::push_text(&mut text, "a\"\\<\u{1}é\n\u{2028}\u{7f}");
    assert_eq!(text, "\"a\\\"\\\\\\u003c\\u0001é\\n\\u2028\u{7f}\"");
    let sparse = Member::from_json(br#"{"id":18446744073709551615,"peerURLs":null,"unknown":{}}"#);
    assert_eq!(sparse, Ok(Member { id: u64::MAX, ..Member::default() }));
    assert!(Member::from_json(br#"{"id":18446744073709551616}"#).is_err());
    assert!(Member::from_json(br#"{"id":"1"}"#).is_err());
}

#[test]
fn member_ids_are_bare_hexadecimal() {
    assert_eq!(member_key(0x0123_abcd), "123abcd");
    assert_eq!(member_id(b"8e9e05c52164694d"), Ok(0x8e9e_05c5_2164_694d));
    for wrong in [&b""[..], b"+1", b"-1", b"0x1", b"1 ", b"10000000000000000", b"\xff"] {
        assert!(matches!(member_id(wrong), Err(Malformed::Text { .. })), "{wrong:?}");
    }
}

#[test]
fn conf_states_and_downgrades_look_like_etcds() {
    let one = ConfState { voters: vec![10276657743932975437], ..ConfState::default() };
    assert_eq!(one.to_json(), r#"{"voters":[10276657743932975437],"auto_leave":false}"#);
    let joint = ConfState {
        voters: vec![1, 2],
        learners: vec![3],
        voters_outgoing: vec![1],
        learners_next: vec![4],
        auto_leave: true,
    };
    let text =
        r#"{"voters":[1,2],"learners":[3],"voters_outgoing":[1],"learners_next":[4],"auto_leave":true}"#;
    assert_eq!(joint.to_json(), text);
    assert_eq!(ConfState::from_json(text.as_bytes()), Ok(joint));
    assert_eq!(ConfState::from_json(b"{}"), Ok(ConfState::default()));
    assert_eq!(Downgrade::default().to_json(), r#"{"target-version":"","enabled":false}"#);
    let downgrade = Downgrade { target_version: "3.6.0".into(), enabled: true };
    assert_eq!(downgrade.to_json(), r#"{"target-version":"3.6.0","enabled":true}"#);
    assert_eq!(Downgrade::from_json(downgrade.to_json().as_bytes()), Ok(downgrade));
}

#[test]
fn versions() {
    for text in ["3.7.0", "3.7.3-rc.1+git", "0.0.10"] {
        assert_eq!(text.parse::<Version>().expect(text).to_string(), text);
    }
    let version = "3.7.3-rc.1".parse::<Version>().expect("a version");
    assert_eq!((version.major, version.minor, version.patch, &version.suffix[..]), (3, 7, 3, "-rc.1"));
    for text in ["", "3", "3.7", "3.7.0.1", "3.7.x", "+3.7.0", "3..0", " 3.7.0", "3.7.99999999999999999999"] {
        assert!(text.parse::<Version>().is_err(), "{text}");
    }
    assert!(Version::from_bytes(b"3.7.\xff").is_err());
}

#[test]
fn rows_of_meta_are_ascending_and_come_back() {
    let meta = Meta {
        conf_state: Some(ConfState::default()),
        consistent_index: Some(7),
        finished_compact_rev: Some(5),
        scheduled_compact_rev: Some(6),
        storage_version: Some("3.7.0".parse().expect("a version")),
        term: Some(2),
    };
    let rows = meta.rows();
    assert!(rows.is_sorted());
    assert_eq!(rows.len(), 6);
    assert_eq!(rows[1], (CONSISTENT_INDEX, vec![0, 0, 0, 0, 0, 0, 0, 7]));
    assert_eq!(rows[2].1, b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\0");
    let mut again = Meta::default();
    for (key, value) in &rows {
        assert_eq!(again.take(key.as_bytes(), value), Ok(true));
    }
    assert_eq!(again, meta);
    assert_eq!(again.take(b"other", b""), Ok(false));
    assert_eq!(again.take(TERM.as_bytes(), b"1"), Err(Malformed::Length { what: TERM, len: 1 }));
    assert_eq!(Meta::default().rows(), []);
}

#[test]
fn a_user_has_options_and_a_lease_its_fields() {
    let user = User { name: b"u".into(), options: Some(UserOptions::default()), ..User::default() };
    assert_eq!(user.to_bytes(), b"\x0a\x01u\x22\x00");
    let lease = Lease { id: 3, ttl: 60, remaining_ttl: 0 };
    assert_eq!(lease.to_bytes(), b"\x08\x03\x10\x3c");
    assert_eq!(Alarm { member_id: 1, alarm: 2 }.to_bytes(), b"\x08\x01\x10\x02");
    assert_eq!(lease_id(&lease_key(-2)), Ok(-2));
}

/// What a visitor heard: names, and the number of rows.
#[derive(Default)]
struct Heard(Vec<(Vec<u8>, usize)>);

impl Visitor<Unwritable> for Heard {
    fn bucket(&mut self, name: &[u8]) -> Result<(), Unwritable> {
        self.0.push((name.into(), 0));
        Ok(())
    }

    fn row(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), Unwritable> {
        self.0.last_mut().expect("a bucket").1 += 1;
        Ok(())
    }
}

#[test]
fn no_bucket_is_left_out() {
    struct Told(Vec<&'static str>);
    impl Source for Told {
        type Error = Unwritable;
        fn visit(&self, visitor: &mut dyn Visitor<Unwritable>) -> Result<(), Unwritable> {
            self.0.iter().try_for_each(|name| {
                visitor.bucket(name.as_bytes())?;
                visitor.row(b"k", b"v")
            })
        }
    }
    let all = Bucket::ALL.map(Bucket::name);
    for told in [vec![], vec!["key"], vec!["alarm", "meta"], vec!["a", "lease", "leases", "z"], all.to_vec()]
    {
        let mut heard = Heard::default();
        Complete(&Told(told.clone())).visit(&mut heard).expect("nothing fails");
        let mut expected: Vec<_> = all.iter().chain(&told).copied().collect();
        expected.sort_unstable();
        expected.dedup();
        let rows = |name: &str| usize::from(told.contains(&name));
        let expected: Vec<_> =
            expected.into_iter().map(|name| (name.as_bytes().to_vec(), rows(name))).collect();
        assert_eq!(heard.0, expected, "{told:?}");
    }
}

proptest! {
    /// Any text comes back from the JSON it is written as.
    #[test]
    fn members_survive(id: u64, name: String, urls: Vec<String>, is_learner: bool) {
        let member =
            Member { id, name, peer_urls: urls.clone(), client_urls: urls, is_learner };
        prop_assert_eq!(Member::from_json(member.to_json().as_bytes()), Ok(member));
    }

    /// Revision keys sort as the revisions do.
    #[test]
    fn revision_keys_sort_as_revisions(a: (u32, u32), b: (u32, u32), tombstone: bool) {
        let key = |(main, sub): (u32, u32)| RevisionKey { main: main.into(), sub: sub.into(), tombstone };
        let order = key(a).to_bytes().as_ref().cmp(key(b).to_bytes().as_ref());
        prop_assert_eq!(order, a.cmp(&b));
    }

    /// Bytes of anything are decoded or refused.
    #[test]
    fn decoding_never_panics(bytes: Vec<u8>) {
        let _ = (RevisionKey::parse(&bytes), Member::from_json(&bytes), ConfState::from_json(&bytes));
        let _ = (User::parse(&bytes), Role::parse(&bytes), Lease::parse(&bytes), Alarm::parse(&bytes));
        let _ = (Version::from_bytes(&bytes), member_id(&bytes), lease_id(&bytes), Downgrade::from_json(&bytes));
        let _ = KeyValue::parse(bytes.into());
    }
}
