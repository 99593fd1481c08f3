//! `lease`: grants, revokes, renews and shows leases.

use std::ffi::OsString;
use std::time::Duration;

use proto::etcdserverpb as pb;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::text;
use crate::client::{Client, broken, describe};
use crate::failure::{Failure, exit};
use crate::globals::{Globals, Settings};
use crate::go;
use crate::help;
use crate::log;
use crate::output::{self, Format, Reply};

/// Pause before a broken keep-alive stream is opened again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a lease may stay without its first renewal before it counts as gone.
const FIRST_RENEWAL_MAX: Duration = Duration::from_secs(5);

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
    renew(&settings, &client, id).await?;
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

/// Renews whenever a third of the time has passed; ends when the lease is gone, or when
/// it must be gone because nobody answered for as long as it lives.
async fn renew(settings: &Settings, client: &Client, id: i64) -> Result<(), Failure> {
    let mut gone = Instant::now() + FIRST_RENEWAL_MAX;
    while Instant::now() < gone {
        // One request is under way at a time: the channel is never full. The first goes ahead of
        // the stream, because a server may answer nothing, not even a header, before it.
        let (requests, receiver) = mpsc::channel(1);
        if requests.send(pb::LeaseKeepAliveRequest { id }).await.is_err() {
            return Ok(());
        }
        match tokio::time::timeout_at(gone, client.keep_alive(ReceiverStream::new(receiver))).await {
            Ok(Ok(stream)) => match renew_over(stream, requests, settings, id, gone).await? {
                Some(later) => gone = later,
                None => return Ok(()),
            },
            Ok(Err(status)) => {
                log::warn("keep-alive stream broke", "error", describe(&status));
            }
            Err(_) => return Ok(()),
        }
        client.disconnect();
        tokio::time::sleep(RETRY).await;
    }
    Ok(())
}

/// Renews over one stream until it breaks, then tells until when the lease lives; `None` when
/// the lease is gone. The first request is on its way.
async fn renew_over(
    mut replies: Streaming<pb::LeaseKeepAliveResponse>,
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    settings: &Settings,
    id: i64,
    mut gone: Instant,
) -> Result<Option<Instant>, Failure> {
    loop {
        let Ok(reply) = tokio::time::timeout_at(gone, replies.message()).await else { return Ok(None) };
        let Ok(Some(reply)) = reply else { break };
        if reply.ttl <= 0 {
            return Ok(None);
        }
        settings.printer.print(&Reply::KeepAlive(&reply))?;
        let ttl = Duration::from_secs(reply.ttl.unsigned_abs());
        gone = Instant::now() + ttl;
        tokio::time::sleep(ttl / 3).await;
        if requests.send(pb::LeaseKeepAliveRequest { id }).await.is_err() {
            break;
        }
    }
    Ok(Some(gone))
}

fn parse_id(word: &OsString) -> Result<i64, Failure> {
    go::parse_int_base(&text(word), 16)
        .map_err(|error| Failure::args(format!("bad lease ID arg ({error}), expecting ID in Hex")))
}
