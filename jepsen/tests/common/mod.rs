//! What tests of whole clusters share.

use anyhow::{Result, ensure};
use jepsen::cluster::{Cluster, Shape};
use tests::eventually;
use tokio::sync::{Mutex, MutexGuard};

/// One cluster at a time: with more of them on few cores, elections are late because the processor is.
pub static TURN: Mutex<()> = Mutex::const_new(());

/// Starts a cluster with quick elections when it is its turn.
pub async fn start(mut shape: Shape) -> Result<(MutexGuard<'static, ()>, Cluster)> {
    let turn = TURN.lock().await;
    (shape.heartbeat_ms, shape.election_ms) = (50, 500);
    Ok((turn, Cluster::start(shape).await?))
}

/// They are all there.
pub async fn has_all(cluster: &Cluster, prefix: &str, count: usize) -> Result<()> {
    for at in cluster.all() {
        let client = cluster.client(at);
        let found = eventually("a read", || async { Ok(client.count(&format!("{prefix}/")).await?) }).await?;
        ensure!(found == count as i64, "member {at} has {found} of {count}");
    }
    Ok(())
}

/// Everything works again: each member takes a write, and all have the same data.
pub async fn is_whole(cluster: &mut Cluster) -> Result<()> {
    for at in cluster.all() {
        let client = cluster.client(at);
        eventually("each member takes writes again", || async {
            Ok(client.put(format!("whole/{at}"), "1").await?)
        })
        .await?;
    }
    let ends = cluster.finish().await?;
    ensure!(ends.len() == cluster.len());
    ensure!(
        ends.iter().all(|end| (end.revision, end.hash) == (ends[0].revision, ends[0].hash)),
        "members differ: {ends:?}"
    );
    ensure!(cluster.deaths().is_empty(), "{:?}", cluster.deaths());
    Ok(())
}
