//! A sound file has nothing to find; each thing that can be wrong is found where it is.

use super::*;
use crate::sample::{Compaction, LEASE, MEMBER, Memory, OnDisk, Store};
use crate::schema::{
    AUTH_ENABLED, Bucket, CLUSTER_VERSION, ConfState, KeyValue, Member, RevisionKey, User, lease_key,
    member_key,
};

fn report(file: &[u8]) -> Report {
    let file = OnDisk::new(file);
    let mut last = (0, 0);
    let report = verify(&file.path, &mut |done, of| last = (done, of)).expect("readable");
    assert!(report.image_len == 0 || last.0 == last.1, "{last:?}");
    report
}

#[test]
fn nothing_is_wrong_with_what_a_store_writes() {
    for (seed, compaction) in
        (0..90).zip([Compaction::Never, Compaction::Finished, Compaction::Scheduled].iter().cycle())
    {
        let store = Store::random(seed, *compaction);
        let file = store.memory().file();
        let report = report(&file);
        assert_eq!(report.findings, [], "seed {seed}");
        assert!(report.is_sound());
        assert_eq!(report.file_len, file.len() as u64);
        assert_eq!(report.image_len, file.len() as u64 - 32);
        assert_eq!(report.compact_revision, store.meta.scheduled_compact_rev.unwrap_or(-1));
        assert_eq!(report.tombstones, store.rows.keys().filter(|at| at.tombstone).count() as u64);
        let names: Vec<_> = report.buckets.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, Bucket::ALL.map(Bucket::name));
        assert_eq!(report.buckets[5].1, store.rows.len() as u64);
    }
}

/// Three changes of `a`, one of `b` with a lease, a delete of `b`, two changes in one command.
fn store() -> Store {
    let mut store = Store::new();
    for value in [b"1", b"2", b"3"] {
        store.begin();
        store.put(b"a", value, 0);
    }
    store.begin();
    store.put(b"b", b"1", LEASE);
    store.begin();
    store.delete(b"b");
    store.begin();
    store.put(b"c", b"1", LEASE);
    store.put(b"d", b"1", 0);
    store
}

fn found(memory: &Memory) -> Vec<(Severity, Option<String>, String)> {
    let report = report(&memory.file());
    let findings = report.findings.into_iter();
    findings.map(|finding| (finding.severity, finding.bucket, finding.text)).collect()
}

fn at(main: i64, sub: i64, tombstone: bool) -> Vec<u8> {
    RevisionKey { main, sub, tombstone }.to_bytes().as_ref().into()
}

fn kv(key: &str, create_revision: i64, mod_revision: i64, version: i64) -> Vec<u8> {
    let key = key.to_owned().into();
    KeyValue { key, create_revision, mod_revision, version, ..KeyValue::default() }.to_bytes()
}

