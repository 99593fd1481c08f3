//! The one place that turns an error into what a client sees: the gRPC code and etcd 3.7's text.
//!
//! Clients compare the text, so no word of it may change.

use std::borrow::Cow;

use state::Refusal;
use state::validate::Invalid as Request;
use tonic::{Code, Status};

use crate::error::Unavailable;
use crate::node::{Contest, Failure, Invalid, Reconfiguration, Stays};

/// The largest message gRPC lets a Go server send, and so the largest its clients are prepared for.
pub const ANSWER_BYTES_MAX: u64 = i32::MAX as u64;

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let (code, text) = code_and_text(&failure);
        Self::new(code, text)
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        Failure::from(invalid).into()
    }
}

/// The gRPC code and the text for a failure.
pub fn code_and_text(failure: &Failure) -> (Code, Cow<'static, str>) {
    match failure {
        Failure::Refusal(refusal) => plain(of_refusal(refusal)),
        Failure::Unavailable(unavailable) => plain(of_unavailable(unavailable)),
        Failure::ApplyTimedOut => (
            Code::Unavailable,
            "etcdserver: request timed out, waiting for the applied index took too long".into(),
        ),
        Failure::Invalid(Invalid::Request(request)) => (Code::InvalidArgument, of_request(request).into()),
        Failure::Invalid(invalid) => of_invalid(invalid),
        Failure::Reconfiguration(why) => plain(of_reconfiguration(*why)),
        Failure::Stays(why) => plain(of_downgrade(*why)),
        Failure::Contest(why) => (Code::Unknown, of_contest(*why).into()),
        Failure::Inner(failure) => (Code::Unknown, code_and_text(failure).1),
        Failure::DeadlineExceeded => (Code::DeadlineExceeded, "context deadline exceeded".into()),
        Failure::Relayed { code, text } => (*code, text.clone().into()),
        Failure::ConnectionLost => {
            (Code::Unavailable, "etcdserver: request timed out, possibly due to connection lost".into())
        }
    }
}

