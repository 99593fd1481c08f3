//! What comes in from the request threads: one queue for writes, one for read indexes.
//!
//! Each queue wakes its task once for all that came in since it last looked;
//! writes that queued up become one append, reads one round.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::raft::ClientWriteResponse;
use parking_lot::Mutex;
use state::Reply;
use tokio::sync::{Notify, oneshot};

use super::Inner;
use super::types::{Answer, Command, TypeConfig, state_log_id};
use crate::error::Unavailable;

/// Proposals that may wait for the proposer; beyond that they are refused.
const PROPOSALS_MAX: usize = 65_536;

pub(crate) type Written = Result<ClientWriteResponse<TypeConfig>, ClientWriteError<TypeConfig>>;
type Read = Result<u64, Unavailable>;

struct Proposal {
    command: Bytes,
    answer: oneshot::Sender<Written>,
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
    reads: Inbox<oneshot::Sender<Read>>,
}

impl Requests {
    pub fn propose(&self, command: Bytes) -> impl Future<Output = Result<Reply, Unavailable>> + Send + use<> {
        let (answer, receiver) = oneshot::channel();
        let queued = self.proposals.push(Proposal { command, answer }, PROPOSALS_MAX);
        async move {
            queued?;
            match receiver.await {
                Ok(Ok(written)) => Ok(written.data),
                Ok(Err(error)) => Err(not_written(error)),
                Err(_) => Err(Unavailable::Stopped),
            }
        }
    }

    pub fn read_index(&self) -> impl Future<Output = Read> + Send + use<> {
        let (answer, receiver) = oneshot::channel();
        let queued = self.reads.push(answer, usize::MAX);
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

/// Hands proposals to openraft, which makes one append of all it finds.
pub(crate) async fn propose_all(requests: Arc<Requests>, raft: Inner) {
    let mut proposals = Vec::new();
    while requests.proposals.drain(&mut proposals).await {
        for Proposal { command, answer } in proposals.drain(..) {
            // An error drops the answer: whoever waits learns that the member stops.
            if let Err(error) = raft.client_write_ff(Command(command), Some(Answer(answer))).await {
                tracing::debug!(%error, "a proposal came too late");
                return;
            }
        }
    }
}

/// One round in flight; who comes meanwhile shares the next.
pub(crate) async fn read_all(requests: Arc<Requests>, raft: Inner) {
    let mut waiting = Vec::new();
    while requests.reads.drain(&mut waiting).await {
        let result = match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(state_log_id(linearizer.read_log_id().log_id()).index),
            Err(error) => Err(not_read(error)),
        };
        for answer in waiting.drain(..) {
            // Whoever asked may have stopped waiting.
            answer.send(result).ok();
        }
    }
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
