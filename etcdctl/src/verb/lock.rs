//! `lock`: holds a named lock, until a signal or while a command runs.
//!
//! The lock is a place in the line under its name ([`crate::turn`]). It is given up by
//! deleting its key; when this process dies instead, its lease does that.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use bytes::Bytes;

use super::bytes;
use crate::child;
use crate::client::Client;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::go;
use crate::log;
use crate::output::{Printer, Reply};
use crate::turn::{Place, Session, Stop, cancelled};

/// Seconds that a session lives without renewal where none are given that make sense.
pub const SESSION_TTL: i64 = 60;

/// The flags of `lock`.
#[derive(Debug, clap::Args)]
#[command(long_about = "Takes a named lock, waiting for those who came before.

Without a command, prints the lock's key and holds the lock until interrupted. With one, runs it under
the lock, with ETCD_LOCK_KEY and ETCD_LOCK_REV in its environment, and ends with its exit status.")]
pub struct Lock {
    #[arg(long, value_name = "int", default_value = "10", value_parser = go::parse_int)]
    #[arg(help = "seconds after which the lock is free when its holder is not heard of (default 10)")]
    ttl: i64,
    #[arg(value_name = "<lockname> [exec-command arg1 arg2 ...]")]
    words: Vec<OsString>,
}

impl Lock {
    /// Takes the lock, holds it, gives it up.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let mut words = self.words.into_iter();
        let Some(name) = words.next() else {
            return Err(Failure::args("lock takes a lock name argument and an optional command to execute"));
        };
        let settings = globals.settle(&[])?;
        let client = Client::open(&settings).await?;
        let mut session = Session::open(&client, lifetime(self.ttl)).await?;
        let mut stop = Stop::listen()?;
        let name = bytes(name);
        let place = tokio::select! {
            place = Place::take(&session, &name, Bytes::new()) => place?,
            () = stop.asked() => return Err(cancelled()),
        };
        let held = async {
            let revision = tokio::select! {
                revision = acquire(&place) => revision?,
                () = stop.asked() => return Err(cancelled()),
            };
            let command: Vec<OsString> = words.collect();
            if command.is_empty() {
                hold(&place, &mut session, &mut stop, settings.printer).await
            } else {
                execute(&command, &place, revision).await
            }
        };
        let held = held.await;
        let left = place.leave().await;
        held.and(left)
    }
}

/// The seconds to ask for; like etcd, takes no notice of those that make no sense.
fn lifetime(ttl: i64) -> i64 {
    if ttl > 0 {
        return ttl;
    }
    let message = "WithTTL(): TTL should be > 0, preserving current TTL";
    log::warn(message, "current-session-ttl", SESSION_TTL);
    SESSION_TTL
}

/// Waits for the lock, and tells the revision at which it was ours.
async fn acquire(place: &Place) -> Result<i64, Failure> {
    if !place.turn().await? {
        return Ok(place.revision);
    }
    let now = place.read().await?;
    if now.kvs.is_empty() {
        return Err(Failure::general("mutex: session is expired"));
    }
    Ok(now.header.map_or(0, |header| header.revision))
}

/// Shows the key and waits: for a signal, which is success, or the loss of the lock.
async fn hold(
    place: &Place,
    session: &mut Session,
    stop: &mut Stop,
    printer: Printer,
) -> Result<(), Failure> {
    let reply = place.read().await?;
    if reply.kvs.is_empty() {
        return Err(Failure::general("lock lost on init"));
    }
    printer.print(&Reply::Get(&reply))?;
    tokio::select! {
        () = stop.asked() => Ok(()),
        () = session.ended() => Err(Failure::general("session expired")),
    }
}

/// Runs the command to its end: neither a signal to us nor the loss of the lock stops it.
async fn execute(command: &[OsString], place: &Place, revision: i64) -> Result<(), Failure> {
    let environment = [
        ("ETCD_LOCK_KEY", OsString::from_vec(place.key.to_vec())),
        ("ETCD_LOCK_REV", revision.to_string().into()),
    ];
    child::run(command, &environment).await.map_err(|end| Failure::new(end.status(), end))
}
