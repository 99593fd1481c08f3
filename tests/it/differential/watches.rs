//! A watch stream, and its history in a form that two members can be compared by.
//!
//! How events are spread over responses depends on when a member got round to
//! sending them, so histories are compared event by event, a watch at a time.
//! What may not depend on time is checked as responses arrive: no revision is
//! split, revisions grow, and nothing comes after a progress that covers it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

use anyhow::Result;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use proto::mvccpb::Event;
use tests::Client;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

/// What happened to a watch.
#[derive(Debug, Clone, PartialEq)]
pub enum Happened {
    Created { revision: i64, ids: (u64, u64) },
    Event(Event),
    Canceled { created: bool, revision: i64, compacted: i64, reason: String },
    Progress { revision: i64 },
}

/// The history of each watch by its id; -1 is the stream itself.
pub type History = BTreeMap<i64, Vec<Happened>>;

/// An open stream.
pub struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    seen: Arc<Mutex<Seen>>,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    history: History,
    answers_to_create: usize,
    progresses: usize,
    /// Per watch: events up to here were said to be delivered.
    delivered: BTreeMap<i64, i64>,
    /// Per watch: the last revision of the last complete response.
    complete: BTreeMap<i64, i64>,
    ended: Option<String>,
    wrong: Vec<String>,
}

impl Stream {
    pub async fn open(client: &Client) -> Result<Stream> {
        // The driver waits for each answer, so a few places are plenty.
        let (requests, receiver) = mpsc::channel(16);
        let mut watch = client.watch.clone();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let into = Arc::clone(&seen);
        let reader = tokio::spawn(async move {
            let end = match watch.watch(ReceiverStream::new(receiver)).await {
                Err(status) => status.to_string(),
                Ok(answers) => {
                    let mut answers = answers.into_inner();
                    loop {
                        match answers.message().await {
                            Ok(Some(answer)) => into.lock().expect("no panic holds it").take(answer),
                            Ok(None) => break "ended".to_owned(),
                            Err(status) => break status.to_string(),
                        }
                    }
                }
            };
            into.lock().expect("no panic holds it").ended = Some(end);
        });
        Ok(Stream { requests, seen, reader })
    }

    pub async fn create(&self, create: WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(create)).await;
    }

    pub async fn cancel(&self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })).await;
    }

    pub async fn progress(&self) {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    }

    async fn send(&self, request: RequestUnion) {
        // A stream that has ended shows in its history.
        self.requests.send(WatchRequest { request_union: Some(request) }).await.ok();
    }

    /// Everything that happened so far, and what was wrong with it.
    pub fn history(&self) -> (History, Option<String>, Vec<String>) {
        let seen = self.seen.lock().expect("no panic holds it");
        (seen.history.clone(), seen.ended.clone(), seen.wrong.clone())
    }

    /// How many creations were answered.
    pub fn answers_to_create(&self) -> usize {
        self.seen.lock().expect("no panic holds it").answers_to_create
    }

    /// How many times the stream told its progress.
    pub fn progresses(&self) -> usize {
        self.seen.lock().expect("no panic holds it").progresses
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Seen {
    fn take(&mut self, answer: WatchResponse) {
        let id = answer.watch_id;
        let header = answer.header.unwrap_or_default();
        let revision = header.revision;
        if answer.created {
            self.answers_to_create += 1;
        }
        let happened = if answer.canceled {
            let (created, compacted) = (answer.created, answer.compact_revision);
            Some(Happened::Canceled { created, revision, compacted, reason: answer.cancel_reason })
        } else if answer.created {
            self.delivered.remove(&id);
            self.complete.remove(&id);
            Some(Happened::Created { revision, ids: (header.cluster_id, header.member_id) })
        } else if answer.events.is_empty() {
            if id == -1 {
                self.progresses += 1;
                let delivered = self.history.keys().map(|&id| (id, revision)).collect();
                self.delivered = delivered;
            }
            Some(Happened::Progress { revision })
        } else {
            None
        };
        self.history.entry(id).or_default().extend(happened);
        let mut before = self.complete.get(&id).copied().unwrap_or(0);
        for (at, event) in answer.events.into_iter().enumerate() {
            let mod_revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            let wrong = if mod_revision < before || (at == 0 && mod_revision == before) {
                Some(format!("came after {before}"))
            } else if mod_revision > revision {
                Some(format!("under a header of {revision}"))
            } else if self.delivered.get(&id).is_some_and(|&delivered| mod_revision <= delivered) {
                Some(format!("after the progress {:?}", self.delivered.get(&id)))
            } else {
                None
            };
            self.wrong.extend(wrong.map(|wrong| format!("watch {id}: an event of {mod_revision} {wrong}")));
            before = mod_revision;
            self.history.entry(id).or_default().push(Happened::Event(event));
        }
        if !answer.fragment {
            self.complete.insert(id, before);
        }
    }
}
