//! What has to be looked at while a member runs: who can lead, whether the disk answers, who is to get a vote.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;

use super::start::Member;
use super::types::StoredMembership;
use super::{Inner, membership};

/// How often, at least, the raft core is asked whether it still runs.
const PULSE_MAX: Duration = Duration::from_millis(500);

impl Member {
    /// Publishes roles as they change; resolves to why openraft has ended.
    pub(super) async fn look_after(&self, raft: &Inner) -> String {
        let (mut roles, metrics) = (raft.server_metrics(), raft.metrics());
        let mut pulse = tokio::time::interval(PULSE_MAX.min(self.election_time() / 4));
        let mut stepping_down = None;
        let mut giving_votes: Option<tokio::task::JoinHandle<()>> = None;
        let mut configuration = String::new();
        loop {
            let leads = {
                let role = roles.borrow_and_update();
                let now = described(&role.membership_config);
                if now != configuration {
                    tracing::info!("{:x} switched to configuration {now}", self.config.member_id);
                    configuration = now;
                }
                let leader = role.current_leader.filter(|leader| self.can_lead(*leader, raft)).unwrap_or(0);
                let own = role.membership_config.membership().get_node(&self.config.member_id);
                self.status.set_role(leader, role.vote.leader_id.term, own.is_some_and(|node| node.learner));
                leader == self.config.member_id
            };
            if self.status.fingerprints.diverged() {
                raft.runtime_config().elect(false);
            }
            if let Err(error) = &metrics.borrow_watched().running_state {
                return format!("raft: {error}");
            }
            self.look_after_disk(raft, &mut stepping_down).await;
            self.send_state.prune();
            if leads && giving_votes.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                giving_votes = Some(tokio::spawn(membership::give_votes(raft.clone(), self.status.clone())));
            }
            tokio::select! {
                changed = roles.changed() => if changed.is_err() {
                    return "raft: its core has ended".into();
                },
                _ = pulse.tick() => {}
            }
        }
    }

    /// A leader whose disk hangs has another one lead, and says so; it asks again until one does.
    async fn look_after_disk(&self, raft: &Inner, asked: &mut Option<Instant>) {
        if !self.status.disk_hangs() {
            if asked.take().is_some() {
                tracing::info!("the disk of the raft log answers again");
            }
            return;
        }
        if asked.is_some_and(|at| at.elapsed() < self.election_time()) {
            return;
        }
        let again = asked.replace(Instant::now()).is_some();
        let heir = membership::heir(raft, &self.peers);
        if !again {
            tracing::error!(
                wal_dir = %self.config.wal_dir.display(),
                heir = heir.map(|id| format!("{id:x}")),
                "the disk of the raft log hangs: this member leads and serves no more until it answers"
            );
        }
        if let Some(heir) = heir
            && let Err(error) = raft.trigger().transfer_leader(heir).await
        {
            tracing::debug!(%error, "the leadership is not handed over");
        }
    }

    fn election_time(&self) -> Duration {
        Duration::from_millis(self.config.election_ms.max(10))
    }

    /// A leader that has heard of no quorum, or was not heard of, for too long leads no more, whatever the votes say.
    fn can_lead(&self, leader: u64, raft: &Inner) -> bool {
        if self.status.disk_hangs() {
            return false;
        }
        if leader != self.config.member_id {
            return self.status.heard_within(2 * self.election_time());
        }
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let alone = metrics.membership_config.voter_ids().eq([leader]);
        let acked = metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < self.election_time());
        alone || acked
    }
}

/// Who votes and who learns, as etcd's log says it; in the middle of a change, the voters of before and after.
fn described(membership: &StoredMembership) -> String {
    let ids = |ids: &mut dyn Iterator<Item = u64>| {
        let ids: Vec<String> = ids.map(|id| format!("{id:x}")).collect();
        format!("({})", ids.join(" "))
    };
    let voters: Vec<String> =
        membership.get_joint_config().iter().rev().map(|voters| ids(&mut voters.iter().copied())).collect();
    let mut text = format!("voters={}", if voters.is_empty() { "()".into() } else { voters.join("&&") });
    let members: BTreeSet<u64> = membership.voter_ids().collect();
    let learners = ids(&mut membership.nodes().map(|(id, _)| *id).filter(|id| !members.contains(id)));
    if learners != "()" {
        text += &format!(" learners={learners}");
    }
    text
}
