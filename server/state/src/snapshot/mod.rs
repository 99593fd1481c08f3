//! The state as etcd's buckets hold it, and back.
//!
//! ```text
//!   database ─► frozen at one moment ─► Image: ten buckets in order ─► image of bbolt, hash of everything
//!   image of bbolt ─► restore: each row checked ─► a new database, at the beginning of a new log
//! ```
//!
//! Invariants
//!  1. All buckets of an [`Image`] are as of the same batch: the records and the
//!     revision of the last compaction, the keys and their leases, the members
//!     and the last log entry.
//!  2. A compaction that is under way does no harm to an image. What is left of
//!     a key is always the newer end of its history, with all that counts, and
//!     etcd goes on with a compaction that was scheduled and has not finished.
//!  3. A state that was restored gives the image it came from, but for who its
//!     members are and where the log stands.

mod error;
mod export;
mod import;

use snapshot::schema::Version;

pub use error::{ExportError, ImportError, Problem};
pub use export::Image;
pub use import::{Restore, Restored, Step, restore};

/// The version of etcd whose buckets these are.
const STORAGE_VERSION: &str = "3.7.0";

fn version(text: &str) -> Version {
    text.parse().expect("a version of this release")
}
