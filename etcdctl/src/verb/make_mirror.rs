//! `make-mirror`: copies keys to another cluster, and goes on copying what changes.
//!
//! First comes the state at one revision, then every later revision in order, each as a
//! transaction of its own. The mirror is the only writer of its keys, so that writing
//! something twice is the same as writing it once: when the destination does not answer,
//! it is written again.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request;
use proto::mvccpb::Event;
use proto::mvccpb::event::EventType;
use tokio::task::JoinSet;

use super::{prefix_end, text};
use crate::client::Client;
use crate::client::watch::{Leader, Stream};
use crate::failure::Failure;
use crate::globals::{Globals, Settings, credentials};
use crate::go;
use crate::output::say;

/// Keys of a page of the first state.
const PAGE: i64 = 1000;
/// Puts of the first state under way at the same time.
const PUTS_MAX: usize = 32;
/// Time between two counts.
const COUNTS: Duration = Duration::from_secs(30);

/// The flags of `make-mirror`.
#[derive(Debug, clap::Args)]
#[command(long_about = "Copies keys to another cluster, and goes on copying what changes.

Prints the number of changes copied so far every 30 seconds.")]
pub struct MakeMirror {
    #[arg(long, value_name = "string", default_value = "")]
    #[arg(help = "mirror the keys that begin with this")]
    prefix: String,
    #[arg(long, value_name = "string", default_value = "")]
    #[arg(help = "what they begin with in the destination instead (default: the same)")]
    dest_prefix: String,
    #[arg(long, help = "take the prefix from the keys in the destination")]
    no_dest_prefix: bool,
    #[arg(long, value_name = "int", default_value = "0", value_parser = go::parse_int)]
    #[arg(help = "mirror only what changes from this revision on")]
    rev: i64,
    #[arg(long, value_name = "uint", default_value = "128", value_parser = go::parse_uint)]
    #[arg(help = "operations in one transaction at most (default 128)")]
    max_txn_ops: u64,
    #[arg(long, value_name = "string", default_value = "")]
    #[arg(help = "client certificate file for the destination")]
    dest_cert: String,
    #[arg(long, value_name = "string", default_value = "")]
    #[arg(help = "key file of that certificate")]
    dest_key: String,
    #[arg(long, value_name = "string", default_value = "")]
    #[arg(help = "file of CA certificates to trust for the destination")]
    dest_cacert: String,
    #[arg(long, value_name = "bool", value_parser = go::parse_bool)]
    #[arg(help = "speak plain text to a destination without a scheme (default true)")]
    dest_insecure_transport: Option<bool>,
    #[arg(long, value_name = "string", default_value = "")]
    #[arg(help = "user to authenticate as there, name[:password]; asks for a password that is missing")]
    dest_user: String,
    #[arg(
        long,
        value_name = "string",
        default_value = "",
        help = "password of the user named by --dest-user"
    )]
    dest_password: String,
    #[arg(value_name = "[options] <destination>")]
    words: Vec<OsString>,
}

impl MakeMirror {
    /// Mirrors until something fails.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let [destination] = self.words.as_slice() else {
            return Err(Failure::args("make-mirror takes one destination argument"));
        };
        let auth = credentials(&self.dest_user, &self.dest_password, "Destination Password: ")?;
        let settings = globals.settle(&[])?;
        let file = |name: &str| (!name.is_empty()).then(|| name.into());
        let there = Settings {
            endpoints: vec![text(destination)],
            cert: file(&self.dest_cert),
            key: file(&self.dest_key),
            cacert: file(&self.dest_cacert),
            insecure_transport: self.dest_insecure_transport.unwrap_or(true),
            skip_verify: false,
            server_name: None,
            auth,
            ..settings.clone()
        };
        let destination = Client::open(&there).await?;
        let source = Client::open(&settings).await?;
        if self.no_dest_prefix && !self.dest_prefix.is_empty() {
            let both = "cannot be set at the same time, choose one";
            return Err(Failure::args(format!("`--dest-prefix` and `--no-dest-prefix` {both}")));
        }
        let onto = match self.dest_prefix.as_str() {
            "" if self.no_dest_prefix => String::new(),
            "" => self.prefix.clone(),
            other => other.to_owned(),
        };
        let names = Names { prefix: self.prefix.into(), onto: onto.into() };
        let ops_max = usize::try_from(self.max_txn_ops).unwrap_or(usize::MAX);
        let mirror = Mirror { source, destination, names, ops_max, count: Arc::default() };
        tokio::select! {
            failed = mirror.run(self.rev) => failed,
            failed = tell(mirror.count.clone()) => failed,
        }
    }
}

/// Prints the count from time to time, as long as somebody reads it.
async fn tell(count: Arc<AtomicU64>) -> Result<(), Failure> {
    loop {
        tokio::time::sleep(COUNTS).await;
        say(count.load(Ordering::Relaxed))?;
    }
}

struct Mirror {
    source: Client,
    destination: Client,
    names: Names,
    ops_max: usize,
    /// Changes that were copied.
    count: Arc<AtomicU64>,
}

/// What keys begin with, here and there.
struct Names {
    prefix: Bytes,
    onto: Bytes,
}

impl Names {
    /// The name that a key of the source has in the destination.
    fn there(&self, key: &[u8]) -> Bytes {
        [&self.onto, key.strip_prefix(&*self.prefix).unwrap_or(key)].concat().into()
    }

    /// The keys of the source.
    fn range(&self) -> (Bytes, Bytes) {
        let open_end = Bytes::from_static(b"\0");
        match self.prefix.is_empty() {
            true => (open_end.clone(), open_end),
            false => (self.prefix.clone(), prefix_end(&self.prefix)),
        }
    }
}

