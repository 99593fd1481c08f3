//! The files of a state as of one entry, for another member.
//!
//! What is in them is read from them: the state goes on while they are
//! collected, so nothing in memory says where they end.

use std::path::Path;

use bytes::Bytes;

use crate::storage::Storage;
use crate::{Fault, Fingerprint, LogId, members, mvcc};

/// What the files of a state hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last entry applied.
    pub applied: LogId,
    /// The hash of everything applied up to that entry.
    pub fingerprint: Fingerprint,
    /// The last membership entry among them: where it stands in the log, and the consensus library's own form.
    pub membership: Option<(LogId, Bytes)>,
}

impl Checkpoint {
    /// Collects the files of a state in a new directory on the same file system: hard links, but for a few small
    /// ones. Commands go on meanwhile.
    pub(crate) fn take(storage: &Storage, dir: &Path) -> Result<Self, Fault> {
        storage.checkpoint(dir)?;
        Self::read(dir)
    }

    /// What the files in a directory hold.
    ///
    /// # Errors
    /// When they are not the files of a state, or damaged.
    pub fn read(dir: &Path) -> Result<Self, Fault> {
        let storage = Storage::open_read_only(dir)?;
        let (applied, fingerprint) = mvcc::applied(&storage)?;
        Ok(Self { applied, fingerprint, membership: members::membership(&storage)? })
    }
}
