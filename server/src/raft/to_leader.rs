//! What this member has for the one that leads, over one standing stream.
//!
//! A stream costs a message a frame; a call of its own costs each three. It is
//! opened when there is something to send, goes to one leader, and is replaced
//! when another leads or when it breaks. What was sent over a broken one may be
//! in the leader's log or not: those who wait for it go on waiting, as
//! [`super::forward`] says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use proto::peer as pb;
use proto::peer::lead_request::Request;
use proto::peer::lead_response::Response;
use proto::peer::peer_client::PeerClient;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::peers::{Link, Peers, Way};
use super::status::Shared;

/// Messages that may wait for the connection. Beyond that nothing is sent, and whoever asks is told so.
const REQUESTS_MAX: usize = 1024;

/// The way to whoever leads.
pub(crate) struct ToLeader {
    peers: Peers,
    status: Arc<Shared>,
    open: Mutex<Option<Arc<Open>>>,
    /// Of the next read.
    number: AtomicU64,
}

struct Open {
    link: Arc<Link>,
    requests: mpsc::Sender<pb::LeadRequest>,
    /// The read under way, by its number: there is one at a time.
    read: Mutex<Option<(u64, oneshot::Sender<pb::ReadIndexResponse>)>>,
}

impl ToLeader {
    pub fn new(peers: Peers, status: Arc<Shared>) -> Self {
        Self { peers, status, open: Mutex::default(), number: AtomicU64::new(0) }
    }

    /// Sends proposals, which are expected already.
    ///
    /// # Errors
    /// When they were not sent: no log will ever have them.
    pub fn propose(self: &Arc<Self>, leader: u64, message: pb::ProposeRequest) -> Result<(), Status> {
        send(&*self.open(leader)?, Request::Propose(message))
    }

    /// Asks from which index on a read is safe.
    ///
    /// # Errors
    /// When the leader cannot be asked, or does not answer in time.
    pub async fn read_index(
        self: &Arc<Self>,
        leader: u64,
        limit: Duration,
    ) -> Result<pb::ReadIndexResponse, Status> {
        let open = self.open(leader)?;
        let (answer, receiver) = oneshot::channel();
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        *open.read.lock() = Some((number, answer));
        send(&open, Request::ReadIndex(pb::ReadIndexRequest { number }))?;
        match tokio::time::timeout(limit, receiver).await {
            Ok(answer) => answer.map_err(|_| Status::unavailable("the stream to the leader has ended")),
            Err(_elapsed) => {
                let status = Status::deadline_exceeded(format!("no answer from member {leader:x}"));
                self.peers.failed(&open.link, Way::Control, &status);
                Err(status)
            }
        }
    }

    /// The stream to this leader, a new one if need be.
    fn open(self: &Arc<Self>, leader: u64) -> Result<Arc<Open>, Status> {
        let link = self.peers.link(leader)?;
        let mut current = self.open.lock();
        if let Some(open) = &*current
            && Arc::ptr_eq(&open.link, &link)
        {
            return Ok(Arc::clone(open));
        }
        let client = self.peers.client(&link, Way::Control)?;
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let open = Arc::new(Open { link, requests, read: Mutex::default() });
        self.peers.runtime().spawn(Arc::clone(self).listen(Arc::downgrade(&open), client, receiver));
        *current = Some(Arc::clone(&open));
        Ok(open)
    }

    /// Hears what the leader answers until the stream ends.
    async fn listen(
        self: Arc<Self>,
        open: Weak<Open>,
        client: PeerClient<Channel>,
        requests: mpsc::Receiver<pb::LeadRequest>,
    ) {
        let Some(link) = open.upgrade().map(|open| Arc::clone(&open.link)) else { return };
        let ended = self.hear(&open, &link, client, requests).await;
        let mut current = self.open.lock();
        if let Some(open) = open.upgrade() {
            current.take_if(|current| Arc::ptr_eq(current, &open));
            // Whoever reads asks again.
            open.read.lock().take();
        }
        drop(current);
        self.status.forwarded.unanswered();
        if let Err(status) = ended {
            tracing::debug!(peer = link.name(), %status, "the stream to the leader has ended");
            self.peers.failed(&link, Way::Control, &status);
        }
    }

    async fn hear(
        &self,
        open: &Weak<Open>,
        link: &Link,
        mut client: PeerClient<Channel>,
        requests: mpsc::Receiver<pb::LeadRequest>,
    ) -> Result<(), Status> {
        let mut answers = client.lead(link.request(ReceiverStream::new(requests))).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            match answer.response {
                Some(Response::ReadIndex(answer)) => {
                    let Some(open) = open.upgrade() else { return Ok(()) };
                    let waiter = open.read.lock().take_if(|(number, _)| *number == answer.number);
                    if let Some((_, waiter)) = waiter {
                        // Whoever asked may have stopped waiting.
                        waiter.send(answer).ok();
                    }
                }
                Some(Response::Refusal(refusal)) => self.status.forwarded.refused(refusal),
                None => return Err(Status::invalid_argument("the leader answers something unknown")),
            }
        }
        Ok(())
    }
}

fn send(open: &Open, request: Request) -> Result<(), Status> {
    let sent = open.requests.try_send(pb::LeadRequest { request: Some(request) });
    sent.map_err(|error| Status::unavailable(format!("nothing can be sent to the leader: {error}")))
}
