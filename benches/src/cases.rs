//! The cases: what is loaded first, and what is then asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::watch_client::WatchClient;
use rand::RngExt;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::load::{Seen, closed_loop};

/// A case by name: what a turn of it does with some connections to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Puts of 256-byte values under 64-byte keys by this many clients.
    Put(usize),
    /// One key, by 100 clients.
    Range {
        /// Without a read index.
        serializable: bool,
    },
    /// The first 1,000 of the loaded keys.
    List,
    /// All loaded keys in one response.
    ListAll,
    /// All loaded keys by `RangeStream`.
    StreamAll,
    /// How many keys there are.
    Count,
    /// Compare the mod revision, put, else get: what a kube-apiserver writes with.
    Txn,
    /// Keep-alives on 100 streams.
    KeepAlive,
    /// One put, and when the watcher of its key sees it.
    WatchLatency,
    /// Puts that 100 watchers each see; a request is one event delivered.
    WatchFanOut,
}

/// The keys `loaded/00000000` … of a case's data.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    /// How many.
    pub keys: u64,
    /// Bytes of each value.
    pub value: usize,
}

const PREFIX: &str = "loaded/";

impl Case {
    /// What the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put(1) => "put, 1 client",
            Self::Put(100) => "put, 100 clients",
            Self::Put(_) => "put, 1,000 clients",
            Self::Range { serializable: false } => "range, linearizable",
            Self::Range { serializable: true } => "range, serializable",
            Self::List => "list 1,000",
            Self::ListAll => "list all",
            Self::StreamAll => "stream all",
            Self::Count => "count",
            Self::Txn => "txn",
            Self::KeepAlive => "keep-alive",
            Self::WatchLatency => "watch latency",
            Self::WatchFanOut => "watch fan-out 1:100",
        }
    }

    /// How many requests a turn makes at `scale` 1.
    fn requests(self, scale: f64) -> u64 {
        let requests = match self {
            Self::Put(1) | Self::WatchLatency => 3_000.0,
            Self::Put(_) | Self::Txn => 60_000.0,
            Self::Range { .. } | Self::KeepAlive => 80_000.0,
            Self::List => 1_000.0,
            Self::ListAll | Self::StreamAll => 3.0,
            Self::Count => 200.0,
            Self::WatchFanOut => 3_000.0,
        };
        (requests * scale).max(1.0) as u64
    }

    /// Runs one turn.
    ///
    /// # Errors
    /// When the member refuses or answers wrongly: a figure of wrong answers is none.
    pub async fn run(self, channels: &[Channel], data: Data, scale: f64) -> Result<Seen> {
        let requests = self.requests(scale);
        let kv: Arc<Vec<KvClient<Channel>>> = Arc::new(
            channels.iter().map(|c| KvClient::new(c.clone()).max_decoding_message_size(usize::MAX)).collect(),
        );
        let client = move |at: usize| kv[at % kv.len()].clone();
        match self {
            Self::Put(clients) => {
                closed_loop(clients, requests, move |at, _| {
                    let mut client = client(at);
                    async move {
                        let request =
                            pb::PutRequest { key: random_key(), value: value(256), ..Default::default() };
                        client.put(request).await?;
                        Ok(())
                    }
                })
                .await
            }
            Self::Range { serializable } => {
                closed_loop(100, requests, move |at, _| {
                    let mut client = client(at);
                    async move {
                        let key = loaded_key(rand::rng().random_range(0..data.keys)).into();
                        let request = pb::RangeRequest { key, serializable, ..Default::default() };
                        ensure!(client.range(request).await?.into_inner().kvs.len() == 1, "the key is gone");
                        Ok(())
                    }
                })
                .await
            }
            Self::List => ranges(8, requests, client, all(1000), data.keys.min(1000)).await,
            Self::ListAll => ranges(1, requests, client, all(0), data.keys).await,
            Self::Count => {
                let request = pb::RangeRequest { count_only: true, ..all(0) };
                closed_loop(1, requests, move |at, _| {
                    let (mut client, request) = (client(at), request.clone());
                    async move {
                        let count = client.range(request).await?.into_inner().count;
                        ensure!(count as u64 == data.keys, "{count} keys counted, {} loaded", data.keys);
                        Ok(())
                    }
                })
                .await
            }
            Self::StreamAll => {
                closed_loop(1, requests, move |at, _| {
                    let mut client = client(at);
                    async move {
                        let mut rows = 0;
                        let mut stream = client.range_stream(all(0)).await?.into_inner();
                        while let Some(part) = stream.message().await? {
                            rows += part.range_response.map_or(0, |range| range.kvs.len() as u64);
                        }
                        ensure!(rows == data.keys, "{rows} rows streamed, {} loaded", data.keys);
                        Ok(())
                    }
                })
                .await
            }
            Self::Txn => {
                closed_loop(100, requests, move |at, number| {
                    let mut client = client(at);
                    async move {
                        client.txn(create(format!("txn/{:x}/{number}", rand::random::<u64>()))).await?;
                        Ok(())
                    }
                })
                .await
            }
            Self::KeepAlive => keep_alive(channels, requests).await,
            Self::WatchLatency => watch_latency(channels, requests).await,
            Self::WatchFanOut => watch_fan_out(channels, 100, requests).await,
        }
    }
}

