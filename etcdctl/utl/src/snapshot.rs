//! `snapshot status`: what is in a snapshot file.

use std::ffi::OsString;

use manners::failure::Failure;
use manners::output::Format;
use manners::progress::Progress;
use snapshot::bbolt::Database;

use crate::file::{self, Held};
use crate::{Settings, print};

/// What its help says.
pub const ABOUT: &str =
    "Shows what is in a snapshot file: the hash of its content, the newest revision, the number of
keys, the size without the digest, and the version of etcd that the file needs. The pages of
the file are checked first; its digest is not looked at (\"snapshot verify\" does).";

/// The argument of `snapshot status`.
#[derive(Debug, clap::Args)]
pub struct Status {
    #[arg(value_name = "<filename>")]
    words: Vec<OsString>,
}

impl Status {
    /// Checks the file's pages, reads all of it and prints what it holds. The file stays as it is.
    ///
    /// # Errors
    /// With etcd's texts, as far as etcd has one.
    pub fn run(self, settings: &Settings) -> Result<(), Failure> {
        let path = file::only(&self.words, "snapshot status")?;
        file::must_exist(path)?;
        let format = Format::parse(&settings.write_out)?;
        let held = Held::open(path, settings.lock_timeout)?;
        let database = Database::open(held.path()).map_err(Failure::general)?;
        let mut progress = Progress::new("checking");
        let problems =
            database.check(&mut |done, total| progress.set(done, total)).map_err(Failure::general)?;
        drop(progress);
        if !problems.is_empty() {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let count = problems.len();
            return Err(Failure::general(format!(
                "snapshot file integrity check failed. {count} errors found.\n{}",
                list.join("\n")
            )));
        }
        let mut progress = Progress::new("reading");
        let status = snapshot::status::status(&database, &mut |done, total| progress.set(done, total))
            .map_err(Failure::general)?;
        drop(progress);
        print::status(format, &status)
    }
}
