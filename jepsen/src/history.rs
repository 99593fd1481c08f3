//! What clients asked and heard during a run.
//!
//! Times are nanoseconds since the run began, of one monotonic clock; a client
//! has one operation under way at a time. Keys and values are text, and a value
//! that is put is put only once in a run, so that an event tells its operation.

use serde::{Deserialize, Serialize};

/// Nanoseconds since the run began.
pub type Nanos = u64;

/// A whole run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// What was run, so that it can be run again.
    pub run: Run,
    /// In order of invocation.
    pub operations: Vec<Operation>,
    /// Every watcher of the run, among them some of all keys from revision 1 on (`observer`), one for each member.
    pub watches: Vec<Watch>,
    /// What the nemesis did.
    pub faults: Vec<Fault>,
    /// Compactions the nemesis asked for, whatever came of them.
    #[serde(default)]
    pub compactions: Vec<Compaction>,
    /// When members' monotonic clocks went forward more than time did.
    #[serde(default)]
    pub leaps: Vec<Leap>,
    /// What each member said at the end, once all were healthy again.
    pub ends: Vec<End>,
}

/// What a run is made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Everything random comes from it.
    pub seed: u64,
    /// The command that repeats the run.
    pub command: String,
    /// The workload's name.
    pub workload: String,
    /// The nemesis's name.
    pub nemesis: String,
    /// `quorate` or `etcd`, with its version.
    pub program: String,
    /// How many members the cluster had.
    pub members: usize,
    /// How long clients were at work.
    pub duration: Nanos,
}

/// One request and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Which client.
    pub client: u32,
    /// Which member was asked, by its number in the cluster.
    pub member: usize,
    /// When the request was sent.
    pub invoked: Nanos,
    /// When the answer, or the error, was there.
    pub returned: Nanos,
    /// What was asked.
    pub action: Action,
    /// What was answered.
    pub outcome: Outcome,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was answered.
    Done(Answer),
    /// It was certainly not done, and never will be.
    Refused(String),
    /// Nobody knows whether it was done, or will be.
    Unknown(String),
}

/// What a client may ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// A read.
    Range(Range),
    /// A write of one key.
    Put(Put),
    /// The end of some keys.
    Delete(Delete),
    /// Compares, then one of two lists of requests.
    Txn(Txn),
    /// Forgets everything that was overwritten up to a revision.
    Compact {
        /// Up to and including this one.
        revision: i64,
    },
    /// A new lease.
    LeaseGrant {
        /// Its ID, never 0.
        id: i64,
        /// Seconds.
        ttl: i64,
    },
    /// The end of a lease and of its keys.
    LeaseRevoke {
        /// Its ID.
        id: i64,
    },
    /// One keep-alive.
    LeaseKeepAlive {
        /// Its ID.
        id: i64,
    },
    /// What is left of a lease.
    LeaseTimeToLive {
        /// Its ID.
        id: i64,
    },
}

/// Some keys: one, or from `key` to before `end`; an end of `"\0"` means all from `key` on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The key, or the first one.
    pub key: String,
    /// Where the range ends; empty for a single key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub end: String,
}

/// A read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// What is read.
    #[serde(flatten)]
    pub keys: Keys,
    /// As of which revision; 0 for the current one.
    #[serde(default)]
    pub revision: i64,
    /// How many keys at most; 0 for all.
    #[serde(default)]
    pub limit: i64,
    /// Whether an old state will do.
    #[serde(default)]
    pub serializable: bool,
}

/// A write.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Put {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Its lease, or 0.
    #[serde(default)]
    pub lease: i64,
    /// Whether the pair before is asked for.
    #[serde(default)]
    pub previous: bool,
}

/// The end of some keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Delete {
    /// What is deleted.
    #[serde(flatten)]
    pub keys: Keys,
    /// Whether the pairs before are asked for.
    #[serde(default)]
    pub previous: bool,
}

/// Compares, then one of two lists of requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Txn {
    /// All must hold …
    pub compares: Vec<Compare>,
    /// … for these to be done …
    pub then: Vec<Request>,
    /// … else these are.
    pub otherwise: Vec<Request>,
}

/// One request of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// A read.
    Range(Range),
    /// A write.
    Put(Put),
    /// The end of some keys.
    Delete(Delete),
}

/// What must hold of a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// How the key's own stands to the operand.
    pub relation: Relation,
    /// With what it is compared.
    pub operand: Operand,
}