/// Loads the data of the reading cases.
///
/// # Errors
/// When a put fails.
pub async fn load(channels: &[Channel], data: Data) -> Result<()> {
    let kv: Vec<_> = channels.iter().map(|c| KvClient::new(c.clone())).collect();
    // Eighty puts a transaction, as many as etcd's limit of 128 operations leaves comfortable.
    let batches = data.keys.div_ceil(80);
    closed_loop(32, batches, move |at, batch| {
        let mut client = kv[at % kv.len()].clone();
        async move {
            let keys = batch * 80..((batch + 1) * 80).min(data.keys);
            let put = |number| pb::PutRequest {
                key: loaded_key(number).into(),
                value: value(data.value),
                ..Default::default()
            };
            let op = |put| pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) };
            let success = keys.map(|number| op(put(number))).collect();
            client.txn(pb::TxnRequest { success, ..Default::default() }).await?;
            Ok(())
        }
    })
    .await?;
    Ok(())
}

async fn ranges(
    clients: usize,
    requests: u64,
    client: impl Fn(usize) -> KvClient<Channel> + Send + Sync + 'static,
    request: pb::RangeRequest,
    rows: u64,
) -> Result<Seen> {
    closed_loop(clients, requests, move |at, _| {
        let (mut client, request) = (client(at), request.clone());
        async move {
            let found = client.range(request).await?.into_inner().kvs.len() as u64;
            ensure!(found == rows, "{found} rows instead of {rows}");
            Ok(())
        }
    })
    .await
}

async fn keep_alive(channels: &[Channel], requests: u64) -> Result<Seen> {
    const STREAMS: u64 = 100;
    let (start, each) = (Instant::now(), requests / STREAMS);
    let streams = (0..STREAMS).map(|at| {
        let mut client = LeaseClient::new(channels[at as usize % channels.len()].clone());
        async move {
            let grant = pb::LeaseGrantRequest { ttl: 3600, id: 0 };
            let id = client.lease_grant(grant).await?.into_inner().id;
            let (send, receive) = mpsc::channel(1);
            send.send(pb::LeaseKeepAliveRequest { id }).await?;
            let mut answers = client.lease_keep_alive(ReceiverStream::new(receive)).await?.into_inner();
            let mut latencies = Vec::with_capacity(each as usize);
            let mut sent = Instant::now();
            for _ in 0..each {
                let answer = answers.message().await?.context("the stream ended")?;
                ensure!(answer.ttl == 3600, "the lease is gone");
                latencies.push(micros(sent));
                sent = Instant::now();
                send.send(pb::LeaseKeepAliveRequest { id }).await?;
            }
            Ok::<_, anyhow::Error>(latencies)
        }
    });
    Ok(seen(start, try_join_all(streams).await?.concat()))
}

