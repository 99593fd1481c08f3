//! What comes in from the request threads: one queue for writes, one for read indexes.
//!
//! Each queue wakes its task once for all that came in since it last looked;
//! writes that queued up become one append, reads one round. On a member that
//! does not lead they become one message to the one that does.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mutants::Mutant;
use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::raft::ClientWriteResponse;
use parking_lot::Mutex;
use proto::peer as pb;
use state::Reply;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use super::Inner;
use super::status::Shared;
use super::to_leader::ToLeader;
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
/// So many reads in one round are a crowd …
const CROWD: usize = 3;
/// … and a round that takes so long shows that processors are busy: then the next one waits as long, but not longer
/// than [`LINGER_MAX`], so that more reads share it.
const BUSY: Duration = Duration::from_micros(400);
/// A leader that takes longer to say where the log stands is asked again.
const READ_TIME_MAX: Duration = Duration::from_millis(500);

pub(crate) type Written = Result<ClientWriteResponse<TypeConfig>, ClientWriteError<TypeConfig>>;
pub(crate) type Read = Result<u64, Unavailable>;

struct Proposal {
    command: Bytes,
    from: Proposer,
}

/// Who proposes.
enum Proposer {
    /// A client of this member.
    Here(oneshot::Sender<Written>),
    /// A member that takes this one for the leader of a term, and hears only of refusals.
    Member { origin: Origin, term: u64, refused: Box<dyn FnOnce(Unavailable) + Send> },
}

struct ReadRequest {
    answer: Answer<Read>,
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
    /// # Errors
    /// When it is closed or full; then the item comes back.
    fn push(&self, item: T, items_max: usize) -> Result<(), (Unavailable, T)> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err((Unavailable::Stopped, item));
        }
        if waiting.items.len() >= items_max {
            return Err((Unavailable::TooManyRequests, item));
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
        let (answer, receiver) = oneshot::channel();
        let queued = self.proposals.push(Proposal { command, from: Proposer::Here(answer) }, PROPOSALS_MAX);
        async move {
            queued.map_err(|(error, _)| error)?;
            match receiver.await {
                Ok(Ok(written)) => Ok(written.data),
                Ok(Err(error)) => Err(not_written(error)),
                Err(_) => Err(Unavailable::Stopped),
            }
        }
    }

    /// Takes a command that another member sent to the leader of a term. Called back only where no log has taken it.
    pub fn take(
        &self,
        command: Bytes,
        origin: Origin,
        term: u64,
        refused: impl FnOnce(Unavailable) + Send + 'static,
    ) {
        let from = Proposer::Member { origin, term, refused: Box::new(refused) };
        if let Err((error, proposal)) = self.proposals.push(Proposal { command, from }, PROPOSALS_MAX) {
            proposal.from.refuse(error);
        }
    }

    pub fn read_index(&self) -> impl Future<Output = Read> + Send + use<> {
        let (answer, receiver) = oneshot::channel();
        if mutants::on(Mutant::ReadWithoutIndex) {
            return futures::future::Either::Left(std::future::ready(Ok(0)));
        }
        let queued = self.reads.push(ReadRequest { answer: Answer::Here(answer), taken: false }, usize::MAX);
        let index = async move {
            queued.map_err(|(error, _)| error)?;
            receiver.await.unwrap_or(Err(Unavailable::Stopped))
        };
        futures::future::Either::Right(index)
    }

    /// As [`Requests::read_index`] for another member, so that nobody else is asked.
    pub fn take_read(&self, answer: impl FnOnce(Read) + Send + 'static) {
        let answer = Answer::Told(Box::new(answer));
        if let Err((error, read)) = self.reads.push(ReadRequest { answer, taken: true }, usize::MAX) {
            read.answer.send(Err(error));
        }
    }

    pub fn close(&self) {
        self.proposals.close();
        self.reads.close();
    }
}

impl Proposer {
    fn refuse(self, error: Unavailable) {
        match self {
            // It learns that the member stops.
            Self::Here(answer) => drop(answer),
            Self::Member { refused, .. } => refused(error),
        }
    }
}

