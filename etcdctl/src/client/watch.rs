//! Watches that share one stream, and survive its end.
//!
//! A stream that breaks is opened again and every watch goes on behind the last
//! event it has had: nothing is missed and nothing comes twice. The server answers
//! creations in order without naming them, so one is under way at a time.

use std::future::{Future as _, poll_fn};
use std::task::Poll;
use std::time::Duration;

use proto::etcdserverpb as pb;
use proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{Client, broken, describe};
use crate::log;

/// Pause before a broken stream is opened again.
const PAUSE: Duration = Duration::from_millis(100);
/// The id that a reply for all watches carries, and one for none.
const ALL: i64 = -1;

/// Whether a watch may outlive the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leader {
    /// The stream ends when the member has lost its leader.
    Required,
    /// It waits for the next leader.
    AnyTime,
}

/// Something to tell about one watch.
#[derive(Debug)]
pub struct Notice {
    /// Events, progress, or the end.
    pub reply: pb::WatchResponse,
    /// Why it ended, where the reply does not say.
    pub error: Option<String>,
}

impl Notice {
    /// Why the watch ends with this; `None` when it goes on.
    pub fn end(&self) -> Option<&str> {
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        self.reply.canceled.then(|| self.error.as_deref().unwrap_or(compacted))
    }
}

/// A handle to the watches; dropping it leaves them running as long as somebody listens to them.
#[derive(Debug)]
pub struct Stream {
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
enum Order {
    Watch(pb::WatchCreateRequest, mpsc::Sender<Notice>),
    Progress,
}

impl Stream {
    /// A stream that is opened with its first watch.
    pub fn start(client: Client, leader: Leader) -> Self {
        // Orders come from a keyboard or a pipe: the giver waits when they pile up.
        let (orders, receiver) = mpsc::channel(16);
        tokio::spawn(Watches { client, leader, watches: Vec::new(), line: None }.run(receiver));
        Self { orders }
    }

    /// Adds a watch. The receiver ends with it, and it with the receiver.
    pub async fn watch(&self, request: pb::WatchCreateRequest) -> mpsc::Receiver<Notice> {
        // A printer that is behind holds the stream up, and the server in turn.
        let (notices, receiver) = mpsc::channel(128);
        // The task takes orders as long as this handle exists.
        self.orders.send(Order::Watch(request, notices)).await.ok();
        receiver
    }

    /// Asks how far all watches have come.
    pub async fn request_progress(&self) {
        self.orders.send(Order::Progress).await.ok();
    }
}

/// One watch: what to ask for when the stream is opened again, and whom to tell.
struct Watch {
    request: pb::WatchCreateRequest,
    id: Option<i64>,
    notices: mpsc::Sender<Notice>,
}

/// Both directions of an open stream.
struct Line {
    requests: mpsc::Sender<pb::WatchRequest>,
    replies: mpsc::Receiver<Result<pb::WatchResponse, Status>>,
}

struct Watches {
    client: Client,
    leader: Leader,
    watches: Vec<Watch>,
    line: Option<Line>,
}

impl Watches {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut listening = true;
        while listening || !self.watches.is_empty() {
            let reply = async {
                match &mut self.line {
                    Some(line) => line.replies.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = orders.recv(), if listening => match order {
                    Some(order) => self.take(order).await,
                    None => listening = false,
                },
                reply = reply => match reply {
                    Some(Ok(reply)) => self.dispatch(reply).await,
                    Some(Err(status)) => self.lost(&status).await,
                    None => self.lost(&Status::unavailable("the watch stream ended")).await,
                },
                index = abandoned(&self.watches) => self.cancel(index).await,
            }
        }
    }

    async fn take(&mut self, order: Order) {
        match order {
            Order::Watch(request, notices) => {
                let idle = self.watches.iter().all(|watch| watch.id.is_some());
                self.watches.push(Watch { request, id: None, notices });
                if idle {
                    self.create_next().await;
                }
            }
            Order::Progress => {
                if self.line.is_some() {
                    self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
                }
            }
        }
    }