async fn watch_latency(channels: &[Channel], requests: u64) -> Result<Seen> {
    let key = random_key();
    let mut events = watch(&channels[0], key.clone()).await?;
    let mut client = KvClient::new(channels[channels.len() - 1].clone());
    let (start, mut latencies) = (Instant::now(), Vec::new());
    for _ in 0..requests {
        let sent = Instant::now();
        let put = pb::PutRequest { key: key.clone(), value: value(256), ..Default::default() };
        let (put, event) = tokio::join!(client.put(put), events.next());
        put?;
        event.context("the watch ended")??;
        latencies.push(micros(sent));
    }
    Ok(seen(start, latencies))
}

async fn watch_fan_out(channels: &[Channel], watchers: usize, requests: u64) -> Result<Seen> {
    let key = random_key();
    let delivered = Arc::new(AtomicU64::new(0));
    let puts = requests;
    let mut tasks = Vec::with_capacity(watchers);
    for at in 0..watchers {
        let mut events = watch(&channels[at % channels.len()], key.clone()).await?;
        let delivered = delivered.clone();
        tasks.push(tokio::spawn(async move {
            let mut left = puts;
            while left > 0 {
                let response = events.next().await.context("the watch ended")??;
                left = left.saturating_sub(response.events.len() as u64);
                delivered.fetch_add(response.events.len() as u64, Ordering::Relaxed);
            }
            Ok::<_, anyhow::Error>(())
        }));
    }
    let (start, kv) = (Instant::now(), KvClient::new(channels[0].clone()));
    let writers = closed_loop(8, puts, move |_, _| {
        let (mut client, key) = (kv.clone(), key.clone());
        async move {
            client.put(pb::PutRequest { key, value: value(256), ..Default::default() }).await?;
            Ok(())
        }
    });
    let mut seen = writers.await?;
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(60), task).await.context("events are missing")???;
    }
    seen.requests = delivered.load(Ordering::Relaxed);
    seen.wall = start.elapsed();
    Ok(seen)
}

async fn watch(channel: &Channel, key: bytes::Bytes) -> Result<tonic::Streaming<pb::WatchResponse>> {
    let (send, receive) = mpsc::channel(1);
    let create = pb::WatchCreateRequest { key, ..Default::default() };
    let union = pb::watch_request::RequestUnion::CreateRequest(create);
    send.send(pb::WatchRequest { request_union: Some(union) }).await?;
    // A half-closed watch stream goes on.
    drop(send);
    let mut events =
        WatchClient::new(channel.clone()).watch(ReceiverStream::new(receive)).await?.into_inner();
    ensure!(events.message().await?.is_some_and(|first| first.created), "the watch was not created");
    Ok(events)
}

fn create(key: String) -> pb::TxnRequest {
    let compare = pb::Compare {
        result: pb::compare::CompareResult::Equal as i32,
        target: pb::compare::CompareTarget::Mod as i32,
        key: key.clone().into(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(0)),
        ..Default::default()
    };
    let put = pb::PutRequest { key: key.clone().into(), value: value(256), ..Default::default() };
    let get = pb::RangeRequest { key: key.into(), ..Default::default() };
    let op = |request| vec![pb::RequestOp { request: Some(request) }];
    pb::TxnRequest {
        compare: vec![compare],
        success: op(pb::request_op::Request::RequestPut(put)),
        failure: op(pb::request_op::Request::RequestRange(get)),
    }
}

fn all(limit: i64) -> pb::RangeRequest {
    let end = PREFIX.replace('/', "0");
    pb::RangeRequest { key: PREFIX.into(), range_end: end.into(), limit, ..Default::default() }
}

fn loaded_key(number: u64) -> String {
    format!("{PREFIX}{number:057}")
}

fn random_key() -> bytes::Bytes {
    format!("put/{:060x}", rand::random::<u128>()).into()
}

fn value(len: usize) -> bytes::Bytes {
    let mut value = vec![0; len];
    rand::rng().fill(&mut value[..]);
    value.into()
}

fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

fn seen(start: Instant, mut latencies_us: Vec<u32>) -> Seen {
    latencies_us.sort_unstable();
    Seen { requests: latencies_us.len() as u64, wall: start.elapsed(), latencies_us }
}
