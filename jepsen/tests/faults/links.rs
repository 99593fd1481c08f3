//! Ways between members that are cut, slow or lossy.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jepsen::cluster::Cluster;
use jepsen::net::{CLIENTS, Link};
use tests::skipped;

use super::{answers, begin, cluster, is_whole};

/// How long a TCP connection from one member's namespace to another's peer port takes, within a second.
fn connect(cluster: &Cluster, from: usize, to: usize) -> Option<Duration> {
    let there = cluster.member(to).options().host.clone();
    let script = format!("exec 3<>/dev/tcp/{there}/{}", cluster.member(to).peer_port());
    let wrapper = &cluster.member(from).options().wrapper;
    let began = Instant::now();
    let mut command = Command::new("timeout");
    command.args(["1", &wrapper[0], &wrapper[1], "bash", "-c", &script]);
    let output = command.output().expect("timeout and bash are there");
    output.status.success().then(|| began.elapsed())
}

fn needs_packets(cluster: &Cluster) -> bool {
    if !cluster.has_packets() {
        skipped("faults of packets", cluster.network());
    }
    cluster.has_packets()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_cut_what_they_say() -> Result<()> {
    let (_turn, mut cluster) = cluster(3).await?;
    if !needs_packets(&cluster) {
        return Ok(());
    }
    let pairs = [(0, 1), (0, 2), (1, 2)];
    // A connection needs both ways, so a ring of three, in which each way of each pair is cut once, allows none.
    for (name, whole) in [
        ("partition-halves", 1),
        ("partition-leader", 1),
        ("partition-ring", 0),
        ("partition-bridge", 2),
        ("partition-one-way", 1),
    ] {
        ensure!(pairs.iter().all(|&(a, b)| connect(&cluster, a, b).is_some()), "a partition before {name}");
        let (mut nemesis, harm) = begin(name, 2, &mut cluster).await?;
        let open: Vec<_> = pairs.iter().filter(|&&(a, b)| connect(&cluster, a, b).is_some()).collect();
        ensure!(open.len() == whole, "{harm:?}: {open:?} is open");
        if name == "partition-leader" {
            let alone = cluster.all().into_iter().find(|at| open.iter().all(|(a, b)| at != a && at != b));
            let alone = alone.context("one is alone")?;
            ensure!(!answers(&cluster, alone).await, "member {alone} answers alone");
        }
        nemesis.end(&mut cluster).await?;
        is_whole(&mut cluster).await?;
    }
    Ok(())
}

/// What one way lets through and the other does not is counted packet by packet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_way_is_one_way() -> Result<()> {
    let (_turn, cluster) = cluster(3).await?;
    if !needs_packets(&cluster) {
        return Ok(());
    }
    let counts = |from, to| cluster.link_counts(from, to).unwrap_or_default();
    cluster.set_link(0, 1, Link::CUT)?;
    let (cut, back) = (counts(0, 1), counts(1, 0));
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(counts(0, 1).cut > cut.cut && counts(0, 1).passed == cut.passed, "{:?}", counts(0, 1));
    ensure!(counts(1, 0).passed > back.passed && counts(1, 0).cut == 0, "{:?}", counts(1, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_links_are_slow() -> Result<()> {
    let (_turn, mut cluster) = cluster(3).await?;
    if !needs_packets(&cluster) {
        return Ok(());
    }
    let link =
        Link { delay: Duration::from_millis(100), jitter: Duration::from_millis(20), ..Link::default() };
    for (from, to) in [(0, 1), (1, 0), (CLIENTS, 0)] {
        cluster.set_link(from, to, link)?;
    }
    let took = connect(&cluster, 0, 1).context("a slow link is not cut")?;
    ensure!(took >= Duration::from_millis(200), "there and back in {took:?}");
    let began = Instant::now();
    cluster.client(0).get_serializable("a").await?;
    ensure!(began.elapsed() >= Duration::from_millis(100), "a client's way took {:?}", began.elapsed());
    cluster.heal_network();
    // The nemesis itself: packets come late, and all of it ends.
    let late = |cluster: &Cluster| total(cluster, |counts| counts.delayed);
    let before = late(&cluster);
    let (mut nemesis, _) = begin("slow", 4, &mut cluster).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(late(&cluster) > before, "nothing is late");
    nemesis.end(&mut cluster).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let healed = late(&cluster);
    is_whole(&mut cluster).await?;
    ensure!(late(&cluster) == healed, "packets are late after the end");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lossy_links_lose() -> Result<()> {
    let (_turn, mut cluster) = cluster(3).await?;
    if !needs_packets(&cluster) {
        return Ok(());
    }
    let link = Link { loss: 0.2, duplicate: 0.2, reorder: 0.2, ..Link::default() };
    for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        cluster.set_link(from, to, link)?;
    }
    for n in 0..200 {
        let client = cluster.client(n % 3);
        tests::eventually("a write over lossy links", || async {
            Ok(client.put(format!("k/{n}"), "1").await?)
        })
        .await?;
    }
    let sent = total(&cluster, |counts| counts.passed + counts.lost) as f64;
    for (what, count) in [
        ("lost", total(&cluster, |counts| counts.lost)),
        ("repeated", total(&cluster, |counts| counts.duplicated)),
        ("overtaken", total(&cluster, |counts| counts.reordered)),
    ] {
        // Some packets went before; a fifth of the others is meant.
        ensure!((0.05..0.3).contains(&(count as f64 / sent)), "{count} of {sent} packets are {what}");
    }
    cluster.heal_network();
    let (mut nemesis, _) = begin("lossy", 9, &mut cluster).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    nemesis.end(&mut cluster).await?;
    is_whole(&mut cluster).await
}

fn total(cluster: &Cluster, of: impl Fn(jepsen::net::Counts) -> u64) -> u64 {
    let places: Vec<usize> = cluster.all().into_iter().chain([CLIENTS]).collect();
    let ways = places.iter().flat_map(|&from| places.iter().map(move |&to| (from, to)));
    ways.map(|(from, to)| of(cluster.link_counts(from, to).unwrap_or_default())).sum()
}
