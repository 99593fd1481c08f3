//! Members that were away for longer than the log goes back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::{Client, Cluster, eventually, http};

use super::shape;
use super::watcher::Watcher;

/// Our members keep at least 10,000 entries of their log, whatever the flags say.
const ENTRIES: usize = 12_000;
const WRITERS: usize = 100;

/// Puts so many keys of `value` bytes and gives their revisions in order.
async fn fill(clients: &[Client], from: usize, count: usize, value: usize) -> Result<Vec<(i64, String)>> {
    let each = count / WRITERS;
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let client = clients[writer % clients.len()].clone();
            tokio::spawn(async move {
                let mut written = Vec::with_capacity(each);
                for number in 0..each {
                    let key = format!("fill/{:06}", from + writer * each + number);
                    let header = client.put(key.clone(), vec![b'v'; value]).await?;
                    written.push((header.revision, key));
                }
                Ok::<_, anyhow::Error>(written)
            })
        })
        .collect();
    let mut written = Vec::with_capacity(count);
    for task in tasks {
        written.extend(task.await??);
    }
    written.sort_unstable();
    Ok(written)
}

/// The sum of a counter's or gauge's series on these members.
fn metric(cluster: &Cluster, members: &[usize], name: &str) -> Result<f64> {
    let mut sum = 0.0;
    for &at in members {
        let (_, _, body) = http(cluster[at].client_port(), "GET", "/metrics")?;
        let values = body
            .lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        sum += values.sum::<f64>();
    }
    Ok(sum)
}

/// How many snapshots these members have sent since they were started.
fn snapshots_sent(cluster: &Cluster, members: &[usize]) -> Result<f64> {
    metric(cluster, members, "etcd_network_snapshot_send_success")
}

/// Starts a member and kills it while another sends it a snapshot; gives whether one was seen doing so.
async fn kill_while_it_receives(cluster: &mut Cluster, at: usize, rest: Duration) -> Result<bool> {
    let others = cluster.others(&[at]);
    let began = Instant::now();
    cluster[at].spawn()?;
    let mut seen = false;
    while !seen && began.elapsed() < Duration::from_secs(2) {
        seen = metric(cluster, &others, "etcd_network_snapshot_send_inflights_total")? > 0.0;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(rest).await;
    cluster[at].kill().await?;
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_long_away_gets_the_state_as_a_snapshot() -> Result<()> {
    let shape = shape(3).arg("--snapshot-count=500").arg("--snapshot-catchup-entries=200");
    let mut cluster = Cluster::start(shape).await?;
    let leader = cluster.leader().await?;
    let others = cluster.others(&[leader]);
    let (away, other) = (others[0], others[1]);
    let lives = [cluster.client(leader), cluster.client(other)];
    let mut written = fill(&lives, 0, 100, 100).await?;
    // This one goes on where it was, on the member that comes back.
    let watcher = Watcher::start(vec![cluster.client(away)], "fill/").await?;
    eventually("the watcher is up to date", || async {
        ensure!(watcher.count() == 100);
        Ok(())
    })
    .await?;
    cluster[away].kill().await?;
    written.extend(fill(&lives, 1_000_000, ENTRIES, 1000).await?);
    // Killed while it receives, at several points, it still starts.
    let mut seen = 0;
    for rest in [0, 30, 100] {
        let rest = Duration::from_millis(rest);
        seen += i32::from(kill_while_it_receives(&mut cluster, away, rest).await?);
    }
    eprintln!("{seen} of 3 kills came while a snapshot was being sent");
    cluster[away].start_again().await?;
    let client = cluster.client(away);
    let count = eventually("a linearizable count", || async { Ok(client.count("fill/").await?) }).await?;
    ensure!(count as usize == written.len(), "{count} of {} keys", written.len());
    let sent = snapshots_sent(&cluster, &others[1..])? + snapshots_sent(&cluster, &[leader])?;
    ensure!(sent >= 1.0, "{sent} snapshots were sent");
    written.extend(fill(&cluster.clients(), 2_000_000, 300, 100).await?);
    watcher.finish(&written).await?;
    let last = written.last().context("something was written")?;
    let found = client.get(last.1.clone()).await?.context("the last key")?;
    ensure!(found.mod_revision == last.0);
    cluster.leader().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_gets_the_state_as_a_snapshot() -> Result<()> {
    let shape = shape(1).arg("--snapshot-count=500").arg("--snapshot-catchup-entries=200");
    let mut cluster = Cluster::start(shape).await?;
    let written = fill(&[cluster.client(0)], 0, ENTRIES, 200).await?;
    let at = cluster.grow().await?;
    cluster.add(at, false, 0).await?;
    cluster[at].start_again().await?;
    let client = cluster.client(at);
    let count = eventually("a linearizable count", || async { Ok(client.count("fill/").await?) }).await?;
    ensure!(count as usize == written.len(), "{count} of {} keys", written.len());
    let sent = snapshots_sent(&cluster, &[0])?;
    ensure!(sent >= 1.0, "{sent} snapshots were sent");
    cluster.leader().await?;
    cluster.finish().await
}

/// A member that joined a big cluster under load was sent one state after the other: while one was under way, the log
/// behind it was purged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_takes_long_to_receive_needs_one_snapshot() -> Result<()> {
    let shape = shape(1).arg("--snapshot-count=500").arg("--snapshot-catchup-entries=200");
    let mut cluster = Cluster::start(shape).await?;
    let clients = [cluster.client(0)];
    fill(&clients, 0, ENTRIES, 1000).await?;
    let at = cluster.grow().await?;
    cluster.add(at, true, 0).await?;
    cluster[at].spawn()?;
    eventually("a snapshot is being sent", || async {
        ensure!(metric(&cluster, &[0], "etcd_network_snapshot_send_inflights_total")? > 0.0);
        Ok(())
    })
    .await?;
    cluster[at].pause()?;
    fill(&clients, 1_000_000, ENTRIES, 100).await?;
    cluster[at].resume()?;
    cluster[at].ready().await?;
    let sent = snapshots_sent(&cluster, &[0])?;
    ensure!(sent == 1.0, "{sent} snapshots were sent");
    cluster.finish().await
}
