//! Members that were removed, and learners that were promoted, after restarts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jepsen::cluster::Cluster;
use proto::etcdserverpb::{MemberAddRequest, MemberRemoveRequest, MemberUpdateRequest};
use tests::eventually;
use tokio::time::{sleep, timeout};

use super::{leader, play, put, three, value};

async fn restart_all(cluster: &mut Cluster) -> Result<()> {
    let all = cluster.all();
    for &at in &all {
        cluster.kill(at).await?;
    }
    cluster.start_all_again(&all).await
}

/// The members as one of them knows them: IDs, and whether they are learners.
async fn listed(cluster: &Cluster, at: usize) -> Result<Vec<(u64, bool)>> {
    let client = cluster.client(at);
    let list = eventually("a list of members", || async { Ok(client.members(false).await?.members) }).await?;
    Ok(list.into_iter().map(|member| (member.id, member.is_learner)).collect())
}

/// etcd 3.5.0 (#13196) and upgrades to 3.6 (#20967): members that had been removed came back after a restart,
/// as what was stored of them in two places did not agree.
///
/// A member is removed while it is down. It comes back with its data: nobody hears it, it serves nothing, and
/// the leader stays. It is not listed after a restart of the others either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_comes_back() -> Result<()> {
    play(three, async |cluster| {
        put(&cluster.client(0), "k", "1").await?;
        let id = cluster.listing(2).await?.context("it is a member")?.id;
        cluster.kill(2).await?;
        eventually("a member is removed", || async {
            let removed = cluster.client(0).cluster.clone().member_remove(MemberRemoveRequest { id }).await;
            ensure!(removed.is_ok() || cluster.listing(2).await?.is_none(), "{removed:?}");
            Ok(())
        })
        .await?;
        let before = leader(cluster).await?;
        let term = cluster.client(before).status().await?.raft_term;
        // It may end by itself, or wait for ever.
        cluster.try_start(2, Duration::from_secs(3)).await?;
        sleep(Duration::from_secs(1)).await;
        let write = timeout(Duration::from_secs(1), cluster.client(2).put("zombie", "1")).await;
        ensure!(!matches!(write, Ok(Ok(_))), "a removed member takes a write");
        let read = timeout(Duration::from_secs(1), cluster.client(2).get("k")).await;
        ensure!(!matches!(read, Ok(Ok(_))), "a removed member serves a linearizable read");
        let status = cluster.client(before).status().await?;
        ensure!(status.raft_term == term, "a removed member brought about an election");
        cluster.kill(2).await?;
        for at in [0, 1] {
            cluster.kill(at).await?;
        }
        cluster.start_all_again(&[0, 1]).await?;
        for at in [0, 1] {
            let list = listed(cluster, at).await?;
            ensure!(list.len() == 2 && list.iter().all(|member| member.0 != id), "{id:x} is in {list:x?}");
            put(&cluster.client(at), "k", "2").await?;
        }
        ensure!(value(&cluster.client(0), "zombie").await?.is_none());
        cluster.remove(2).await?;
        cluster.add(2, true).await
    })
    .await
}

/// etcd 3.5.1 to 3.5.19 (#19557) and 3.6 (#20340): a promotion was not stored everywhere, and after a restart
/// the voter was a learner again, or there were too many learners to start at all.
///
/// Two members are removed, added as learners and promoted, one of them twice; then all restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_member_is_a_learner_again_after_a_restart() -> Result<()> {
    play(three, async |cluster| {
        for at in [1, 2, 1] {
            cluster.remove(at).await?;
            cluster.add(at, true).await?;
        }
        let before = cluster.listed().await?;
        restart_all(cluster).await?;
        for at in cluster.all() {
            let list = listed(cluster, at).await?;
            let voters = before.iter().all(|member| list.contains(&(member.id, false)));
            ensure!(list.len() == 3 && voters, "member {at} knows {list:x?}");
        }
        // Each of them counts: without any one, the other two are a quorum.
        for down in cluster.all() {
            cluster.kill(down).await?;
            put(&cluster.client((down + 1) % 3), "k", "1").await?;
            cluster.start_again(down).await?;
        }
        Ok(())
    })
    .await
}

/// etcd before 3.6.12 (#21694): an update of a learner's addresses made it a voter in the list of members,
/// which it was not, and it could not be promoted any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_makes_a_learner_a_voter() -> Result<()> {
    play(three, async |cluster| {
        let urls = vec!["http://127.0.0.1:1".to_owned()];
        let client = cluster.client(0);
        let add = MemberAddRequest { peer_ur_ls: urls, is_learner: true };
        let id = eventually("a learner is added", || async {
            let added = client.cluster.clone().member_add(add.clone()).await?.into_inner();
            Ok(added.member.context("the answer tells the new member")?.id)
        })
        .await?;
        let update = MemberUpdateRequest { id, peer_ur_ls: vec!["http://127.0.0.1:2".to_owned()] };
        client.cluster.clone().member_update(update).await?;
        for restart in [false, true] {
            if restart {
                restart_all(cluster).await?;
            }
            for at in cluster.all() {
                eventually("a learner is one", || async {
                    let list = client.members(true).await?;
                    let url =
                        list.members.iter().find(|member| member.id == id).map(|m| m.peer_ur_ls.clone());
                    ensure!(url.is_some_and(|url| url[0].ends_with(":2")), "not updated yet");
                    Ok(())
                })
                .await?;
                let list = listed(cluster, at).await?;
                ensure!(list.contains(&(id, true)), "member {at} knows {list:x?}, and {id:x} was a learner");
            }
        }
        eventually("a learner is removed", || async {
            Ok(client.cluster.clone().member_remove(MemberRemoveRequest { id }).await?)
        })
        .await?;
        Ok(())
    })
    .await
}
