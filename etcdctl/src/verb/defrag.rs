//! `defrag`: gives the free space of the members' stores back.

use std::ffi::OsString;
use std::time::Instant;

use proto::etcdserverpb::DefragmentRequest;

use super::endpoint;
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::globals::Globals;
use crate::go;
use crate::output;

/// The flags of `defrag`.
#[derive(Debug, clap::Args)]
pub struct Defrag {
    #[arg(long, help = "do it on every member of the cluster")]
    cluster: bool,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

impl Defrag {
    /// Defragments one member after the other.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let settings = globals.settle(&[])?;
        let mut failed = false;
        for endpoint in endpoint::targets(&settings, self.cluster).await? {
            let client = Client::open_to(&settings, std::slice::from_ref(&endpoint)).await?;
            let start = Instant::now();
            let result = client.defragment(client.deadline(), DefragmentRequest {}).await;
            let took = go::duration(start.elapsed());
            match result {
                Ok(_) => output::say(format!("Finished defragmenting etcd member[{endpoint}]. took {took}"))?,
                Err(error) => {
                    failed = true;
                    eprintln!("Failed to defragment etcd member[{endpoint}]. took {took}. ({error})");
                }
            }
        }
        if failed { Err(Failure::silent(exit::ERROR)) } else { Ok(()) }
    }
}
