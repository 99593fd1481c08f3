//! Why a state does not become a snapshot, or a snapshot no state.

use snapshot::bbolt::{self, Unwritable};
use snapshot::schema::{Bucket, Malformed};

use crate::{Fault, Revision};

/// Why an image of the state is not complete.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The state cannot be read.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A row does not fit into the format.
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
    /// Nobody wants it any more.
    #[error("nobody waits for the snapshot any more")]
    Unwanted,
}

/// Why a snapshot does not become a state.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] bbolt::Error),
    /// An etcd would have written this bucket.
    #[error("bucket {bucket} is missing: not a snapshot of etcd")]
    NoBucket {
        /// The bucket.
        bucket: Bucket,
    },
    /// A row that etcd would not have written, or that this release cannot keep.
    #[error("bucket {bucket}, key {}: {problem}", key.escape_ascii())]
    Row {
        /// The bucket it is in.
        bucket: Bucket,
        /// Its key.
        key: Vec<u8>,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The new state cannot be written.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The key or the value is not what it should be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Revisions begin at 1.
    #[error("revision {0} is none")]
    NoRevision(i64),
    /// It does not stand behind the one before.
    #[error("it stands behind revision {}.{}", .0.main, .0.sub)]
    Order(Revision),
    /// A record of no key. One without anything in it stands for a revision; this one is none of those.
    #[error("a record without a key")]
    NoKey,
    /// The record says it was written at another revision.
    #[error("the record says that it was written at revision {0}")]
    OtherRevision(i64),
    /// A key cannot have come into being before the first revision, or after it was written.
    #[error("the record says that its key was created at revision {0}")]
    Created(i64),
    /// The first put of a key is its version 1.
    #[error("the record has version {0}")]
    Version(i64),
    /// What encodes it adds what other implementations do not keep.
    #[error("{found} bytes, where {expected} would do: written by a version of etcd that is not known")]
    Encoding {
        /// Bytes there are.
        found: usize,
        /// Bytes its known fields take.
        expected: usize,
    },
    /// The row of a lease has the id of another one, or of none.
    #[error("the lease says that its id is {0}")]
    LeaseId(i64),
    /// An alarm has no value.
    #[error("an alarm with a value of {0} bytes")]
    AlarmValue(usize),
    /// Written by a version of etcd that is newer than what this release is like.
    #[error("version {found} is newer than {known}, the newest that is known")]
    Newer {
        /// The version found.
        found: String,
        /// The newest version this release reads.
        known: &'static str,
    },
}
