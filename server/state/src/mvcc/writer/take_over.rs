//! Filling a new key space with records that were written elsewhere.
//!
//! It goes the way of a put or a delete, but for what only a command has: the
//! record stands as it came, nobody is told, and the log has no entry for it.

use bytes::Bytes;
use proto::mvccpb::KeyValue;

use super::{Entry, Mvcc, record};
use crate::mvcc::state_row::put_finished;
use crate::{Fault, Fingerprint, LogId, Revision};

/// A record as it came.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Where it stands in the history.
    pub revision: Revision,
    /// Whether it is a delete.
    pub tombstone: bool,
    /// What `row` says. Of the empty record, which stands for a revision and for no key, everything is zero.
    pub kv: KeyValue,
    /// The encoded `mvccpb.KeyValue`, as long as it would be if it had been encoded here.
    pub row: Bytes,
}

/// Where a key space that was filled stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// The current revision.
    pub revision: i64,
    /// The revision of the last compaction, -1 if there was none.
    pub compacted: i64,
    /// The revision up to which superseded records are deleted, -1 if no compaction has ended.
    pub finished: i64,
    /// The last log entry in it.
    pub applied: LogId,
    /// The fingerprint as of that entry.
    pub fingerprint: Fingerprint,
}

impl Mvcc {
    /// Adds a record; those of all keys must come in the order of their revisions. Gives the lease that the key was
    /// attached to before, 0 for none. What was added stays in memory until [`Mvcc::keep`].
    pub(crate) fn take_over(&mut self, taken: Taken) -> Result<i64, Fault> {
        let Taken { revision, tombstone, kv, row } = taken;
        // Not a part of the row, which may be a part of a page.
        let key = Bytes::copy_from_slice(&kv.key);
        let mut known = self.take(&key)?;
        let lease = record(&known.entry).map_or(0, |record| record.lease);
        let newest = match tombstone {
            true => Entry { modified: revision, tombstone, ..Entry::default() },
            false => Entry {
                modified: revision,
                created: kv.create_revision,
                version: kv.version,
                lease: kv.lease,
                value_len: kv.value.len() as u32,
                ..Entry::default()
            },
        };
        self.revision = revision.main;
        let staged = self.stage();
        staged.add(&key, &mut known, newest, &row)?;
        staged.entries.insert(key, known);
        Ok(lease)
    }

    /// Writes what was added so far. As long as this is all, the state stands at the beginning of the log.
    pub(crate) fn keep(&mut self) -> Result<(), Fault> {
        self.write_staged(LogId::default(), Fingerprint::default())
    }

    /// Writes the rest, and where the state stands. A compaction that is not finished goes on once the state is
    /// opened.
    pub(crate) fn complete(&mut self, end: End) -> Result<(), Fault> {
        (self.revision, self.compacted) = (end.revision, end.compacted);
        if end.finished >= 0 {
            put_finished(self.batch(), end.finished);
        }
        self.write_staged(end.applied, end.fingerprint)
    }
}
