//! Who may be a peer.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{Authority, Cluster};

use super::load::Load;
use super::{shape, within};

/// How long a stranger is watched not getting in.
const TRIES: Duration = Duration::from_secs(4);

fn serves(cluster: &Cluster, at: usize) -> bool {
    cluster[at].log().contains("ready to serve client requests")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_a_certificate_of_another_authority_is_refused() -> Result<()> {
    let mut cluster = Cluster::start(shape(3).with_tls()).await?;
    let load = Load::start(cluster.clients(), "load/");
    load.flows(50).await?;
    let leader = cluster.leader().await?;
    let (at, others) = (cluster.others(&[leader])[0], cluster.others(&[cluster.others(&[leader])[0]]));
    cluster[at].terminate().await?;
    load.flows(50).await?;

    // Its data and its clients' certificate are right; what it shows its peers is not.
    let other = Authority::new(&cluster.dir().join("other"))?.issue("stranger")?;
    let right = cluster[at].options_mut().peer_tls.clone();
    // It trusts the cluster, so that it is the others who refuse.
    let mut wrong = other;
    wrong.ca = right.clone().expect("a cluster with TLS").ca;
    cluster[at].options_mut().peer_tls = Some(wrong);
    cluster[at].spawn()?;
    tokio::time::sleep(TRIES).await;
    ensure!(!serves(&cluster, at), "a member nobody trusts serves");
    let behind = within(Duration::from_secs(1), cluster.client(at).get_serializable("load/0/000000")).await;
    ensure!(behind.is_err(), "it answers clients before it is one of the cluster");
    load.flows(50).await?;
    cluster.leader_among(&others).await?;
    cluster[at].kill().await?;

    cluster[at].options_mut().peer_tls = right;
    cluster[at].start_again().await?;
    load.flows(50).await?;
    load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    cluster.finish().await
}

/// A member that was set up anew for another cluster, at an address this cluster knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_another_cluster_is_refused() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let load = Load::start(cluster.clients(), "load/");
    load.flows(50).await?;
    let leader = cluster.leader().await?;
    let at = cluster.others(&[leader])[0];
    cluster[at].terminate().await?;
    let kept = cluster.dir().join("kept");
    std::fs::rename(cluster[at].data_dir(), &kept)?;
    cluster[at].options_mut().token = "another cluster".to_owned();
    cluster[at].spawn()?;
    tokio::time::sleep(TRIES).await;
    ensure!(!serves(&cluster, at), "a member of another cluster serves");
    load.flows(50).await?;
    ensure!(cluster[leader].log().contains("request cluster ID mismatch"), "nobody refused it");
    if cluster[at].runs() {
        cluster[at].kill().await?;
    } else {
        cluster[at].wait_exit(Duration::ZERO).await?;
    }

    cluster[at].wipe()?;
    std::fs::rename(&kept, cluster[at].data_dir())?;
    cluster[at].options_mut().token = "tests".to_owned();
    cluster[at].start_again().await?;
    load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    cluster.finish().await
}
