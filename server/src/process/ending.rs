//! How a member ends: because it is told to, or because it is none any more.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{End, GRACE, PeerPort, notify};
use crate::datadir::DataDir;
use crate::node::Node;

/// How often a member looks whether it still is one.
const LOOK: Duration = Duration::from_millis(250);
/// A removed member stays this long, so that it hears what happened and can answer those who waited for it.
const REMOVED_GRACE: Duration = Duration::from_secs(1);

/// What runs, to be taken down in order.
pub(super) struct Running {
    pub(super) node: Node,
    pub(super) dir: DataDir,
    pub(super) stop: tokio::sync::watch::Sender<bool>,
    pub(super) peers: PeerPort,
    /// The client port, once it serves.
    pub(super) serving: Option<JoinHandle<std::io::Result<()>>>,
}

impl Running {
    /// Takes the member down: others take over, those who wait get answers, then everything is flushed.
    pub(super) async fn end(self, end: End) -> anyhow::Result<End> {
        let started = Instant::now();
        notify(&[sd_notify::NotifyState::Stopping]);
        match end {
            End::Signal(signal) => {
                info!(signal, "received signal; shutting down");
                hand_over(&self.node).await;
            }
            End::Removed => {
                warn!(error = "the member has been permanently removed from the cluster", "server error");
                warn!("data-dir used by this member must be removed");
                self.dir.remove()?;
                tokio::time::sleep(REMOVED_GRACE).await;
            }
        }
        self.stop.send_replace(true);
        if let Some(serving) = self.serving {
            match timeout(2 * GRACE, serving).await {
                Ok(ended) => ended.context("the listeners' task")?.context("listeners")?,
                Err(_elapsed) => warn!("requests under way did not end in time"),
            }
        }
        self.node.hub().end();
        self.node.raft().clone().shutdown().await;
        self.peers.close().await;
        info!(took_ms = started.elapsed().as_millis() as u64, "log and state are flushed");
        Ok(end)
    }
}

/// A leader that is about to go lets another voter lead, so that the cluster need not miss it first.
async fn hand_over(node: &Node) {
    if !node.is_leader() {
        return info!("skipped leadership transfer; local server is not leader");
    }
    let members = node.reader().members();
    let voters: Vec<u64> =
        members.iter().filter(|member| !member.is_learner).map(|member| member.id).collect();
    if voters.len() < 2 {
        return info!("skipped leadership transfer for single voting member cluster");
    }
    let Some(heir) = node.raft().heir() else {
        return warn!(error = "unhealthy cluster", "leadership transfer failed");
    };
    let transferee = format!("{heir:x}");
    info!("transferee-member-id" = transferee, "leadership transfer starting");
    let started = Instant::now();
    // What takes longer than that does not happen any more: the heir may be going as well.
    match timeout(2 * node.settings().election_timeout, node.raft().transfer_leader(heir)).await {
        Ok(Ok(())) => {
            let took_ms = started.elapsed().as_millis() as u64;
            info!("transferee-member-id" = transferee, took_ms, "leadership transfer finished");
        }
        Ok(Err(error)) => warn!("transferee-member-id" = transferee, %error, "leadership transfer failed"),
        Err(_elapsed) => warn!("transferee-member-id" = transferee, "leadership transfer took too long"),
    }
}

/// Returns once this member was removed from the cluster, as it sees itself or as the others say, of whom none may
/// have told it in time.
pub(super) async fn removed(node: &Node) {
    let mut told = node.raft().removed();
    let mut looks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = looks.tick() => if node.reader().removed(node.member_id()) { return },
            said = told.wait_for(|removed| *removed) => if said.is_ok() { return },
        }
    }
}
