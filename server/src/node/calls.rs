//! Requests that another member's clients made.

use bytes::Bytes;
use proto::peer::Method;
use tonic::Status;

use super::Node;

/// Answers one.
pub async fn answer(_node: &Node, method: Method, _body: Bytes) -> Result<Bytes, Status> {
    Err(Status::unimplemented(format!("{method:?}")))
}
