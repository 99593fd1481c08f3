//! A watcher that writes down what it sees, and goes on where it was when its stream ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tests::{Client, eventually};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use super::within;

/// How long a member may take to say that it watches.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// A watch stream that stays open at the client's end while the first part lives.
pub type Stream = (mpsc::Sender<WatchRequest>, Streaming<WatchResponse>);

/// Opens a stream that watches a prefix from a revision on.
pub async fn open(
    client: &Client,
    prefix: &str,
    start_revision: i64,
    wrap: impl FnOnce(ReceiverStream<WatchRequest>) -> Request<ReceiverStream<WatchRequest>>,
) -> Result<Stream> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().context("a prefix is not empty")? += 1;
    let create = WatchCreateRequest {
        key: prefix.as_bytes().to_vec().into(),
        range_end: end.into(),
        start_revision,
        ..WatchCreateRequest::default()
    };
    let (sender, receiver) = mpsc::channel(1);
    sender.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await?;
    let mut answers = client.watch.clone().watch(wrap(ReceiverStream::new(receiver))).await?.into_inner();
    let first = within(OPEN_MAX, answers.message()).await?.context("the stream ended at once")?;
    ensure!(first.created && !first.canceled, "{first:?}");
    Ok((sender, answers))
}

/// A watcher at work.
pub struct Watcher {
    seen: Arc<Mutex<Vec<(i64, String)>>>,
    breaks: Arc<AtomicUsize>,
    task: JoinHandle<Result<()>>,
}

impl Watcher {
    /// Watches a prefix through the first of these members, and through the next when a stream ends.
    pub async fn start(clients: Vec<Client>, prefix: &'static str) -> Result<Watcher> {
        let (seen, breaks) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
        let first = open(&clients[0], prefix, 1, Request::new).await?;
        let task = tokio::spawn(follow(clients, prefix, first, Arc::clone(&seen), Arc::clone(&breaks)));
        Ok(Watcher { seen, breaks, task })
    }

    /// How often its stream ended.
    pub fn breaks(&self) -> usize {
        self.breaks.load(Ordering::Relaxed)
    }

    /// How many events it has seen.
    pub fn count(&self) -> usize {
        self.seen.lock().expect("no panic holds it").len()
    }

    /// The watcher saw all these writes, each once and in their order, and no other.
    pub async fn finish(self, written: &[(i64, String)]) -> Result<()> {
        let there = || async {
            if self.task.is_finished() {
                return Ok(());
            }
            let (count, wanted) = (self.count(), written.len());
            ensure!(count >= wanted, "the watcher saw {count} of {wanted} writes");
            Ok(())
        };
        eventually("every write is seen", there).await?;
        if self.task.is_finished() {
            return self.task.await?;
        }
        // What came twice may come a little later.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.task.abort();
        let seen = self.seen.lock().expect("no panic holds it").clone();
        if seen != written {
            let at =
                seen.iter().zip(written).position(|(a, b)| a != b).unwrap_or(seen.len().min(written.len()));
            bail!("event {at} is {:?}, the write {:?}", seen.get(at), written.get(at));
        }
        Ok(())
    }
}

async fn follow(
    clients: Vec<Client>,
    prefix: &'static str,
    first: Stream,
    seen: Arc<Mutex<Vec<(i64, String)>>>,
    breaks: Arc<AtomicUsize>,
) -> Result<()> {
    let (mut stream, mut next) = (Some(first), 1);
    for via in 0.. {
        if stream.is_none() {
            stream = open(&clients[via % clients.len()], prefix, next, Request::new).await.ok();
        }
        while let Some((_, answers)) = &mut stream {
            let Ok(Some(answer)) = answers.message().await else {
                breaks.fetch_add(1, Ordering::Relaxed);
                break;
            };
            ensure!(!answer.canceled, "the watch was cancelled: {}", answer.cancel_reason);
            for event in answer.events {
                let kv = event.kv.context("an event has a pair")?;
                ensure!(kv.mod_revision >= next, "revision {} after {next} was seen", kv.mod_revision);
                next = kv.mod_revision + 1;
                let key = String::from_utf8(kv.key.to_vec())?;
                seen.lock().expect("no panic holds it").push((kv.mod_revision, key));
            }
        }
        stream = None;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
