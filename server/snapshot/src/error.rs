//! What can be wrong with a snapshot file as a whole.

use std::io;
use std::path::{Path, PathBuf};

use crate::bbolt;
use crate::file::Digest;
use crate::schema::{Bucket, Malformed};

/// Why a snapshot file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing failed.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no sound bbolt image.
    #[error(transparent)]
    Image(#[from] bbolt::Error),
    /// The file ends without a digest.
    #[error("{path}: no SHA-256 at the end of the file", path = path.display())]
    DigestMissing {
        /// The file.
        path: PathBuf,
    },
    /// The image is not the one the digest was made of.
    #[error("{path}: expected SHA-256 {expected}, got {got}", path = path.display())]
    DigestMismatch {
        /// The file.
        path: PathBuf,
        /// What stands at the end of the file.
        expected: Digest,
        /// What the image gives.
        got: Digest,
    },
    /// The file is a bbolt image, but this bucket is not in it.
    #[error("{path}: no bucket {bucket}", path = path.display())]
    BucketMissing {
        /// The file.
        path: PathBuf,
        /// The bucket.
        bucket: Bucket,
    },
    /// A row is not what etcd would have written.
    #[error("bucket {bucket}, key {key:02x?}: {problem}")]
    Row {
        /// The bucket the row is in.
        bucket: Bucket,
        /// The row's key.
        key: Vec<u8>,
        /// What is wrong with it.
        problem: Malformed,
    },
    /// The rows cannot be written as an image.
    #[error(transparent)]
    Unwritable(#[from] bbolt::Unwritable),
    /// The revision cannot be raised by so much.
    #[error("the revision {latest} cannot be raised by {bump}")]
    Bump {
        /// The newest revision of the file.
        latest: i64,
        /// By how much it was to be raised.
        bump: u64,
    },
    /// The revision asked for has been compacted.
    #[error("revision {revision} has been compacted, the last compaction was at {compacted}")]
    Compacted {
        /// The revision asked for.
        revision: i64,
        /// The revision of the last compaction.
        compacted: i64,
    },
    /// The revision asked for is newer than the file.
    #[error("revision {revision} is in the future, the file is at {current}")]
    FutureRevision {
        /// The revision asked for.
        revision: i64,
        /// The newest revision of the file.
        current: i64,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    pub(crate) fn row(bucket: Bucket, key: &[u8], problem: Malformed) -> Self {
        Self::Row { bucket, key: key.into(), problem }
    }
}
