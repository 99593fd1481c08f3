//! Rows read or written lately, by revision.
//!
//! A row never changes, so nothing is ever invalidated. Apply feeds the cache;
//! reads, watch and range share what is in it.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::Revision;

/// Bytes a cached row costs beside its own.
const OVERHEAD: u64 = 96;

#[derive(Clone)]
struct ByBytes;

impl Weighter<Revision, Bytes> for ByBytes {
    fn weight(&self, _: &Revision, row: &Bytes) -> u64 {
        row.len() as u64 + OVERHEAD
    }
}

/// Encoded `mvccpb.KeyValue`s, bounded in bytes.
pub(super) struct RowCache {
    rows: Cache<Revision, Bytes, ByBytes>,
}

impl RowCache {
    /// A cache that keeps up to this many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        // It grows as rows come: an idle member should not pay for a full cache.
        Self { rows: Cache::with_weighter(1024, bytes_max as u64, ByBytes) }
    }

    pub(super) fn get(&self, revision: Revision) -> Option<Bytes> {
        self.rows.get(&revision)
    }

    /// `row` must own its bytes: a slice of a larger buffer would keep all of it alive.
    pub(super) fn insert(&self, revision: Revision, row: Bytes) {
        self.rows.insert(revision, row);
    }
}
