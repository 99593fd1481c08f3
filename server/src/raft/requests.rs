//! What comes in from the request threads: one queue for writes, one for read indexes.
//!
//! Each queue wakes its task once for all that came in since it last looked;
//! writes that queued up become one append, reads one round. On a member that
//! does not lead they become one message to the one that does.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::raft::ClientWriteResponse;
use parking_lot::Mutex;
use proto::peer as pb;
use state::Reply;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::Inner;
use super::peers::Peers;
use super::status::Shared;
use super::types::{Answer, Command, LogId, Origin, Term, TypeConfig, state_log_id};
use crate::error::Unavailable;

/// Proposals that may wait for the proposer; beyond that they are refused.
const PROPOSALS_MAX: usize = 65_536;
/// A message to the leader is sent once it has so many bytes of commands …
const FORWARD_BYTES: usize = 1 << 20;
/// … or so many commands.
const FORWARD_PROPOSALS: usize = 1024;
/// Messages to the leader that may be under way before further proposals wait for each other …
const FORWARDS_IN_FLIGHT: usize = 2;
/// … but not longer than this.
const LINGER_MAX: Duration = Duration::from_millis(3);
/// After this time nobody waits for a forwarded proposal any more.
const FORWARD_TIME_MAX: Duration = Duration::from_secs(60);
/// A leader that takes longer to say where the log stands is asked again.
const READ_TIME_MAX: Duration = Duration::from_millis(500);

pub(crate) type Written = Result<ClientWriteResponse<TypeConfig>, ClientWriteError<TypeConfig>>;
pub(crate) type Read = Result<u64, Unavailable>;

struct Proposal {
    command: Bytes,
    answer: oneshot::Sender<Written>,
    /// For whom this member, as the leader of a term, takes it into its log.
    taken_for: Option<(Origin, u64)>,
}

struct ReadRequest {
    answer: oneshot::Sender<Read>,
    /// Asked by another member: not to be passed on.
    taken: bool,
}

/// A queue many push to and one task drains.
struct Inbox<T> {
    waiting: Mutex<Waiting<T>>,
    filled: Notify,
}

struct Waiting<T> {
    items: Vec<T>,
    closed: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self { waiting: Mutex::new(Waiting { items: Vec::new(), closed: false }), filled: Notify::new() }
    }
}

impl<T> Inbox<T> {
    fn push(&self, item: T, items_max: usize) -> Result<(), Unavailable> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(Unavailable::Stopped);
        }
        if waiting.items.len() >= items_max {
            return Err(Unavailable::TooManyRequests);
        }
        waiting.items.push(item);
        let first = waiting.items.len() == 1;
        drop(waiting);
        if first {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes all that waits; `false` once closed.
    async fn drain(&self, into: &mut Vec<T>) -> bool {
        loop {
            {
                let mut waiting = self.waiting.lock();
                std::mem::swap(&mut waiting.items, into);
                if waiting.closed {
                    return false;
                }
            }
            if !into.is_empty() {
                return true;
            }
            self.filled.notified().await;
        }
    }

    /// Takes what waits beside what was taken.
    fn drain_now(&self, into: &mut Vec<T>) {
        into.append(&mut self.waiting.lock().items);
    }

    fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        waiting.items.clear();
        drop(waiting);
        self.filled.notify_one();
    }
}

#[derive(Default)]
pub(crate) struct Requests {
    proposals: Inbox<Proposal>,
    reads: Inbox<ReadRequest>,
}

impl Requests {
    pub fn propose(&self, command: Bytes) -> impl Future<Output = Result<Reply, Unavailable>> + Send + use<> {
        let written = self.push(command, None);
        async move { written.await.map(|written| written.data) }
    }

