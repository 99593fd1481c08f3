//! Users and roles: there are none yet, and this says so.

use proto::etcdserverpb as pb;

use crate::node::{Failure, Invalid, Node};

/// The revision of an auth store that was never changed.
const FIRST_REVISION: u64 = 1;

/// Whether clients have to say who they are.
pub async fn status(node: Node, _request: pb::AuthStatusRequest) -> Result<pb::AuthStatusResponse, Failure> {
    let header = Some(node.header_now());
    Ok(pb::AuthStatusResponse { header, enabled: false, auth_revision: FIRST_REVISION })
}

/// Refuses to hand out tokens, as etcd does while authentication is off.
pub async fn authenticate(
    _node: Node,
    _request: pb::AuthenticateRequest,
) -> Result<pb::AuthenticateResponse, Failure> {
    Err(Invalid::AuthNotEnabled.into())
}
