//! What the log hands to the state machine.

use bytes::Bytes;

/// The place of an entry in the Raft log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term of the leader that proposed the entry.
    pub term: u64,
    /// The position in the log.
    pub index: u64,
}

/// One committed entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where the entry stands in the log.
    pub log_id: LogId,
    /// What it asks for.
    pub body: EntryBody,
}

/// What an entry asks the state machine to do.
#[derive(Debug, Clone)]
pub enum EntryBody {
    /// Nothing: a new leader's first entry.
    Blank,
    /// An encoded [`proto::command::Command`].
    Command(Bytes),
    /// The cluster consists of these nodes from here on.
    Membership {
        /// The consensus library's own form, kept as it is and handed back on start.
        opaque: Bytes,
        /// The nodes in it.
        nodes: Vec<Node>,
    },
}

/// A member as the membership in the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The member's id.
    pub id: u64,
    /// The name from the initial cluster; empty for a member that was added at run time and has not started.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// True while it has no vote.
    pub learner: bool,
}
