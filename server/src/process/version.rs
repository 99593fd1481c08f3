//! The version that all members speak: what the cluster as a whole can do.
//!
//! It begins at 3.0.0 and is raised by the leader, never lowered, to the least
//! version among the members once all of them have said theirs.

use std::time::Duration;

use futures::future::join_all;
use proto::command::ClusterVersion;
use proto::command::command::Op;
use proto::etcdserverpb as pb;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::help::ETCD_VERSION;
use crate::node::{Encoded, Node, stopped};
use crate::peer::dial::Dialer;

/// How often the leader asks.
const ROUND: Duration = Duration::from_secs(4);
/// How long a member may take to say its version.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// The version while not all members are known.
const FIRST: Version = (3, 0);

/// Major and minor.
type Version = (u64, u64);

/// Lets the leader decide, at once when it begins to lead and every now and then.
pub async fn run(node: Node, dialer: Dialer, mut stop: watch::Receiver<bool>) {
    let mut status = node.raft().status_watch();
    let mut ticks = tokio::time::interval(ROUND);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut led = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
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
            let others: Vec<pb::Member> =
                node.reader().members().into_iter().filter(|member| member.id != node.member_id()).collect();
            let versions = join_all(others.iter().map(|member| ask(member, &dialer))).await;
            decide(&node, &versions).await;
        }
    }
}

/// Proposes the version that follows from what the other members said, if that is news.
pub async fn decide(node: &Node, others: &[Option<Version>]) {
    let current = node.reader().cluster_version();
    let own = read(ETCD_VERSION).expect("our own version is one");
    let least = others.iter().copied().try_fold(own, |least, other| Some(least.min(other?)));
    let (major, minor) = match (current.as_deref().and_then(read), least) {
        (None, least) => least.unwrap_or(FIRST),
        (Some(current), Some(least)) if current < least => least,
        _ => return,
    };
    let version = format!("{major}.{minor}.0");
    match current {
        None => info!("cluster-version" = version, "setting up initial cluster version using v3 API"),
        Some(from) => info!(from, to = version, "updating cluster version using v3 API"),
    }
    let command = Encoded::new(Op::ClusterVersion(ClusterVersion { version }));
    if let Err(failure) = node.propose(command).await {
        warn!(%failure, "failed to update cluster version");
    }
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
                if let Some(version) = versions.and_then(|versions| read(&versions.etcdserver)) {
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

fn read(text: &str) -> Option<Version> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(read("3.7.1"), Some((3, 7)));
        assert_eq!(read("not_decided"), None);
        assert!(FIRST < read(ETCD_VERSION).unwrap());
    }
}
