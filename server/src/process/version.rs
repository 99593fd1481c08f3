//! The version that all members speak: what the cluster as a whole can do.
//!
//! It begins at 3.0.0 and is raised by the leader to the least version among
//! the members once all of them have said theirs. It is lowered, by one minor
//! version, only when that was asked for ([`crate::node::downgrade`]); the leader ends
//! such a downgrade when all members run the version that it was for.

use std::time::Duration;

use anyhow::ensure;
use futures::future::join_all;
use proto::command::ClusterVersion;
use proto::command::command::Op;
use proto::etcdserverpb as pb;
use serde::Deserialize;
use state::Reader;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tracing::{error, info, warn};

use crate::config::help::ETCD_VERSION;
use crate::node::{Encoded, Node, downgrade, stopped};
use crate::peer::dial::Dialer;
use crate::version::Version;

/// How often the leader asks.
const ROUND: Duration = Duration::from_secs(4);
/// How long a member may take to say its version.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Stands for no looks at all.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Refuses to serve a state whose cluster has a version that this member does not speak.
///
/// # Errors
/// When the cluster's version is higher than this member's.
pub fn check(reader: &Reader) -> anyhow::Result<()> {
    let cluster = reader.cluster_version();
    ensure!(
        cluster.as_deref().and_then(Version::read).is_none_or(|cluster| cluster <= Version::own()),
        "invalid downgrade; server version is lower than determined cluster version: {} < {}",
        Version::own(),
        cluster.unwrap_or_default()
    );
    let downgrade = reader.downgrade();
    if downgrade.enabled {
        warn!(
            "target-cluster-version" = downgrade.target_version,
            "current-server-version" = ETCD_VERSION,
            "cluster is downgrading to target version"
        );
    }
    Ok(())
}

