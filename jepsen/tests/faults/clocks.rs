//! Clocks that members see, and the machine does not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jepsen::cluster::{Cluster, Shape};
use proto::etcdserverpb::{DefragmentRequest, LeaseGrantRequest, LeaseTimeToLiveRequest};

use tests::Program;

use super::{begin, cluster_for, is_unfit, is_whole, start};

/// The year of a line that a member prints now.
async fn year(cluster: &Cluster, at: usize) -> Result<i32> {
    let before = cluster.member(at).log().len();
    cluster.client(at).maintenance.defragment(DefragmentRequest {}).await?;
    let log = cluster.member(at).log();
    let line = log[before..].lines().find(|line| line.contains("defragment")).context("it says so")?;
    let (_, ts) = line.split_once("\"ts\":\"").context("a line has a time")?;
    Ok(ts[..4].parse()?)
}

/// What is left of a lease, as its leader counts.
async fn left(cluster: &Cluster, at: usize, id: i64) -> Result<i64> {
    let request = LeaseTimeToLiveRequest { id, keys: false };
    Ok(cluster.client(at).lease.lease_time_to_live(request).await?.into_inner().ttl)
}

async fn leases(cluster: &Cluster, ttl: i64) -> Result<i64> {
    let grant = LeaseGrantRequest { ttl, id: 0 };
    Ok(cluster.client(0).lease.lease_grant(grant).await?.into_inner().id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_day_is_what_it_is_told() -> Result<()> {
    let (_turn, mut cluster) = cluster_for("clock-wall").await?;
    if is_unfit("clock-wall", &cluster) {
        return Ok(());
    }
    let id = leases(&cluster, 1000).await?;
    let (now, decade) = (year(&cluster, 1).await?, 3653 * 86_400 * 1_000_000_000);
    cluster.with_clock(1, |clock| clock.set_wall(decade))??;
    ensure!(year(&cluster, 1).await? == now + 10 && year(&cluster, 0).await? == now);
    cluster.with_clock(1, |clock| clock.set_wall(-decade))??;
    ensure!(year(&cluster, 1).await? == now - 10);
    for at in cluster.all() {
        ensure!(left(&cluster, at, id).await? > 900, "a lease ends by the time of day");
    }
    cluster.heal_homes()?;
    ensure!(year(&cluster, 1).await? == now);
    is_whole(&mut cluster).await
}

/// One member alone: of several, the leader would change, and the next one counts from the whole TTL again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_end_by_the_monotonic_clock() -> Result<()> {
    let mut shape = Shape::new(Program::ours(), 1);
    shape.clocks = true;
    let (_turn, mut cluster) = start(shape).await?;
    if is_unfit("clock-monotonic", &cluster) {
        return Ok(());
    }
    let id = leases(&cluster, 1000).await?;
    let before = left(&cluster, 0, id).await?;
    cluster.with_clock(0, |clock| clock.add_monotonic(Duration::from_secs(300)))??;
    let after = left(&cluster, 0, id).await?;
    ensure!((before - 320..=before - 299).contains(&after), "{before} s were left, and 300 s later {after}");
    cluster.with_clock(0, |clock| clock.add_monotonic(Duration::from_secs(800)))??;
    tests::eventually("the lease ends", || async {
        ensure!(left(&cluster, 0, id).await? == -1);
        Ok(())
    })
    .await?;
    is_whole(&mut cluster).await
}

/// Both nemeses move clocks, at once or in a strobe, and the time of day is right again afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_jump_and_strobe() -> Result<()> {
    let (_turn, mut cluster) = cluster_for("clock").await?;
    if is_unfit("clock", &cluster) {
        return Ok(());
    }
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..8 {
        let (mut nemesis, harm) = begin("clock", seed, &mut cluster).await?;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..60 {
            for at in cluster.all() {
                let ahead = cluster.with_clock(at, |clock| clock.ahead())?;
                seen.insert((at, if harm.kind.contains("wall") { ahead.wall } else { ahead.monotonic }));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ensure!(seen.iter().any(|(_, ahead)| *ahead != 0), "{harm:?} moved nothing");
        let moves =
            seen.iter().any(|(at, ahead)| seen.iter().any(|other| other.0 == *at && other.1 != *ahead));
        ensure!(moves == harm.kind.contains("strobe"), "{harm:?}: {seen:?}");
        kinds.insert(harm.kind);
        nemesis.end(&mut cluster).await?;
        for at in cluster.all() {
            ensure!(cluster.with_clock(at, |clock| clock.ahead().wall)? == 0);
        }
    }
    ensure!(kinds.len() >= 3, "{kinds:?}");
    is_whole(&mut cluster).await
}
