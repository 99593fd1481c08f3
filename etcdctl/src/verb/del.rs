//! `del`: deletes a key or a range.

use std::ffi::OsString;
use std::time::Duration;

use proto::etcdserverpb::DeleteRangeRequest;

use super::{bytes, range_of};
use crate::client::Client;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::go::quote;
use crate::output::Reply;

/// How long a range may still be saved by an interrupt.
const GRACE: Duration = Duration::from_secs(2);

/// The flags of `del`.
#[derive(Debug, clap::Args)]
pub struct Del {
    #[arg(long, help = "delete the keys that begin with the given one")]
    prefix: bool,
    #[arg(long, help = "print the keys and values that were deleted")]
    prev_kv: bool,
    #[arg(long, help = "delete the given key and all after it")]
    from_key: bool,
    #[arg(long, help = "delete a range of keys without the pause before it")]
    range: bool,
    #[arg(value_name = "<key> [range_end]")]
    words: Vec<OsString>,
}

impl Del {
    /// Deletes and prints.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let request = self.request().await?;
        let settings = globals.settle(&[])?;
        let client = Client::open(&settings).await?;
        let reply = client.delete_range(client.deadline(), request).await.map_err(Failure::general)?;
        settings.printer.print(&Reply::Delete(&reply))
    }

    /// The request that the flags and arguments describe. Before a range given by two keys
    /// it warns and waits, unless `--range` says that it is meant.
    pub async fn request(self) -> Result<DeleteRangeRequest, Failure> {
        let mut words = self.words.into_iter().map(bytes);
        let (Some(key), end, None) = (words.next(), words.next(), words.next()) else {
            let message = "del command needs one argument as key and an optional argument as range_end";
            return Err(Failure::args(message));
        };
        if self.prefix && self.from_key {
            let message = "`--prefix` and `--from-key` cannot be set at the same time, choose one";
            return Err(Failure::args(message));
        }
        if let Some(end) = &end {
            if self.prefix || self.from_key {
                let message =
                    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
                return Err(Failure::args(message));
            }
            if !self.range {
                eprintln!(
                    "Warning: Keys between {} and {} will be deleted. Please interrupt the command within next 2 \
                     seconds to cancel. You can provide `--range` flag to avoid the delay.",
                    quote(&key),
                    quote(end)
                );
                tokio::time::sleep(GRACE).await;
            }
        }
        let (key, range_end) = range_of(key, end, self.prefix, self.from_key);
        Ok(DeleteRangeRequest { key, range_end, prev_kv: self.prev_kv })
    }
}
