//! `hashkv`: the hash of the history in a snapshot file, as members tell theirs.

use std::ffi::OsString;
use std::path::Path;

use manners::failure::Failure;
use manners::output::Format;
use manners::progress::Progress;
use manners::{args, go};
use snapshot::bbolt::Database;

use crate::cli::TOOL;
use crate::file::{self, Held};
use crate::{Settings, print};

/// The argument and flag of `hashkv`.
#[derive(Debug, clap::Args)]
pub struct Hashkv {
    #[arg(long, value_name = "int", default_value = "0", value_parser = go::parse_int)]
    #[arg(help = "hash the history up to this revision (default: all)")]
    rev: i64,
    #[arg(value_name = "<filename>")]
    words: Vec<OsString>,
}

impl Hashkv {
    /// Reads the file and prints the hash. The file stays as it is; etcd's own tool changes it.
    ///
    /// # Errors
    /// With etcd's texts, as far as etcd has one.
    pub fn run(self, settings: &Settings) -> Result<(), Failure> {
        let [word] = self.words.as_slice() else {
            let message = format!("accepts 1 arg(s), received {}", self.words.len());
            return Err(args::mistake(&TOOL, &["hashkv"], &message));
        };
        let format = Format::parse(&settings.write_out)?;
        file::must_exist(Path::new(word))?;
        let held = Held::open(Path::new(word), settings.lock_timeout)?;
        let database = Database::open(held.path()).map_err(Failure::general)?;
        let mut progress = Progress::new("hashing");
        let hash =
            snapshot::hash_kv::hash_kv(&database, self.rev, &mut |done, total| progress.set(done, total));
        drop(progress);
        let hash = hash.map_err(|error| match error {
            snapshot::Error::Compacted { .. } => {
                Failure::general("mvcc: required revision has been compacted")
            }
            snapshot::Error::FutureRevision { .. } => {
                Failure::general("mvcc: required revision is a future revision")
            }
            error => Failure::general(error),
        })?;
        print::hash_kv(format, &hash)
    }
}