/// Lets the leader decide, at once when it begins to lead and every now and then, and look after a downgrade every
/// `downgrade_looks`, if at all.
pub async fn run(
    node: Node,
    dialer: Dialer,
    downgrade_looks: Option<Duration>,
    mut stop: watch::Receiver<bool>,
) {
    let mut status = node.raft().status_watch();
    let mut ticks = tokio::time::interval(ROUND);
    let every = downgrade_looks.unwrap_or(NEVER);
    let mut looks = tokio::time::interval_at(Instant::now() + every, every);
    for interval in [&mut ticks, &mut looks] {
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut storage = node.reader().storage_version();
    let mut led = false;
    loop {
        let mut look = false;
        tokio::select! {
            _ = ticks.tick() => {}
            _ = looks.tick() => look = true,
            changed = status.wait_for(|status| (status.leader == node.member_id()) != led) => {
                if changed.is_err() {
                    return;
                }
                led = !led;
            }
            () = stopped(&mut stop) => return,
        }
        // The members it leads are known once it has applied something of its own term.
        if node.is_leader() && node.linearizable_view().await.is_ok() {
            match look {
                true => end_downgrade(&node, &dialer).await,
                false => decide(&node, &versions(&node, &dialer).await).await,
            }
        }
        tell_storage(&node, &mut storage);
    }
}

/// The versions of the other members, as far as they say them.
async fn versions(node: &Node, dialer: &Dialer) -> Vec<Option<Version>> {
    let others: Vec<pb::Member> =
        node.reader().members().into_iter().filter(|member| member.id != node.member_id()).collect();
    join_all(others.iter().map(|member| ask(member, dialer))).await
}

/// Proposes the version that follows from what the other members said, if that is news.
pub async fn decide(node: &Node, others: &[Option<Version>]) {
    let current = node.reader().cluster_version().as_deref().and_then(Version::read);
    let least = others.iter().copied().try_fold(Version::own(), |least, other| Some(least.min(other?)));
    let downgrade = node.reader().downgrade();
    let target = downgrade.enabled.then(|| Version::read(&downgrade.target_version)).flatten();
    let version = match next(current, least, target) {
        Ok(Some(version)) => version,
        Ok(None) => return,
        Err(InvalidTarget) => {
            return error!(
                "downgrade-target" = downgrade.target_version,
                "cluster-version" = ?current,
                "minimal-server-version" = ?least,
                error = "invalid downgrade target",
                "Failed to monitor cluster version"
            );
        }
    };
    match current {
        None => info!("cluster-version" = version.short(), "setting up initial cluster version using v3 API"),
        Some(from) => {
            info!(from = from.short(), to = version.short(), "updating cluster version using v3 API");
        }
    }
    let command = Encoded::new(Op::ClusterVersion(ClusterVersion { version: version.to_string() }));
    match node.propose(command).await {
        Ok(_applied) => info!("cluster-version" = version.short(), "cluster version is updated"),
        Err(failure) => warn!(%failure, "failed to update cluster version"),
    }
}

/// The target of a downgrade is not one below what it should be one below of.
#[derive(Debug, PartialEq, Eq)]
struct InvalidTarget;

/// What the cluster's version becomes, given the least of its members' and the target of a downgrade under way.
fn next(
    current: Option<Version>,
    least: Option<Version>,
    target: Option<Version>,
) -> Result<Option<Version>, InvalidTarget> {
    let Some(current) = current else {
        return Ok(Some(least.unwrap_or(Version::FIRST)));
    };
    let Some(least) = least else { return Ok(None) };
    match target {
        Some(target) if target == current => Ok(None),
        Some(target) if [current, least].iter().all(|version| version.one_below() == Some(target)) => {
            Ok(Some(target))
        }
        Some(_) => Err(InvalidTarget),
        None => Ok((current < least && current.major == least.major).then_some(least)),
    }
}

/// Ends a downgrade once all members run the version that it was for.
async fn end_downgrade(node: &Node, dialer: &Dialer) {
    let downgrade = node.reader().downgrade();
    let Some(target) = downgrade.enabled.then(|| Version::read(&downgrade.target_version)).flatten() else {
        return;
    };
    if Version::own() != target || versions(node, dialer).await.iter().any(|other| *other != Some(target)) {
        return;
    }
    info!("cluster-version" = downgrade.target_version, "the cluster has been downgraded");
    if let Err(failure) = downgrade::cancel(node).await {
        warn!(%failure, "failed to cancel downgrade");
    }
}

/// Says when the version of the storage has changed, and that a downgrade has got as far as a member takes it.
fn tell_storage(node: &Node, before: &mut Option<String>) {
    let now = node.reader().storage_version();
    if now == *before {
        return;
    }
    if let Some(version) = &now {
        info!("new-storage-version" = version, "updated storage version");
        let downgrade = node.reader().downgrade();
        if downgrade.enabled {
            info!(
                "target-version" = downgrade.target_version,
                "server-version" = ETCD_VERSION,
                "The server is ready to downgrade"
            );
        }
    }
    *before = now;
}

#[derive(Deserialize)]
struct Versions {
    etcdserver: String,
}

async fn ask(member: &pb::Member, dialer: &Dialer) -> Option<Version> {
    for url in &member.peer_ur_ls {
        match timeout(ASK_TIMEOUT, dialer.get(url, "/version")).await {
            Ok(Ok(got)) => {
                let versions: Option<Versions> = serde_json::from_slice(&got.body).ok();
                if let Some(version) = versions.and_then(|versions| Version::read(&versions.etcdserver)) {
                    return Some(version);
                }
            }
            Ok(Err(error)) => {
                warn!(address = %url, "remote-member-id" = format!("{:x}", member.id), error = %format!("{error:#}"), "failed to reach the peer URL");
            }
            Err(_elapsed) => {
                warn!(address = %url, "remote-member-id" = format!("{:x}", member.id), error = "no answer in time", "failed to reach the peer URL");
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_version_follows_its_members_and_goes_down_when_asked() {
        let of = |text: &str| Version::read(text);
        let cases = [
            // What is, the least of the members, what a downgrade is to: what follows.
            ("", "", "", Ok("3.0.0")),
            ("", "3.7.3", "", Ok("3.7.0")),
            ("3.0.0", "", "", Ok("")),
            ("3.0.0", "3.7.3", "", Ok("3.7.0")),
            ("3.7.0", "3.7.3", "", Ok("")),
            ("3.7.0", "3.6.0", "", Ok("")),
            ("3.7.0", "4.0.0", "", Ok("")),
            ("3.7.0", "3.7.3", "3.6.0", Ok("3.6.0")),
            ("3.7.0", "", "3.6.0", Ok("")),
            ("3.6.0", "3.7.3", "3.6.0", Ok("")),
            ("3.6.0", "3.6.9", "3.6.0", Ok("")),
            // Cancelled.
            ("3.6.0", "3.7.3", "", Ok("3.7.0")),
            ("3.6.0", "3.7.3", "3.5.0", Err(InvalidTarget)),
            ("3.7.0", "3.6.0", "3.6.0", Err(InvalidTarget)),
        ];
        for (current, least, target, expected) in cases {
            let decided = next(of(current), of(least), of(target));
            assert_eq!(decided, expected.map(of), "{current} {least} {target}");
        }
    }
}
