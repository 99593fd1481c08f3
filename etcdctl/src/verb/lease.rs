//! `lease`: grants, revokes, renews and shows leases.

use std::ffi::OsString;

use proto::etcdserverpb as pb;
use tonic::Code;

use super::text;
use crate::client::renewal::{self, RETRY};
use crate::client::{Client, broken, describe};
use crate::failure::{Failure, exit};
use crate::globals::{Globals, Settings};
use crate::go;
use crate::help;
use crate::log;
use crate::output::{self, Format, Reply};

/// The commands under `lease`.
#[derive(Debug, clap::Args)]
pub struct Group {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Grants a lease
    Grant {
        #[arg(value_name = "<ttl in seconds>")]
        words: Vec<OsString>,
    },
    /// Renews a lease until interrupted
    KeepAlive {
        #[arg(long, help = "renew once and end")]
        once: bool,
        #[arg(value_name = "<lease id>")]
        words: Vec<OsString>,
    },
    /// Lists the leases
    List {
        #[arg(hide = true)]
        _words: Vec<OsString>,
    },
    /// Revokes a lease and deletes its keys
    Revoke {
        #[arg(value_name = "<lease id>")]
        words: Vec<OsString>,
    },
    /// Shows what is left of a lease
    Timetolive {
        #[arg(long, help = "show the keys attached to the lease")]
        keys: bool,
        #[arg(value_name = "<lease id>")]
        words: Vec<OsString>,
    },
}

impl Group {
    /// Runs the command that was given.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        match self.verb {
            None => help::show(&["lease".to_owned()]),
            Some(Verb::Grant { words }) => grant(globals, &words).await,
            Some(Verb::KeepAlive { once, words }) => keep_alive(globals, &words, once).await,
            Some(Verb::List { .. }) => list(globals).await,
            Some(Verb::Revoke { words }) => revoke(globals, &words).await,
            Some(Verb::Timetolive { keys, words }) => time_to_live(globals, &words, keys).await,
        }
    }
}

async fn grant(globals: Globals, words: &[OsString]) -> Result<(), Failure> {
    let [ttl] = words else { return Err(Failure::args("lease grant command needs TTL argument")) };
    let ttl =
        go::parse_int_base(&text(ttl), 10).map_err(|error| Failure::args(format!("bad TTL ({error})")))?;
    let settings = globals.settle(&[])?;
    let client = Client::open(&settings).await?;
    let reply = client.lease_grant(client.deadline(), pb::LeaseGrantRequest { ttl, id: 0 }).await;
    let reply = reply.map_err(|error| Failure::general(format!("failed to grant lease ({error})")))?;
    settings.printer.print(&Reply::Grant(&reply))
}

async fn revoke(globals: Globals, words: &[OsString]) -> Result<(), Failure> {
    let [id] = words else { return Err(Failure::args("lease revoke command needs 1 argument")) };
    let id = parse_id(id)?;
    let settings = globals.settle(&[])?;
    let client = Client::open(&settings).await?;
    let reply = client.lease_revoke(client.deadline(), pb::LeaseRevokeRequest { id }).await;
    let reply = reply.map_err(|error| Failure::general(format!("failed to revoke lease ({error})")))?;
    settings.printer.print(&Reply::Revoke(id, &reply))
}

/// Without a deadline, as in etcd: a cluster that cannot answer yet is waited for.
async fn time_to_live(globals: Globals, words: &[OsString], keys: bool) -> Result<(), Failure> {
    let [id] = words else {
        return Err(Failure::args("lease timetolive command needs lease ID as argument"));
    };
    let settings = globals.settle(&[])?;
    let client = Client::open(&settings).await?;
    let id = parse_id(id)?;
    let reply = client.lease_time_to_live(None, pb::LeaseTimeToLiveRequest { id, keys }).await;
    let reply = reply.map_err(|error| Failure::new(exit::BAD_CONNECTION, error))?;
    settings.printer.print(&Reply::TimeToLive { reply: &reply, keys })
}

async fn list(globals: Globals) -> Result<(), Failure> {
    let settings = globals.settle(&[])?;
    let client = Client::open(&settings).await?;
    let reply = client.lease_leases(None, pb::LeaseLeasesRequest {}).await;
    let reply = reply.map_err(|error| Failure::new(exit::BAD_CONNECTION, error))?;
    settings.printer.print(&Reply::Leases(&reply))
}

async fn keep_alive(globals: Globals, words: &[OsString], once: bool) -> Result<(), Failure> {
    let [id] = words else {
        return Err(Failure::args("lease keep-alive command needs lease ID as argument"));
    };
    let id = parse_id(id)?;
    let settings = globals.settle(&[])?;
    let client = Client::open(&settings).await?;
    if once {
        return renew_once(&settings, &client, id).await;
    }
    renewal::renew(&client, id, |reply| settings.printer.print(&Reply::KeepAlive(reply))).await?;
    if settings.printer.format == Format::Simple {
        output::say(format!("lease {} expired or revoked.", go::hex16(id)))?;
    }
    Ok(())
}

async fn renew_once(settings: &Settings, client: &Client, id: i64) -> Result<(), Failure> {
    loop {
        let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
        let reply = match client.keep_alive(requests).await {
            Ok(mut stream) => stream.message().await,
            Err(status) => Err(status),
        };
        match reply {
            Ok(Some(reply)) if reply.ttl > 0 => return settings.printer.print(&Reply::KeepAlive(&reply)),
            Ok(Some(_)) => {
                return Err(Failure::new(exit::BAD_CONNECTION, "etcdserver: requested lease not found"));
            }
            Ok(None) => client.disconnect(),
            Err(status) if broken(&status) || matches!(status.code(), Code::Unavailable | Code::Internal) => {
                log::warn("keep-alive failed", "error", describe(&status));
                client.disconnect();
            }
            Err(status) => return Err(Failure::new(exit::BAD_CONNECTION, describe(&status))),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn parse_id(word: &OsString) -> Result<i64, Failure> {
    go::parse_int_base(&text(word), 16)
        .map_err(|error| Failure::args(format!("bad lease ID arg ({error}), expecting ID in Hex")))
}
