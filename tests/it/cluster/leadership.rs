//! Leaders that go on purpose.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, MoveLeaderRequest, PutRequest,
};
use tests::Cluster;
use tonic::Code;

use super::load::Load;
use super::{move_leader, refused, shape, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_moves_where_it_is_told_to() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let leader = cluster.leader().await?;
    let (own, other) = (cluster.id(leader).await?, cluster.others(&[leader])[0]);
    let target = cluster.id(other).await?;
    let ask = |at: usize, target_id: u64| {
        let mut client = cluster.client(at);
        async move { client.maintenance.move_leader(MoveLeaderRequest { target_id }).await }
    };
    refused(ask(other, target).await, Code::FailedPrecondition, "etcdserver: not leader")?;
    refused(ask(leader, 12345).await, Code::FailedPrecondition, "etcdserver: bad leader transferee")?;
    let to_itself = ask(leader, own).await?.into_inner();
    ensure!(to_itself.header.is_none(), "{to_itself:?}");
    ensure!(cluster.leader().await? == leader);
    let load = Load::start(cluster.clients(), "load/");
    load.flows(50).await?;
    for to in [other, leader, cluster.others(&[leader])[1]] {
        move_leader(&mut cluster, to).await?;
        load.flows(50).await?;
    }
    load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    cluster.finish().await
}

/// Starts all members and gives how long it took until they had a leader.
async fn until_led(cluster: &mut Cluster) -> Result<Duration> {
    let began = Instant::now();
    for at in 0..cluster.len() {
        cluster[at].spawn()?;
    }
    cluster.ready().await?;
    Ok(began.elapsed())
}

/// Far away members are started without the advance, so that they do not lead before others had their time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_election_is_early_unless_it_is_not_to_be() -> Result<()> {
    const ELECTION: Duration = Duration::from_secs(8);
    for advance in [true, false] {
        let mut patient = shape(3).arg(format!("--initial-election-tick-advance={advance}"));
        (patient.heartbeat_ms, patient.election_ms) = (100, ELECTION.as_millis() as u64);
        let mut cluster = Cluster::prepare(patient).await?;
        let took = until_led(&mut cluster).await?;
        ensure!((took < ELECTION) == advance, "with {advance}, the first leader is there after {took:?}");
        if advance {
            // Once more, of members that have a log.
            for at in 0..3 {
                cluster[at].kill().await?;
            }
            let took = until_led(&mut cluster).await?;
            ensure!(took < ELECTION, "after a restart, a leader is there after {took:?}");
        }
        cluster.finish().await?;
    }
    // A member that is alone waits for nobody.
    let mut alone = shape(1).arg("--initial-election-tick-advance=false");
    (alone.heartbeat_ms, alone.election_ms) = (100, 20_000);
    let mut alone = Cluster::prepare(alone).await?;
    let took = until_led(&mut alone).await?;
    ensure!(took < Duration::from_secs(15), "it has itself for a leader after {took:?}");
    alone.finish().await
}

/// With elections that take 4 s and more, a pause below 3 s can only be a leader that handed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_stop_hands_over() -> Result<()> {
    let mut shape = shape(3);
    (shape.heartbeat_ms, shape.election_ms) = (100, 4000);
    let mut cluster = Cluster::start(shape).await?;
    // A proposal that a follower sent to the leader that went is lost, so nobody waits long.
    let load = Load::patient(cluster.clients(), "load/", Duration::from_millis(300));
    load.flows(100).await?;
    let leader = cluster.leader().await?;
    let began = Instant::now();
    cluster[leader].terminate().await?;
    let stopped = began.elapsed();
    load.flows(100).await?;
    let resumed = began.elapsed();
    cluster.leader().await?;
    cluster[leader].start_again().await?;
    load.flows(100).await?;
    let written = load.finish().await?;
    eprintln!("stopped in {stopped:?}, writes went on after {resumed:?}; longest pause {:?}", written.gap);
    ensure!(written.gap < Duration::from_secs(3), "writes paused for {:?}", written.gap);
    written.check(&cluster, &[0, 1, 2]).await?;
    cluster.finish().await
}

/// A new leader knows of each lease at most what was left; it may give more time, never less.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_survive_their_leaders() -> Result<()> {
    const TTL: i64 = 5;
    let mut cluster = Cluster::start(shape(3)).await?;
    let client = cluster.client(0);
    for id in [1, 2] {
        client.lease.clone().lease_grant(LeaseGrantRequest { ttl: TTL, id }).await?;
        let put = PutRequest { key: format!("k{id}").into(), lease: id, ..PutRequest::default() };
        client.kv.clone().put(put).await?;
    }
    let granted = Instant::now();
    // Lease 1 is kept alive through whoever is no leader, lease 2 is left alone.
    let mut changes = 0;
    while granted.elapsed() < Duration::from_secs(TTL as u64 * 2) {
        let leader = cluster.leader().await?;
        let followers = cluster.others(&[leader]);
        let alive = tokio_stream::once(LeaseKeepAliveRequest { id: 1 });
        let alive = within(Duration::from_secs(4), async {
            cluster.client(followers[0]).lease.lease_keep_alive(alive).await?.into_inner().message().await
        });
        let alive = alive.await?.context("an answer")?;
        ensure!(alive.ttl == TTL, "lease 1 ended {:?} after its grant: {alive:?}", granted.elapsed());
        let early = granted.elapsed() < Duration::from_secs(TTL as u64);
        let there = cluster.client(followers[1]).get("k2").await?.is_some();
        ensure!(there || !early, "lease 2 ended {:?} after its grant", granted.elapsed());
        if changes < 2 && early {
            if changes == 0 {
                move_leader(&mut cluster, followers[0]).await?;
            } else {
                cluster[leader].kill().await?;
                cluster.leader().await?;
                cluster[leader].start_again().await?;
            }
            changes += 1;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    ensure!(changes == 2, "the leader changed {changes} times");
    let client = cluster.client(0);
    while client.get("k2").await?.is_some() {
        ensure!(granted.elapsed() < Duration::from_secs(60), "lease 2 does not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let left = LeaseTimeToLiveRequest { id: 2, keys: false };
    ensure!(client.lease.clone().lease_time_to_live(left).await?.into_inner().ttl == -1);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let load = Load::start(cluster.clients(), "load/");
    for at in 0..3 {
        load.flows(50).await?;
        cluster[at].terminate().await?;
        cluster[at].start_again().await?;
        cluster.leader().await?;
    }
    load.flows(50).await?;
    let written = load.finish().await?;
    eprintln!("{} writes, longest pause {:?}", written.acknowledged.len(), written.gap);
    written.check(&cluster, &[0, 1, 2]).await?;
    cluster.finish().await
}
