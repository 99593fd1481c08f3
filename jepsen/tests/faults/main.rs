//! Every nemesis does what it says, and takes it back.
//!
//! Members are ours; with `REAL_ETCD_BIN`, etcd's too where it is said.

#[path = "../common/mod.rs"]
mod common;

mod clocks;
mod disks;
mod links;
mod membership;
mod processes;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jepsen::cluster::{Cluster, Shape};
use jepsen::nemesis::{Harm, Nemesis, by_name};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tests::{Program, eventually, skipped};
use tokio::sync::MutexGuard;

use common::{TURN, has_all, is_whole, start};

/// A cluster of ours, whose turn it is.
async fn cluster(members: usize) -> Result<(MutexGuard<'static, ()>, Cluster)> {
    cluster_of(Program::ours(), members).await
}

async fn cluster_of(program: Program, members: usize) -> Result<(MutexGuard<'static, ()>, Cluster)> {
    start(Shape::new(program, members)).await
}

/// A cluster of ours that has what this nemesis needs.
async fn cluster_for(name: &str) -> Result<(MutexGuard<'static, ()>, Cluster)> {
    let mut shape = Shape::new(Program::ours(), 3);
    nemesis(name).prepare(&mut shape);
    start(shape).await
}

/// Why the cluster cannot suffer it, said loudly.
fn is_unfit(name: &str, cluster: &Cluster) -> bool {
    let why = nemesis(name).unfit(cluster);
    if let Some(why) = &why {
        skipped(name, why);
    }
    why.is_some()
}

/// So many pairs, each acknowledged by some member.
pub async fn put_some(cluster: &Cluster, prefix: &str, count: usize) -> Result<()> {
    let all = cluster.all();
    for n in 0..count {
        let client = cluster.client(all[n % all.len()]);
        let put = || async { Ok(client.put(format!("{prefix}/{n}"), "x".repeat(100)).await?) };
        eventually("a write", put).await?;
    }
    Ok(())
}

fn nemesis(name: &str) -> Box<dyn Nemesis> {
    by_name(name).unwrap_or_else(|| panic!("there is no nemesis {name}"))
}

/// Begins, or says why not.
async fn begin(name: &str, seed: u64, cluster: &mut Cluster) -> Result<(Box<dyn Nemesis>, Harm)> {
    let mut nemesis = nemesis(name);
    let unfit = nemesis.unfit(cluster);
    ensure!(unfit.is_none(), "{name} does not fit: {unfit:?}");
    let harm =
        nemesis.begin(cluster, &mut StdRng::seed_from_u64(seed)).await.with_context(|| name.to_owned())?;
    println!("{}: {}", harm.kind, harm.what);
    Ok((nemesis, harm))
}

/// Whether a member answers a linearizable read within a second and a half.
async fn answers(cluster: &Cluster, at: usize) -> bool {
    let client = cluster.client(at);
    tokio::time::timeout(Duration::from_millis(1500), client.get("a")).await.is_ok_and(|got| got.is_ok())
}