#[test]
fn what_is_wrong_with_a_history_is_found() {
    type Change = fn(&mut Memory);
    let cases: &[(Change, &[&str])] = &[
        (|m| drop(m.rows(Bucket::Key).remove(&at(4, 0, false))), &["revision 5.0 where 4.0 is due"]),
        (|m| drop(m.rows(Bucket::Key).remove(&at(7, 0, false))), &["revision 7.1 where 7.0 is due"]),
        (
            |m| drop(m.rows(Bucket::Key).remove(&at(2, 0, false))),
            &["revision 3.0 where 2.0 is due", "version 2, created at revision 2, of a key not there before"],
        ),
        (
            |m| drop(m.rows(Bucket::Key).insert(at(3, 0, false), kv("a", 2, 3, 3))),
            &[
                "version 3, created at revision 2, of a key at version 1, created at revision 2 before",
                "version 3, created at revision 2, of a key at version 3, created at revision 2 before",
            ],
        ),
        (|m| drop(m.rows(Bucket::Key).insert(at(3, 0, false), kv("a", 2, 2, 2))), &["mod_revision 2"]),
        (
            |m| drop(m.rows(Bucket::Key).insert(at(8, 0, false), kv("e", 8, 8, 2))),
            &["version 2, created at revision 8"],
        ),
        (
            |m| drop(m.rows(Bucket::Key).insert(at(8, 0, false), kv("e", 0, 8, 2))),
            &["version 2, created at revision 0"],
        ),
        (
            |m| drop(m.rows(Bucket::Key).insert(at(8, 0, true), kv("e", 0, 0, 0))),
            &["a delete of a key that is not there"],
        ),
        (
            |m| drop(m.rows(Bucket::Key).insert(at(8, 0, true), kv("a", 2, 0, 0))),
            &["a delete that says more than the key"],
        ),
        (
            |m| drop(m.rows(Bucket::Key).insert(at(7, 1, true), kv("d", 0, 0, 0))),
            &["a second change at revision 7.1"],
        ),
        (|m| drop(m.rows(Bucket::Key).insert(at(8, 0, false), vec![])), &["no key in the value"]),
        (|m| drop(m.rows(Bucket::Key).insert(at(8, 0, false), vec![7])), &["mvccpb.KeyValue"]),
        (|m| drop(m.rows(Bucket::Key).insert(b"x".into(), vec![])), &["no revision key"]),
        (
            |m| drop(m.rows(Bucket::Key).insert([&at(8, 0, false)[..], b"x"].concat(), kv("e", 8, 8, 1))),
            &["a revision key with a mark that is not t"],
        ),
        (
            |m| drop(m.rows(Bucket::Lease).remove(&lease_key(LEASE)[..])),
            &["lease 694d5765 is not there; 1 keys name it, the last at revision 7"],
        ),
    ];
    for (change, texts) in cases {
        let mut memory = store().memory();
        change(&mut memory);
        let found = found(&memory);
        let fits = found.len() == texts.len()
            && found.iter().zip(*texts).all(|(found, text)| found.2.starts_with(text));
        assert!(fits, "{texts:?}, and found was {found:?}");
    }
}

/// Below the compaction rows may be gone, above it not.
#[test]
fn a_compaction_excuses_what_is_missing_below_it() {
    let mut store = store();
    store.meta.scheduled_compact_rev = Some(5);
    for gone in [2, 3, 4] {
        let mut memory = store.memory();
        memory.rows(Bucket::Key).retain(|key, _| *key > at(gone, 0, false));
        assert_eq!(found(&memory), [], "up to {gone}");
    }
    let mut memory = store.memory();
    memory.rows(Bucket::Key).retain(|key, _| *key > at(7, 0, false));
    assert_eq!(found(&memory)[0].2, "revision 7.1 where 6.0 is due");
}

#[test]
fn what_is_wrong_with_other_rows_is_found() {
    use Bucket::*;
    let member =
        |id| Member { id, peer_urls: vec!["http://a".into()], ..Member::default() }.to_json().into_bytes();
    let voters = |voters: Vec<u64>| ConfState { voters, ..ConfState::default() }.to_json().into_bytes();
    let user = User { name: b"bob".into(), roles: vec!["none".into()], ..User::default() };
    let lease = crate::schema::Lease { id: 9, ttl: 5, remaining_ttl: 6 };
    for (bucket, key, value, texts) in [
        (Alarm, vec![8, 1, 16, 9], vec![], &["alarm 9"][..]),
        (Alarm, vec![7], vec![], &["etcdserverpb.AlarmMember"]),
        (Auth, AUTH_ENABLED.into(), vec![2], &["a value of"]),
        (Auth, b"more".into(), vec![2], &["no row of etcd's"]),
        (AuthRoles, b"r".into(), vec![7], &["authpb.Role"]),
        (AuthRoles, b"r".into(), vec![], &["a role under another name"]),
        (AuthUsers, b"bob".into(), user.to_bytes(), &["role \"none\" is not there"]),
        (
            AuthUsers,
            b"carl".into(),
            user.to_bytes(),
            &["a user under another name", "role \"none\" is not there"],
        ),
        (Cluster, CLUSTER_VERSION.into(), b"3.7".into(), &["\"3.7\" is no version"]),
        (Cluster, b"downgrade".into(), b"{\"enabled\":true}".into(), &["\"\" is no version"]),
        (Cluster, b"downgrade".into(), b"{".into(), &["downgrade: "]),
        (
            Lease,
            lease_key(8).into(),
            lease.to_bytes(),
            &["lease 9 under the key of 8", "6 of 5 seconds remain"],
        ),
        (Lease, b"short".into(), lease.to_bytes(), &["lease id of 5 bytes"]),
        (Members, b"7G".into(), member(7), &["\"7G\" is no member id"]),
        (Members, member_key(8).into(), member(9), &["member 9 under another key", "confState names"]),
        (
            Members,
            member_key(MEMBER).into(),
            b"{\"id\":10276657743932975437}".into(),
            &["a member without peer URLs"],
        ),
        (
            MembersRemoved,
            member_key(MEMBER).into(),
            b"removed".into(),
            &["a member that is removed and there"],
        ),
        (MembersRemoved, member_key(8).into(), b"gone".into(), &["a value of"]),
        (Meta, b"confState".into(), voters(vec![7]), &["confState names other members"]),
        (Meta, b"term".into(), vec![0; 7], &["term of 7 bytes"]),
        (Meta, b"finishedCompactRev".into(), at(1, 0, false), &["compaction Some(1) ended, and None"]),
        (Meta, b"scheduledCompactRev".into(), vec![1], &["no revision key"]),
        (Meta, b"other".into(), vec![1], &["no row of etcd's"]),
    ] {
        let mut memory = store().memory();
        memory.rows(bucket).insert(key, value);
        let found = found(&memory);
        let fits = found.len() == texts.len()
            && found.iter().zip(texts).all(|((_, place, found), text)| {
                found.starts_with(text)
                    && (place.as_deref() == Some(bucket.name()) || text.starts_with("confState"))
            });
        assert!(fits, "{bucket}: {texts:?}, and found was {found:?}");
    }
}

