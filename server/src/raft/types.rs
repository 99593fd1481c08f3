//! The types openraft is used with.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std::LeaderId;
use openraft::raft::responder::Responder;
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig};
use tokio::sync::oneshot;

/// One leader a term, so a log id is `(term, index)` as etcd's clients know it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = state::Reply;
    type NodeId = u64;
    type Node = Node;
    type Term = u64;
    type LeaderId = LeaderId<u64, u64>;
    type Vote = Vote;
    type Payload = EntryPayload<Command, u64, Node>;
    type Entry = Entry;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = Answer<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// In a log id: the term of the leader that proposed the entry.
pub(crate) type Term = openraft::vote::leader_id_std::CommittedLeaderId<u64>;
pub(crate) type LogId = openraft::LogId<Term>;
pub(crate) type Vote = openraft::impls::Vote<LeaderId<u64, u64>>;
pub(crate) type Entry = openraft::Entry<Term, EntryPayload<Command, u64, Node>>;
pub(crate) type Membership = openraft::Membership<u64, Node>;
pub(crate) type StoredMembership = openraft::StoredMembership<Term, u64, Node>;
pub(crate) type SnapshotMeta = openraft::storage::SnapshotMeta<Term, u64, Node>;

/// An encoded command, and who waits for it if that is not the member that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub origin: Option<Origin>,
    pub bytes: Bytes,
}

/// A member that waits for an entry to be applied, under a number of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub member_id: u64,
    pub number: u64,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.bytes.len())
    }
}

/// A member as the membership carries it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub name: String,
    pub peer_urls: Vec<String>,
    /// Whether the cluster means it to be without a vote. One that is no learner gets its vote once it has caught up.
    pub learner: bool,
}

impl From<state::Node> for Node {
    fn from(node: state::Node) -> Self {
        Self { name: node.name, peer_urls: node.peer_urls, learner: node.learner }
    }
}

/// Where the result of a proposal goes.
pub(crate) enum Answer<T> {
    /// To one who waits here, or has stopped waiting.
    Here(oneshot::Sender<T>),
    /// Wherever this takes it.
    Told(Box<dyn FnOnce(T) + Send>),
}

impl<T> Answer<T> {
    pub fn send(self, result: T) {
        match self {
            Self::Here(waiter) => drop(waiter.send(result)),
            Self::Told(tell) => tell(result),
        }
    }
}

impl<C: RaftTypeConfig, T: OptionalSend + 'static> Responder<C, T> for Answer<T> {
    fn on_complete(self, result: T) {
        self.send(result);
    }
}

/// Outside of this module the log begins at index 1, as etcd's does, and 0 means none; openraft's begins at 0.
pub(crate) fn log_id(log_id: state::LogId) -> Option<LogId> {
    let index = log_id.index.checked_sub(1)?;
    Some(new_log_id(log_id.term, index))
}

pub(crate) fn state_log_id(log_id: &LogId) -> state::LogId {
    state::LogId { term: log_id.leader_id.term, index: log_id.index + 1 }
}

pub(crate) fn new_log_id(term: u64, index: u64) -> LogId {
    LogId::new(Term::new(term), index)
}
