//! Images for tests: rows in memory, and histories that a store can have had.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::bbolt::{Plan, Source, Unwritable, Visitor};
use crate::file::Writer;
use crate::schema::{
    AUTH_ENABLED, AUTH_REVISION, Alarm, Bucket, CLUSTER_VERSION, Complete, ConfState, DOWNGRADE, Downgrade,
    KeyValue, Lease, MEMBER_REMOVED, Member, Meta, Permission, RevisionKey, Role, User, UserOptions,
    lease_key, member_key,
};

pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Buckets in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(pub(crate) BTreeMap<Vec<u8>, Rows>);

impl Source for Memory {
    type Error = Unwritable;

    fn visit(&self, visitor: &mut dyn Visitor<Unwritable>) -> Result<(), Unwritable> {
        for (name, rows) in &self.0 {
            visitor.bucket(name)?;
            for (key, value) in rows {
                visitor.row(key, value)?;
            }
        }
        Ok(())
    }
}

impl Memory {
    pub(crate) fn one(name: &str, rows: Rows) -> Self {
        Self([(name.into(), rows)].into())
    }

    pub(crate) fn image(&self) -> Vec<u8> {
        image(self)
    }

    /// A snapshot file, with all buckets and a digest.
    pub(crate) fn file(&self) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.write(&image(&Complete(self))).expect("a vector takes all");
        writer.finish().expect("a vector takes all").0
    }

    pub(crate) fn rows(&mut self, bucket: Bucket) -> &mut Rows {
        self.0.entry(bucket.name().into()).or_default()
    }
}

fn image(source: &impl Source<Error = Unwritable>) -> Vec<u8> {
    let plan = Plan::of(source).expect("rows that can be written");
    let mut image = Vec::new();
    plan.write(source, &mut |piece| {
        image.extend_from_slice(piece);
        Ok(())
    })
    .expect("the rows are the same");
    assert_eq!(image.len() as u64, plan.len());
    let mut placed = vec![1; image.len()];
    let planned = Plan::write_at_once(source, &mut |at, piece: &[u8]| {
        placed[at as usize..][..piece.len()].copy_from_slice(piece);
        Ok::<_, Unwritable>(())
    });
    assert_eq!(planned.expect("rows that can be written"), plan);
    assert!(placed == image, "written at once it is another image");
    image
}

/// A file in a directory of its own, which goes with it.
pub(crate) struct OnDisk {
    pub(crate) path: PathBuf,
    dir: tempfile::TempDir,
}

impl OnDisk {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, bytes).expect("space");
        Self { path, dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// How many compactions a history ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compaction {
    Never,
    /// The rows are gone.
    Finished,
    /// Asked for, and no row is gone.
    Scheduled,
}

/// A key space as etcd keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) rows: BTreeMap<RevisionKey, KeyValue>,
    live: BTreeMap<Vec<u8>, KeyValue>,
    pub(crate) revision: i64,
    sub: i64,
    pub(crate) meta: Meta,
}

impl Store {
    pub(crate) fn new() -> Self {
        let meta = Meta {
            conf_state: Some(ConfState { voters: vec![MEMBER], ..ConfState::default() }),
            consistent_index: Some(77),
            storage_version: Some("3.7.0".parse().expect("a version")),
            term: Some(3),
            ..Meta::default()
        };
        Self { rows: BTreeMap::new(), live: BTreeMap::new(), revision: 1, sub: 0, meta }
    }

    /// The next changes are of another command.
    pub(crate) fn begin(&mut self) {
        self.sub = 0;
    }

    fn next(&mut self, tombstone: bool) -> RevisionKey {
        if self.sub == 0 {
            self.revision += 1;
        }
        let at = RevisionKey { main: self.revision, sub: self.sub, tombstone };
        self.sub += 1;
        at
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        let at = self.next(false);
        let before = self.live.get(key);
        let kv = KeyValue {
            key: key.to_vec().into(),
            create_revision: before.map_or(at.main, |before| before.create_revision),
            mod_revision: at.main,
            version: before.map_or(0, |before| before.version) + 1,
            value: value.to_vec().into(),
            lease,
        };
        self.live.insert(key.into(), kv.clone());
        self.rows.insert(at, kv);
    }

