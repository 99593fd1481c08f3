//! When a member that starts stands for its first election: `--initial-election-tick-advance`.
//!
//! As in etcd. With the flag, not long after it has reached its peers: the
//! leader, if there is one, has been heard of by then. Without, only after one
//! to two election timeouts, so that a member far away does not get ahead of
//! those that are to lead. A member that is alone never waits.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::Inner;
use super::peers::Peers;
use super::start::Member;

/// How often peers are looked for …
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// … and for how long. The usual timeout is over by then, or its owner is patient.
const LOOK_TIME_MAX: Duration = Duration::from_secs(5);
/// So many peers are enough to be sure to hear of a leader.
const PEERS_ENOUGH: usize = 2;

impl Member {
    /// Waits for the moment, and stands for election unless somebody leads.
    pub(super) async fn first_election(&self, raft: &Inner) {
        let (heartbeat, election) = (self.config.heartbeat_ms, self.config.election_ms);
        let random = |max_ms: u64| Duration::from_millis(rand::rng().random_range(0..max_ms.max(1)));
        if !self.config.advance_first_election {
            tracing::info!(election_timeout_ms = election, "skipping initial election tick advance");
            tokio::time::sleep(Duration::from_millis(election) + random(election)).await;
            // What openraft waits for is long over: it looks at its next tick.
            raft.runtime_config().elect(!self.status.fingerprints.diverged());
            return;
        }
        tracing::info!(election_timeout_ms = election, "starting initial election tick advance");
        if !reached(&self.peers).await {
            return;
        }
        let rest = Duration::from_millis(2 * heartbeat) + random(election / 2);
        tracing::info!(
            remaining_ms = rest.as_millis() as u64,
            "initialized peer connections; fast-forwarding election ticks"
        );
        tokio::time::sleep(rest).await;
        let heard = self.status.heard_within(Duration::from_millis(election));
        if heard || self.status.leader().0 != 0 || self.status.fingerprints.diverged() {
            return;
        }
        if raft.trigger().elect(self.config.pre_vote).await.is_err() {
            tracing::debug!("consensus has ended before the first election");
        }
    }
}

/// Whether peers are there before long.
async fn reached(peers: &Peers) -> bool {
    let began = Instant::now();
    while began.elapsed() < LOOK_TIME_MAX {
        let known = peers.active_since();
        let active = known.iter().filter(|(_, since)| since.is_some()).count();
        if active > 0 && active >= known.len().min(PEERS_ENOUGH) {
            return true;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    false
}
