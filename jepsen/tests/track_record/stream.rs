//! A watch stream that is read when the scenario says so, and what it was told.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use proto::mvccpb::event::EventType;
use tests::Client;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// An event that is not there by now is lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stream of watches.
pub struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Stream {
    /// Opens a stream with its first watch.
    pub async fn open(client: &Client, first: WatchCreateRequest) -> Result<Stream> {
        let (requests, receiver) = mpsc::channel(1_000);
        requests.send(request(RequestUnion::CreateRequest(first))).await?;
        let answers = client.watch.clone().watch(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Stream { requests, answers })
    }

    /// Asks for one more watch.
    pub async fn create(&self, create: WatchCreateRequest) -> Result<()> {
        Ok(self.requests.send(request(RequestUnion::CreateRequest(create))).await?)
    }

    /// Asks to end a watch.
    pub async fn cancel(&self, watch_id: i64) -> Result<()> {
        Ok(self.requests.send(request(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))).await?)
    }

    /// Asks how far the stream is.
    pub async fn ask_progress(&self) -> Result<()> {
        Ok(self.requests.send(request(RequestUnion::ProgressRequest(WatchProgressRequest {}))).await?)
    }

    /// What comes next.
    pub async fn next(&mut self) -> Result<WatchResponse> {
        let answer = timeout(PATIENCE, self.answers.message()).await.context("nothing came")?;
        answer?.context("the stream ended")
    }

    /// What comes next, if it comes soon.
    pub async fn soon(&mut self, limit: Duration) -> Result<Option<WatchResponse>> {
        match timeout(limit, self.answers.message()).await {
            Err(_) => Ok(None),
            Ok(answer) => Ok(Some(answer?.context("the stream ended")?)),
        }
    }
}

fn request(union: RequestUnion) -> WatchRequest {
    WatchRequest { request_union: Some(union) }
}

/// A watch of all keys that begin with `prefix`, from a revision on.
pub fn under(prefix: &str, start_revision: i64) -> WatchCreateRequest {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix is not empty") += 1;
    WatchCreateRequest {
        key: prefix.as_bytes().to_vec().into(),
        range_end: end.into(),
        start_revision,
        ..WatchCreateRequest::default()
    }
}

/// What a watch was told of keys of which every revision changes exactly one.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// The revision of which it must be told next.
    pub next: i64,
}

impl Told {
    /// Takes an answer: its events must be the next ones, and progress no further than what came before.
    pub fn hear(&mut self, answer: &WatchResponse) -> Result<()> {
        for event in &answer.events {
            let told = event.kv.as_ref().map_or(0, |pair| pair.mod_revision);
            ensure!(told == self.next, "told of revision {told} where {} is the next", self.next);
            self.next += 1;
        }
        if is_progress(answer) {
            let progress = answer.header.as_ref().map_or(0, |header| header.revision);
            ensure!(progress < self.next, "progress {progress}, but {} was not told", self.next);
        }
        Ok(())
    }
}

/// Whether an answer tells progress and nothing else.
pub fn is_progress(answer: &WatchResponse) -> bool {
    !answer.created && !answer.canceled && answer.events.is_empty()
}

/// An answer's events, as revisions, keys and whether they are deletions.
pub fn events(answer: &WatchResponse) -> Vec<(i64, String, bool)> {
    let event = |event: &proto::mvccpb::Event| {
        let pair = event.kv.clone().unwrap_or_default();
        let key = String::from_utf8_lossy(&pair.key).into_owned();
        (pair.mod_revision, key, event.r#type == EventType::Delete as i32)
    };
    answer.events.iter().map(event).collect()
}
