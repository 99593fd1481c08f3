//! Why a request is not served.

use state::Refusal;

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
    /// The client ended or cut its side before a whole message had come.
    #[error("the request ended early")]
    Truncated,
}
