//! Changing who belongs to the cluster.
//!
//! The leader decides, one change at a time: it alone knows who is reached and
//! how far the others are. Whoever was asked answers once it has applied the
//! change itself, so that its client finds what it asked for.
//!
//! A change is refused that could cost the cluster its quorum, unless
//! `--strict-reconfig-check` is off: members that never started, or that were
//! not reached for [`HEALTHY_AFTER`], count as missing.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::etcdserverpb as pb;
use proto::peer::Method;
use tracing::{info, warn};

use super::calls::at_leader;
use super::{Failure, Node, Reconfiguration};
use crate::config::ids;
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
    if settings.strict_reconfig {
        may_add(node, &members, request)?;
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

fn may_add(node: &Node, members: &[pb::Member], request: &pb::MemberAddRequest) -> Result<(), Failure> {
    let refused = |why: Reconfiguration| {
        warn!("requested-member-add" = ?request.peer_ur_ls, error = %why, "rejecting member add request");
        Err(why.into())
    };
    let voters = voters(members);
    if !request.is_learner {
        let started = started(&voters);
        // A cluster of one may always grow: that is how a restored one does.
        let grows_from_one = started == 1 && voters.len() == 1;
        if !grows_from_one && started < quorum(voters.len() + 1) {
            return refused(Reconfiguration::NotEnoughStarted);
        }
    }
    // The new one does not answer at first.
    if voters.len() != 1 && healthy(node, &voters) < quorum(voters.len() + 1) {
        return refused(Reconfiguration::Unhealthy);
    }
    Ok(())
}

pub(super) async fn remove_here(
    node: &Node,
    request: &pb::MemberRemoveRequest,
) -> Result<pb::MemberRemoveResponse, Failure> {
    let _one_at_a_time = node.shared.changing.lock().await;
    let members = node.reader().members();
    if node.settings().strict_reconfig {
        may_remove(node, &members, request.id)?;
    }
    if !members.iter().any(|member| member.id == request.id) {
        return Err(Reconfiguration::NotFound.into());
    }
    node.raft().change(Change::Remove(request.id)).await?;
    info!("removed-remote-peer-id" = hex(request.id), "removed member");
    let members = members.into_iter().filter(|member| member.id != request.id).collect();
    Ok(pb::MemberRemoveResponse { header: None, members })
}

fn may_remove(node: &Node, members: &[pb::Member], id: u64) -> Result<(), Failure> {
    let refused = |why: Reconfiguration| {
        warn!("requested-member-remove-id" = hex(id), error = %why, "rejecting member remove request");
        Err(why.into())
    };
    if members.iter().any(|member| member.id == id && member.is_learner) {
        return Ok(());
    }
    let voters = voters(members);
    let rest: Vec<&pb::Member> = voters.iter().copied().filter(|member| member.id != id).collect();
    if started(&rest) < quorum(rest.len()) {
        return refused(Reconfiguration::NotEnoughStarted);
    }
    // One that is down is no part of the quorum that lives.
    if id != node.member_id() && contact(node, id).and_then(|contact| contact.active_since).is_none() {
        return Ok(());
    }
    // Without the one that goes there must still be a quorum of the rest.
    if healthy(node, &voters).saturating_sub(1) < quorum(voters.len().saturating_sub(1)) {
        return refused(Reconfiguration::Unhealthy);
    }
    Ok(())
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
    let Some(member) = members.iter().find(|member| member.id == id) else {
        return Err(Reconfiguration::NotFound.into());
    };
    if id != node.member_id() {
        let matched = contact(node, id).and_then(|contact| contact.matched).unwrap_or(0);
        let own = node.status().committed;
        if matched.saturating_mul(READY.1) < own.saturating_mul(READY.0) {
            warn!(
                "learner-match" = matched,
                "leader-match" = own,
                "rejecting promote learner: learner is not ready"
            );
            return Err(Reconfiguration::LearnerNotReady.into());
        }
    }
    if node.settings().strict_reconfig {
        let voters = voters(&members);
        // The learner counts, and as started: it has most of the log.
        if started(&voters) + 1 < quorum(voters.len() + 1) {
            warn!(
                "requested-member-promote-id" = hex(id),
                "rejecting member promote request; not enough healthy members"
            );
            return Err(Reconfiguration::NotEnoughStarted.into());
        }
    }
    if !member.is_learner {
        return Err(Reconfiguration::NotLearner.into());
    }
    node.raft().change(Change::Promote(id)).await?;
    Ok(())
}

fn hex(id: u64) -> String {
    format!("{id:x}")
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

fn voters(members: &[pb::Member]) -> Vec<&pb::Member> {
    members.iter().filter(|member| !member.is_learner).collect()
}

/// How many have said who they are.
fn started(members: &[&pb::Member]) -> usize {
    members.iter().filter(|member| !member.name.is_empty()).count()
}

/// Whether a member other than `except` has one of these URLs.
fn taken(members: &[pb::Member], except: u64, urls: &[String]) -> bool {
    let others = members.iter().filter(|member| member.id != except);
    others.flat_map(|member| &member.peer_ur_ls).any(|url| urls.contains(url))
}

fn contact(node: &Node, id: u64) -> Option<Contact> {
    node.raft().contacts().into_iter().find(|contact| contact.id == id)
}

/// How many of these members were reached for long enough; this one is always.
fn healthy(node: &Node, voters: &[&pb::Member]) -> usize {
    let contacts = node.raft().contacts();
    let reached = |id| {
        let since = contacts.iter().find(|contact| contact.id == id).and_then(|contact| contact.active_since);
        since.is_some_and(|since| Instant::now().duration_since(since) > HEALTHY_AFTER)
    };
    voters.iter().filter(|member| member.id == node.member_id() || reached(member.id)).count()
}
