//! Fingerprints of the state, computed as etcd computes its own.
//!
//! [`HashKv`] covers the records up to a revision and is equal, bit for bit, to
//! etcd's for the same history: records stand in etcd's encoding, and what a
//! compaction has yet to delete is left out. The hash of everything covers all
//! there is, under the names and in the encoding of etcd's buckets.
//!
//! One difference is deliberate. etcd hashes while it compacts, before it
//! deletes, and from then on answers HashKV at that very revision with what it
//! found: the records since the compaction before, deleted ones included. Here a
//! compaction costs what it deletes, not a walk over the database, so HashKV at
//! a compacted revision is computed like any other.

use std::collections::HashSet;

use bytes::Bytes;
use snapshot::bbolt::{Source, Visitor};
use snapshot::schema::{Bucket, CONSISTENT_INDEX, STORAGE_VERSION, TERM};

use crate::mvcc::{Query, Rows, View};
use crate::snapshot::{ExportError, Image};
use crate::storage::Storage;
use crate::{Fault, KeyRange, Refusal, Revision};

/// The answer to HashKV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C of the records.
    pub hash: u32,
    /// The revision of the last compaction, -1 if there was none.
    pub compact_revision: i64,
    /// The revision up to which records are in the hash.
    pub hash_revision: i64,
    /// The revision of the store.
    pub current: i64,
}

/// Bytes of rows read at once.
const CHUNK: usize = 1 << 20;

/// Hashes the records up to a revision; 0 means the current one.
pub(crate) fn kv(view: &View, revision: i64) -> Result<Result<HashKv, Refusal>, Fault> {
    let (compacted, current) = (view.compacted(), view.revision());
    if revision > 0 && revision < compacted {
        return Ok(Err(Refusal::Compacted));
    }
    if revision > current {
        return Ok(Err(Refusal::FutureRevision));
    }
    let revision = if revision == 0 { current } else { revision };
    let mut crc = crc32c::crc32c(b"key");
    let mut add = |(revision, tombstone, row): &Row| {
        crc = crc32c::crc32c_append(crc, revision.to_key(*tombstone).as_ref());
        crc = crc32c::crc32c_append(crc, row);
    };
    let mut rows =
        view.scan_revisions(0).take_while(|row| !matches!(row, Ok((at, ..)) if at.main > revision));
    let mut next = rows.next().transpose()?;
    if matches!(&next, Some((at, ..)) if at.main <= compacted) {
        let kept = Kept::at(view, revision)?;
        // All records of one command together: a key has at most one put among them.
        let mut group: Vec<Row> = Vec::new();
        while let Some(row) = next.take_if(|(at, ..)| at.main <= compacted) {
            if group.first().is_some_and(|first| first.0.main != row.0.main) {
                kept.of(&std::mem::take(&mut group))?.into_iter().for_each(&mut add);
            }
            group.push(row);
            next = rows.next().transpose()?;
        }
        kept.of(&group)?.into_iter().for_each(&mut add);
    }
    while let Some(row) = next {
        add(&row);
        next = rows.next().transpose()?;
    }
    Ok(Ok(HashKv { hash: crc, compact_revision: compacted, hash_revision: revision, current }))
}

/// A record: its revision, whether it is a delete, and its encoded form.
type Row = (Revision, bool, Bytes);

/// Which records at or below the compacted revision count: of each key the newest, unless it is a delete.
struct Kept<'a> {
    view: &'a View,
    /// Newest as of this revision.
    at: i64,
    /// Of each key the main revision of the record that counts, where it is not above the compacted one.
    mains: Vec<i64>,
}

impl<'a> Kept<'a> {
    fn at(view: &'a View, revision: i64) -> Result<Self, Fault> {
        // With the empty key, under which no client has anything: a restore that raised the revision.
        let everything = || KeyRange::From(Bytes::new());
        let range = |at| {
            let query = Query { revision: at, keys_only: true, ..Query::all(everything()) };
            view.range(&query)?.map_err(|refusal| Fault::Corrupt {
                what: "hash",
                detail: format!("revision {at} is refused: {refusal}"),
            })
        };
        let mut at = revision;
        let mut rows = range(at)?;
        // With no live key at all etcd takes every record that its compaction has not deleted. A key that
        // this very revision deleted and put again does not count as live there.
        let deleted = deleted_at(view, revision)?;
        if rows.count <= deleted.len() as i64 && keys(range(at)?)?.is_subset(&deleted) {
            at = view.compacted();
            rows = range(at)?;
        }
        let mut mains = Vec::new();
        while let Some(chunk) = rows.next_chunk(CHUNK)? {
            for row in chunk {
                mains.extend(Some(mod_revision(row)?).filter(|main| *main <= view.compacted()));
            }
        }
        mains.sort_unstable();
        Ok(Self { view, at, mains })
    }

