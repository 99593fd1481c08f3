//! Changes of who belongs to the cluster, and of who leads it.
//!
//! A new member joins the log without a vote, and gets it once it has caught
//! up: the quorum never hangs on one that has not started yet. To clients it is
//! a voter from the first moment, as it is in etcd.
//!
//! openraft changes voters in two steps. Where a leader was lost between them,
//! the next one takes the second step before anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Precondition};
use tokio::time::Instant;

use super::peers::Peers;
use super::status::Shared;
use super::types::{LogId, Node, TypeConfig};
use super::{Change, Contact, Inner, Raft};
use crate::error::Unavailable;

/// The pause while another change is under way.
const PAUSE: Duration = Duration::from_millis(20);
/// A member has caught up when it lacks no more entries than this.
const LAG_MAX: u64 = 1_000;

type Changes = ChangeMembers<u64, Node>;

impl Raft {
    /// Changes the membership; resolves once the change is committed and applied here. For the leader alone.
    ///
    /// # Errors
    /// When this member does not lead or the change was not committed.
    pub async fn change(&self, change: Change) -> Result<(), Unavailable> {
        let core = &self.shared.core;
        match change {
            Change::Add(node) => {
                self.commit(ChangeMembers::AddNodes(BTreeMap::from([(node.id, node.into())]))).await
            }
            Change::Remove(id) => {
                let voter = core.voter_ids().any(|voter| voter == id);
                let ids = BTreeSet::from([id]);
                let remove =
                    if voter { ChangeMembers::RemoveVoters(ids) } else { ChangeMembers::RemoveNodes(ids) };
                self.commit(remove).await
            }
            Change::Update { id, peer_urls } => self.set_node(id, |node| node.peer_urls = peer_urls).await,
            Change::Promote(id) => {
                self.set_node(id, |node| node.learner = false).await?;
                self.commit(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
            }
        }
    }

    async fn set_node(&self, id: u64, set: impl FnOnce(&mut Node)) -> Result<(), Unavailable> {
        let node =
            self.shared.core.metrics().borrow_watched().membership_config.membership().get_node(&id).cloned();
        let Some(mut node) = node else { return Ok(()) };
        set(&mut node);
        self.commit(ChangeMembers::SetNodes(BTreeMap::from([(id, node)]))).await
    }

    async fn commit(&self, changes: Changes) -> Result<(), Unavailable> {
        let index = commit(&self.shared.core, &self.shared.status, changes).await?;
        self.wait_applied(index).await
    }

    /// Has another voter take over; resolves once this member knows that it leads.
    ///
    /// # Errors
    /// When this member does not lead, the other does not answer, or nothing came of it within two elections.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), Unavailable> {
        let mut changes = self.status_watch();
        let me = self.status().member_id;
        if self.status().leader != me {
            return Err(Unavailable::NoLeader);
        }
        if to == me {
            return Ok(());
        }
        // A leader that hands over writes no more. To one that cannot lead it would do so for ever.
        if !self.shared.core.voter_ids().any(|voter| voter == to) {
            return Err(Unavailable::TimedOut);
        }
        let until = Instant::now() + 2 * self.shared.election_time;
        let mut ask_at = Instant::now();
        loop {
            if Instant::now() >= ask_at {
                let asked = self.shared.core.trigger().transfer_leader(to).await;
                asked.map_err(|_| Unavailable::Stopped)?;
                ask_at = Instant::now() + self.shared.election_time;
            }
            let changed = async {
                changes.wait_for(|status| status.leader != me && status.leader != 0).await.map(drop)
            };
            match tokio::time::timeout(PAUSE, changed).await {
                Ok(Ok(())) => return self.leads(to, until).await,
                Ok(Err(_)) => return Err(Unavailable::Stopped),
                Err(_elapsed) if Instant::now() >= until || !self.is_active(to) => {
                    return Err(Unavailable::TimedOut);
                }
                Err(_elapsed) => {}
            }
        }
    }

    fn is_active(&self, member: u64) -> bool {
        let active_since = self.shared.peers.active_since();
        active_since.iter().any(|(id, since)| *id == member && since.is_some())
    }

