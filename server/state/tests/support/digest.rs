//! All that members must agree on once they have applied the same log.

use std::time::Duration;

use bytes::Bytes;
use state::{Fingerprint, KeyRange, Lease, LogId, Query};

use super::world::World;

/// What readers see, at every revision that is left.
#[derive(Debug, PartialEq)]
pub struct Digest {
    applied: LogId,
    fingerprint: Fingerprint,
    hash: u32,
    hash_kv: Vec<u32>,
    keys: Vec<Vec<Bytes>>,
    leases: Vec<(Lease, Vec<Bytes>)>,
    membership: Option<(LogId, Bytes)>,
}

impl Digest {
    pub fn of(world: &mut World) -> Self {
        let membership = world.state().membership();
        let reader = world.reader();
        let view = reader.view();
        let revisions = view.compacted().max(1)..=view.revision();
        let hash_kv = revisions
            .clone()
            .map(|revision| reader.hash_kv(revision).expect("read").expect("not compacted").hash)
            .collect();
        let keys = revisions
            .map(|revision| {
                let range = KeyRange::From(vec![0].into());
                let query = Query { revision, ..Query::all(range) };
                let mut rows = view.range(&query).expect("read").expect("not compacted");
                rows.next_chunk(usize::MAX).expect("read").unwrap_or_default()
            })
            .collect();
        let leases = reader.leases();
        let leases =
            leases.into_iter().map(|lease| (lease, reader.lease_keys(lease.id).expect("read"))).collect();
        let (applied, fingerprint, compacted) = (view.applied(), view.fingerprint(), view.compacted());
        drop(view);
        assert!(reader.wait_compacted(compacted, Duration::from_secs(60)), "compaction stands still");
        let hash = reader.hash().expect("read");
        Self { applied, fingerprint, hash, hash_kv, keys, leases, membership }
    }
}
