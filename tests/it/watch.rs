//! Watches in numbers, and clients that do not read.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    RequestOp, TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse, request_op::Request,
};
use tests::{Client, Member, Options};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::program;

/// A member may be slow; it may not be stuck.
const PATIENCE: Duration = Duration::from_secs(60);

struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Stream {
    /// Opens a stream with its first watch: a server may say nothing, not even yes, before it is asked something.
    async fn open(client: &Client, first: WatchCreateRequest) -> Result<Stream> {
        // Room for what a test sends before it reads.
        let (requests, receiver) = mpsc::channel(1_000);
        requests.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(first)) }).await?;
        let answers = client.watch.clone().watch(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Stream { requests, answers })
    }

    async fn create(&self, create: WatchCreateRequest) -> Result<()> {
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        Ok(self.requests.send(request).await?)
    }

    async fn next(&mut self) -> Result<WatchResponse> {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.context("nothing came")?;
        answer?.context("the stream ended")
    }
}

fn watch(key: impl Into<Vec<u8>>) -> WatchCreateRequest {
    WatchCreateRequest { key: key.into().into(), ..WatchCreateRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_watches_share_one_stream() -> Result<()> {
    const WATCHES: i64 = 100_000;
    let member = Member::start(program()).await?;
    let client = member.connect().await?;
    let Stream { requests, answers } = Stream::open(&client, watch("w/000000")).await?;
    let sender = tokio::spawn(async move {
        for at in 1..WATCHES {
            let request = RequestUnion::CreateRequest(watch(format!("w/{at:06}")));
            if requests.send(WatchRequest { request_union: Some(request) }).await.is_err() {
                break;
            }
        }
        requests
    });
    let mut stream = Stream { requests: mpsc::channel(1).0, answers };
    for at in 0..WATCHES {
        let answer = stream.next().await.with_context(|| format!("watch {at}"))?;
        assert!(answer.created && !answer.canceled && answer.watch_id == at, "{at}: {answer:?}");
    }
    stream.requests = sender.await?;
    for at in [0, 1, WATCHES / 2, WATCHES - 1] {
        client.put(format!("w/{at:06}"), "x").await?;
        let answer = stream.next().await?;
        assert_eq!((answer.watch_id, answer.events.len()), (at, 1));
    }
    // A write that touches many of them reaches each once.
    let puts = (0..100).map(|at| {
        let put =
            proto::etcdserverpb::PutRequest { key: format!("w/{:06}", at * 7).into(), ..Default::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    });
    client.kv.clone().txn(TxnRequest { success: puts.collect(), ..TxnRequest::default() }).await?;
    let mut reached = Vec::new();
    for _ in 0..100 {
        reached.push(stream.next().await?.watch_id);
    }
    reached.sort_unstable();
    assert!(reached.iter().copied().eq((0..100).map(|at| at * 7)), "{reached:?}");
    Ok(())
}

/// Events for a client that does not read must neither fill the memory nor get lost nor stop the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_costs_nothing_and_loses_nothing() -> Result<()> {
    const WATCHES: usize = 4;
    const EVENTS: usize = 2_000;
    const VALUE: usize = 32 * 1024;
    let member = Member::start(program()).await?;
    let (client, slow) = (member.connect().await?, member.connect().await?);
    let mut stream = Stream::open(&slow, watch("same")).await?;
    for _ in 1..WATCHES {
        stream.create(watch("same")).await?;
    }
    for _ in 0..WATCHES {
        assert!(stream.next().await?.created);
    }
    let value = vec![b'x'; VALUE];
    for _ in 0..200 {
        client.put("same", value.clone()).await?;
    }
    let before = member.resident_bytes()?;
    for _ in 200..EVENTS {
        client.put("same", value.clone()).await?;
    }
    let grown = member.resident_bytes()?.saturating_sub(before) >> 20;
    if program().is_ours() {
        ensure!(
            grown < 512,
            "memory grew by {grown} MiB for {} MiB of events a watch",
            (EVENTS * VALUE) >> 20
        );
    }
    // It begins to read: every event of every watch is there, once and in order.
    let mut next = [2_i64; WATCHES];
    while next.iter().any(|&next| next < 2 + EVENTS as i64) {
        let answer = stream.next().await?;
        for event in answer.events {
            let at = usize::try_from(answer.watch_id)?;
            let revision = event.kv.context("an event has a pair")?.mod_revision;
            ensure!(revision == next[at], "watch {at}: {revision} instead of {}", next[at]);
            next[at] += 1;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_responses_are_fragmented_on_request() -> Result<()> {
    let options = Options::new(program()).arg("--max-request-bytes=8388608");
    let member = Member::start_with(options).await?;
    let client = member.connect().await?;
    let create = WatchCreateRequest { range_end: "b".into(), fragment: true, ..watch("a") };
    let mut stream = Stream::open(&client, create).await?;
    assert!(stream.next().await?.created);
    let puts = (0..4).map(|at| {
        let value = vec![b'x'; 1_900_000].into();
        let put =
            proto::etcdserverpb::PutRequest { key: format!("a{at}").into(), value, ..Default::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    });
    client.kv.clone().txn(TxnRequest { success: puts.collect(), ..TxnRequest::default() }).await?;
    // 7.6 MB are below the limit of this member, 8 MiB and half a one.
    let whole = stream.next().await?;
    assert_eq!((whole.events.len(), whole.fragment), (4, false));
    drop(stream);

    let create = WatchCreateRequest { range_end: "b".into(), fragment: true, prev_kv: true, ..watch("a") };
    let mut stream = Stream::open(&client, create).await?;
    assert!(stream.next().await?.created);
    let puts = (0..4).map(|at| {
        let value = vec![b'y'; 1_900_000].into();
        let put =
            proto::etcdserverpb::PutRequest { key: format!("a{at}").into(), value, ..Default::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    });
    client.kv.clone().txn(TxnRequest { success: puts.collect(), ..TxnRequest::default() }).await?;
    let (mut events, mut parts) = (0, 0);
    loop {
        let part = stream.next().await?;
        events += part.events.len();
        parts += 1;
        if !part.fragment {
            break;
        }
    }
    assert_eq!(events, 4);
    assert!(parts > 1, "15 MB came in one part");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_comes_by_itself_when_asked_for() -> Result<()> {
    let member =
        Member::start_with(Options::new(program()).arg("--watch-progress-notify-interval=200ms")).await?;
    let client = member.connect().await?;
    let revision = client.put("other", "").await?.revision;
    let create = WatchCreateRequest { progress_notify: true, ..watch("k") };
    let mut stream = Stream::open(&client, create).await?;
    assert!(stream.next().await?.created);
    let progress = stream.next().await?;
    assert!(progress.events.is_empty() && !progress.canceled && progress.watch_id == 0);
    assert_eq!(progress.header.context("progress tells its revision in the header")?.revision, revision);
    Ok(())
}

/// The client has nothing more to ask, and still listens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_stream_goes_on() -> Result<()> {
    let member = Member::start(program()).await?;
    let client = member.connect().await?;
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch("k"))) };
    let answers = client.watch.clone().watch(tokio_stream::once(request)).await?.into_inner();
    let mut stream = Stream { requests: mpsc::channel(1).0, answers };
    assert!(stream.next().await?.created);
    client.put("k", "v").await?;
    assert_eq!(stream.next().await?.events.len(), 1);
    Ok(())
}
