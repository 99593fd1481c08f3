//! The members of the cluster.

use proto::etcdserverpb as pb;

use crate::node::{Failure, Node, cluster};

/// Who is in the cluster, as this member knows it or as the cluster does.
pub async fn member_list(
    node: Node,
    request: pb::MemberListRequest,
) -> Result<pb::MemberListResponse, Failure> {
    if request.linearizable {
        node.linearizable_view().await?;
    }
    // The membership has no place in the history of keys: etcd leaves the revision 0.
    Ok(pb::MemberListResponse { header: Some(node.header(0)), members: node.reader().members() })
}

/// Adds a member, with a vote or as a learner.
pub async fn member_add(node: Node, request: pb::MemberAddRequest) -> Result<pb::MemberAddResponse, Failure> {
    cluster::add(&node, request).await
}

/// Removes a member for good.
pub async fn member_remove(
    node: Node,
    request: pb::MemberRemoveRequest,
) -> Result<pb::MemberRemoveResponse, Failure> {
    cluster::remove(&node, request).await
}

/// Gives a member other peer URLs.
pub async fn member_update(
    node: Node,
    request: pb::MemberUpdateRequest,
) -> Result<pb::MemberUpdateResponse, Failure> {
    cluster::update(&node, request).await
}

/// Gives a learner a vote.
pub async fn member_promote(
    node: Node,
    request: pb::MemberPromoteRequest,
) -> Result<pb::MemberPromoteResponse, Failure> {
    cluster::promote(&node, request).await
}
