//! `elect`: stands for an election, or watches who leads.
//!
//! A candidate is a place in the line under the election's name ([`crate::turn`]), with
//! the proposal as its value; the oldest leads until it resigns or its lease ends.

use std::ffi::OsString;

use proto::etcdserverpb as pb;
use proto::etcdserverpb::range_request::SortOrder;
use proto::mvccpb::event::EventType;

use super::bytes;
use super::lock::SESSION_TTL;
use crate::client::Client;
use crate::client::watch::{Leader, Stream};
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::{Printer, Reply};
use crate::turn::{Place, Session, Stop, by_age, cancelled, prefix};

/// The flags of `elect`.
#[derive(Debug, clap::Args)]
#[command(long_about = "Stands for an election, or watches one.

With a proposal, waits until elected, prints the key and the proposal, and leads until interrupted.
With -l, prints the key and the proposal of everyone who comes to lead.")]
pub struct Elect {
    #[arg(short = 'l', long, help = "watch who leads")]
    listen: bool,
    #[arg(value_name = "<election-name> [proposal]")]
    words: Vec<OsString>,
}

impl Elect {
    /// Campaigns or observes until interrupted.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let mut words = self.words.into_iter();
        let (Some(name), proposal, None) = (words.next(), words.next(), words.next()) else {
            let message = "elect takes one election name argument and an optional proposal argument";
            return Err(Failure::args(message));
        };
        let settings = globals.settle(&[])?;
        let client = Client::open(&settings).await?;
        let name = bytes(name);
        match (proposal, self.listen) {
            (None, false) => Err(Failure::args("no proposal argument but -l not set")),
            (Some(_), true) => Err(Failure::args("proposal given but -l is set")),
            (None, true) => observe(&client, &name, settings.printer).await,
            (Some(proposal), false) => campaign(&client, &name, bytes(proposal), settings.printer).await,
        }
    }
}

async fn campaign(
    client: &Client,
    name: &[u8],
    proposal: bytes::Bytes,
    printer: Printer,
) -> Result<(), Failure> {
    let mut session = Session::open(client, SESSION_TTL).await?;
    let mut stop = Stop::listen()?;
    let place = tokio::select! {
        place = Place::take(&session, name, proposal) => place?,
        () = stop.asked() => return Err(cancelled()),
    };
    let lead = async {
        tokio::select! {
            elected = place.turn() => elected?,
            () = stop.asked() => return Err(cancelled()),
        };
        printer.print(&Reply::Get(&place.read().await?))?;
        tokio::select! {
            () = stop.asked() => Ok(()),
            () = session.ended() => Err(Failure::general("elect: session expired")),
        }
    };
    let led = lead.await;
    let resigned = place.resign().await;
    led.and(resigned)
}

async fn observe(client: &Client, name: &[u8], printer: Printer) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    tokio::select! {
        // Without a reason, as in etcd: the log has it.
        _ = follow(client, name, printer) => Err(Failure::general("elect: observer lost")),
        () = stop.asked() => Ok(()),
    }
}

/// Prints everyone who leads, and what they proclaim, until a watch is lost.
async fn follow(client: &Client, name: &[u8], printer: Printer) -> Result<(), Failure> {
    let prefix = prefix(name);
    let lost = || Failure::general("the watch ended");
    loop {
        let oldest = by_age(prefix.clone(), SortOrder::Ascend);
        let mut reply = client.range(None, oldest.clone()).await.map_err(Failure::general)?;
        let mut revision = reply.header.map_or(0, |header| header.revision);
        if reply.kvs.is_empty() {
            let request = pb::WatchCreateRequest {
                key: oldest.key,
                range_end: oldest.range_end,
                start_revision: revision,
                ..Default::default()
            };
            let mut notices = Stream::start(client.clone(), Leader::AnyTime).watch(request).await;
            while reply.kvs.is_empty() {
                let told = notices.recv().await.filter(|notice| notice.end().is_none()).ok_or_else(lost)?;
                let put = told.reply.events.into_iter().find(|event| event.r#type() == EventType::Put);
                if let Some(kv) = put.and_then(|event| event.kv) {
                    revision = kv.mod_revision;
                    reply.header = told.reply.header.map(|header| pb::ResponseHeader { revision, ..header });
                    reply.kvs.push(kv);
                }
            }
        }
        // etcd counts nothing here.
        reply.count = 0;
        let key = reply.kvs.first().map(|kv| kv.key.clone()).unwrap_or_default();
        printer.print(&Reply::Get(&reply))?;
        let request = pb::WatchCreateRequest { key, start_revision: revision + 1, ..Default::default() };
        let mut notices = Stream::start(client.clone(), Leader::AnyTime).watch(request).await;
        let mut leads = true;
        while leads {
            let told = notices.recv().await.filter(|notice| notice.end().is_none()).ok_or_else(lost)?;
            for event in told.reply.events {
                if event.r#type() == EventType::Delete {
                    leads = false;
                    break;
                }
                let kvs = event.kv.into_iter().collect();
                let reply = pb::RangeResponse { header: told.reply.header, kvs, ..Default::default() };
                printer.print(&Reply::Get(&reply))?;
            }
        }
    }
}