    /// Nobody listens to this watch any more.
    async fn cancel(&mut self, index: usize) {
        let watch = self.watches.remove(index);
        match watch.id {
            Some(watch_id) => {
                self.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })).await;
            }
            // Its creation may be under way, and the answer would be taken for the next one's.
            None => {
                self.line = None;
                self.watches.iter_mut().for_each(|watch| watch.id = None);
                self.create_next().await;
            }
        }
        if self.watches.is_empty() {
            self.line = None;
        }
    }

    /// Sends the first creation that has no answer yet.
    async fn create_next(&mut self) {
        let request = self.watches.iter().find(|watch| watch.id.is_none()).map(|watch| watch.request.clone());
        if let Some(request) = request {
            self.send(RequestUnion::CreateRequest(request)).await;
        }
    }

    async fn send(&mut self, request: RequestUnion) {
        let line = self.line.get_or_insert_with(|| open(self.client.clone(), self.leader));
        // A line that is broken tells so by its replies; all is asked for again then.
        line.requests.send(pb::WatchRequest { request_union: Some(request) }).await.ok();
    }

    async fn dispatch(&mut self, reply: pb::WatchResponse) {
        if reply.created {
            self.created(reply).await;
        } else if reply.canceled && reply.compact_revision == 0 {
            self.watches.retain(|watch| watch.id != Some(reply.watch_id));
        } else {
            for watch in &mut self.watches {
                if watch.id.is_some() && (reply.watch_id == ALL || watch.id == Some(reply.watch_id)) {
                    watch.tell(reply.clone()).await;
                }
            }
            if reply.canceled {
                self.watches.retain(|watch| watch.id != Some(reply.watch_id));
                let cancel = pb::WatchCancelRequest { watch_id: reply.watch_id };
                self.send(RequestUnion::CancelRequest(cancel)).await;
            }
        }
        if self.watches.is_empty() {
            self.line = None;
        }
    }

    async fn created(&mut self, reply: pb::WatchResponse) {
        let Some(index) = self.watches.iter().position(|watch| watch.id.is_none()) else { return };
        if reply.watch_id == ALL || (reply.canceled && !reply.cancel_reason.is_empty()) {
            self.watches.remove(index).end(reply.cancel_reason).await;
        } else {
            let watch = &mut self.watches[index];
            watch.id = Some(reply.watch_id);
            if watch.request.start_revision == 0 {
                watch.request.start_revision = reply.header.map_or(0, |header| header.revision) + 1;
            }
        }
        self.create_next().await;
    }

    /// The stream is gone: opens another, unless the server meant it.
    async fn lost(&mut self, status: &Status) {
        self.line = None;
        let passing = broken(status) || matches!(status.code(), Code::Unavailable | Code::Internal);
        if !passing || status.message() == "etcdserver: no leader" {
            for watch in self.watches.drain(..) {
                watch.end(describe(status)).await;
            }
            return;
        }
        log::warn("watch stream broke", "error", describe(status));
        self.client.disconnect();
        tokio::time::sleep(PAUSE).await;
        for watch in &mut self.watches {
            watch.id = None;
        }
        self.create_next().await;
    }
}

impl Watch {
    async fn tell(&mut self, reply: pb::WatchResponse) {
        let told = match reply.events.last().and_then(|event| event.kv.as_ref()) {
            Some(kv) => kv.mod_revision,
            None => reply.header.map_or(0, |header| header.revision),
        };
        self.request.start_revision = self.request.start_revision.max(told + 1);
        // Where nobody listens, the watch is about to be cancelled.
        self.notices.send(Notice { reply, error: None }).await.ok();
    }

    async fn end(self, reason: String) {
        let header = Some(pb::ResponseHeader::default());
        let reply = pb::WatchResponse { header, canceled: true, ..Default::default() };
        self.notices.send(Notice { reply, error: Some(reason) }).await.ok();
    }
}

/// The first watch that nobody listens to; waits for one.
async fn abandoned(watches: &[Watch]) -> usize {
    let mut ends: Vec<_> = watches.iter().map(|watch| Box::pin(watch.notices.closed())).collect();
    poll_fn(|context| {
        let ended = ends.iter_mut().position(|end| end.as_mut().poll(context).is_ready());
        ended.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Opens a stream. A server may answer only once it has a request, so this does not wait.
fn open(client: Client, leader: Leader) -> Line {
    // As many requests as come before the connection stands; the giver waits for more room.
    let (requests, outgoing) = mpsc::channel(16);
    // Replies wait for the dispatcher, and hold the server up when it is behind.
    let (incoming, replies) = mpsc::channel(16);
    tokio::spawn(async move {
        let relay = async {
            let mut stream = match client.watch(ReceiverStream::new(outgoing), leader).await {
                Ok(stream) => stream,
                Err(status) => return incoming.send(Err(status)).await.ok(),
            };
            while let Some(reply) = stream.message().await.transpose() {
                if incoming.send(reply).await.is_err() {
                    break;
                }
            }
            None
        };
        // A stream that nobody reads would stay open until its next event.
        tokio::select! {
            _ = relay => {}
            () = incoming.closed() => {}
        }
    });
    Line { requests, replies }
}
