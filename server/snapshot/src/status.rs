//! What `etcdutl snapshot status` says of a file.

use std::collections::HashSet;

use bytes::Bytes;

use crate::Error;
use crate::bbolt::Database;
use crate::fingerprint::Fingerprints;
use crate::schema::{self, Bucket, KeyValue, RevisionKey, STORAGE_VERSION, Version};

/// The figures of a snapshot file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C of the names, keys and values of all buckets.
    pub hash: u32,
    /// The main revision of the last change; 0 when there is none.
    pub revision: i64,
    /// Keys whose last change was no delete. The empty key that stands for a revision bump counts as one.
    pub total_key: u64,
    /// Bytes of the image, without the digest.
    pub total_size: u64,
    /// The version of the schema, as in `meta`; empty when there is none or it is no version.
    pub version: String,
}

/// Rows between two calls of the progress.
const PROGRESS_EVERY: u64 = 1 << 14;

/// Reads the whole image.
///
/// As etcd 3.7's `Status`, which runs the consistency check first: call [`Database::check`] for that. The
/// digest is not looked at. `progress` hears how many bytes of how many are done.
///
/// Memory: at most 64 bytes for each live key, however long, and what
/// [`Bucket::rows`](crate::bbolt::Bucket::rows) needs.
///
/// # Errors
/// [`Error::BucketMissing`] when there is no `meta`; [`Error::Row`] when a row of `key` cannot be decoded.
pub fn status(database: &Database, progress: &mut impl FnMut(u64, u64)) -> Result<Status, Error> {
    let total_size = database.image_len();
    let version = schema::bucket(database, Bucket::Meta)?
        .rows()
        .find(|row| !matches!(row, Ok((key, _)) if key != STORAGE_VERSION))
        .transpose()?
        .and_then(|(_, value)| Version::from_bytes(&value).ok())
        .map_or_else(String::new, |version| version.to_string());
    let mut status = Status { hash: 0, revision: 0, total_key: 0, total_size, version };
    let mut live = Live::default();
    let mut done = 0;
    for bucket in database.buckets()? {
        status.hash = crc32c::crc32c_append(status.hash, bucket.name());
        let is_key = Bucket::from_name(bucket.name()) == Some(Bucket::Key);
        let mut rows = bucket.rows();
        let mut seen = 0_u64;
        while let Some(row) = rows.next() {
            let (key, value) = row?;
            status.hash = crc32c::crc32c_append(status.hash, &key);
            status.hash = crc32c::crc32c_append(status.hash, &value);
            if is_key {
                status.revision =
                    live.take(&key, value).map_err(|problem| Error::row(Bucket::Key, &key, problem))?;
            }
            seen += 1;
            if seen.is_multiple_of(PROGRESS_EVERY) {
                progress(done + rows.bytes_read(), total_size);
            }
        }
        done += rows.bytes_read();
    }
    progress(total_size, total_size);
    status.total_key = live.keys.len() as u64;
    Ok(status)
}

/// The keys that are there after the rows so far.
#[derive(Default)]
struct Live {
    fingerprints: Fingerprints,
    keys: HashSet<crate::fingerprint::Fingerprint>,
}

impl Live {
    /// Takes a row; gives its main revision.
    fn take(&mut self, key: &[u8], value: Bytes) -> Result<i64, schema::Malformed> {
        let revision = RevisionKey::parse(key)?;
        let key = self.fingerprints.of(&KeyValue::parse(value)?.key);
        if revision.tombstone {
            self.keys.remove(&key);
        } else {
            self.keys.insert(key);
        }
        Ok(revision.main)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::bbolt::Database;
    use crate::sample::{Compaction, Memory, OnDisk, Store};
    use crate::schema::RevisionKey;

    fn of(memory: &Memory) -> Status {
        let file = OnDisk::new(&memory.file());
        let database = Database::open(&file.path).expect("sound");
        status(&database, &mut |_, _| {}).expect("sound")
    }

    /// By the book, with everything in memory.
    fn naive(memory: &Memory) -> (u32, i64, u64) {
        let mut bytes = Vec::new();
        let (mut revision, mut live) = (0, BTreeSet::new());
        for (name, rows) in &memory.0 {
            bytes.extend_from_slice(name);
            for (key, value) in rows {
                bytes.extend_from_slice(key);
                bytes.extend_from_slice(value);
                if name == b"key" {
                    let at = RevisionKey::parse(key).expect("a revision");
                    let kv = KeyValue::parse(value.clone().into()).expect("a value");
                    revision = at.main;
                    if at.tombstone {
                        live.remove(&kv.key)
                    } else {
                        live.insert(kv.key)
                    };
                }
            }
        }
        (crc32c::crc32c(&bytes), revision, live.len() as u64)
    }

    #[test]
    fn figures_are_those_of_the_rows() {
        for (seed, compaction) in (0..60).zip([Compaction::Never, Compaction::Finished].iter().cycle()) {
            let memory = Store::random(seed, *compaction).memory();
            let status = of(&memory);
            assert_eq!((status.hash, status.revision, status.total_key), naive(&memory), "seed {seed}");
            assert_eq!(status.version, "3.7.0");
            assert_eq!(status.total_size + 32, memory.file().len() as u64);
        }
    }

    /// What `etcdutl snapshot restore --bump-revision` leaves has no key, and counts as one.
    #[test]
    fn a_revision_bump_counts_as_a_key() {
        let mut store = Store::new();
        store.put(b"a", b"1", 0);
        let mut memory = store.memory();
        let bump = RevisionKey { main: 1000, sub: 0, tombstone: false };
        memory.rows(Bucket::Key).insert(bump.to_bytes().as_ref().into(), vec![]);
        let status = of(&memory);
        assert_eq!((status.revision, status.total_key), (1000, 2));
    }

    #[test]
    fn a_version_that_is_none_is_empty_and_a_bad_row_an_error() {
        let mut memory = Store::new().memory();
        memory.rows(Bucket::Meta).insert(STORAGE_VERSION.into(), b"new".into());
        assert_eq!(of(&memory).version, "");
        memory.rows(Bucket::Key).insert(b"0".into(), vec![]);
        let file = OnDisk::new(&memory.file());
        let found = status(&Database::open(&file.path).expect("sound"), &mut |_, _| {});
        assert!(matches!(found, Err(Error::Row { bucket: Bucket::Key, .. })), "{found:?}");
        let file = OnDisk::new(&Memory::default().image());
        let found = status(&Database::open(&file.path).expect("sound"), &mut |_, _| {});
        assert!(matches!(found, Err(Error::BucketMissing { bucket: Bucket::Meta, .. })), "{found:?}");
    }
}