/// What the two tasks work with.
#[derive(Clone)]
pub(crate) struct Way {
    pub raft: Inner,
    pub to_leader: Arc<ToLeader>,
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
            let here = proposals.extract_if(.., |proposal| matches!(proposal.from, Proposer::Here(_)));
            let here = here.filter_map(|proposal| match proposal.from {
                Proposer::Here(answer) => Some((proposal.command, answer)),
                Proposer::Member { .. } => None,
            });
            forward_all(&way, leader, term, here, room.ok().and_then(Result::ok));
        }
        let led = way.status.leader().0 != 0;
        for Proposal { command: bytes, from } in proposals.drain(..) {
            // An error drops the answer: whoever waits learns that the member stops.
            let sent = match from {
                // Whoever waited may have given up.
                Proposer::Here(answer) if !led => {
                    drop(answer.send(Err(ClientWriteError::ForwardToLeader(ForwardToLeader::empty()))));
                    continue;
                }
                Proposer::Member { refused, .. } if !led => {
                    refused(Unavailable::NoLeader);
                    continue;
                }
                Proposer::Here(answer) => {
                    let command = Command { origin: None, bytes };
                    way.raft.client_write_ff(command, Some(Answer::Here(answer))).await
                }
                Proposer::Member { origin, term, refused } => {
                    let command = Command { origin: Some(origin), bytes };
                    let answer = Answer::Told(Box::new(|written: Written| {
                        if let Err(error) = written {
                            refused(not_written(error));
                        }
                    }));
                    way.raft.write(command).with_leader(Term::new(term)).responder(answer).await
                }
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "a proposal came too late");
                return;
            }
        }
    }
}

/// Sends proposals to the leader, in messages of a moderate size. Where no answer comes, those who wait go on waiting:
/// they may be in the log.
fn forward_all(
    way: &Way,
    leader: u64,
    term: u64,
    proposals: impl Iterator<Item = (Bytes, oneshot::Sender<Written>)>,
    mut room: Option<OwnedSemaphorePermit>,
) {
    let mut message = pb::ProposeRequest { proposals: Vec::new(), term };
    let mut bytes = 0;
    for (command, answer) in proposals {
        bytes += command.len();
        // The message's room is free again once its first proposal is answered: they all are at about the same time.
        let number = way.status.forwarded.expect(term, answer, room.take());
        message.proposals.push(pb::Proposal { number, command });
        if bytes >= FORWARD_BYTES || message.proposals.len() >= FORWARD_PROPOSALS {
            bytes = 0;
            let rest = pb::ProposeRequest { proposals: Vec::new(), term };
            forward(way, leader, std::mem::replace(&mut message, rest));
        }
    }
    if !message.proposals.is_empty() {
        forward(way, leader, message);
    }
}

fn forward(way: &Way, leader: u64, message: pb::ProposeRequest) {
    let numbers: Vec<u64> = message.proposals.iter().map(|proposal| proposal.number).collect();
    if let Err(status) = way.to_leader.propose(leader, message) {
        tracing::debug!(leader, %status, "proposals were not sent");
        for number in numbers {
            let refused = pb::Refused::NoLeader.into();
            way.status.forwarded.refused(pb::Refusal { number, refused });
        }
    }
}

/// One round in flight; who comes meanwhile shares the next.
pub(crate) async fn read_all(requests: Arc<Requests>, way: Way) {
    let mut waiting = Vec::new();
    while requests.reads.drain(&mut waiting).await {
        let elsewhere = way.elsewhere();
        if let Some((leader, _)) = elsewhere {
            for read in waiting.extract_if(.., |read| read.taken) {
                read.answer.send(Err(Unavailable::NotLeader { leader }));
            }
            if waiting.is_empty() {
                continue;
            }
        }
        let (began, crowd) = (Instant::now(), waiting.len() >= CROWD);
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
        let took = began.elapsed();
        for read in waiting.drain(..) {
            read.answer.send(result);
        }
        if crowd && took >= BUSY {
            sleep(took.min(LINGER_MAX)).await;
        }
    }
}

async fn ask_leader(way: &Way, leader: u64) -> Read {
    match way.to_leader.read_index(leader, READ_TIME_MAX).await {
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
