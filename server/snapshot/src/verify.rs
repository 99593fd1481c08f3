//! A full check of a snapshot file, offline: digest, pages, and what the rows say.

use std::path::Path;

use crate::Error;

/// How many findings a report lists; more are counted.
pub const FINDINGS_MAX: usize = 1000;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The bucket it is in, as far as known.
    pub bucket: Option<String>,
    /// The row's key, as far as known.
    pub key: Option<Vec<u8>>,
    /// The page, as far as known.
    pub page: Option<u64>,
    /// Whether the file can be used all the same.
    pub severity: Severity,
    /// What it is, for a person to read.
    pub text: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Odd, and of no effect on a restore.
    Note,
    /// A restore would lose or change something, or fail.
    Error,
}

/// What a check looked at and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes of the file.
    pub file_len: u64,
    /// Bytes of the image.
    pub image_len: u64,
    /// Name and number of rows of each bucket.
    pub buckets: Vec<(String, u64)>,
    /// Rows of `key` that are deletes.
    pub tombstones: u64,
    /// Keys whose last change was no delete.
    pub live_keys: u64,
    /// The newest revision.
    pub revision: i64,
    /// The revision of the last compaction, -1 if there was none.
    pub compact_revision: i64,
    /// What was found, in the order of the file, up to [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many there were of [`Severity::Error`], listed or not.
    pub errors: u64,
    /// How many there were of [`Severity::Note`], listed or not.
    pub notes: u64,
}

impl Report {
    /// Whether nothing worse than a [`Severity::Note`] was found.
    pub fn is_sound(&self) -> bool {
        self.errors == 0
    }
}

/// Checks a file. `progress` hears how many bytes of how many are done, all passes together.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; what is wrong with its content is in the report.
pub fn verify(path: &Path, progress: &mut impl FnMut(u64, u64)) -> Result<Report, Error> {
    let _ = (path, progress);
    todo!()
}