/// How one stands to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// The key's is greater.
    Greater,
    /// The key's is less.
    Less,
}

/// What of a key is compared, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Operand {
    /// The value; never holds for a key that is not there.
    Value(String),
    /// The revision of its last change; 0 where it is not there.
    Modified(i64),
    /// The revision of its creation; 0 where it is not there.
    Created(i64),
    /// How often it was put since; 0 where it is not there.
    Version(i64),
    /// Its lease; 0 without.
    Lease(i64),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The header's revision: of the write, or as of which was read.
    pub revision: i64,
    /// What belongs to the action.
    pub body: Body,
}

/// What belongs to an action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// Of a read.
    Range {
        /// In key order.
        pairs: Vec<Pair>,
        /// How many keys there are, whatever the limit.
        count: i64,
        /// Whether the limit cut some off.
        more: bool,
    },
    /// Of a put.
    Put {
        /// Where it was asked for and there.
        previous: Option<Pair>,
    },
    /// Of a delete.
    Delete {
        /// How many keys.
        deleted: i64,
        /// Where they were asked for.
        previous: Vec<Pair>,
    },
    /// Of a transaction.
    Txn {
        /// Whether the compares held.
        succeeded: bool,
        /// One for each request of the list.
        answers: Vec<Body>,
    },
    /// Of a compaction or of a lease's end.
    Nothing,
    /// Of a grant, a keep-alive or a question about a lease.
    Lease {
        /// Its ID.
        id: i64,
        /// Seconds; what is left, of a question; 0 or less where it does not exist.
        ttl: i64,
    },
}

/// A key as it is at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The revision of its creation.
    pub created: i64,
    /// The revision of its last change.
    pub modified: i64,
    /// How often it was put since its creation.
    pub version: i64,
    /// Its lease, or 0.
    #[serde(default)]
    pub lease: i64,
}

/// One watcher, over all its reconnections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// Which client.
    pub client: u32,
    /// What is watched.
    pub keys: Keys,
    /// From which revision on it asked to see everything; 0 for what comes next.
    pub start: i64,
    /// Whether the pairs before are asked for.
    pub previous: bool,
    /// Whether progress is asked for.
    pub progress: bool,
    /// Whether this is one of the run's own, of all keys, from which the checkers know what happened.
    #[serde(default)]
    pub observer: bool,
    /// What came, in its order.
    pub seen: Vec<Seen>,
}

/// Something that came to a watcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// When.
    pub at: Nanos,
    /// From which member.
    pub member: usize,
    /// The header's revision; 0 where there was no header.
    pub revision: i64,
    /// What.
    pub what: Notice,
}

/// What may come to a watcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Notice {
    /// The watcher was made, or made again after its connection was lost, to go on from a revision.
    Created {
        /// The start revision of the request.
        start: i64,
    },
    /// Events of one response.
    Events(Vec<Event>),
    /// Everything up to the header's revision was told.
    Progress,
    /// The server ended it.
    Cancelled {
        /// Why.
        reason: String,
        /// The first revision that is there, where the start had been compacted; else 0.
        compacted: i64,
    },
    /// The connection was lost.
    Lost(String),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Whether the key was deleted.
    pub deleted: bool,
    /// The key after the change; of a deletion, only its key and `modified`.
    pub pair: Pair,
    /// The pair before, where it was asked for and there.
    pub previous: Option<Pair>,
}

/// Something the nemesis did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Such as `kill`, `partition-halves`.
    pub kind: String,
    /// To whom or with what, for people.
    pub what: String,
    /// When it began.
    pub began: Nanos,
    /// When it was over, which may be after the run.
    pub ended: Nanos,
}

/// A compaction that no client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    /// When it was asked for: from then on it may be done.
    pub asked: Nanos,
    /// Up to which revision.
    pub revision: i64,
}

/// A time in which the monotonic clocks of some members leapt, at once or in many steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leap {
    /// No clock had leapt before …
    pub began: Nanos,
    /// … and none leapt after.
    pub ended: Nanos,
    /// The most that can have been lost to whoever counts by these clocks, one after the other.
    pub most: Nanos,
}

/// What a member said at the end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Which.
    pub member: usize,
    /// The revision whose hash this is, the same for all.
    pub revision: i64,
    /// HashKV of it.
    pub hash: u32,
    /// The compacted revision it says.
    pub compacted: i64,
}
