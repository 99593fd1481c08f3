//! `defrag`: rewrites the files of a data directory without what has been deleted.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use manners::failure::Failure;
use manners::log::{Value, console};
use manners::{args, go};

use crate::Settings;
use crate::cli::TOOL;
use crate::directory::Directory;

/// What its help says.
pub const ABOUT: &str =
    "Rewrites the files of a data directory without what has been deleted. No member may run on it;
one that runs needs no such rewriting, and does it when asked by \"etcdctl defrag\".";

/// The flag of `defrag`.
#[derive(Debug, clap::Args)]
pub struct Defrag {
    #[arg(long, value_name = "string", help = "the data directory, which no member may use (required)")]
    data_dir: Option<PathBuf>,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

impl Defrag {
    /// Rewrites the files. It can be killed at any time: what is not rewritten by then stays as it is.
    ///
    /// # Errors
    /// With etcd's text around the reason.
    pub fn run(self, settings: &Settings) -> Result<(), Failure> {
        let Some(dir) = self.data_dir else {
            return Err(args::mistake(&TOOL, &["defrag"], "required flag(s) \"data-dir\" not set"));
        };
        defragment(&dir, settings).map_err(|reason| {
            Failure::general(format!("Failed to defragment etcd data[{}] ({reason})", dir.display()))
        })
    }
}

fn defragment(dir: &Path, settings: &Settings) -> Result<(), String> {
    let directory = Directory::open(dir, settings.lock_timeout, "defragment")?;
    let size = || -> Result<u64, String> {
        Ok(directory.reader.sizes().map_err(|error| error.to_string())?.total as u64)
    };
    let shown = dir.join("member").join("snap").join("db").display().to_string();
    let before = size()?;
    console(
        "info",
        "defragmenting",
        &[
            ("path", Value::Text(&shown)),
            ("current-db-size-bytes", Value::Number(before)),
            ("current-db-size", Value::Text(&go::size(before))),
        ],
    );
    let start = Instant::now();
    directory.reader.rocksdb_compaction();
    let after = size()?;
    let took = go::duration(start.elapsed());
    console(
        "info",
        "finished defragmenting directory",
        &[
            ("path", Value::Text(&shown)),
            ("current-db-size-bytes-diff", Value::Signed(after as i64 - before as i64)),
            ("current-db-size-bytes", Value::Number(after)),
            ("current-db-size", Value::Text(&go::size(after))),
            ("took", Value::Text(&took)),
        ],
    );
    directory.close();
    Ok(())
}