    /// Takes a command that another member sent to the leader of a term; resolves once it is committed.
    pub fn take(
        &self,
        command: Bytes,
        origin: Origin,
        term: u64,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send + use<> {
        let written = self.push(command, Some((origin, term)));
        async move { written.await.map(|_| ()) }
    }

    fn push(
        &self,
        command: Bytes,
        taken_for: Option<(Origin, u64)>,
    ) -> impl Future<Output = Result<ClientWriteResponse<TypeConfig>, Unavailable>> + Send + use<> {
        let (answer, receiver) = oneshot::channel();
        let queued = self.proposals.push(Proposal { command, answer, taken_for }, PROPOSALS_MAX);
        async move {
            queued?;
            match receiver.await {
                Ok(Ok(written)) => Ok(written),
                Ok(Err(error)) => Err(not_written(error)),
                Err(_) => Err(Unavailable::Stopped),
            }
        }
    }

    /// `taken`: for another member, so that nobody else is asked.
    pub fn read_index(&self, taken: bool) -> impl Future<Output = Read> + Send + use<> {
        let (answer, receiver) = oneshot::channel();
        let queued = self.reads.push(ReadRequest { answer, taken }, usize::MAX);
        async move {
            queued?;
            receiver.await.unwrap_or(Err(Unavailable::Stopped))
        }
    }

    pub fn close(&self) {
        self.proposals.close();
        self.reads.close();
    }
}

/// What the two tasks work with.
#[derive(Clone)]
pub(crate) struct Way {
    pub raft: Inner,
    pub peers: Peers,
    pub status: Arc<Shared>,
    pub member_id: u64,
}

impl Way {
    /// The leader, and the term in which it leads, where that is another member.
    fn elsewhere(&self) -> Option<(u64, u64)> {
        let (leader, term) = self.status.leader();
        (leader != 0 && leader != self.member_id).then_some((leader, term))
    }
}

/// Hands proposals to openraft, which makes one append of all it finds, or to the member that leads.
pub(crate) async fn propose_all(requests: Arc<Requests>, way: Way) {
    let mut proposals = Vec::new();
    let window = Arc::new(Semaphore::new(FORWARDS_IN_FLIGHT));
    while requests.proposals.drain(&mut proposals).await {
        if let Some((leader, term)) = way.elsewhere() {
            // What comes while messages are under way goes into the next one; but a leader that hangs is not waited for.
            let room = timeout(LINGER_MAX, Arc::clone(&window).acquire_owned()).await;
            requests.proposals.drain_now(&mut proposals);
            let own = proposals.extract_if(.., |proposal| proposal.taken_for.is_none());
            forward_all(&way, leader, term, own, room.ok().and_then(Result::ok));
        }
        let led = way.status.leader().0 != 0;
        for Proposal { command: bytes, answer, taken_for } in proposals.drain(..) {
            if !led {
                // Whoever waited may have given up.
                answer.send(Err(ClientWriteError::ForwardToLeader(ForwardToLeader::empty()))).ok();
                continue;
            }
            // An error drops the answer: whoever waits learns that the member stops.
            let sent = match taken_for {
                None => way.raft.client_write_ff(Command { origin: None, bytes }, Some(Answer(answer))).await,
                Some((origin, term)) => {
                    let command = Command { origin: Some(origin), bytes };
                    way.raft.write(command).with_leader(Term::new(term)).responder(Answer(answer)).await
                }
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "a proposal came too late");
                return;
            }
        }
    }
}

/// Sends proposals to the leader, in messages of a moderate size.
fn forward_all(
    way: &Way,
    leader: u64,
    term: u64,
    proposals: impl Iterator<Item = Proposal>,
    room: Option<OwnedSemaphorePermit>,
) {
    let mut message = pb::ProposeRequest { proposals: Vec::new(), term };
    let mut bytes = 0;
    for Proposal { command, answer, .. } in proposals {
        bytes += command.len();
        let number = way.status.forwarded.expect(term, answer);
        message.proposals.push(pb::Proposal { number, command });
        if bytes >= FORWARD_BYTES || message.proposals.len() >= FORWARD_PROPOSALS {
            bytes = 0;
            let full = std::mem::replace(&mut message, pb::ProposeRequest { proposals: Vec::new(), term });
            tokio::spawn(forward(way.clone(), leader, full, None));
        }
    }
    if !message.proposals.is_empty() {
        tokio::spawn(forward(way.clone(), leader, message, room));
    }
}

