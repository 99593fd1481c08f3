//! Changing who belongs to the cluster.
//!
//! The leader decides, one change at a time: it alone knows who is reached and
//! how far the others are. Whoever was asked answers once it has applied the
//! change itself, so that its client finds what it asked for.
//!
//! A change is refused that could cost the cluster its quorum, unless
//! `--strict-reconfig-check` is off: members that never started, or that were
//! not reached for five seconds, count as missing.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::etcdserverpb as pb;
use proto::peer::Method;
use tracing::{info, warn};

use super::calls::at_leader;
use super::{Failure, Node, Reconfiguration};
use crate::config::ids::{self, hex};
use crate::config::url::Url;
use crate::metrics::METRICS;
use crate::raft::{Change, Contact};

/// How long a member must have been reached to count as healthy.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);
/// The part of the leader's log that a learner must have to be promoted: nine tenths.
const READY: (u64, u64) = (9, 10);

/// Adds a member.
///
/// # Errors
/// Why it cannot be added now.
pub async fn add(node: &Node, mut request: pb::MemberAddRequest) -> Result<pb::MemberAddResponse, Failure> {
    let urls: Result<Vec<Url>, String> = request.peer_ur_ls.iter().map(|url| Url::parse(url)).collect();
    let mut urls = urls.map_err(|_| Reconfiguration::BadUrls)?;
    if urls.is_empty() {
        return Err(Reconfiguration::BadUrls.into());
    }
    urls.sort();
    request.peer_ur_ls = urls.iter().map(Url::to_string).collect();
    let here = || add_here(node, &request);
    let mut answer: pb::MemberAddResponse = at_leader(node, Method::MemberAdd, &request, false, here).await?;
    answer.members = members_now(node, answer.members).await;
    answer.header = Some(node.header(0));
    Ok(answer)
}

/// Removes a member for good.
///
/// # Errors
/// Why it cannot go now.
pub async fn remove(
    node: &Node,
    request: pb::MemberRemoveRequest,
) -> Result<pb::MemberRemoveResponse, Failure> {
    let here = || remove_here(node, &request);
    let answer: pb::MemberRemoveResponse =
        at_leader(node, Method::MemberRemove, &request, false, here).await?;
    let members = match request.id == node.member_id() {
        // Nobody tells this member anything any more.
        true => answer.members,
        false => members_now(node, answer.members).await,
    };
    Ok(pb::MemberRemoveResponse { header: Some(node.header(0)), members })
}

/// Gives a member other peer URLs.
///
/// # Errors
/// Why it cannot have them.
pub async fn update(
    node: &Node,
    request: pb::MemberUpdateRequest,
) -> Result<pb::MemberUpdateResponse, Failure> {
    let here = || update_here(node, &request);
    let answer: pb::MemberUpdateResponse =
        at_leader(node, Method::MemberUpdate, &request, false, here).await?;
    let members = members_now(node, answer.members).await;
    Ok(pb::MemberUpdateResponse { header: Some(node.header(0)), members })
}

/// Gives a learner a vote.
///
/// # Errors
/// Why it cannot have one now.
pub async fn promote(
    node: &Node,
    request: pb::MemberPromoteRequest,
) -> Result<pb::MemberPromoteResponse, Failure> {
    let here = || promote_here(node, &request);
    let answer: pb::MemberPromoteResponse =
        at_leader(node, Method::MemberPromote, &request, false, here).await?;
    let members = members_now(node, answer.members).await;
    Ok(pb::MemberPromoteResponse { header: Some(node.header(0)), members })
}

/// The members once this one has applied the change; those the leader named, if that takes too long.
async fn members_now(node: &Node, named: Vec<pb::Member>) -> Vec<pb::Member> {
    match node.linearizable_view().await {
        Ok(_) => node.reader().members(),
        Err(failure) => {
            warn!(%failure, "the membership changed, and this member does not see it yet");
            named
        }
    }
}

