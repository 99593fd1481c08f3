//! The consistency check.

use super::{Database, Error, Problem};

/// How many problems a check reports before it ends.
pub const PROBLEMS_MAX: usize = 1000;

impl Database {
    /// Looks at every page, as bbolt 1.5's `Tx.Check` does: each page in one place, of a fitting type, its keys
    /// in order and within the range its parent gives it; with a stored freelist, each page used or free.
    ///
    /// It goes on after a problem with what does not depend on it, and ends after
    /// [`PROBLEMS_MAX`](super::PROBLEMS_MAX) of them. `progress` hears how many bytes of how many are done.
    /// Memory: one bit a page, and as [`Bucket::rows`](super::Bucket::rows).
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read.
    pub fn check(&self, progress: &mut impl FnMut(u64, u64)) -> Result<Vec<Problem>, Error> {
        let _ = progress;
        todo!()
    }
}
