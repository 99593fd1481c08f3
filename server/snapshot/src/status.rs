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
/// Memory: at most 40 bytes for each live key, however long, and what
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