pub(super) async fn add_here(
    node: &Node,
    request: &pb::MemberAddRequest,
) -> Result<pb::MemberAddResponse, Failure> {
    let _one_at_a_time = node.shared.changing.lock().await;
    let members = node.reader().members();
    let settings = node.settings();
    if settings.strict_reconfig
        && let Err(why) = Look::at(node, &members).may_add(request.is_learner)
    {
        warn!("requested-member-add" = ?request.peer_ur_ls, error = %why, "rejecting member add request");
        return Err(why.into());
    }
    if taken(&members, 0, &request.peer_ur_ls) {
        return Err(Reconfiguration::UrlsExist.into());
    }
    let learners = members.iter().filter(|member| member.is_learner).count();
    if request.is_learner && learners >= settings.learners_max {
        return Err(Reconfiguration::TooManyLearners.into());
    }
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let id = ids::member_id(&request.peer_ur_ls, "", Some(second));
    if members.iter().any(|member| member.id == id) || node.reader().removed(id) {
        return Err(Reconfiguration::IdExists.into());
    }
    let member = pb::Member {
        id,
        peer_ur_ls: request.peer_ur_ls.clone(),
        is_learner: request.is_learner,
        ..pb::Member::default()
    };
    let change = Change::Add(state::Node {
        id,
        name: String::new(),
        peer_urls: request.peer_ur_ls.clone(),
        learner: request.is_learner,
    });
    node.raft().change(change).await?;
    info!("added-peer-id" = hex(id), "added-peer-peer-urls" = ?member.peer_ur_ls, "added-peer-is-learner" = member.is_learner, "added member");
    Ok(pb::MemberAddResponse { header: None, member: Some(member), members: node.reader().members() })
}

pub(super) async fn remove_here(
    node: &Node,
    request: &pb::MemberRemoveRequest,
) -> Result<pb::MemberRemoveResponse, Failure> {
    let _one_at_a_time = node.shared.changing.lock().await;
    let members = node.reader().members();
    if node.settings().strict_reconfig
        && let Err(why) = Look::at(node, &members).may_remove(request.id)
    {
        warn!("requested-member-remove-id" = hex(request.id), error = %why, "rejecting member remove request");
        return Err(why.into());
    }
    if !members.iter().any(|member| member.id == request.id) {
        return Err(Reconfiguration::NotFound.into());
    }
    node.raft().change(Change::Remove(request.id)).await?;
    info!("removed-remote-peer-id" = hex(request.id), "removed member");
    let members = members.into_iter().filter(|member| member.id != request.id).collect();
    Ok(pb::MemberRemoveResponse { header: None, members })
}

pub(super) async fn update_here(
    node: &Node,
    request: &pb::MemberUpdateRequest,
) -> Result<pb::MemberUpdateResponse, Failure> {
    let _one_at_a_time = node.shared.changing.lock().await;
    let members = node.reader().members();
    if !members.iter().any(|member| member.id == request.id) {
        return Err(Reconfiguration::NotFound.into());
    }
    if taken(&members, request.id, &request.peer_ur_ls) {
        return Err(Reconfiguration::UrlsExist.into());
    }
    let change = Change::Update { id: request.id, peer_urls: request.peer_ur_ls.clone() };
    node.raft().change(change).await?;
    info!("updated-remote-peer-id" = hex(request.id), "updated-remote-peer-urls" = ?request.peer_ur_ls, "updated member");
    Ok(pb::MemberUpdateResponse { header: None, members: node.reader().members() })
}

pub(super) async fn promote_here(
    node: &Node,
    request: &pb::MemberPromoteRequest,
) -> Result<pb::MemberPromoteResponse, Failure> {
    let _one_at_a_time = node.shared.changing.lock().await;
    match promoted(node, request.id).await {
        Ok(()) => METRICS.server.learner_promote_successes.inc(),
        Err(failure) => {
            if let Failure::Reconfiguration(why) = &failure {
                let failures = &METRICS.server.learner_promote_failures;
                failures.with_label_values(&[&format!("etcdserver: {why}")]).inc();
            }
            return Err(failure);
        }
    }
    info!("promoted-member-id" = hex(request.id), "promote member");
    Ok(pb::MemberPromoteResponse { header: None, members: node.reader().members() })
}