#[test]
fn buckets_and_versions_that_are_missing_are_found() {
    let mut memory = store().memory();
    memory.rows(Bucket::Meta).retain(|key, _| key != b"storageVersion" && key != b"term");
    assert!(found(&memory)[0].2.starts_with("neither storageVersion nor term"));

    let mut memory = store().memory();
    memory.0.remove(&b"alarm"[..]);
    memory.0.remove(&b"meta"[..]);
    memory.0.insert(b"more".into(), Default::default());
    let file = OnDisk::new(&memory.image());
    let report = verify(&file.path, &mut |_, _| {}).expect("readable");
    let found: Vec<_> = report.findings.iter().map(|finding| (finding.severity, &finding.text[..])).collect();
    assert_eq!(
        found[..4],
        [
            (Severity::Error, "no SHA-256 at the end of the file"),
            (Severity::Note, "the bucket is not there; etcd makes it"),
            (Severity::Error, "the bucket is not there"),
            (Severity::Note, "no bucket of etcd's"),
        ]
    );
}

#[test]
fn damage_of_the_file_is_found_with_its_page() {
    let sound = store().memory().file();
    let mut file = sound.clone();
    file[3 * 4096 - 1] ^= 1;
    let one = report(&file);
    assert!(one.findings.len() == 1 && one.findings[0].text.starts_with("SHA-256 "), "{:?}", one.findings);
    // The root.
    let root = sound.len() - 32 - 4096;
    file[root] ^= 1;
    let two = report(&file);
    assert_eq!((two.errors, two.findings[1].page), (2, Some(root as u64 / 4096)), "{:?}", two.findings);
    let none = report(&sound[..100]);
    assert_eq!((none.errors, none.image_len), (2, 0), "{:?}", none.findings);
    let file = OnDisk::new(&sound);
    assert!(matches!(verify(&file.dir().join("none"), &mut |_, _| {}), Err(Error::Io { .. })));
    let long = report(&[&sound[..], &[0; 512]].concat());
    assert_eq!(long.findings.last().expect("one").text, "544 bytes behind the image");
}

#[test]
fn findings_are_counted_and_not_all_kept() {
    let mut memory = store().memory();
    for at in 0..2000_u32 {
        memory.rows(Bucket::Meta).insert(format!("x{at}").into(), vec![]);
    }
    let report = report(&memory.file());
    assert_eq!((report.findings.len(), report.notes, report.errors), (FINDINGS_MAX, 2000, 0));
}
