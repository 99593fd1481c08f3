//! Leases: the time that was granted, and the keys that hang on them.
//!
//! Nothing here knows what time it is. The table in memory holds a few numbers
//! a lease; which keys are attached is on disk alone, because there may be many.
//!
//! ```text
//!   lease column   'l' BE64(id)         ─► leasepb.Lease, as etcd's lease bucket holds it
//!                  'k' BE64(id) key     ─► nothing: the key is attached to the lease
//! ```
//!
//! Invariant: a row 'k' stands for every live key whose record names a lease, and for no other.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use prost::Message;
use proto::leasepb;

use crate::storage::{Batch, Column, Read, Storage};
use crate::{Fault, Refusal};

/// etcd's limit for a time to live, in seconds.
pub const TTL_MAX: i64 = 9_000_000_000;

const RECORD: u8 = b'l';
const ATTACHED: u8 = b'k';

/// A lease as the log knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its id; never 0.
    pub id: i64,
    /// The time to live that was granted, in seconds.
    pub ttl: i64,
    /// What was left of it at the last checkpoint, in seconds; 0 when there was none.
    pub remaining: i64,
}

/// What an applied command did to a lease, for the one who watches the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseChange {
    /// A lease has come to be.
    Granted {
        /// Its id.
        id: i64,
        /// The time to live, in seconds.
        ttl: i64,
    },
    /// The lease and its keys are gone.
    Revoked {
        /// Its id.
        id: i64,
    },
    /// The time left was recorded.
    Checkpointed {
        /// Its id.
        id: i64,
        /// The time left, in seconds; 0 means the full time.
        remaining: i64,
    },
}

/// All leases; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    leases: Arc<RwLock<HashMap<i64, Terms>>>,
}

#[derive(Debug, Clone, Copy)]
struct Terms {
    ttl: i64,
    remaining: i64,
}

impl Terms {
    fn of(self, id: i64) -> Lease {
        Lease { id, ttl: self.ttl, remaining: self.remaining }
    }
}

impl Table {
    pub(crate) fn load(storage: &Storage) -> Result<Self, Fault> {
        let mut leases = HashMap::new();
        for row in records(storage) {
            let (_, value) = row?;
            let lease = leasepb::Lease::decode(value)
                .map_err(|e| Fault::Corrupt { what: "lease", detail: e.to_string() })?;
            leases.insert(lease.id, Terms { ttl: lease.ttl, remaining: lease.remaining_ttl });
        }
        Ok(Self { leases: Arc::new(RwLock::new(leases)) })
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.leases.read().contains_key(&id)
    }

    pub(crate) fn lookup(&self, id: i64) -> Option<Lease> {
        self.leases.read().get(&id).map(|terms| terms.of(id))
    }

    /// All of them, by id.
    pub(crate) fn list(&self) -> Vec<Lease> {
        let mut all: Vec<_> = self.leases.read().iter().map(|(id, terms)| terms.of(*id)).collect();
        all.sort_unstable_by_key(|lease| lease.id);
        all
    }

    pub(crate) fn grant(&self, batch: &mut Batch, id: i64, ttl: i64) -> Result<(), Refusal> {
        if id == 0 {
            return Err(Refusal::LeaseNotFound);
        }
        if ttl > TTL_MAX {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.contains(id) {
            return Err(Refusal::LeaseExists);
        }
        self.store(batch, Lease { id, ttl, remaining: 0 });
        Ok(())
    }

    /// Records what is left of a lease; false when there is no such lease.
    pub(crate) fn checkpoint(&self, batch: &mut Batch, id: i64, remaining: i64) -> bool {
        let Some(lease) = self.lookup(id) else { return false };
        self.store(batch, Lease { remaining, ..lease });
        true
    }

    /// Forgets a lease; its keys must be deleted in the same batch.
    pub(crate) fn remove(&self, batch: &mut Batch, id: i64) {
        self.leases.write().remove(&id);
        batch.delete(Column::Lease, &record_key(id));
    }

    fn store(&self, batch: &mut Batch, Lease { id, ttl, remaining }: Lease) {
        self.leases.write().insert(id, Terms { ttl, remaining });
        let record = leasepb::Lease { id, ttl, remaining_ttl: remaining };
        batch.put(Column::Lease, &record_key(id), &record.encode_to_vec());
    }
}

/// Moves a key from one lease to another; 0 is none.
pub(crate) fn attach(batch: &mut Batch, key: &[u8], from: i64, to: i64) {
    if from == to {
        return;
    }
    if from != 0 {
        batch.delete(Column::Lease, &attached_key(from, key));
    }
    if to != 0 {
        batch.put(Column::Lease, &attached_key(to, key), &[]);
    }
}

/// The keys attached to a lease, ascending. Does not see what is staged.
pub(crate) fn attached(storage: &Storage, id: i64) -> Result<Vec<Bytes>, Fault> {
    let from = attached_key(id, &[]);
    let mut keys = Vec::new();
    for row in storage.scan(Column::Lease, &from, None) {
        let (row, _) = row?;
        // By prefix, not by bound: the ids behind the largest one wrap around to the smallest.
        if !row.starts_with(&from) {
            break;
        }
        keys.push(row.slice(from.len()..));
    }
    Ok(keys)
}

/// The rows of etcd's lease bucket: `BE64(id)` and the encoded lease, in order.
pub(crate) fn records(from: &impl Read) -> impl Iterator<Item = Result<(Bytes, Bytes), Fault>> {
    let rows = from.scan(Column::Lease, &[RECORD], Some(&[RECORD + 1]));
    rows.map(|row| row.map(|(key, value)| (key.slice(1..), value)))
}

/// Takes over the row of a lease, in a state that nobody reads yet.
pub(crate) fn put_record(batch: &mut Batch, id: i64, record: &[u8]) {
    batch.put(Column::Lease, &record_key(id), record);
}

/// How many keys are attached to leases that do not exist.
pub(crate) fn astray(storage: &Storage, exists: impl Fn(i64) -> bool) -> Result<u64, Fault> {
    let mut astray = 0;
    for row in storage.scan(Column::Lease, &[ATTACHED], Some(&[ATTACHED + 1])) {
        let (row, _) = row?;
        let id = row[1..].first_chunk().map(|id| i64::from_be_bytes(*id));
        astray += u64::from(!id.is_some_and(&exists));
    }
    Ok(astray)
}

fn record_key(id: i64) -> [u8; 9] {
    let mut key = [RECORD; 9];
    key[1..].copy_from_slice(&id.to_be_bytes());
    key
}

fn attached_key(id: i64, key: &[u8]) -> Vec<u8> {
    [&[ATTACHED][..], &id.to_be_bytes(), key].concat()
}
