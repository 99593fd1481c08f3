//! What can go wrong with the log. All of it is final: the member stops.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A fault of the log. It can be cloned, because everybody who waits for a flush is told.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The disk refused.
    #[error("raft log: cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Bytes that cannot be what this code wrote, in a place that had been synced.
    #[error("raft log: {} is damaged at offset {offset}: {detail}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong there.
        detail: String,
    },
    /// The folder was written by something else, by a newer version or by another member.
    #[error("raft log: {}: {detail}", path.display())]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// An append that leaves a hole or overwrites.
    #[error("raft log: entry {found} does not follow on, expected {expected}")]
    Gap {
        /// The index that must come next.
        expected: u64,
        /// The index given.
        found: u64,
    },
    /// An entry too large for a segment's 32-bit offsets.
    #[error("raft log: an entry of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The log was closed before this could be written.
    #[error("raft log: closed")]
    Closed,
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source: Arc::new(source) }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), offset, detail: detail.into() }
    }

    /// The same as an I/O error, keeping the kind (`StorageFull` for a full disk).
    pub fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Io { source, .. } => source.kind(),
            Self::Damaged { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}
