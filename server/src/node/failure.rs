//! Why a request is not served.

use state::Refusal;
use tonic::Code;

use super::Stays;
use crate::error::Unavailable;

/// Everything a client's request can fail with. `api::status` alone turns it into a gRPC code and a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The state machine said no: every member would.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// This member cannot serve it now; another, or a later try, may.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// What is committed was not applied in time.
    #[error("request timed out, waiting for the applied index took too long")]
    ApplyTimedOut,
    /// The request itself is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The membership, or who leads, stays as it is.
    #[error(transparent)]
    Reconfiguration(#[from] Reconfiguration),
    /// The cluster does not prepare to go down to another version.
    #[error(transparent)]
    Stays(#[from] Stays),
    /// A lock or an election does not give what was asked for.
    #[error(transparent)]
    Contest(#[from] Contest),
    /// What a member did by itself for a client failed, so that the client learns the text alone: etcd's members do it
    /// through a client of their own, whose errors have no code.
    #[error(transparent)]
    Inner(Box<Failure>),
    /// The time that the client gave has passed.
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// The leader said no, in these words.
    #[error("{text}")]
    Relayed {
        /// What kind of no.
        code: Code,
        /// What a client is told.
        text: String,
    },
    /// The leader was asked and did not answer; whether it did what it was asked for is not known.
    #[error("request timed out, possibly due to connection lost")]
    ConnectionLost,
}

impl Failure {
    /// As what came through a member's own client fails: with the same text and no code. That the time is up, or that the
    /// member stops, is told as it is.
    #[must_use]
    pub fn without_code(self) -> Self {
        match self {
            Self::DeadlineExceeded | Self::Unavailable(Unavailable::Stopped) => self,
            other => Self::Inner(Box::new(other)),
        }
    }
}

/// Why a lock or an election does not give what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Contest {
    /// The key went while its turn had yet to come: with its lease, or because somebody deleted it.
    #[error("session is expired")]
    Expired,
    /// The key is not there any more, or another one of the same name.
    #[error("not leader")]
    NotLeader,
    /// Nobody is elected.
    #[error("no leader")]
    NoLeader,
    /// The request does not say who asks.
    #[error("no leader key")]
    NoLeaderKey,
}

/// Why the membership, or who leads, is not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reconfiguration {
    /// No URLs, or one that is none.
    #[error("given member URLs are invalid")]
    BadUrls,
    /// Another member has one of the URLs.
    #[error("Peer URLs already exists")]
    UrlsExist,
    /// Two members with the same URLs were added in the same second.
    #[error("member ID already exist")]
    IdExists,
    /// `--max-learners` are there already.
    #[error("too many learner members in cluster")]
    TooManyLearners,
    /// Too few members would have started to make a quorum.
    #[error("re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// Too few members are reached to make a quorum.
    #[error("unhealthy cluster")]
    Unhealthy,
    /// No such member.
    #[error("member not found")]
    NotFound,
    /// It has a vote already.
    #[error("can only promote a learner member")]
    NotLearner,
    /// It lacks too much of the log.
    #[error("can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    /// It cannot lead: no such member, or a learner.
    #[error("bad leader transferee")]
    BadTransferee,
    /// Nobody knows yet whether it leads.
    #[error("request timed out, leader transfer took too long")]
    TransferTimedOut,
}

/// What is wrong with a request, found before it is proposed or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// What the rules for keys, sorting, options and transactions forbid.
    #[error(transparent)]
    Request(#[from] state::validate::Invalid),
    /// A range stream was asked to sort.
    #[error("range stream with a sort order")]
    StreamSortOrder,
    /// A range stream was asked to filter by revision.
    #[error("range stream with a revision filter")]
    StreamRevisionFilter,
    /// The command is longer than the log takes.
    #[error("request too large")]
    TooLarge,
    /// This member is a learner, which answers next to nothing.
    #[error("not served by a learner")]
    Learner,
    /// The client's version is not text.
    #[error("client version is not text")]
    ClientApiVersion,
    /// Keep-alives are for the leader, and this member is not it.
    #[error("not the leader")]
    NotPrimary,
    /// A health check for a service nobody knows.
    #[error("unknown service")]
    UnknownHealthService,
    /// There is no authentication to authenticate against.
    #[error("authentication is off")]
    AuthNotEnabled,
    /// Keys cannot be divided so: the delimiter is too long, or the depth out of bounds.
    #[error("keys cannot be divided so")]
    Split,
    /// Keys are counted in as many ways as they can be.
    #[error("too many ways of dividing keys")]
    TooManyViewers,
    /// Part of the API that this version does not have.
    #[error("{0} is not implemented")]
    NotImplemented(&'static str),
    /// No service of that name.
    #[error("unknown service {0}")]
    UnknownService(String),
    /// The service is known, its method is not.
    #[error("unknown method {method} for service {service}")]
    UnknownMethod {
        /// The service.
        service: String,
        /// What it does not have.
        method: String,
    },
    /// A path that is not `/service/method`.
    #[error("malformed method name {0:?}")]
    MalformedPath(String),
    /// The message on the wire is longer than this member reads.
    #[error("message of {size} bytes, {limit} are read")]
    MessageTooLong {
        /// What the prefix announces.
        size: u64,
        /// What is read at most.
        limit: usize,
    },
    /// The answer would be longer than a gRPC message can be.
    #[error("answer of {0} bytes")]
    AnswerTooLong(u64),
    /// The bytes are not the message they should be.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// The message is compressed, which this member does not read.
    #[error("compressed message ({0:?})")]
    Compressed(String),
    /// The system gives no thread to do it on.
    #[error("no thread for it")]
    NoThread,
    /// The client ended or cut its side before a whole message had come.
    #[error("the request ended early")]
    Truncated,
}
