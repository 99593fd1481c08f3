//! What members count of what they do together.

use std::time::Duration;

use anyhow::{Result, ensure};
use proto::etcdserverpb::{LeaseGrantRequest, PutRequest};
use tests::{Cluster, eventually, http};

use super::shape;

/// The sum of a metric's series on one member; `name` may go on with a label.
fn metric(cluster: &Cluster, at: usize, name: &str) -> Result<f64> {
    let (_, _, body) = http(cluster[at].client_port(), "GET", "/metrics")?;
    let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ', ',']));
    let values = body.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum())
}

/// What is more than 0 on every member of a cluster that works.
const MOVES: &[&str] = &[
    "etcd_server_has_leader",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_client_requests_total",
    "etcd_server_request_duration_seconds_count{success=\"true\",type=\"Put\"}",
    "etcd_server_apply_duration_seconds_count{op=\"Put\",success=\"true\",version=\"v3\"}",
    "etcd_server_range_duration_seconds_count",
    "etcd_disk_wal_fsync_duration_seconds_count",
    "etcd_disk_backend_commit_duration_seconds_count",
    "etcd_mvcc_put_total",
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "etcd_network_peer_round_trip_time_seconds_count",
    "etcd_network_active_peers",
    "etcd_network_known_peers",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_count_what_they_do() -> Result<()> {
    let mut steady = shape(3);
    (steady.heartbeat_ms, steady.election_ms) = (100, 5_000);
    let mut cluster = Cluster::start(steady).await?;
    let leader = cluster.leader().await?;
    for at in 0..3 {
        for number in 0..10 {
            cluster.client(at).put(format!("k{number}"), "v").await?;
        }
        cluster.client(at).get("k1").await?;
    }
    let lease = cluster.client(0).lease.clone().lease_grant(LeaseGrantRequest { ttl: 1, id: 7 }).await?;
    let leased = PutRequest { key: "leased".into(), lease: lease.into_inner().id, ..Default::default() };
    cluster.client(0).kv.clone().put(leased).await?;
    eventually("a lease ends", || async {
        ensure!(cluster.client(0).get("leased").await?.is_none());
        Ok(())
    })
    .await?;
    let sum = |name: &str| (0..3).map(|at| metric(&cluster, at, name)).sum::<Result<f64>>();
    ensure!(metric(&cluster, leader, "etcd_debugging_server_lease_expired_total")? >= 1.0);
    ensure!(sum("etcd_server_is_leader")? == 1.0);
    for at in 0..3 {
        for name in MOVES {
            ensure!(metric(&cluster, at, name)? > 0.0, "{name} of member {at} does not move");
        }
        ensure!(metric(&cluster, at, "etcd_network_active_peers")? == 2.0);
        ensure!(metric(&cluster, at, "etcd_network_known_peers")? == 3.0);
        let (sends, receives) =
            ("etcd_network_peer_sent_bytes_total", "etcd_network_peer_received_bytes_total");
        let bytes = metric(&cluster, at, if at == leader { sends } else { receives })?;
        ensure!(bytes > 0.0, "member {at} has exchanged {bytes} bytes");
    }

    let gone = cluster.others(&[leader])[0];
    let (disconnected, failures) =
        ("etcd_network_disconnected_peers_total", "etcd_network_peer_sent_failures_total");
    let before = (metric(&cluster, leader, disconnected)?, metric(&cluster, leader, failures)?);
    cluster[gone].kill().await?;
    eventually("a peer's end is counted", || async {
        ensure!(metric(&cluster, leader, disconnected)? > before.0);
        ensure!(metric(&cluster, leader, failures)? > before.1);
        ensure!(metric(&cluster, leader, "etcd_network_active_peers")? == 1.0);
        Ok(())
    })
    .await?;
    cluster[gone].start_again().await?;
    cluster.finish().await
}

/// A leader that did not run for a while, though not so long that it is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_that_come_late_are_counted() -> Result<()> {
    let mut slow = shape(3);
    (slow.heartbeat_ms, slow.election_ms) = (100, 10_000);
    let mut cluster = Cluster::start(slow).await?;
    let leader = cluster.leader().await?;
    let name = "etcd_server_heartbeat_send_failures_total";
    let before = metric(&cluster, leader, name)?;
    cluster[leader].pause()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster[leader].resume()?;
    eventually("late heartbeats are counted", || async {
        ensure!(metric(&cluster, leader, name)? >= before + 2.0);
        Ok(())
    })
    .await?;
    ensure!(cluster[leader].log().contains("leader failed to send out heartbeat on time"));
    ensure!(cluster.leader().await? == leader, "it is still the leader");
    cluster.finish().await
}
