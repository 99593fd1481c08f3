//! The hash of the key space up to a revision, as `etcdutl hashkv` gives it.
//!
//! Rows that a compaction has yet to delete must not count, so that members
//! agree whether they have deleted them or not: of the rows up to the compacted
//! revision only those count that are, as of the revision asked for, the newest
//! of their key and no delete. etcd 3.7: `kvHasher`, `keyIndex.keep`.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::Error;
use crate::bbolt::{self, Database};
use crate::fingerprint::{Fingerprint, Fingerprints};
use crate::schema::{
    self, Bucket, FINISHED_COMPACT_REV, KeyValue, RevisionKey, SCHEDULED_COMPACT_REV, revision_from_bytes,
};

/// A hash and what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C of the rows.
    pub hash: u32,
    /// The revision up to which rows are in the hash.
    pub hash_revision: i64,
    /// The revision of the last compaction, -1 if there was none.
    pub compact_revision: i64,
}

/// Rows between two calls of the progress.
const PROGRESS_EVERY: u64 = 1 << 14;

/// Hashes the rows of `key` up to a revision; 0 means the newest.
///
/// `progress` hears how many bytes of how many are done.
///
/// Memory: what [`Bucket::rows`](crate::bbolt::Bucket::rows) needs; when there was a compaction, also at most
/// 96 bytes for each key that is live at the revision, however long.
///
/// # Errors
/// [`Error::Compacted`] and [`Error::FutureRevision`] when the file does not hold that revision;
/// [`Error::BucketMissing`] and [`Error::Row`] when the file is not sound.
pub fn hash_kv(
    database: &Database,
    revision: i64,
    progress: &mut impl FnMut(u64, u64),
) -> Result<HashKv, Error> {
    let compacted = compacted(database)?;
    let of = 2 * database.image_len();
    let mut kept = Kept::default();
    let at = if revision == 0 { i64::MAX } else { revision };
    let mut current = compacted.max(1);
    let mut first = Rows::of(database)?;
    while let Some((key, value)) = first.next(&mut |done| progress(done, of))? {
        current = current.max(key.main);
        if compacted > 0 && key.main <= at {
            let row = KeyValue::parse(value);
            let row = row.map_err(|problem| Error::row(Bucket::Key, key.to_bytes().as_ref(), problem))?;
            kept.take(key, &row.key, first.ordinal);
        }
    }
    if revision > 0 && revision < compacted {
        return Err(Error::Compacted { revision, compacted });
    }
    if revision > current {
        return Err(Error::FutureRevision { revision, current });
    }
    let hash_revision = if revision == 0 { current } else { revision };
    let kept = kept.at(hash_revision);
    let mut hash = crc32c::crc32c(Bucket::Key.name().as_bytes());
    let mut rows = Rows::of(database)?;
    let done = first.rows.bytes_read();
    while let Some((key, value)) = rows.next(&mut |more| progress(done + more, of))? {
        if key.main > hash_revision {
            break;
        }
        let deleted = key.main <= compacted
            && kept.as_ref().is_some_and(|kept| kept.binary_search(&rows.ordinal).is_err());
        if deleted || key.main == compacted && key.tombstone {
            continue;
        }
        hash = crc32c::crc32c_append(hash, &rows.key);
        hash = crc32c::crc32c_append(hash, &value);
    }
    progress(of, of);
    Ok(HashKv { hash, hash_revision, compact_revision: compacted })
}

/// The revision of the last compaction, ended or not; -1 if there was none.
pub(crate) fn compacted(database: &Database) -> Result<i64, Error> {
    let mut compacted = -1;
    for row in schema::bucket(database, Bucket::Meta)?.rows() {
        let (key, value) = row?;
        if key == FINISHED_COMPACT_REV || key == SCHEDULED_COMPACT_REV {
            let main = revision_from_bytes(&value);
            let main = main.map_err(|problem| Error::row(Bucket::Meta, &key, problem))?;
            // etcd takes a scheduled one of 0 for none.
            if key == FINISHED_COMPACT_REV || main > 0 {
                compacted = compacted.max(main);
            }
        }
    }
    Ok(compacted)
}

/// Finds the newest row of each key, unless it is a delete.
#[derive(Default)]
struct Kept {
    fingerprints: Fingerprints,
    /// Which row of the bucket that is, of each key.
    newest: HashMap<Fingerprint, u64>,
    /// The main revision of the rows that came last.
    main: i64,
    /// Keys deleted at it, and those put again after that.
    deleted: HashSet<Fingerprint>,
    recreated: HashSet<Fingerprint>,
}

impl Kept {
    fn take(&mut self, revision: RevisionKey, key: &[u8], ordinal: u64) {
        if revision.main != self.main {
            self.main = revision.main;
            self.deleted.clear();
            self.recreated.clear();
        }
        let key = self.fingerprints.of(key);
        if revision.tombstone {
            self.newest.remove(&key);
            self.deleted.insert(key);
        } else {
            self.newest.insert(key, ordinal);
            if self.deleted.contains(&key) {
                self.recreated.insert(key);
            }
        }
    }