fn plain((code, text): (Code, &'static str)) -> (Code, Cow<'static, str>) {
    (code, text.into())
}

fn of_refusal(refusal: &Refusal) -> (Code, &'static str) {
    match refusal {
        Refusal::Compacted => (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
        Refusal::FutureRevision => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        }
        Refusal::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
        Refusal::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
        Refusal::LeaseExists => (Code::FailedPrecondition, "etcdserver: lease already exists"),
        Refusal::LeaseTtlTooLarge => (Code::OutOfRange, "etcdserver: too large lease TTL"),
        Refusal::NoSpace => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        Refusal::Corrupt => (Code::DataLoss, "etcdserver: corrupt cluster"),
    }
}

fn of_unavailable(unavailable: &Unavailable) -> (Code, &'static str) {
    match unavailable {
        Unavailable::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
        Unavailable::NotLeader { .. } => (Code::FailedPrecondition, "etcdserver: not leader"),
        Unavailable::LeaderChanged => (Code::Unavailable, "etcdserver: leader changed"),
        Unavailable::TimedOut => (Code::Unavailable, "etcdserver: request timed out"),
        Unavailable::Stopped => (Code::Unavailable, "etcdserver: server stopped"),
        // ResourceExhausted by intent; etcd's own mapping slips, and clients go by the text.
        Unavailable::TooManyRequests => (Code::Unknown, "etcdserver: too many requests"),
    }
}

fn of_reconfiguration(why: Reconfiguration) -> (Code, &'static str) {
    match why {
        Reconfiguration::BadUrls => (Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
        Reconfiguration::UrlsExist => (Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
        Reconfiguration::IdExists => (Code::FailedPrecondition, "etcdserver: member ID already exist"),
        Reconfiguration::TooManyLearners => {
            (Code::FailedPrecondition, "etcdserver: too many learner members in cluster")
        }
        // FailedPrecondition by intent; etcd's own mapping slips, and clients go by the text.
        Reconfiguration::NotEnoughStarted => {
            (Code::Unknown, "etcdserver: re-configuration failed due to not enough started members")
        }
        Reconfiguration::Unhealthy => (Code::Unavailable, "etcdserver: unhealthy cluster"),
        Reconfiguration::NotFound => (Code::NotFound, "etcdserver: member not found"),
        Reconfiguration::NotLearner => {
            (Code::FailedPrecondition, "etcdserver: can only promote a learner member")
        }
        Reconfiguration::LearnerNotReady => (
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        Reconfiguration::BadTransferee => (Code::FailedPrecondition, "etcdserver: bad leader transferee"),
        Reconfiguration::TransferTimedOut => {
            (Code::Unknown, "etcdserver: request timed out, leader transfer took too long")
        }
    }
}

fn of_downgrade(why: Stays) -> (Code, &'static str) {
    match why {
        Stays::BadFormat => (Code::InvalidArgument, "etcdserver: wrong downgrade target version format"),
        Stays::BadTarget => (Code::InvalidArgument, "etcdserver: invalid downgrade target version"),
        Stays::NoVersion => {
            (Code::FailedPrecondition, "etcdserver: cluster version not found during downgrade")
        }
        Stays::UnderWay => (Code::FailedPrecondition, "etcdserver: cluster has a downgrade job in progress"),
        Stays::NotUnderWay => (Code::FailedPrecondition, "etcdserver: no inflight downgrade job"),
        Stays::UnknownAction => (Code::Unknown, "etcdserver: unknown method"),
    }
}

/// The texts of etcd's client library.
fn of_contest(why: Contest) -> &'static str {
    match why {
        Contest::Expired => "mutex: session is expired",
        Contest::NotLeader => "election: not leader",
        Contest::NoLeader => "election: no leader",
        Contest::NoLeaderKey => "\"leader\" field must be provided",
    }
}

fn of_request(invalid: &Request) -> &'static str {
    match invalid {
        Request::KeyNotProvided => "etcdserver: key is not provided",
        Request::InvalidSortOption => "etcdserver: invalid sort option",
        Request::ValueProvided => "etcdserver: value is provided",
        Request::LeaseProvided => "etcdserver: lease is provided",
        Request::TooManyOperations => "etcdserver: too many operations in txn request",
        Request::DuplicateKey => "etcdserver: duplicate key given in txn request",
        Request::EmptyOperation => "etcdserver: key not found",
    }
}

fn of_invalid(invalid: &Invalid) -> (Code, Cow<'static, str>) {
    match invalid {
        Invalid::Request(request) => (Code::InvalidArgument, of_request(request).into()),
        Invalid::StreamSortOrder => {
            (Code::Unimplemented, "RangeStream does not support custom sort orders".into())
        }
        Invalid::StreamRevisionFilter => {
            (Code::Unimplemented, "RangeStream does not support revision filters".into())
        }
        Invalid::TooLarge => (Code::InvalidArgument, "etcdserver: request is too large".into()),
        Invalid::Learner => (Code::FailedPrecondition, "etcdserver: rpc not supported for learner".into()),
        Invalid::ClientApiVersion => (Code::InvalidArgument, "etcdserver: invalid client api version".into()),
        Invalid::NotPrimary => (Code::Unknown, "not a primary lessor".into()),
        Invalid::UnknownHealthService => (Code::NotFound, "unknown service".into()),
        Invalid::AuthNotEnabled => {
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled".into())
        }
        Invalid::Split => {
            (Code::InvalidArgument, "quorate: the delimiter or the depth of a prefix is out of bounds".into())
        }
        Invalid::TooManyViewers => (
            Code::ResourceExhausted,
            "quorate: keys are counted by as many delimiters and depths as they can be, try again in a minute".into(),
        ),
        Invalid::NotImplemented(what) => {
            (Code::Unimplemented, format!("etcdserver: {what} is not implemented by this version").into())
        }
        Invalid::UnknownService(service) => {
            (Code::Unimplemented, format!("unknown service {service}").into())
        }
        Invalid::UnknownMethod { service, method } => {
            (Code::Unimplemented, format!("unknown method {method} for service {service}").into())
        }
        Invalid::MalformedPath(path) => {
            (Code::Unimplemented, format!("malformed method name: {path:?}").into())
        }
        Invalid::MessageTooLong { size, limit } => (
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({size} vs. {limit})").into(),
        ),
        Invalid::AnswerTooLong(size) => (
            Code::ResourceExhausted,
            format!("grpc: trying to send message larger than max ({size} vs. {ANSWER_BYTES_MAX})").into(),
        ),
        Invalid::Malformed(detail) => {
            (Code::Internal, format!("grpc: error unmarshalling request: {detail}").into())
        }
        Invalid::Compressed(encoding) if encoding.is_empty() || encoding == "identity" => {
            (Code::Internal, "grpc: compressed flag set with identity or empty encoding".into())
        }
        Invalid::Compressed(encoding) => (
            Code::Unimplemented,
            format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}").into(),
        ),
        Invalid::NoThread => (Code::ResourceExhausted, "etcdserver: no thread for this request".into()),
        Invalid::Truncated => (Code::Internal, "unexpected EOF".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(failure: impl Into<Failure>) -> (Code, String) {
        let (code, text) = code_and_text(&failure.into());
        (code, text.into_owned())
    }

    #[test]
    fn refusals_carry_the_codes_and_texts_of_etcd() {
        let cases = [
            (Refusal::Compacted, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            (
                Refusal::FutureRevision,
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            (Refusal::KeyNotFound, Code::InvalidArgument, "etcdserver: key not found"),
            (Refusal::LeaseNotFound, Code::NotFound, "etcdserver: requested lease not found"),
            (Refusal::LeaseExists, Code::FailedPrecondition, "etcdserver: lease already exists"),
            (Refusal::LeaseTtlTooLarge, Code::OutOfRange, "etcdserver: too large lease TTL"),
            (Refusal::NoSpace, Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            (Refusal::Corrupt, Code::DataLoss, "etcdserver: corrupt cluster"),
        ];
        for (refusal, code, text) in cases {
            assert_eq!(shown(refusal), (code, text.to_owned()));
        }
    }

    #[test]
    fn too_many_requests_is_unknown_on_the_wire() {
        assert_eq!(
            shown(Unavailable::TooManyRequests),
            (Code::Unknown, "etcdserver: too many requests".to_owned())
        );
    }

    #[test]
    fn the_two_errors_for_too_large_differ() {
        assert_eq!(
            shown(Invalid::TooLarge),
            (Code::InvalidArgument, "etcdserver: request is too large".to_owned())
        );
        assert_eq!(
            shown(Invalid::MessageTooLong { size: 2_097_162, limit: 2_097_152 }),
            (
                Code::ResourceExhausted,
                "grpc: received message larger than max (2097162 vs. 2097152)".to_owned()
            )
        );
    }

    #[test]
    fn what_a_member_did_for_a_client_fails_without_a_code() {
        let failure = Failure::Inner(Box::new(Refusal::LeaseNotFound.into()));
        assert_eq!(shown(failure), (Code::Unknown, "etcdserver: requested lease not found".to_owned()));
    }

    #[test]
    fn unknown_names_are_told_as_grpc_go_tells_them() {
        assert_eq!(shown(Invalid::UnknownService("foo.Bar".to_owned())).1, "unknown service foo.Bar");
        let method =
            Invalid::UnknownMethod { service: "etcdserverpb.KV".to_owned(), method: "Nope".to_owned() };
        assert_eq!(
            shown(method),
            (Code::Unimplemented, "unknown method Nope for service etcdserverpb.KV".to_owned())
        );
    }
}
