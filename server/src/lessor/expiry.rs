//! The leader's round: revoke what is over, write down what is left of the rest.

use std::time::Duration;

use futures::StreamExt;
use mutants::Mutant;
use proto::command::command::Op;
use proto::etcdserverpb as pb;
use state::Refusal;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::metrics::METRICS;
use crate::node::{Encoded, Failure, Node, stopped};

/// How often the leader looks for leases whose time is over.
const ROUND: Duration = Duration::from_millis(500);
/// Revocations started in one round.
const REVOKES_PER_ROUND: usize = 500;
/// Revocations that may wait for the log at once.
const REVOKES_IN_FLIGHT: usize = 16;
/// Leases in one checkpoint command.
const CHECKPOINTS_PER_COMMAND: usize = 1_000;

/// Follows who leads; while this member does, lets leases end.
pub(crate) async fn run(node: Node, mut stop: watch::Receiver<bool>) {
    let mut status = node.raft().status_watch();
    let mut ticks = tokio::time::interval(ROUND);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // A leader that was replaced and elected again between two looks is told by its term.
    let mut leads_since = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = status.changed() => if changed.is_err() { return },
            () = stopped(&mut stop) => return,
        }
        let now = *status.borrow_and_update();
        let leads = (now.leader == node.member_id()).then_some(now.term);
        if leads != leads_since {
            match leads {
                // Deadlines count from what its whole log says of leases: after a restart, a checkpoint in it
                // may be applied only now.
                Some(_) if node.linearizable_view().await.is_ok() => {
                    node.lessor().promote(node.settings().election_timeout);
                }
                // It may lead no more; who waits for the table looks again.
                Some(_) => {
                    node.lessor().demote();
                    continue;
                }
                None if mutants::on(Mutant::OldLeaderRevokes) => {}
                None => node.lessor().demote(),
            }
            leads_since = leads;
        }
        if leads.is_some() || mutants::on(Mutant::OldLeaderRevokes) {
            revoke_expired(&node).await;
            if node.settings().lease_checkpoint {
                checkpoint(&node).await;
            }
        }
    }
}

async fn revoke_expired(node: &Node) {
    let retry = node.settings().request_timeout();
    let expired = node.lessor().0.table.lock().expired(Instant::now(), REVOKES_PER_ROUND, retry);
    // Only a leader that still is one may say that a lease is over.
    let leads = !expired.is_empty() && node.linearizable_view().await.is_ok() && node.is_leader();
    if !leads && (expired.is_empty() || !mutants::on(Mutant::OldLeaderRevokes)) {
        return;
    }
    futures::stream::iter(expired)
        .for_each_concurrent(REVOKES_IN_FLIGHT, |id| async move {
            let request = pb::LeaseRevokeRequest { id };
            match node.propose(Encoded::new(Op::LeaseRevoke(request))).await {
                Ok(_) | Err(Failure::Refusal(Refusal::LeaseNotFound)) => {
                    METRICS.server.lease_expired.inc();
                    debug!(lease_id = id, "lease expired");
                }
                Err(failure) => warn!(lease_id = id, %failure, "failed to revoke lease"),
            }
        })
        .await;
}

async fn checkpoint(node: &Node) {
    let due = node.lessor().0.table.lock().checkpoints(Instant::now(), CHECKPOINTS_PER_COMMAND);
    if due.is_empty() {
        return;
    }
    let checkpoints =
        due.into_iter().map(|(id, remaining_ttl)| pb::LeaseCheckpoint { id, remaining_ttl }).collect();
    propose_checkpoints(node, checkpoints).await;
}

/// A lease was kept alive: what the log says of its remaining time is not true any more.
pub(super) async fn clear_checkpoint(node: &Node, id: i64) {
    propose_checkpoints(node, vec![pb::LeaseCheckpoint { id, remaining_ttl: 0 }]).await;
}

async fn propose_checkpoints(node: &Node, checkpoints: Vec<pb::LeaseCheckpoint>) {
    let request = pb::LeaseCheckpointRequest { checkpoints };
    if let Err(failure) = node.propose(Encoded::new(Op::LeaseCheckpoint(request))).await {
        // The lease only lives longer than it must.
        warn!(%failure, "failed to checkpoint leases");
    }
}
