//! What went wrong with a call, in the words of etcd's client.

use std::fmt;

use tonic::{Code, Status};

/// A call that brought no answer.
#[derive(Debug)]
pub enum CallError {
    /// The command's time was up.
    DeadlineExceeded,
    /// The server's refusal, or a broken connection.
    Status(Status),
}

impl CallError {
    /// Whether the server's refusal has this text.
    pub fn says(&self, text: &str) -> bool {
        matches!(self, Self::Status(status) if status.message() == text)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeadlineExceeded => f.write_str("context deadline exceeded"),
            Self::Status(status) => f.write_str(&describe(status)),
        }
    }
}

/// etcd's own errors by their text alone, any other with its gRPC code.
pub fn describe(status: &Status) -> String {
    let message = status.message();
    if KNOWN.contains(&message) {
        return message.to_owned();
    }
    if let Some((size, limit)) = too_long(message) {
        let text = format!("grpc: received message larger than max ({size} vs. {limit})");
        return format!("rpc error: code = ResourceExhausted desc = {text}");
    }
    format!("rpc error: code = {} desc = {message}", code_name(status.code()))
}

/// The size and the limit in what tonic says of an answer that is too long.
fn too_long(message: &str) -> Option<(&str, &str)> {
    let sizes = message.strip_prefix("Error, decoded message length too large: found ")?;
    let (size, limit) = sizes.strip_suffix(" bytes")?.split_once(" bytes, the limit is: ")?;
    Some((size, limit))
}

/// Whether the connection failed rather than the request: such a status was made
/// here, from another error, and did not come from the server.
pub fn broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// The texts etcd's client knows as typed errors.
const KNOWN: &[&str] = &[
    "etcdserver: key is not provided",
    "etcdserver: key not found",
    "etcdserver: value is provided",
    "etcdserver: lease is provided",
    "etcdserver: too many operations in txn request",
    "etcdserver: duplicate key given in txn request",
    "etcdserver: invalid sort option",
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: mvcc: database space exceeded",
    "etcdserver: requested lease not found",
    "etcdserver: lease already exists",
    "etcdserver: too large lease TTL",
    "etcdserver: member ID already exist",
    "etcdserver: Peer URLs already exists",
    "etcdserver: re-configuration failed due to not enough started members",
    "etcdserver: given member URLs are invalid",
    "etcdserver: member not found",
    "etcdserver: can only promote a learner member",
    "etcdserver: can only promote a learner member which is in sync with leader",
    "etcdserver: too many learner members in cluster",
    "etcdserver: cluster ID mismatch",
    "etcdserver: request is too large",
    "etcdserver: too many requests",
    "etcdserver: root user does not exist",
    "etcdserver: root user does not have root role",
    "etcdserver: user name already exists",
    "etcdserver: user name is empty",
    "etcdserver: user name not found",
    "etcdserver: role name already exists",
    "etcdserver: role name not found",
    "etcdserver: role name is empty",
    "etcdserver: authentication failed, invalid user ID or password",
    "etcdserver: permission denied",
    "etcdserver: role is not granted to the user",
    "etcdserver: permission is not granted to the role",
    "etcdserver: authentication is not enabled",
    "etcdserver: invalid auth token",
    "etcdserver: invalid auth management",
    "etcdserver: revision of auth store is old",
    "etcdserver: no leader",
    "etcdserver: not leader",
    "etcdserver: leader changed",
    "etcdserver: not capable",
    "etcdserver: server stopped",
    "etcdserver: request timed out",
    "etcdserver: request timed out, possibly due to previous leader failure",
    "etcdserver: request timed out, possibly due to connection lost",
    "etcdserver: unhealthy cluster",
    "etcdserver: corrupt cluster",
    "etcdserver: rpc not supported for learner",
    "etcdserver: bad leader transferee",
    "etcdserver: cluster version not found during downgrade",
    "etcdserver: wrong downgrade target version format",
    "etcdserver: invalid downgrade target version",
    "etcdserver: cluster has a downgrade job in progress",
    "etcdserver: no inflight downgrade job",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_too_long_is_told_as_grpc_go_tells_it() {
        let text = "Error, decoded message length too large: found 43 bytes, the limit is: 3 bytes";
        assert_eq!(
            describe(&Status::out_of_range(text)),
            "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (43 vs. 3)"
        );
        assert_eq!(describe(&Status::not_found("etcdserver: key not found")), "etcdserver: key not found");
        assert_eq!(describe(&Status::internal("x")), "rpc error: code = Internal desc = x");
    }
}