    /// Returns once another member answers as the leader, or at the end of the time: it may be a third one that leads.
    async fn leads(&self, member: u64, until: Instant) -> Result<(), Unavailable> {
        while self.status().leader == member && Instant::now() < until {
            if let Ok(Ok(_)) = tokio::time::timeout(PAUSE * 10, self.read_index()).await {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// On the leader: the voter that is best to lead next.
    pub fn heir(&self) -> Option<u64> {
        heir(&self.shared.core, &self.shared.peers)
    }

    /// How the ways to the other members are.
    pub fn contacts(&self) -> Vec<Contact> {
        contacts(&self.shared.core, &self.shared.peers)
    }
}

fn contacts(core: &Inner, peers: &Peers) -> Vec<Contact> {
    let matched = core.metrics().borrow_watched().replication.clone().unwrap_or_default();
    let contacts = peers.active_since().into_iter().map(|(id, active_since)| Contact {
        id,
        active_since,
        matched: matched.get(&id).and_then(|log_id| log_id.as_ref()).map(|log_id| log_id.index + 1),
    });
    contacts.collect()
}

/// On the leader: of the other voters one that answers, and has most of the log.
pub(super) fn heir(core: &Inner, peers: &Peers) -> Option<u64> {
    let voters: BTreeSet<u64> = core.voter_ids().collect();
    let able = |contact: &Contact| voters.contains(&contact.id) && contact.active_since.is_some();
    contacts(core, peers)
        .into_iter()
        .filter(able)
        .max_by_key(|contact| contact.matched)
        .map(|contact| contact.id)
}

/// Commits a change, after those that are under way; gives the index of its last entry.
async fn commit(core: &Inner, status: &Shared, changes: Changes) -> Result<u64, Unavailable> {
    let _turn = status.membership_turn.lock().await;
    loop {
        let seen = Seen::now(core);
        // A leader that was removed goes on for a moment, to tell the others.
        if !seen.votes {
            return Err(Unavailable::NoLeader);
        }
        let step = if seen.half_done { second_step() } else { changes.clone() };
        match core.change_membership_if(step, false, [seen.still()]).await {
            Ok(_) if seen.half_done => {}
            Ok(written) => return Ok(written.log_id.index + 1),
            Err(RaftError::Fatal(_)) => return Err(Unavailable::Stopped),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                return Err(Unavailable::NoLeader);
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                return Err(Unavailable::LeaderChanged);
            }
            Err(RaftError::APIError(error @ ClientWriteError::ChangeMembershipError(_))) => {
                if !in_progress(&error) {
                    tracing::warn!(%error, "a change of the membership is refused");
                    return Err(Unavailable::TimedOut);
                }
                tokio::time::sleep(PAUSE).await;
            }
            // What was seen was not the last any more.
            Err(RaftError::APIError(ClientWriteError::PreconditionFailed(_))) => {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The membership that a change starts from.
struct Seen {
    log_id: Option<LogId>,
    /// Of a change of voters only the first step was taken.
    half_done: bool,
    /// This member has a vote.
    votes: bool,
}

impl Seen {
    fn now(core: &Inner) -> Seen {
        let metrics = core.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        Seen {
            log_id: *membership.log_id(),
            half_done: membership.get_joint_config().len() > 1,
            votes: membership.voter_ids().any(|voter| voter == metrics.id),
        }
    }

    /// Nothing is to be changed but this.
    fn still(&self) -> Precondition<TypeConfig> {
        Precondition::LastMembershipLogId { last_membership_log_id: self.log_id }
    }
}

/// Completes what is half done: it ends with the voters of its first step.
fn second_step() -> Changes {
    ChangeMembers::AddVoterIds(BTreeSet::new())
}

fn in_progress(error: &ClientWriteError<TypeConfig>) -> bool {
    use openraft::errors::ChangeMembershipError::InProgress;
    matches!(error, ClientWriteError::ChangeMembershipError(InProgress(_)))
}

/// On the leader: completes what an earlier one left half done, or gives their votes to members that are to have one
/// and have caught up. Does nothing while another change is under way.
pub(super) async fn give_votes(core: Inner, status: Arc<Shared>) {
    let Ok(_turn) = status.membership_turn.try_lock() else { return };
    let seen = Seen::now(&core);
    let voters = if seen.half_done { BTreeSet::new() } else { waiting(&core) };
    if !seen.votes || (voters.is_empty() && !seen.half_done) {
        return;
    }
    let ids: Vec<String> = voters.iter().map(|id| format!("{id:x}")).collect();
    let changes = ChangeMembers::AddVoterIds(voters);
    match core.change_membership_if(changes, false, [seen.still()]).await {
        Ok(_) if seen.half_done => tracing::info!("completed the last leader's change of the membership"),
        Ok(_) => tracing::info!(members = ids.join(","), "members have caught up and vote from now on"),
        Err(error) => tracing::debug!(%error, "no votes given"),
    }
}

/// On the leader: who has caught up and waits for a vote.
fn waiting(core: &Inner) -> BTreeSet<u64> {
    let metrics = core.metrics();
    let metrics = metrics.borrow_watched();
    let Some(replication) = &metrics.replication else { return BTreeSet::new() };
    let last = metrics.last_log_index.unwrap_or(0);
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let caught_up = |id: &u64| {
        let matched = replication.get(id).and_then(|log_id| log_id.as_ref());
        matched.is_some_and(|log_id| log_id.index + LAG_MAX >= last)
    };
    let waiting = membership.nodes().filter(|(id, node)| !node.learner && !voters.contains(id));
    waiting.map(|(id, _)| *id).filter(caught_up).collect()
}
