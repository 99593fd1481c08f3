//! The two families of error the state machine knows.

use std::path::PathBuf;

/// Part of a reply, the same on every member. `server::api::status` turns it into etcd's code and text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The revision asked for is older than the last compaction.
    #[error("required revision has been compacted")]
    Compacted,
    /// The revision asked for does not exist yet.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// A put with `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("key not found")]
    KeyNotFound,
    /// No such lease.
    #[error("lease not found")]
    LeaseNotFound,
    /// A lease with that id exists.
    #[error("lease already exists")]
    LeaseExists,
    /// The time to live is beyond etcd's limit of 9,000,000,000 seconds.
    #[error("lease ttl too large")]
    LeaseTtlTooLarge,
    /// The NOSPACE alarm is active.
    #[error("no space")]
    NoSpace,
    /// The CORRUPT alarm is active.
    #[error("corrupt cluster")]
    Corrupt,
}

/// The state on this member cannot be trusted or reached any more: logged once, and the member stops.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// RocksDB refused a read or a write.
    #[error("storage in {}: {source}", path.display())]
    Storage {
        /// The data directory.
        path: PathBuf,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
    /// A file operation beside RocksDB failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Bytes on disk or in the log that cannot be what this code wrote.
    #[error("corrupt {what}: {detail}")]
    Corrupt {
        /// Which record.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The directory was written by another format or a newer version.
    #[error("data directory {}: {detail}", path.display())]
    Format {
        /// The data directory.
        path: PathBuf,
        /// What was found, and what to do.
        detail: String,
    },
}

/// Why a command ended early.
pub(crate) enum Stop {
    Refused(Refusal),
    Failed(Fault),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}
