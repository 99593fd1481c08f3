//! The segmented Raft log: the only write-ahead log of a member.
//!
//! ```text
//!   append, vote, truncate, purge          readers
//!        │ (visible at once)                  ▲
//!        ▼                                    │ recent: ring in memory
//!   queue ─► log-flush thread: encode all, one write, one fdatasync, callbacks in order
//!                 │                           │ older: (file, offset)
//!                 ▼                           │
//!        wal/SEQ-FIRST.log ...  ◄─────────────┘    log-spare thread: zeroes the next file, recycles purged ones
//! ```
//!
//! Invariants
//!  1. A callback runs with `Ok` only after everything queued before it is on disk.
//!  2. Every record carries the checksum of the record before it, so none can be lost in the middle.
//!  3. Every segment begins with what the records before it add up to (vote, purged, last id):
//!     any suffix of the segments is enough, and purging is dropping the oldest files.
//!  4. Every record says up to where its segment was synced when it was written. A damaged record
//!     below that of a later one was durable once: the log refuses to open. Any other is a torn tail: cut.
//!  5. After a failed write or sync nothing is written any more; what the page cache holds is unknown.

mod disk;
mod error;
#[cfg(any(test, feature = "fake-disk"))]
pub mod fake;
#[cfg(test)]
mod fuzz;
mod index;
mod log;
#[cfg(test)]
mod nonsense;
mod queue;
mod record;
mod recovery;
mod segment;
mod spare;
#[cfg(test)]
mod tests;
mod types;
mod writer;

pub use disk::{Disk, File, RealDisk};
pub use error::Error;
pub use log::{Log, State};
pub use types::{Done, Entry, LogId, NoObserver, Observer, Options};
