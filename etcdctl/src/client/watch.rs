//! Watches that share one stream, and survive its end.
//!
//! A stream that breaks is opened again and every watch goes on behind the last
//! event it has had: nothing is missed and nothing comes twice. The server answers
//! creations in order without naming them, so one is under way at a time.

use std::time::Duration;

use proto::etcdserverpb as pb;
use proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::client::{Client, broken, describe};
use crate::log;

/// Pause before a broken stream is opened again.
const PAUSE: Duration = Duration::from_millis(100);
/// The id that a reply for all watches carries, and one for none.
const ALL: i64 = -1;

/// Something to show for one watch.
#[derive(Debug)]
pub struct Notice {
    /// Events, progress, or the end.
    pub reply: pb::WatchResponse,
    /// Why it ended, where the reply does not say.
    pub error: Option<String>,
}

/// A handle to the watches; dropping it leaves them running.
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
    pub fn start(client: Client) -> Self {
        // Orders come from a keyboard or a pipe: the giver waits when they pile up.
        let (orders, receiver) = mpsc::channel(16);
        tokio::spawn(Watches { client, watches: Vec::new(), line: None }.run(receiver));
        Self { orders }
    }

    /// Adds a watch. The receiver ends with it.
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

    /// Sends the first creation that has no answer yet.
    async fn create_next(&mut self) {
        let request = self.watches.iter().find(|watch| watch.id.is_none()).map(|watch| watch.request.clone());
        if let Some(request) = request {
            self.send(RequestUnion::CreateRequest(request)).await;
        }
    }

    async fn send(&mut self, request: RequestUnion) {
        let line = self.line.get_or_insert_with(|| open(self.client.clone()));
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
        // Nobody listens only when the command is ending.
        self.notices.send(Notice { reply, error: None }).await.ok();
    }

    async fn end(self, reason: String) {
        let header = Some(pb::ResponseHeader::default());
        let reply = pb::WatchResponse { header, canceled: true, ..Default::default() };
        self.notices.send(Notice { reply, error: Some(reason) }).await.ok();
    }
}

/// Opens a stream. A server may answer only once it has a request, so this does not wait.
fn open(client: Client) -> Line {
    // As many requests as come before the connection stands; the giver waits for more room.
    let (requests, outgoing) = mpsc::channel(16);
    // Replies wait for the dispatcher, and hold the server up when it is behind.
    let (incoming, replies) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut stream = match client.watch(ReceiverStream::new(outgoing)).await {
            Ok(stream) => stream,
            Err(status) => {
                incoming.send(Err(status)).await.ok();
                return;
            }
        };
        while let Some(reply) = stream.message().await.transpose() {
            if incoming.send(reply).await.is_err() {
                return;
            }
        }
    });
    Line { requests, replies }
}
