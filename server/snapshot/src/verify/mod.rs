//! A full check of a snapshot file, offline: digest, pages, and what the rows say.

mod history;
mod rows;
#[cfg(test)]
mod tests;

use std::path::Path;

use crate::Error;
use crate::bbolt::{self, Database};
use crate::file::{self, DIGEST_LEN};

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

/// Checks a file: its digest, its pages as [`Database::check`] does, and its rows.
///
/// Rows must decode; what they say must hold together: revisions without gaps above the last compaction, the
/// versions and creations of each key, the leases that live keys name, users and roles, members and voters.
///
/// `progress` hears how many bytes of how many are done, the passes over the file added up. Memory: at most 170
/// bytes for each live key, however long, and what [`Database::check`] needs.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; what is wrong with its content is in the report.
pub fn verify(path: &Path, progress: &mut impl FnMut(u64, u64)) -> Result<Report, Error> {
    let mut report = Report { compact_revision: -1, ..Report::default() };
    report.file_len = path.metadata().map_err(|e| Error::io(path, e))?.len();
    let file_len = report.file_len;
    let opened = Database::open(path);
    let image_len = opened.as_ref().map_or(0, Database::image_len);
    let of = file_len + 2 * image_len;
    match file::verify(path, &mut |done, _| progress(done, of)) {
        Ok(_) => {}
        Err(Error::DigestMissing { .. }) => report.error(Place::NONE, "no SHA-256 at the end of the file"),
        Err(Error::DigestMismatch { expected, got, .. }) => {
            report.error(Place::NONE, format!("SHA-256 {got}, and the end of the file says {expected}"));
        }
        Err(error) => return Err(error),
    }
    let database = match opened {
        Ok(database) => database,
        Err(error) => return report.damage(error).map(|()| report),
    };
    report.image_len = image_len;
    let tail = file_len - image_len;
    if tail != 0 && tail != DIGEST_LEN as u64 {
        report.note(Place::NONE, format!("{tail} bytes behind the image"));
    }
    let problems = database.check(&mut |done, _| progress(file_len + done, of))?;
    let damaged = !problems.is_empty();
    for problem in problems {
        report.problem(problem);
    }
    let rows = rows::check(&database, &mut report, &mut |done| progress(file_len + image_len + done, of));
    match rows {
        // The check has said it already.
        Err(bbolt::Error::Damaged { .. }) if damaged => {}
        Err(error) => report.damage(error)?,
        Ok(()) => {}
    }
    progress(of, of);
    Ok(report)
}

/// Where in the file something is, as far as known.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    bucket: Option<&'a str>,
    key: Option<&'a [u8]>,
    page: Option<u64>,
}

impl<'a> Place<'a> {
    const NONE: Place<'static> = Place { bucket: None, key: None, page: None };

    fn bucket(bucket: &'a str) -> Self {
        Self { bucket: Some(bucket), ..Place::NONE }
    }
}

impl Report {
    fn error(&mut self, place: Place<'_>, text: impl Into<String>) {
        self.errors += 1;
        self.add(place, Severity::Error, text.into());
    }

    fn note(&mut self, place: Place<'_>, text: impl Into<String>) {
        self.notes += 1;
        self.add(place, Severity::Note, text.into());
    }

    fn add(&mut self, place: Place<'_>, severity: Severity, text: String) {
        if self.findings.len() < FINDINGS_MAX {
            let (bucket, key) = (place.bucket.map(str::to_owned), place.key.map(<[u8]>::to_vec));
            self.findings.push(Finding { bucket, key, page: place.page, severity, text });
        }
    }

    fn problem(&mut self, problem: bbolt::Problem) {
        let place = Place { page: Some(problem.page), ..Place::NONE };
        self.error(place, problem.to_string());
    }

    /// Takes damage for a finding, and gives back what is none.
    fn damage(&mut self, error: bbolt::Error) -> Result<(), Error> {
        match error {
            bbolt::Error::Damaged { problem, .. } => {
                self.problem(problem);
                Ok(())
            }
            error => Err(error.into()),
        }
    }
}
