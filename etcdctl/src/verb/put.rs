//! `put`: stores a value, from the command line or from stdin.

use std::ffi::OsString;
use std::io::Read as _;

use bytes::Bytes;
use proto::etcdserverpb::PutRequest;

use super::bytes;
use crate::client::Client;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::go;
use crate::output::Reply;

/// The flags of `put`.
#[derive(Debug, clap::Args)]
#[command(long_about = "Puts a value under a key.

Without a value on the command line, and without --ignore-value, the value is read from
stdin. A key or value that begins with '-' has to stand after '--':

  etcdctl put <key> -- <value>
  etcdctl put -- <key> <value>
  etcdctl put <key> < file")]
pub struct Put {
    #[arg(
        long,
        value_name = "string",
        default_value = "0",
        help = "id of the lease to attach, in hexadecimal (default \"0\")"
    )]
    lease: String,
    #[arg(long, help = "print the key and value that were there before")]
    prev_kv: bool,
    #[arg(long, help = "keep the value that is there")]
    ignore_value: bool,
    #[arg(long, help = "keep the lease that is there")]
    ignore_lease: bool,
    #[arg(value_name = "<key> [value]")]
    words: Vec<OsString>,
}

impl Put {
    /// Puts and prints.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let request = self.request(|| {
            let mut value = Vec::new();
            std::io::stdin().read_to_end(&mut value).ok().filter(|_| !value.is_empty())?;
            Some(value.into())
        })?;
        let settings = globals.settle(&[])?;
        let client = Client::open(&settings).await?;
        let reply = client.put(client.deadline(), request).await.map_err(Failure::general)?;
        settings.printer.print(&Reply::Put(&reply))
    }

    /// The request that the flags and arguments describe; `input` gives a value that is not among them.
    pub fn request(self, input: impl FnOnce() -> Option<Bytes>) -> Result<PutRequest, Failure> {
        let missing = || Failure::args("put command needs 1 argument and input from stdin or 2 arguments");
        let mut words = self.words.into_iter().map(bytes);
        let key = words.next().ok_or_else(missing)?;
        let value = words.next();
        let value = match value {
            Some(_) if self.ignore_value => {
                return Err(Failure::args("put command needs only 1 argument when 'ignore-value' is set"));
            }
            None if self.ignore_value => Bytes::new(),
            Some(value) => value,
            None => input().ok_or_else(missing)?,
        };
        let lease = go::parse_int_base(&self.lease, 16)
            .map_err(|error| Failure::args(format!("bad lease ID ({error}), expecting ID in Hex")))?;
        Ok(PutRequest {
            key,
            value,
            lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }
}