    /// The rows, ascending; none at all when no key is live, and then nothing is left out.
    ///
    /// A key that this very revision deleted and put again does not count as live.
    fn at(mut self, revision: i64) -> Option<Vec<u64>> {
        if self.main == revision {
            for key in &self.recreated {
                self.newest.remove(key);
            }
        }
        let mut rows: Vec<u64> = self.newest.into_values().collect();
        rows.sort_unstable();
        Some(rows).filter(|rows| !rows.is_empty())
    }
}

/// The rows of the bucket `key`.
pub(crate) struct Rows<'a> {
    rows: bbolt::Rows<'a>,
    key: Bytes,
    /// Which row the last one was, from 1.
    ordinal: u64,
}

impl<'a> Rows<'a> {
    pub(crate) fn of(database: &'a Database) -> Result<Self, Error> {
        let rows = schema::bucket(database, Bucket::Key)?.rows();
        Ok(Self { rows, key: Bytes::new(), ordinal: 0 })
    }

    pub(crate) fn next(
        &mut self,
        progress: &mut impl FnMut(u64),
    ) -> Result<Option<(RevisionKey, Bytes)>, Error> {
        let Some(row) = self.rows.next() else { return Ok(None) };
        let (key, value) = row?;
        self.key = key;
        self.ordinal += 1;
        if self.ordinal.is_multiple_of(PROGRESS_EVERY) {
            progress(self.rows.bytes_read());
        }
        let revision = RevisionKey::parse(&self.key);
        Ok(Some((revision.map_err(|problem| Error::row(Bucket::Key, &self.key, problem))?, value)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::sample::{Compaction, OnDisk, Store};

    /// etcd's key index in full: the lives of each key, each but the last ending with a delete.
    fn kept(store: &Store, revision: i64) -> BTreeSet<(i64, i64)> {
        let mut index: BTreeMap<&[u8], Vec<Vec<RevisionKey>>> = BTreeMap::new();
        for (at, kv) in &store.rows {
            let new = !index.contains_key(&kv.key[..]);
            let lives = index.entry(&kv.key).or_insert_with(|| vec![vec![]]);
            let last = lives.last_mut().expect("a life");
            if !at.tombstone {
                last.push(*at);
            } else if new || !last.is_empty() {
                last.push(*at);
                lives.push(vec![]);
            }
        }
        let newest = |lives: &Vec<Vec<RevisionKey>>| {
            let (last, ended) = lives.split_last().expect("a life");
            let life = ended.iter().find(|life| life.last().is_some_and(|end| end.main >= revision));
            let newest = life.unwrap_or(last).iter().rev().find(|at| at.main <= revision)?;
            (!newest.tombstone).then_some((newest.main, newest.sub))
        };
        index.values().filter_map(newest).collect()
    }

    fn naive(store: &Store, revision: i64, compacted: i64) -> u32 {
        let kept = kept(store, revision);
        let mut bytes = b"key".to_vec();
        for (at, kv) in store.rows.iter().filter(|(at, _)| at.main <= revision) {
            let deleted = at.main <= compacted && !kept.is_empty() && !kept.contains(&(at.main, at.sub));
            if deleted || at.main == compacted && at.tombstone {
                continue;
            }
            bytes.extend_from_slice(at.to_bytes().as_ref());
            bytes.extend_from_slice(&kv.to_bytes());
        }
        crc32c::crc32c(&bytes)
    }

    #[test]
    fn hashes_are_those_of_etcds_index() {
        for seed in 0..150 {
            let compaction =
                [Compaction::Never, Compaction::Finished, Compaction::Scheduled][seed as usize % 3];
            let store = Store::random(seed, compaction);
            let file = OnDisk::new(&store.memory().file());
            let database = Database::open(&file.path).expect("sound");
            let compacted = store.meta.scheduled_compact_rev.unwrap_or(-1);
            let hash = |revision| hash_kv(&database, revision, &mut |_, _| {});
            let revisions = compacted.max(1)..=store.revision;
            let step = 1 + (revisions.clone().count() / 8);
            for revision in revisions.step_by(step) {
                let found = hash(revision).expect("held");
                let hash = naive(&store, revision, compacted);
                let expected = HashKv { hash, hash_revision: revision, compact_revision: compacted };
                assert_eq!(found, expected, "seed {seed}, revision {revision}");
            }
            assert_eq!(hash(0).expect("held"), hash(store.revision).expect("held"), "seed {seed}");
            assert!(matches!(hash(store.revision + 1), Err(Error::FutureRevision { .. })));
            if compacted > 1 {
                assert!(matches!(hash(compacted - 1), Err(Error::Compacted { .. })));
            }
        }
    }

    /// Members agree whether they have deleted what a compaction asked for or not.
    #[test]
    fn rows_yet_to_be_deleted_do_not_count() {
        for seed in 0..60 {
            let hashes = [Compaction::Scheduled, Compaction::Finished].map(|compaction| {
                let mut store = Store::random(seed, compaction);
                // With no live key etcd leaves nothing out.
                store.begin();
                store.put(b"live", b"", 0);
                let file = OnDisk::new(&store.memory().file());
                let database = Database::open(&file.path).expect("sound");
                hash_kv(&database, 0, &mut |_, _| {}).expect("held")
            });
            assert_eq!(hashes[0], hashes[1], "seed {seed}");
        }
    }
}