    pub(crate) fn delete(&mut self, key: &[u8]) {
        if self.live.remove(key).is_some() {
            let at = self.next(true);
            self.rows.insert(at, KeyValue { key: key.to_vec().into(), ..KeyValue::default() });
        }
    }

    pub(crate) fn compact(&mut self, revision: i64, compaction: Compaction) {
        if compaction == Compaction::Never {
            return;
        }
        self.meta.scheduled_compact_rev = Some(revision);
        if compaction == Compaction::Scheduled {
            return;
        }
        self.meta.finished_compact_rev = Some(revision);
        let mut newest = BTreeMap::new();
        for (at, kv) in self.rows.iter().filter(|(at, _)| at.main <= revision) {
            newest.insert(kv.key.clone(), *at);
        }
        // A delete at the very revision stays.
        let stays = |at: &RevisionKey| !at.tombstone || at.main == revision;
        self.rows.retain(|at, kv| at.main > revision || newest[&kv.key] == *at && stays(at));
    }

    /// A history made of a seed.
    pub(crate) fn random(seed: u64, compaction: Compaction) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut store = Self::new();
        let keys = random.random_range(1..40);
        for _ in 0..random.random_range(0..120) {
            store.begin();
            // One command puts a key once.
            let mut put = BTreeSet::new();
            for _ in 0..random.random_range(1..4) {
                let key = format!("key{}", random.random_range(0..keys));
                if random.random_ratio(1, 3) {
                    store.delete(key.as_bytes());
                } else if put.insert(key.clone()) {
                    let len = if random.random_ratio(1, 30) { 70_000 } else { random.random_range(0..200) };
                    store.put(
                        key.as_bytes(),
                        &vec![b'v'; len],
                        if random.random_ratio(1, 4) { LEASE } else { 0 },
                    );
                }
            }
        }
        let revision = random.random_range(1..=store.revision);
        store.compact(revision, compaction);
        store
    }

    /// All buckets, each with some rows.
    pub(crate) fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        let rows = self.rows.iter().map(|(at, kv)| (at.to_bytes().as_ref().to_vec(), kv.to_bytes()));
        *memory.rows(Bucket::Key) = rows.collect();
        let meta = self.meta.rows().into_iter();
        *memory.rows(Bucket::Meta) = meta.map(|(key, value)| (key.into(), value)).collect();
        let lease = Lease { id: LEASE, ttl: 600, remaining_ttl: 0 };
        memory.rows(Bucket::Lease).insert(lease_key(LEASE).into(), lease.to_bytes());
        let alarm = Alarm { member_id: MEMBER, alarm: 1 };
        memory.rows(Bucket::Alarm).insert(alarm.to_bytes(), vec![]);
        let auth = memory.rows(Bucket::Auth);
        auth.insert(AUTH_ENABLED.into(), vec![0]);
        auth.insert(AUTH_REVISION.into(), 5_u64.to_be_bytes().into());
        let permission = Permission { perm_type: 2, key: b"a".into(), range_end: b"b".into() };
        let role = Role { name: b"reader".into(), key_permission: vec![permission] };
        memory.rows(Bucket::AuthRoles).insert(role.name.clone(), role.to_bytes());
        let user = User {
            name: b"alice".into(),
            password: b"$2a$10$".into(),
            roles: vec!["reader".into()],
            options: Some(UserOptions::default()),
        };
        memory.rows(Bucket::AuthUsers).insert(user.name.clone(), user.to_bytes());
        let cluster = memory.rows(Bucket::Cluster);
        cluster.insert(CLUSTER_VERSION.into(), b"3.7.0".into());
        cluster.insert(DOWNGRADE.into(), Downgrade::default().to_json().into());
        let member = Member {
            id: MEMBER,
            peer_urls: vec!["http://localhost:2380".into()],
            is_learner: false,
            name: "default".into(),
            client_urls: vec!["http://localhost:2379".into()],
        };
        memory.rows(Bucket::Members).insert(member_key(MEMBER).into(), member.to_json().into());
        memory.rows(Bucket::MembersRemoved).insert(member_key(7).into(), MEMBER_REMOVED.into());
        memory
    }
}

pub(crate) const LEASE: i64 = 0x694d_5765;
pub(crate) const MEMBER: u64 = 0x8e9e_05c5_2164_694d;