impl Mirror {
    /// Copies the state and what follows; with a revision above 1, only what changes from there on.
    async fn run(&self, from: i64) -> Result<(), Failure> {
        let revision = if from > 1 { from - 1 } else { self.copy_state().await? };
        self.copy_changes(revision + 1).await
    }

    /// Copies the state as it is now, and tells its revision.
    async fn copy_state(&self) -> Result<i64, Failure> {
        let any = if self.names.prefix.is_empty() { "foo".into() } else { self.names.prefix.clone() };
        let now = self.source.range(None, pb::RangeRequest { key: any, ..Default::default() }).await;
        let revision = now.map_err(Failure::general)?.header.map_or(0, |header| header.revision);
        let (mut key, range_end) = self.names.range();
        let mut puts = JoinSet::new();
        loop {
            let request = pb::RangeRequest {
                key,
                range_end: range_end.clone(),
                limit: PAGE,
                revision,
                ..Default::default()
            };
            let page = self.source.range(None, request).await.map_err(Failure::general)?;
            let last = page.kvs.last().map(|kv| kv.key.clone()).unwrap_or_default();
            // Keys differ, so that the order of these puts does not matter.
            for kv in page.kvs {
                if puts.len() >= PUTS_MAX {
                    self.counted(puts.join_next().await)?;
                }
                let (key, value) = (self.names.there(&kv.key), kv.value);
                let destination = self.destination.clone();
                let put = pb::PutRequest { key, value, ..Default::default() };
                puts.spawn(async move { destination.put_again(None, put).await.map_err(Failure::general) });
            }
            if !page.more {
                break;
            }
            key = [&last[..], b"\0"].concat().into();
        }
        while !puts.is_empty() {
            self.counted(puts.join_next().await)?;
        }
        Ok(revision)
    }

    fn counted(
        &self,
        put: Option<Result<Result<pb::PutResponse, Failure>, tokio::task::JoinError>>,
    ) -> Result<(), Failure> {
        if let Some(put) = put {
            put.map_err(Failure::general)??;
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Copies what changes from this revision on, until the watch ends.
    async fn copy_changes(&self, start_revision: i64) -> Result<(), Failure> {
        let (key, range_end) = self.names.range();
        let request = pb::WatchCreateRequest { key, range_end, start_revision, ..Default::default() };
        let mut notices = Stream::start(self.source.clone(), Leader::AnyTime).watch(request).await;
        while let Some(notice) = notices.recv().await {
            if let Some(reason) = notice.end() {
                return Err(Failure::general(reason));
            }
            let changes = notice.reply.events.len() as u64;
            for ops in transactions(notice.reply.events, &self.names, self.ops_max) {
                let request = pb::TxnRequest { success: ops, ..Default::default() };
                self.destination.txn_again(None, request).await.map_err(Failure::general)?;
            }
            self.count.fetch_add(changes, Ordering::Relaxed);
        }
        Err(Failure::general("the watch of the source was canceled"))
    }
}

/// The operations of these events, apart by revision, and at most so many together (0: any number).
fn transactions(events: Vec<Event>, names: &Names, ops_max: usize) -> Vec<Vec<pb::RequestOp>> {
    let mut transactions: Vec<Vec<pb::RequestOp>> = Vec::new();
    let mut last = 0;
    for event in events {
        let deletes = event.r#type() == EventType::Delete;
        let kv = event.kv.unwrap_or_default();
        let key = names.there(&kv.key);
        let request = if deletes {
            Request::RequestDeleteRange(pb::DeleteRangeRequest { key, ..Default::default() })
        } else {
            Request::RequestPut(pb::PutRequest { key, value: kv.value, ..Default::default() })
        };
        let op = pb::RequestOp { request: Some(request) };
        match transactions.last_mut() {
            Some(open) if kv.mod_revision == last && (ops_max == 0 || open.len() < ops_max) => open.push(op),
            _ => transactions.push(vec![op]),
        }
        last = kv.mod_revision;
    }
    transactions
}

#[cfg(test)]
mod tests {
    use proto::mvccpb::KeyValue;

    use super::*;

    fn names(prefix: &'static str, onto: &'static str) -> Names {
        Names { prefix: prefix.into(), onto: onto.into() }
    }

    #[test]
    fn a_revision_is_a_transaction_unless_it_is_too_long() {
        let event = |number: usize, mod_revision: i64| Event {
            kv: Some(KeyValue { key: format!("k{number}").into(), mod_revision, ..Default::default() }),
            ..Default::default()
        };
        let lengths = |revisions: &[i64], ops_max| {
            let events = revisions.iter().enumerate().map(|(number, revision)| event(number, *revision));
            let split = transactions(events.collect(), &names("", ""), ops_max);
            split.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&[5, 6, 6, 6, 7], 128), [1, 3, 1]);
        assert_eq!(lengths(&[5, 6, 6, 6, 7], 2), [1, 2, 1, 1]);
        assert_eq!(lengths(&[5, 5, 5], 0), [3]);
        assert!(lengths(&[], 2).is_empty());
    }

    #[test]
    fn keys_get_the_prefix_of_the_destination() {
        assert_eq!(names("a/", "b/").there(b"a/x"), &b"b/x"[..]);
        assert_eq!(names("a/", "").there(b"a/x"), &b"x"[..]);
        assert_eq!(names("", "b/").there(b"x"), &b"b/x"[..]);
        assert_eq!(names("a", "a").there(b"aaa"), &b"aaa"[..]);
        assert_eq!(names("", "").range(), (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")));
        assert_eq!(names("a", "").range(), (Bytes::from_static(b"a"), Bytes::from_static(b"b")));
    }
}
