//! The track record: bugs that etcd had, each as a scenario that shows it.
//!
//! A test is named after what a user saw. It brings about the order of events
//! that it takes and leaves little to chance, so that it fails on a server with the bug.
//! Each runs on ours and, with `REAL_ETCD_BIN`, on etcd's own too: where the bug
//! is mended there, that checks the scenario.
//!
//! `jepsen/README.md` has a table of them.

#[path = "../common/mod.rs"]
mod common;

mod crashes;
mod divergence;
mod leaders;
mod leases;
mod load;
mod members;
mod stream;
mod watches;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jepsen::cluster::{Cluster, Shape};
use jepsen::disk::Names;
use jepsen::nemesis::by_name;
use jepsen::net::Link;
use tests::{Client, Program, eventually, skipped};
use tokio::time::timeout;

use common::{has_all, is_whole, start};

/// How long one request may take before the scenario goes on without its answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Plays a scenario on ours, then on etcd's own where there is one. Afterwards all members must have the same
/// data.
async fn play(
    shape: impl Fn(Program) -> Shape,
    scenario: impl AsyncFn(&mut Cluster) -> Result<()>,
) -> Result<()> {
    play_once(shape(Program::ours()), &scenario).await?;
    match Program::etcd() {
        Some(program) => play_once(shape(program), &scenario).await.context("on etcd's own"),
        None => {
            skipped("the scenario on etcd's own", "REAL_ETCD_BIN is not set");
            Ok(())
        }
    }
}

async fn play_once(shape: Shape, scenario: &impl AsyncFn(&mut Cluster) -> Result<()>) -> Result<()> {
    let (disks, clocks) = (shape.disks.is_some(), shape.clocks);
    let (_turn, mut cluster) = start(shape).await?;
    if disks && !cluster.has_disks() {
        skipped("a scenario of disks", cluster.why_no_disks());
        return Ok(());
    }
    if clocks && !cluster.has_clocks() {
        skipped("a scenario of clocks", cluster.why_no_clocks());
        return Ok(());
    }
    let began = Instant::now();
    let mut played = scenario(&mut cluster).await;
    if played.is_ok() {
        played = is_whole(&mut cluster).await;
    }
    println!("played on {} in {:.1?}", cluster.program().path().display(), began.elapsed());
    if played.is_err() {
        for at in cluster.all() {
            eprintln!("--- last lines of member {at} ---\n{}", cluster.log_tail(at));
        }
    }
    played
}

/// One member.
fn one(program: Program) -> Shape {
    Shape::new(program, 1)
}

/// Three members.
fn three(program: Program) -> Shape {
    Shape::new(program, 3)
}

/// So many members with disks that forget and hang.
fn on_disks(program: Program, members: usize) -> Shape {
    let names = if program.is_ours() { Names::Posix } else { Names::Journal };
    Shape { disks: Some(names), ..Shape::new(program, members) }
}

/// Three members whose log is short enough for [`jepsen::nemesis::outgrow`].
fn of_short_logs(program: Program) -> Shape {
    let mut shape = three(program);
    by_name("snapshot").expect("a nemesis of this name").prepare(&mut shape);
    shape
}

/// Who leads, when somebody does.
async fn leader(cluster: &Cluster) -> Result<usize> {
    eventually("somebody leads", || async { cluster.leader().await.context("nobody leads") }).await
}

/// Who leads instead of this member.
async fn next_leader(cluster: &Cluster, old: usize) -> Result<usize> {
    eventually("another one leads", || async {
        let now = cluster.leader().await.context("nobody leads")?;
        ensure!(now != old, "{old} still leads");
        Ok(now)
    })
    .await
}

/// A member that does not lead.
async fn follower(cluster: &Cluster) -> Result<usize> {
    let leader = leader(cluster).await?;
    cluster.all().into_iter().find(|&at| at != leader).context("there are others")
}

/// Other members do not hear this one, and it does not hear them; clients reach it.
fn isolate(cluster: &Cluster, at: usize) -> Result<()> {
    for other in cluster.all().into_iter().filter(|&other| other != at) {
        cluster.set_link(at, other, Link::CUT)?;
        cluster.set_link(other, at, Link::CUT)?;
    }
    Ok(())
}

/// A write that is tried until it is acknowledged; gives its revision.
async fn put(client: &Client, key: &str, value: &str) -> Result<i64> {
    eventually("a write", || async { Ok(timeout(ANSWER_MAX, client.put(key, value)).await??.revision) }).await
}

/// A key's value, read until there is an answer.
async fn value(client: &Client, key: &str) -> Result<Option<String>> {
    let read = || async { Ok(timeout(ANSWER_MAX, client.get(key)).await??) };
    let pair = eventually("a read", read).await?;
    Ok(pair.map(|pair| String::from_utf8_lossy(&pair.value).into_owned()))
}

/// The revision a member is at.
async fn revision(client: &Client) -> Result<i64> {
    let status = eventually("a status", || async { Ok(client.status().await?) }).await?;
    Ok(status.header.unwrap_or_default().revision)
}

/// Waits until every member has applied this revision.
async fn all_have(cluster: &Cluster, wanted: i64) -> Result<()> {
    for at in cluster.all() {
        let client = cluster.client(at);
        eventually("a member has a revision", || async {
            let now = revision(&client).await?;
            ensure!(now >= wanted, "{now} of {wanted}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// How many whole states members have begun to send.
fn states_sent(cluster: &Cluster) -> usize {
    let of = |at: usize| cluster.member(at).log().matches("sending database snapshot").count();
    cluster.all().into_iter().map(of).sum()
}

/// Waits until so many are on their way, or there.
async fn sent_a_state(cluster: &Cluster, count: usize) -> Result<()> {
    eventually("somebody sends a state", || async {
        ensure!(states_sent(cluster) >= count, "nobody does");
        Ok(())
    })
    .await
}
