//! Processes that are killed and paused, and clusters that are started and stopped.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use jepsen::cluster::{Cluster, Shape};
use jepsen::nemesis::{Pace, run};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tests::{Program, skipped};

use super::{answers, begin, cluster, cluster_for, cluster_of, has_all, is_whole, nemesis, put_some};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_take_down_whom_they_name() -> Result<()> {
    let (_turn, mut cluster) = cluster(3).await?;
    for (name, down) in [("kill-one", 1), ("kill-leader", 1), ("kill-majority", 2), ("kill-all", 3)] {
        let leader = cluster.leader().await;
        let (mut nemesis, harm) = begin(name, 7, &mut cluster).await?;
        let gone = cluster.asleep();
        ensure!(gone.len() == down && harm.kind == name, "{harm:?}, down are {gone:?}");
        ensure!(name != "kill-leader" || gone == leader.into_iter().collect::<Vec<_>>(), "it was {leader:?}");
        for at in cluster.all() {
            ensure!(!gone.contains(&at) || !answers(&cluster, at).await, "{at} answers although it is down");
        }
        nemesis.end(&mut cluster).await?;
        is_whole(&mut cluster).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pauses_stop_whom_they_name() -> Result<()> {
    let (_turn, mut cluster) = cluster(3).await?;
    for (name, count) in [("pause-one", 1), ("pause-leader", 1), ("pause-majority", 2)] {
        let (mut nemesis, harm) = begin(name, 3, &mut cluster).await?;
        let gone = cluster.asleep();
        ensure!(gone.len() == count, "{harm:?}, asleep are {gone:?}");
        for &at in &gone {
            ensure!(cluster.member(at).is_paused() && !answers(&cluster, at).await, "{at} is awake");
        }
        nemesis.end(&mut cluster).await?;
        is_whole(&mut cluster).await?;
    }
    Ok(())
}

/// A member that ends by itself is told, with what it said last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_nobody_wanted_is_noticed() -> Result<()> {
    let (_turn, mut cluster) = cluster(1).await?;
    cluster.member_mut(0).kill().await?;
    cluster.heal_all().await?;
    ensure!(
        cluster.deaths().len() == 1 && cluster.deaths()[0].contains("member 0"),
        "{:?}",
        cluster.deaths()
    );
    Ok(())
}

/// The loop keeps its times, repeats itself from a seed, and leaves nothing broken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_seed_does_the_same() -> Result<()> {
    let (_turn, mut cluster) = cluster(3).await?;
    let pace = Pace {
        quiet: Duration::from_millis(100)..Duration::from_millis(300),
        held: Duration::from_millis(100)..Duration::from_millis(300),
    };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let start = Instant::now();
        let until = start + Duration::from_secs(4);
        let mut rng = StdRng::seed_from_u64(11);
        let work =
            run(&mut *nemesis("partition-halves+pause-one"), &mut cluster, &mut rng, &pace, start, until)
                .await;
        ensure!(work.failures.is_empty(), "{:?}", work.failures);
        ensure!(work.faults.iter().all(|fault| fault.began < fault.ended), "{:?}", work.faults);
        ensure!(work.faults.windows(2).all(|pair| pair[0].ended < pair[1].began), "{:?}", work.faults);
        seen.push(work.faults.into_iter().take(4).map(|fault| (fault.kind, fault.what)).collect::<Vec<_>>());
        is_whole(&mut cluster).await?;
    }
    ensure!(seen[0].len() == 4 && seen[0] == seen[1], "{seen:?}");
    Ok(())
}

/// Everything mixed leaves a cluster that is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_of_all_is_healed() -> Result<()> {
    let (_turn, mut cluster) = cluster_for("mix").await?;
    put_some(&cluster, "k", 50).await?;
    let pace = Pace {
        quiet: Duration::from_millis(200)..Duration::from_millis(400),
        held: Duration::from_millis(300)..Duration::from_millis(900),
    };
    let start = Instant::now();
    let until = start + Duration::from_secs(40);
    let mut mix = nemesis("mix");
    let work = run(&mut *mix, &mut cluster, &mut StdRng::seed_from_u64(3), &pace, start, until).await;
    println!("{work:#?}");
    ensure!(work.faults.len() > 4, "only {} faults", work.faults.len());
    ensure!(work.failures.len() < 3, "{:?}", work.failures);
    has_all(&cluster, "k", 50).await?;
    is_whole(&mut cluster).await
}

/// The same code runs etcd's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_suffers_the_same() -> Result<()> {
    let Some(program) = Program::etcd() else {
        skipped("real etcd under faults", "REAL_ETCD_BIN is not set");
        return Ok(());
    };
    let (_turn, mut cluster) = cluster_of(program, 3).await?;
    for name in ["kill-leader", "pause-one", "partition-bridge", "lossy"] {
        let (mut nemesis, _) = begin(name, 5, &mut cluster).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        nemesis.end(&mut cluster).await?;
    }
    is_whole(&mut cluster).await
}

/// A cluster leaves no namespace behind, also when whoever used it panics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_cluster() -> Result<()> {
    let (_turn, cluster) = cluster(1).await?;
    if !cluster.has_packets() {
        skipped("removed namespaces", cluster.network());
        return Ok(());
    }
    let wrapper = &cluster.member(0).options().wrapper;
    let namespace = wrapper[1].trim_start_matches("--net=").to_owned();
    ensure!(Path::new(&namespace).exists(), "{namespace}");
    let panicked = tokio::spawn(async move {
        let _cluster = cluster;
        panic!("on purpose");
    });
    ensure!(panicked.await.is_err());
    ensure!(!Path::new(&namespace).exists(), "{namespace} is still there");
    Ok(())
}

/// Without namespaces, the same faults go through proxies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loopback_will_do() -> Result<()> {
    let _turn = super::TURN.lock().await;
    let mut shape = Shape::new(Program::ours(), 3);
    shape.loopback = true;
    let mut cluster = Cluster::start(shape).await?;
    ensure!(cluster.network().contains("loopback"), "{}", cluster.network());
    ensure!(nemesis("lossy").unfit(&cluster).is_some(), "proxies carry no packets");
    let leader = cluster.leader().await;
    let (mut nemesis, _) = begin("partition-leader", 1, &mut cluster).await?;
    tests::eventually("another one leads", || async {
        ensure!(cluster.leader().await.is_some_and(|now| Some(now) != leader));
        Ok(())
    })
    .await?;
    nemesis.end(&mut cluster).await?;
    is_whole(&mut cluster).await
}
