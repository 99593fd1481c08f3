//! What the HTTP endpoints ask, answered by the node; before there is one, that it starts.

use std::sync::OnceLock;

use proto::etcdserverpb as pb;
use tokio::sync::watch;
use tracing::info;

use crate::http::{Checked, Health};
use crate::metrics::METRICS;
use crate::node::{Node, stopped};
use crate::version::Version;

/// The answer to a read before the member can read.
const STARTING: &str = "etcdserver: server is starting";

/// The member as probes see it.
#[derive(Default)]
pub struct MemberHealth {
    node: OnceLock<Node>,
}

impl MemberHealth {
    /// From now on it is this node that answers.
    pub fn is(&self, node: Node) {
        self.node.get_or_init(|| node);
    }
}

impl Health for MemberHealth {
    fn leader(&self) -> u64 {
        self.node.get().map_or(0, |node| node.status().leader)
    }

    fn alarms(&self) -> Vec<pb::AlarmMember> {
        self.node.get().map(|node| node.reader().alarms()).unwrap_or_default()
    }

    fn serializable_read(&self) -> Checked<'_> {
        Box::pin(async {
            let node = self.node.get().ok_or(STARTING)?;
            // A view that cannot be had is a fault, which ends the process.
            node.serializable_view();
            Ok(())
        })
    }

    fn linearizable_read(&self) -> Checked<'_> {
        Box::pin(async {
            let node = self.node.get().ok_or(STARTING)?;
            if node.raft().disk_hangs() {
                return Err("the disk of the raft log hangs".to_owned());
            }
            match node.linearizable_view().await {
                Ok(_) => Ok(()),
                Err(failure) => Err(tonic::Status::from(failure).message().to_owned()),
            }
        })
    }

    fn is_learner(&self) -> bool {
        self.node.get().is_some_and(|node| node.status().is_learner)
    }

    fn cluster_version(&self) -> Option<String> {
        self.node.get()?.reader().cluster_version()
    }

    fn storage_version(&self) -> Option<String> {
        self.node.get()?.storage_version()
    }

    fn before_scrape(&self) {
        let Some(node) = self.node.get() else { return };
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let status = node.status();
        let server = &METRICS.server;
        server.has_leader.set(i64::from(status.leader != 0));
        server.is_leader.set(i64::from(node.is_leader()));
        server.is_learner.set(i64::from(status.is_learner));
        server.proposals_committed.set(signed(status.committed));
        server.proposals_applied.set(signed(status.applied));

        let storage = &METRICS.storage;
        let sizes = node.quota().sizes();
        storage.db_total_bytes.set(sizes.total);
        storage.db_in_use_bytes.set(sizes.in_use);
        let view = node.serializable_view();
        storage.current_revision.set(view.revision());
        storage.compact_revision.set(view.compacted());
        storage.keys.set(signed(view.keys()));
        let watchers = node.hub().counts();
        storage.watch_streams.set(signed(watchers.streams as u64));
        storage.watchers.set(signed(watchers.watchers as u64));
        storage.slow_watchers.set(signed(watchers.slow as u64));

        let member = format!("{:x}", node.member_id());
        let known = &METRICS.network.known_peers;
        known.reset();
        for peer in node.reader().members() {
            known.with_label_values(&[member.as_str(), &format!("{:x}", peer.id)]).set(1);
        }
        server.cluster_version.reset();
        if let Some(version) = node.reader().cluster_version().as_deref().and_then(Version::read) {
            server.cluster_version.with_label_values(&[version.short().as_str()]).set(1);
        }
        server.alarms.reset();
        for alarm in node.reader().alarms() {
            server.alarms.with_label_values(&[member.as_str(), alarm.alarm().as_str_name()]).set(1);
        }
    }
}

/// Counts changes of the leader, and says them.
pub async fn follow(node: Node, mut stop: watch::Receiver<bool>) {
    let mut changes = node.raft().status_watch();
    let mut leader = 0;
    loop {
        let now = changes.borrow_and_update().leader;
        if now != leader {
            if now != 0 {
                METRICS.server.leader_changes.inc();
                info!(leader = format!("{now:x}"), "this member follows a leader");
            } else {
                info!(lost = format!("{leader:x}"), "the leader is lost");
            }
            leader = now;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = stopped(&mut stop) => return,
        }
    }
}
