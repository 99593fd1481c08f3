//! The keys of a file as they were at a revision: what a member with this state would have answered.
//!
//! The rows of `key` are in the order of their revisions. Each is looked at once,
//! and what is kept is the newest change of each key asked for. Values are read
//! when they are wanted, through the tree.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::Error;
use crate::bbolt::{self, Database};
use crate::hash_kv::{Rows, compacted};
use crate::schema::{self, Bucket, KeyValue, Malformed, RevisionKey};

/// A key that is there at the revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub key: Bytes,
    /// Its last change by then.
    pub modified: RevisionKey,
    /// The revision that created it.
    pub created: i64,
    /// How many changes since it was created, that one included.
    pub version: i64,
    /// The lease it is attached to, 0 for none.
    pub lease: i64,
}

/// The keys asked for, without their values.
#[derive(Debug)]
pub struct Keys<'a> {
    /// The newest revision of the file.
    pub current: i64,
    /// The keys, ascending.
    pub keys: Vec<Key>,
    bucket: bbolt::Bucket<'a>,
}

/// Finds the keys that are `within` what is asked for, as they were at a revision; 0 means the newest.
///
/// `progress` hears how many bytes of how many are done.
///
/// Cost: reads the whole bucket `key` once. Memory: what [`Bucket::rows`](crate::bbolt::Bucket::rows) needs, and
/// about 150 bytes for each key found, beside the key.
///
/// # Errors
/// [`Error::Compacted`] and [`Error::FutureRevision`] when the file does not hold that revision;
/// [`Error::BucketMissing`] and [`Error::Row`] when the file is not sound.
pub fn at<'a>(
    database: &'a Database,
    revision: i64,
    within: impl Fn(&[u8]) -> bool,
    progress: &mut impl FnMut(u64, u64),
) -> Result<Keys<'a>, Error> {
    let compacted = compacted(database)?;
    if revision > 0 && revision < compacted {
        return Err(Error::Compacted { revision, compacted });
    }
    let at = if revision > 0 { revision } else { i64::MAX };
    let bucket = schema::bucket(database, Bucket::Key)?;
    let mut found = BTreeMap::new();
    let mut current = compacted.max(1);
    let mut rows = Rows::of(database)?;
    while let Some((modified, value)) = rows.next(&mut |done| progress(done, database.image_len()))? {
        current = current.max(modified.main);
        if modified.main > at {
            continue;
        }
        let row = KeyValue::parse(value)
            .map_err(|problem| Error::row(Bucket::Key, modified.to_bytes().as_ref(), problem))?;
        if !within(&row.key) {
            continue;
        }
        if modified.tombstone {
            found.remove(&row.key);
            continue;
        }
        // Not a slice of the row, which may be large.
        let key = Bytes::copy_from_slice(&row.key);
        let KeyValue { create_revision: created, version, lease, .. } = row;
        found.insert(key.clone(), Key { key, modified, created, version, lease });
    }
    if revision > current {
        return Err(Error::FutureRevision { revision, current });
    }
    progress(database.image_len(), database.image_len());
    Ok(Keys { current, keys: found.into_values().collect(), bucket })
}

impl Keys<'_> {
    /// What a key had become at its last change, with its value.
    ///
    /// Cost: a page of each level of the tree.
    ///
    /// # Errors
    /// As [`at`].
    pub fn read(&self, key: &Key) -> Result<KeyValue, Error> {
        let at = key.modified.to_bytes();
        let wrong = |problem| Error::row(Bucket::Key, at.as_ref(), problem);
        let row = self.bucket.get(at.as_ref())?;
        KeyValue::parse(row.ok_or_else(|| wrong(Malformed::RevisionKey))?).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Compaction, OnDisk, Store};

    /// The keys and what they were, as a walk through the history in memory gives them.
    fn naive(store: &Store, revision: i64, within: impl Fn(&[u8]) -> bool) -> Vec<KeyValue> {
        let mut live = BTreeMap::new();
        for (at, kv) in store.rows.iter().filter(|(at, kv)| at.main <= revision && within(&kv.key)) {
            match at.tombstone {
                true => live.remove(&kv.key),
                false => live.insert(kv.key.clone(), kv.clone()),
            };
        }
        live.into_values().collect()
    }

    #[test]
    fn keys_are_as_they_were() {
        for seed in 0..150 {
            let compaction =
                [Compaction::Never, Compaction::Finished, Compaction::Scheduled][seed as usize % 3];
            let store = Store::random(seed, compaction);
            let file = OnDisk::new(&store.memory().file());
            let database = Database::open(&file.path).expect("sound");
            let compacted = store.meta.scheduled_compact_rev.unwrap_or(-1);
            let within = |key: &[u8]| seed % 2 == 0 || key < &b"key3"[..];
            let keys = |revision| at(&database, revision, within, &mut |done, of| assert!(done <= of));
            let revisions = compacted.max(1)..=store.revision;
            let step = 1 + (revisions.clone().count() / 8);
            for revision in revisions.step_by(step).chain([store.revision, 0]) {
                let found = keys(revision).expect("held");
                let read: Vec<KeyValue> =
                    found.keys.iter().map(|key| found.read(key).expect("there")).collect();
                let revision = if revision == 0 { i64::MAX } else { revision };
                assert_eq!(read, naive(&store, revision, within), "seed {seed}, revision {revision}");
                assert_eq!(found.current, store.revision.max(compacted));
                for (key, kv) in found.keys.iter().zip(&read) {
                    assert_eq!((&key.key, key.modified.main), (&kv.key, kv.mod_revision));
                    assert_eq!(
                        (key.created, key.version, key.lease),
                        (kv.create_revision, kv.version, kv.lease)
                    );
                }
            }
            assert!(matches!(keys(store.revision + 1), Err(Error::FutureRevision { .. })));
            if compacted > 1 {
                assert!(matches!(keys(compacted - 1), Err(Error::Compacted { .. })));
            }
        }
    }
}