    /// Those of one command's records that count.
    fn of<'r>(&self, group: &'r [Row]) -> Result<Vec<&'r Row>, Fault> {
        let Some((first, ..)) = group.first() else { return Ok(vec![]) };
        let from = self.mains.partition_point(|main| *main < first.main);
        let to = self.mains.partition_point(|main| *main <= first.main);
        let puts = group.iter().filter(|(_, tombstone, _)| !tombstone);
        if to - from == puts.clone().count() {
            return Ok(puts.collect());
        }
        let mut counting = Vec::with_capacity(to - from);
        if to > from {
            for row in puts {
                if self.is_newest(row)? {
                    counting.push(row);
                }
            }
        }
        Ok(counting)
    }

    fn is_newest(&self, (revision, _, row): &Row) -> Result<bool, Fault> {
        let kv = decode(row.clone())?;
        let query = Query { revision: self.at, keys_only: true, ..Query::all(KeyRange::Single(kv.key)) };
        let Ok(mut rows) = self.view.range(&query)? else { return Ok(false) };
        let newest = rows.next_chunk(CHUNK)?.and_then(|chunk| chunk.into_iter().next());
        Ok(newest.map(mod_revision).transpose()? == Some(revision.main))
    }
}

/// Keys that this revision deleted, whatever it did to them afterwards.
fn deleted_at(view: &View, revision: i64) -> Result<HashSet<Bytes>, Fault> {
    let rows = view.scan_revisions(revision);
    rows.take_while(|row| !matches!(row, Ok((at, ..)) if at.main > revision))
        .filter(|row| !matches!(row, Ok((_, false, _))))
        .map(|row| Ok(decode(row?.2)?.key))
        .collect()
}

fn keys(mut rows: Rows) -> Result<HashSet<Bytes>, Fault> {
    let mut keys = HashSet::new();
    while let Some(chunk) = rows.next_chunk(CHUNK)? {
        for row in chunk {
            keys.insert(decode(row)?.key);
        }
    }
    Ok(keys)
}

fn decode(row: Bytes) -> Result<proto::mvccpb::KeyValue, Fault> {
    prost::Message::decode(row)
        .map_err(|e: prost::DecodeError| Fault::Corrupt { what: "record", detail: e.to_string() })
}

fn mod_revision(row: Bytes) -> Result<i64, Fault> {
    Ok(decode(row)?.mod_revision)
}

/// Hashes everything, as etcd's buckets would hold it; without what differs between members at the
/// same revision: `consistent_index`, `term` and `storageVersion`.
pub(crate) fn all(storage: &Storage) -> Result<u32, Fault> {
    let image = Image::of(storage, &|| true)?;
    let mut hasher = Hasher::default();
    match image.visit(&mut hasher) {
        Ok(()) => Ok(hasher.crc),
        Err(ExportError::Fault(fault)) => Err(fault),
        Err(other) => Err(Fault::Corrupt { what: "hash", detail: other.to_string() }),
    }
}

#[derive(Default)]
struct Hasher {
    crc: u32,
    in_meta: bool,
}

impl Visitor<ExportError> for Hasher {
    fn bucket(&mut self, name: &[u8]) -> Result<(), ExportError> {
        self.in_meta = name == Bucket::Meta.name().as_bytes();
        self.crc = crc32c::crc32c_append(self.crc, name);
        Ok(())
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), ExportError> {
        let left_out = [CONSISTENT_INDEX, TERM, STORAGE_VERSION];
        if !(self.in_meta && left_out.iter().any(|name| key == name.as_bytes())) {
            self.crc = crc32c::crc32c_append(self.crc, key);
            self.crc = crc32c::crc32c_append(self.crc, value);
        }
        Ok(())
    }
}
