//! The member says in the log who it is and where clients reach it.

use std::time::Duration;

use proto::command::command::Op;
use proto::command::{ClusterVersion, MemberAttributes};
use tracing::{info, warn};

use crate::config::Config;
use crate::config::help::CLUSTER_VERSION;
use crate::node::{Encoded, Node};

/// The pause after a proposal that failed; there may be no leader yet.
const PAUSE: Duration = Duration::from_millis(50);

/// Proposes name and client URLs until they are applied, and the cluster's version with them.
pub async fn publish(node: &Node, config: &Config) {
    let attributes = MemberAttributes {
        member_id: node.member_id(),
        name: config.flags.name.clone(),
        client_urls: config.client_urls(),
    };
    propose(node, Op::MemberAttributes(attributes), "member attributes").await;
    if node.reader().cluster_version().as_deref() != Some(CLUSTER_VERSION) {
        propose(
            node,
            Op::ClusterVersion(ClusterVersion { version: CLUSTER_VERSION.to_owned() }),
            "cluster version",
        )
        .await;
    }
    crate::metrics::METRICS
        .server
        .cluster_version
        .with_label_values(&[CLUSTER_VERSION.trim_end_matches(".0")])
        .set(1);
    info!(
        local_member_id = format!("{:x}", node.member_id()),
        "published local member to cluster through raft"
    );
}

async fn propose(node: &Node, op: Op, what: &'static str) {
    loop {
        match node.propose(Encoded::new(op.clone())).await {
            Ok(_) => return,
            Err(failure) => {
                warn!(what, %failure, "failed to publish; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
