//! The members of the cluster.

use proto::etcdserverpb as pb;

use crate::node::{Failure, Node};

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