async fn promoted(node: &Node, id: u64) -> Result<(), Failure> {
    let members = node.reader().members();
    let look = Look::at(node, &members);
    if let Err(why) = look.may_promote(id, node.status().committed, node.settings().strict_reconfig) {
        warn!("requested-member-promote-id" = hex(id), error = %why, "rejecting member promote request");
        return Err(why.into());
    }
    node.raft().change(Change::Promote(id)).await?;
    Ok(())
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Whether a member other than `except` has one of these URLs.
fn taken(members: &[pb::Member], except: u64, urls: &[String]) -> bool {
    let others = members.iter().filter(|member| member.id != except);
    others.flat_map(|member| &member.peer_ur_ls).any(|url| urls.contains(url))
}

/// The cluster as the leader sees it at one moment.
struct Look<'a> {
    leader: u64,
    members: &'a [pb::Member],
    contacts: Vec<Contact>,
}

impl<'a> Look<'a> {
    fn at(node: &Node, members: &'a [pb::Member]) -> Self {
        Self { leader: node.member_id(), members, contacts: node.raft().contacts() }
    }

    fn may_add(&self, is_learner: bool) -> Result<(), Reconfiguration> {
        let voters = self.voters().count();
        if !is_learner {
            let started = started(self.voters());
            // A cluster of one may always grow: that is how a restored one does.
            let grows_from_one = started == 1 && voters == 1;
            if !grows_from_one && started < quorum(voters + 1) {
                return Err(Reconfiguration::NotEnoughStarted);
            }
        }
        // The new one does not answer at first.
        if voters != 1 && self.healthy() < quorum(voters + 1) {
            return Err(Reconfiguration::Unhealthy);
        }
        Ok(())
    }

    fn may_remove(&self, id: u64) -> Result<(), Reconfiguration> {
        if self.members.iter().any(|member| member.id == id && member.is_learner) {
            return Ok(());
        }
        let rest = || self.voters().filter(|member| member.id != id);
        if started(rest()) < quorum(rest().count()) {
            return Err(Reconfiguration::NotEnoughStarted);
        }
        // One that is down is no part of the quorum that lives.
        if id != self.leader && self.contact(id).and_then(|contact| contact.active_since).is_none() {
            return Ok(());
        }
        // Without the one that goes there must still be a quorum of the rest.
        if self.healthy().saturating_sub(1) < quorum(self.voters().count().saturating_sub(1)) {
            return Err(Reconfiguration::Unhealthy);
        }
        Ok(())
    }

    fn may_promote(&self, id: u64, committed: u64, strict: bool) -> Result<(), Reconfiguration> {
        let member = self.members.iter().find(|member| member.id == id).ok_or(Reconfiguration::NotFound)?;
        if id != self.leader {
            let matched = self.contact(id).and_then(|contact| contact.matched).unwrap_or(0);
            if matched.saturating_mul(READY.1) < committed.saturating_mul(READY.0) {
                return Err(Reconfiguration::LearnerNotReady);
            }
        }
        // The learner counts, and as started: it has most of the log.
        if strict && started(self.voters()) + 1 < quorum(self.voters().count() + 1) {
            return Err(Reconfiguration::NotEnoughStarted);
        }
        if member.is_learner { Ok(()) } else { Err(Reconfiguration::NotLearner) }
    }

    fn voters(&self) -> impl Iterator<Item = &'a pb::Member> {
        self.members.iter().filter(|member| !member.is_learner)
    }

    fn contact(&self, id: u64) -> Option<&Contact> {
        self.contacts.iter().find(|contact| contact.id == id)
    }

    /// How many voters were reached for long enough; the leader always is.
    fn healthy(&self) -> usize {
        let reached = |id| {
            let since = self.contact(id).and_then(|contact| contact.active_since);
            since.is_some_and(|since| Instant::now().duration_since(since) > HEALTHY_AFTER)
        };
        self.voters().filter(|member| member.id == self.leader || reached(member.id)).count()
    }
}

