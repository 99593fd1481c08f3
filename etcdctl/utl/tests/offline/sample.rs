//! A snapshot file of our own writer.

use snapshot::bbolt::{Plan, Source, Unwritable, Visitor};
use snapshot::file::Writer;
use snapshot::schema::{Bucket, Complete, ConfState, KeyValue, Member, Meta, RevisionKey, member_key};

/// How many keys there are, one a revision from 2 on.
const KEYS: i64 = 40;

/// A cluster of one member with some keys.
struct Cluster;

impl Source for Cluster {
    type Error = Unwritable;

    fn visit(&self, visitor: &mut dyn Visitor<Unwritable>) -> Result<(), Unwritable> {
        visitor.bucket(Bucket::Cluster.name().as_bytes())?;
        visitor.row(b"clusterVersion", b"3.7.0")?;
        visitor.bucket(Bucket::Key.name().as_bytes())?;
        for main in 2..KEYS + 2 {
            let kv = KeyValue {
                key: format!("key {main}").into(),
                create_revision: main,
                mod_revision: main,
                version: 1,
                value: "v".repeat(100).into(),
                lease: 0,
            };
            let key = RevisionKey { main, sub: 0, tombstone: false }.to_bytes();
            visitor.row(key.as_ref(), &kv.to_bytes())?;
        }
        visitor.bucket(Bucket::Members.name().as_bytes())?;
        let member = Member {
            id: 7,
            peer_urls: vec!["http://a:1".to_owned()],
            name: "a".to_owned(),
            client_urls: vec!["http://a:2".to_owned()],
            ..Member::default()
        };
        visitor.row(member_key(7).as_bytes(), member.to_json().as_bytes())?;
        visitor.bucket(Bucket::Meta.name().as_bytes())?;
        let meta = Meta {
            conf_state: Some(ConfState { voters: vec![7], ..ConfState::default() }),
            consistent_index: Some(50),
            storage_version: Some("3.7.0".parse().expect("a version")),
            term: Some(2),
            ..Meta::default()
        };
        for (key, value) in meta.rows() {
            visitor.row(key.as_bytes(), &value)?;
        }
        Ok(())
    }
}

/// The whole file.
pub fn file() -> Vec<u8> {
    file_of(&Cluster)
}

/// A file of these rows.
pub fn file_of(rows: &impl Source<Error = Unwritable>) -> Vec<u8> {
    let source = Complete(rows);
    let plan = Plan::of(&source).expect("rows that bbolt can hold");
    let mut writer = Writer::new(Vec::new());
    let mut write = |piece: &[u8]| {
        writer.write(piece).expect("memory takes it");
        Ok(())
    };
    plan.write(&source, &mut write).expect("the same rows");
    writer.finish().expect("memory takes it").0
}
