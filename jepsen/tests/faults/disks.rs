//! Disks that fill up, hang, fail, forget and rot.

use std::time::Duration;

use anyhow::{Result, ensure};
use jepsen::cluster::Cluster;
use jepsen::nemesis::Nemesis;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tests::{Program, skipped};

use super::{answers, begin, cluster, cluster_for, has_all, is_unfit, is_whole, put_some, start};

/// Writes that may fail, for a while.
async fn try_to_write(cluster: &Cluster, prefix: &str) {
    for n in 0..60 {
        let client = cluster.client(n % 3);
        let put = client.put(format!("{prefix}/{n}"), vec![b'x'; 100_000]);
        // Whether it is done is no matter: something is on its way to the disks.
        tokio::time::timeout(Duration::from_millis(100), put).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_disks_refuse() -> Result<()> {
    let (_turn, mut cluster) = cluster_for("disk-fail").await?;
    if is_unfit("disk-fail", &cluster) {
        return Ok(());
    }
    put_some(&cluster, "k", 30).await?;
    let refused = |cluster: &Cluster| -> Result<u64> {
        cluster.all().into_iter().map(|at| cluster.with_disk(at, |disk| disk.refused())).sum()
    };
    let before = refused(&cluster)?;
    let (mut nemesis, harm) = begin("disk-fail", 1, &mut cluster).await?;
    try_to_write(&cluster, "disk-fail").await;
    ensure!(refused(&cluster)? > before, "{harm:?}: nothing was refused");
    nemesis.end(&mut cluster).await?;
    has_all(&cluster, "k", 30).await?;
    is_whole(&mut cluster).await
}

/// Logs are written into space that was reserved, so that a full disk was not met in the time of a fault.
/// Every member that is hit must meet it, say so and end, and with space again have all that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_are_met() -> Result<()> {
    let (_turn, mut cluster) = cluster_for("disk-full").await?;
    if is_unfit("disk-full", &cluster) {
        return Ok(());
    }
    let mut hit_at_once = std::collections::BTreeSet::new();
    for seed in 0..6 {
        let prefix = format!("k{seed}");
        put_some(&cluster, &prefix, 30).await?;
        let refused = |at: usize| cluster.with_disk(at, |disk| disk.refused());
        let before: Vec<u64> = cluster.all().into_iter().map(refused).collect::<Result<_>>()?;
        let (mut nemesis, harm) = begin("disk-full", seed, &mut cluster).await?;
        let mut met = 0;
        for at in cluster.all() {
            if cluster.with_disk(at, |disk| disk.refused())? == before[at] {
                continue;
            }
            met += 1;
            let log = cluster.member(at).log();
            ensure!(
                log.contains("No space left on device"),
                "{harm:?}: member {at} says nothing of it:\n{log}"
            );
        }
        ensure!(met > 0, "{harm:?}: nobody met it");
        let awake = cluster.awake();
        if awake.len() == 2 {
            // A quorum is left, and goes on.
            let client = cluster.client(awake[0]);
            tests::eventually("the others take a write", || async {
                Ok(client.put(format!("{prefix}/30"), "x".repeat(100)).await?)
            })
            .await?;
        }
        hit_at_once.insert(met);
        nemesis.end(&mut cluster).await?;
        has_all(&cluster, &prefix, if awake.len() == 2 { 31 } else { 30 }).await?;
    }
    ensure!(hit_at_once.len() > 1, "{hit_at_once:?}");
    is_whole(&mut cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_disks_answer_nothing() -> Result<()> {
    let (_turn, mut cluster) = cluster_for("disk-hang").await?;
    if is_unfit("disk-hang", &cluster) {
        return Ok(());
    }
    put_some(&cluster, "k", 30).await?;
    for seed in 0..3 {
        let (mut nemesis, harm) = begin("disk-hang", seed, &mut cluster).await?;
        try_to_write(&cluster, "h").await;
        let waiting = |at: usize| cluster.with_disk(at, |disk| disk.waiting()).unwrap_or(0);
        ensure!(cluster.all().into_iter().any(|at| waiting(at) > 0), "{harm:?}: nothing waits");
        nemesis.end(&mut cluster).await?;
        has_all(&cluster, "k", 30).await?;
        is_whole(&mut cluster).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_that_stop_keep_what_was_acknowledged() -> Result<()> {
    let (_turn, mut cluster) = cluster_for("unsynced").await?;
    if is_unfit("unsynced", &cluster) {
        return Ok(());
    }
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..6 {
        let prefix = format!("k{seed}");
        put_some(&cluster, &prefix, 40).await?;
        let name = if seed == 0 { "unsynced-all" } else { "unsynced" };
        let (mut nemesis, harm) = begin(name, seed, &mut cluster).await?;
        let gone = cluster.asleep();
        ensure!(!gone.is_empty(), "{harm:?}");
        for at in gone {
            ensure!(!answers(&cluster, at).await, "member {at} answers although its machine stopped");
        }
        nemesis.end(&mut cluster).await?;
        has_all(&cluster, &prefix, 40).await?;
        kinds.insert(harm.kind);
    }
    ensure!(kinds.len() > 1, "{kinds:?}");
    is_whole(&mut cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_lives_on_these_disks_too() -> Result<()> {
    let Some(program) = Program::etcd() else {
        skipped("real etcd on disks that forget", "REAL_ETCD_BIN is not set");
        return Ok(());
    };
    let mut shape = jepsen::cluster::Shape::new(program, 3);
    super::nemesis("unsynced").prepare(&mut shape);
    let (_turn, mut cluster) = start(shape).await?;
    if is_unfit("unsynced", &cluster) {
        return Ok(());
    }
    ensure!(super::nemesis("clock").unfit(&cluster).is_some_and(|why| why.contains("static")));
    ensure!(super::nemesis("corrupt-data").unfit(&cluster).is_some());
    for (seed, name) in ["unsynced", "disk-hang", "unsynced-all", "member"].into_iter().enumerate() {
        put_some(&cluster, name, 20).await?;
        let (mut nemesis, _) = begin(name, seed as u64, &mut cluster).await?;
        nemesis.end(&mut cluster).await?;
        has_all(&cluster, name, 20).await?;
    }
    is_whole(&mut cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_logs_are_found_and_the_member_replaced() -> Result<()> {
    let (_turn, mut cluster) = cluster(3).await?;
    put_some(&cluster, "k", 300).await?;
    let mut nemesis = super::nemesis("corrupt-log");
    for seed in 0..3 {
        broken_and_replaced(&mut cluster, &mut *nemesis, seed).await?;
    }
    is_whole(&mut cluster).await
}

/// Only RocksDB's MANIFEST was ever broken: there was no other file so soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_states_of_every_kind_are_found_and_the_member_replaced() -> Result<()> {
    let (_turn, mut cluster) = cluster(3).await?;
    put_some(&cluster, "k", 300).await?;
    let mut nemesis = super::nemesis("corrupt-data");
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..8 {
        let what = broken_and_replaced(&mut cluster, &mut *nemesis, seed).await?;
        // The refusal may name another file than the broken one, which comes first: `member 2, CURRENT: bit …`.
        let broken = what.split([',', ':']).nth(1).unwrap_or_default();
        let kinds = ["sst", "MANIFEST", "CURRENT", "OPTIONS"];
        let kind = kinds.into_iter().find(|kind| broken.contains(kind)).unwrap_or("another");
        let torn = what.contains("zeroed");
        seen.insert((kind, torn));
        // Options are for people: they are not read back.
        ensure!(kind == "OPTIONS" || what.contains("it refuses"), "{what}");
        ensure!(kind == "OPTIONS" || what.contains("member/snap/db"), "the place is not told: {what}");
    }
    ensure!(seen.len() == 8, "{seen:?}");
    is_whole(&mut cluster).await
}

/// Breaks files of a member, which serves only what is right until it is replaced; gives what was broken.
async fn broken_and_replaced(cluster: &mut Cluster, nemesis: &mut dyn Nemesis, seed: u64) -> Result<String> {
    let before: Vec<u64> = cluster.listed().await?.iter().map(|member| member.id).collect();
    let harm = nemesis.begin(cluster, &mut StdRng::seed_from_u64(seed)).await?;
    println!("{}: {}", harm.kind, harm.what);
    ensure!(harm.what.contains("flipped") || harm.what.contains("zeroed"), "{harm:?}");
    // A member that serves, serves what is right.
    for at in cluster.awake() {
        let client = cluster.client(at);
        if let Ok(Ok(found)) = tokio::time::timeout(Duration::from_secs(5), client.list("k/")).await {
            let right = found.count == 300 && found.kvs.iter().all(|pair| pair.value == "x".repeat(100));
            ensure!(right, "{harm:?}: member {at} serves {} pairs, or wrong ones", found.count);
        }
    }
    nemesis.end(cluster).await?;
    let after = cluster.listed().await?;
    ensure!(
        after.len() == 3 && after.iter().any(|member| !before.contains(&member.id)),
        "nobody was replaced"
    );
    has_all(cluster, "k", 300).await?;
    Ok(harm.what)
}
