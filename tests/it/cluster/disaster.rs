//! The majority is gone for good.

use anyhow::{Result, ensure};
use tests::{Cluster, eventually};

use super::load::Load;
use super::{put_eventually, shape};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_survivor_becomes_a_new_cluster() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let load = Load::start(cluster.clients(), "load/");
    load.flows(100).await?;
    let written = load.finish().await?;
    let before = cluster.client(0).members(true).await?;
    for at in 0..3 {
        cluster[at].kill().await?;
    }
    let plain = cluster[0].options_mut().args.clone();
    cluster[0].options_mut().args.push("--force-new-cluster".to_owned());
    cluster[0].start_again().await?;
    let client = cluster.client(0);
    let after = client.members(true).await?;
    ensure!(after.members.len() == 1 && before.members.contains(&after.members[0]), "{after:?}");
    let cluster_id =
        |list: &proto::etcdserverpb::MemberListResponse| list.header.map(|header| header.cluster_id);
    ensure!(cluster_id(&after) == cluster_id(&before), "{after:?}");
    put_eventually(&cluster, 0, "after", "").await?;

    // The flag is for one start; the cluster grows again as any does.
    cluster[0].options_mut().args = plain;
    cluster[0].terminate().await?;
    cluster[0].start_again().await?;
    cluster[1].wipe()?;
    cluster.add(1, false, 0).await?;
    cluster[1].start_again().await?;
    eventually("the newcomer votes", || async {
        put_eventually(&cluster, 1, "again", "").await?;
        Ok(())
    })
    .await?;
    written.check(&cluster, &[0, 1]).await?;
    cluster.leader().await?;
    cluster.finish().await
}
