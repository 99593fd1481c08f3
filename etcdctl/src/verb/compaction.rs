//! `compaction`: forgets old revisions.

use std::ffi::OsString;

use proto::etcdserverpb::CompactionRequest;

use super::text;
use crate::client::Client;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::go;
use crate::output;

/// The flags of `compaction`.
#[derive(Debug, clap::Args)]
pub struct Compaction {
    #[arg(long, help = "wait until the old revisions are gone from disk")]
    physical: bool,
    #[arg(value_name = "<revision>")]
    words: Vec<OsString>,
}

impl Compaction {
    /// Compacts.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let [revision] = self.words.as_slice() else {
            return Err(Failure::args("compaction command needs 1 argument"));
        };
        let revision = go::parse_int_base(&text(revision), 10).map_err(Failure::general)?;
        let client = Client::open(&globals.settle(&[])?).await?;
        let request = CompactionRequest { revision, physical: self.physical };
        client.compact(client.deadline(), request).await.map_err(Failure::general)?;
        output::say(format!("compacted revision {revision}"))
    }
}
