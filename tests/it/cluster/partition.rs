//! Members that cannot hear each other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::{Cluster, Shape, Way, eventually};

use super::load::Load;
use super::watcher::Watcher;
use super::{put_eventually, shape, within};

const CUT: Way = Way { cut: true, delay: Duration::ZERO };

/// Members that hold no election because the machine is busy: who asks whether there was one needs them.
fn patient() -> Shape {
    let mut shape = shape(3).with_network();
    (shape.heartbeat_ms, shape.election_ms) = (100, 1500);
    shape
}

/// Half a second after the cut the old leader may still believe in itself; it may not act on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_alone_answers_nothing_stale_and_steps_back_in() -> Result<()> {
    let mut cluster = Cluster::start(shape(3).with_network()).await?;
    let leader = cluster.leader().await?;
    let others = cluster.others(&[leader]);
    put_eventually(&cluster, leader, "k", "old").await?;
    let watcher = Watcher::start(vec![cluster.client(leader)], "load/").await?;
    let load = Load::start(others.iter().map(|&at| cluster.client(at)).collect(), "load/");
    load.flows(50).await?;
    cluster.network().isolate(&[leader]);
    let reader = cluster.client(leader);
    let stale = tokio::spawn(async move {
        // The oldest that may still be answered is what was acknowledged before the read began.
        let (mut read, mut refused) = (Vec::new(), 0);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            let asked = Instant::now();
            match within(Duration::from_millis(500), reader.get("k")).await {
                Ok(found) => read.push((asked, found.map_or(0, |kv| kv.mod_revision))),
                Err(_) => refused += 1,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (read, refused)
    });
    cluster.leader_among(&others).await?;
    let revision = put_eventually(&cluster, others[0], "k", "new").await?;
    let acknowledged = Instant::now();
    load.flows(50).await?;
    // What the minority is given goes nowhere.
    let lost = within(Duration::from_secs(1), cluster.client(leader).put("k", "lost")).await;
    ensure!(lost.is_err(), "a leader alone acknowledged {lost:?}");
    let old = cluster.client(leader).get_serializable("k").await?.context("the key")?;
    ensure!(old.mod_revision < revision, "a serializable read tells what the member has");
    let (read, refused) = stale.await?;
    for (asked, found) in &read {
        ensure!(
            *asked < acknowledged || *found >= revision,
            "the leader alone read revision {found} after {revision} was acknowledged"
        );
    }
    ensure!(refused > 0, "a leader alone refused none of {} reads", read.len() + refused);
    cluster.network().heal();
    cluster.ready().await?;
    let found = eventually("the old leader serves", || async { Ok(cluster.client(leader).get("k").await?) });
    ensure!(found.await?.is_some_and(|kv| kv.mod_revision >= revision));
    load.flows(50).await?;
    let written = load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    watcher.finish(&written).await?;
    cluster.finish().await
}

/// A follower that hears nothing but can speak must not keep the others from their work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hears_nothing_disturbs_nobody() -> Result<()> {
    let mut cluster = Cluster::start(patient()).await?;
    let leader = cluster.leader().await?;
    let (deaf, other) = (cluster.others(&[leader])[0], cluster.others(&[leader])[1]);
    let term = cluster.client(leader).status().await?.raft_term;
    let load = Load::start(vec![cluster.client(leader), cluster.client(other)], "load/");
    load.flows(50).await?;
    for from in [leader, other] {
        cluster.network().set(from, deaf, CUT);
    }
    // Several election timeouts.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        load.flows(20).await?;
        let newest = put_eventually(&cluster, leader, "k", "v").await?;
        if let Ok(found) = within(Duration::from_millis(300), cluster.client(deaf).get("k")).await {
            let found = found.context("the key")?.mod_revision;
            ensure!(found >= newest, "revision {found} after {newest} was acknowledged");
        }
    }
    let now = cluster.client(leader).status().await?;
    ensure!(now.raft_term == term, "the term went from {term} to {}: somebody campaigned", now.raft_term);
    cluster.network().heal();
    ensure!(cluster.ready().await? == leader, "the leader changed");
    load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    cluster.finish().await
}

/// A leader nobody hears loses its office though it hears them all; one that is merely slow keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_not_heard_is_replaced_and_a_slow_one_is_not() -> Result<()> {
    let mut cluster = Cluster::start(patient()).await?;
    let load = Load::start(cluster.clients(), "load/");
    let leader = cluster.leader().await?;
    let term = cluster.client(leader).status().await?.raft_term;
    cluster.network().delay(Duration::from_millis(30));
    load.flows(200).await?;
    let status = cluster.client(leader).status().await?;
    ensure!(status.raft_term == term, "30 ms of delay made an election: {status:?}");
    let others = cluster.others(&[leader]);
    for &to in &others {
        cluster.network().set(leader, to, CUT);
    }
    let next = cluster.leader_among(&others).await?;
    ensure!(next != leader);
    load.flows(50).await?;
    cluster.network().heal();
    cluster.ready().await?;
    load.flows(50).await?;
    load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    cluster.finish().await
}
