//! The member says in the log who it is and where clients reach it.

use std::time::Duration;

use proto::command::MemberAttributes;
use proto::command::command::Op;
use tracing::{info, warn};

use super::version;
use crate::config::Config;
use crate::node::{Encoded, Node};

/// The pause after a proposal that failed; there may be no leader yet.
const PAUSE: Duration = Duration::from_millis(50);

/// Proposes name and client URLs until they are applied here.
pub async fn publish(node: &Node, config: &Config) {
    let attributes = MemberAttributes {
        member_id: node.member_id(),
        name: config.flags.name.clone(),
        client_urls: config.client_urls(),
    };
    let local_member_id = format!("{:x}", node.member_id());
    let attributes = Encoded::new(Op::MemberAttributes(attributes));
    while let Err(failure) = node.propose(attributes.clone()).await {
        warn!(local_member_id, %failure, "failed to publish local member to cluster through raft");
        tokio::time::sleep(PAUSE).await;
    }
    info!(local_member_id, "published local member to cluster through raft");
    // A cluster of one knows its version before the first client asks.
    if node.reader().members().len() == 1 {
        version::decide(node, &[]).await;
    }
}
