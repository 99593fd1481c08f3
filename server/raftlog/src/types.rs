//! The words of the log's interface.

use std::time::Duration;

use bytes::Bytes;

use crate::Error;

/// The place of an entry in the log. The log only compares indexes; the term is kept for its owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term of the leader that proposed the entry.
    pub term: u64,
    /// The position in the log.
    pub index: u64,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub log_id: LogId,
    /// What the payload is, in the owner's numbering.
    pub tag: u8,
    /// Opaque to the log.
    pub payload: Bytes,
}

impl Entry {
    /// Bytes it is charged with in memory and in limits of a read.
    pub(crate) fn weight(&self) -> usize {
        self.payload.len() + size_of::<Self>()
    }
}

/// Called once what it belongs to is durable, or will never be. Runs on the flush thread: it must not block.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// What the flush thread tells of its work, for metrics.
pub trait Observer: Send + Sync + 'static {
    /// Something waits to be written. Only a log without threads tells.
    fn queued(&self) {}
    /// A group commit begins; until [`Observer::flushed`] the disk is at work.
    fn flushing(&self) {}
    /// One group commit: bytes written, and how long the sync took (zero when fsync is off).
    fn flushed(&self, bytes: usize, sync: Duration);
}

/// An [`Observer`] that looks away.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn flushed(&self, _bytes: usize, _sync: Duration) {}
}

/// Settings of a log.
#[derive(Debug, Clone)]
pub struct Options {
    /// The member that owns the log; a log of another member is refused.
    pub owner: u64,
    /// Size of a full segment. The first ones are smaller, so that a new member starts at once.
    pub segment_bytes: u64,
    /// Size of the very first segment; each following one is four times the one before, up to `segment_bytes`.
    pub first_segment_bytes: u64,
    /// The number of a new log's first segment, from 1 to 2³¹. Numbers mark what in a reused file is a record of its
    /// own: who chooses payloads must not know them, or could write what looks like one.
    pub first_segment: u64,
    /// Bytes of recent entries kept in memory.
    pub ring_bytes: usize,
    /// False: never sync. Survives a killed process, not a power cut.
    pub fsync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            owner: 0,
            segment_bytes: 64 << 20,
            first_segment_bytes: 1 << 20,
            first_segment: 1,
            ring_bytes: 64 << 20,
            fsync: true,
        }
    }
}