/// How many have said who they are.
fn started<'a>(members: impl Iterator<Item = &'a pb::Member>) -> usize {
    members.filter(|member| !member.name.is_empty()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members 1, 2 and so on, of which 1 leads. `d` down, `n` reached just now, `s` not started, `l` learner,
    /// anything else: well.
    fn cluster(states: &str) -> (Vec<pb::Member>, Vec<Contact>) {
        let now = Instant::now();
        let long_ago = now.checked_sub(2 * HEALTHY_AFTER).expect("the machine has run for longer");
        states
            .chars()
            .zip(1..)
            .map(|(state, id)| {
                let name = if state == 's' { String::new() } else { format!("m{id}") };
                let peer_ur_ls = vec![format!("http://127.0.0.1:{id}")];
                let member =
                    pb::Member { id, name, peer_ur_ls, is_learner: state == 'l', ..Default::default() };
                let active_since = match state {
                    'd' | 's' => None,
                    'n' => Some(now),
                    _ => Some(long_ago),
                };
                (member, Contact { id, active_since, matched: Some(100) })
            })
            .unzip()
    }

    fn look<T>(states: &str, check: impl FnOnce(&Look<'_>) -> T) -> T {
        let (members, contacts) = cluster(states);
        check(&Look { leader: 1, members: &members, contacts })
    }

    #[test]
    fn a_member_is_added_when_the_quorum_can_do_without_it() {
        use Reconfiguration::{NotEnoughStarted, Unhealthy};
        for (states, voter, learner) in [
            ("+", Ok(()), Ok(())),
            ("++", Ok(()), Ok(())),
            ("+s", Err(NotEnoughStarted), Err(Unhealthy)),
            ("+n", Err(Unhealthy), Err(Unhealthy)),
            ("+++", Ok(()), Ok(())),
            ("++d", Err(Unhealthy), Err(Unhealthy)),
            ("++s", Err(NotEnoughStarted), Err(Unhealthy)),
            ("++++d", Ok(()), Ok(())),
            ("+++l", Ok(()), Ok(())),
        ] {
            assert_eq!(look(states, |look| look.may_add(false)), voter, "{states}");
            assert_eq!(look(states, |look| look.may_add(true)), learner, "{states}");
        }
    }

    #[test]
    fn a_member_goes_when_the_rest_are_a_quorum() {
        use Reconfiguration::{NotEnoughStarted, Unhealthy};
        for (states, id, expected) in [
            ("+", 1, Err(NotEnoughStarted)),
            ("++", 2, Ok(())),
            ("+++", 1, Ok(())),
            ("++d", 3, Ok(())),
            // Two of three live: the one that lives must stay.
            ("++d", 2, Err(Unhealthy)),
            ("++d", 1, Err(Unhealthy)),
            ("++n", 3, Err(Unhealthy)),
            ("+s", 1, Err(NotEnoughStarted)),
            ("+sl", 3, Ok(())),
            ("+++++", 5, Ok(())),
        ] {
            assert_eq!(look(states, |look| look.may_remove(id)), expected, "{states} without {id}");
        }
    }

    #[test]
    fn a_learner_is_promoted_when_it_has_nine_tenths_of_the_log() {
        use Reconfiguration::{LearnerNotReady, NotFound, NotLearner};
        let promote = |states, id, committed| look(states, |look| look.may_promote(id, committed, true));
        assert_eq!(promote("+++l", 4, 111), Ok(()));
        assert_eq!(promote("+++l", 4, 112), Err(LearnerNotReady));
        assert_eq!(promote("+++l", 3, 100), Err(NotLearner));
        assert_eq!(promote("+++l", 1, 1_000), Err(NotLearner));
        assert_eq!(promote("+++l", 9, 100), Err(NotFound));
    }
}