/// Sends one message of proposals. Where no answer comes, those who wait go on waiting: they may be in the log.
async fn forward(way: Way, leader: u64, message: pb::ProposeRequest, _room: Option<OwnedSemaphorePermit>) {
    let numbers: Vec<u64> = message.proposals.iter().map(|proposal| proposal.number).collect();
    let answer = way
        .peers
        .control(leader, FORWARD_TIME_MAX, message, |mut client, r| async move { client.propose(r).await });
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(status) => {
            tracing::debug!(leader, %status, "no answer to forwarded proposals");
            return;
        }
    };
    for (number, outcome) in numbers.into_iter().zip(answer.outcomes) {
        let error = match pb::Refused::try_from(outcome) {
            Ok(pb::Refused::NotRefused) => continue,
            Ok(pb::Refused::NoLeader | pb::Refused::NotLeader | pb::Refused::TooMany) => {
                ClientWriteError::ForwardToLeader(ForwardToLeader::empty())
            }
            _ => ClientWriteError::LogEntryDiscarded(ForwardToLeader::empty()),
        };
        way.status.forwarded.refuse(number, error);
    }
}

/// One round in flight; who comes meanwhile shares the next.
pub(crate) async fn read_all(requests: Arc<Requests>, way: Way) {
    let mut waiting = Vec::new();
    while requests.reads.drain(&mut waiting).await {
        let elsewhere = way.elsewhere();
        if let Some((leader, _)) = elsewhere {
            for read in waiting.extract_if(.., |read| read.taken) {
                read.answer.send(Err(Unavailable::NotLeader { leader })).ok();
            }
            if waiting.is_empty() {
                continue;
            }
        }
        let result = match elsewhere {
            Some((leader, _)) => ask_leader(&way, leader).await,
            None if way.status.leader().0 == 0 => Err(Unavailable::NoLeader),
            None => match timeout(READ_TIME_MAX, way.raft.get_read_linearizer(ReadPolicy::ReadIndex)).await {
                Ok(Ok(linearizer)) => Ok(state_log_id(linearizer.read_log_id().log_id()).index),
                Ok(Err(error)) => Err(not_read(error)),
                // A new round costs less than waiting for one that was lost.
                Err(_elapsed) => Err(Unavailable::NoLeader),
            },
        };
        for read in waiting.drain(..) {
            // Whoever asked may have stopped waiting.
            read.answer.send(result).ok();
        }
    }
}

async fn ask_leader(way: &Way, leader: u64) -> Read {
    let answer =
        way.peers.control(leader, READ_TIME_MAX, pb::ReadIndexRequest {}, |mut client, r| async move {
            client.read_index(r).await
        });
    match answer.await {
        Ok(answer) if answer.refused() == pb::Refused::NotRefused => Ok(answer.index),
        // Not at once again, nor for ever: the leader may be gone, and another one on its way.
        Ok(_) | Err(_) => Err(Unavailable::NoLeader),
    }
}

/// An applied entry as openraft reports it.
pub(crate) fn written(log_id: LogId, data: Reply) -> ClientWriteResponse<TypeConfig> {
    ClientWriteResponse { log_id, data, membership: None }
}

fn not_written(error: ClientWriteError<TypeConfig>) -> Unavailable {
    match error {
        ClientWriteError::ForwardToLeader(forward) => elsewhere(&forward),
        ClientWriteError::LogEntryDiscarded(_) => Unavailable::LeaderChanged,
        // Only of membership changes and of writes with a precondition.
        ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_) => {
            Unavailable::TimedOut
        }
    }
}

fn not_read(error: RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> Unavailable {
    match error {
        RaftError::Fatal(_) => Unavailable::Stopped,
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => elsewhere(&forward),
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => Unavailable::TimedOut,
    }
}

fn elsewhere(forward: &ForwardToLeader<TypeConfig>) -> Unavailable {
    forward.leader_id.map_or(Unavailable::NoLeader, |leader| Unavailable::NotLeader { leader })
}
