//! Members that come and go.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::{
    LeaseGrantRequest, MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest,
    MoveLeaderRequest, RangeRequest,
};
use tests::{Cluster, Program, Shape, eventually, free_port, skipped};
use tonic::{Code, Request, Status};

use super::load::Load;
use super::watcher::open;
use super::{put_eventually, refused, shape, within};

/// A removed member ends by itself, after a second or so.
const EXIT_MAX: Duration = Duration::from_secs(30);

async fn promote(cluster: &Cluster, id: u64, via: usize) -> Result<(), Status> {
    cluster.client(via).cluster.member_promote(MemberPromoteRequest { id }).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_learns_is_promoted_and_removed() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let leader = cluster.leader().await?;
    let follower = cluster.others(&[leader])[0];
    let load = Load::start(cluster.clients(), "load/");
    let at = cluster.grow().await?;
    let id = cluster.add(at, true, follower).await?;
    let known = cluster.client(leader).members(true).await?.members;
    let new = known.iter().find(|member| member.id == id).context("the learner is known")?;
    ensure!(new.is_learner && new.name.is_empty() && new.client_ur_ls.is_empty(), "{new:?}");
    let early = "etcdserver: can only promote a learner member which is in sync with leader";
    refused(promote(&cluster, id, follower).await, Code::FailedPrecondition, early)?;
    load.flows(100).await?;
    cluster[at].start_again().await?;

    // A learner answers its status and serializable reads, nothing else.
    let client = cluster.client(at);
    ensure!(client.status().await?.is_learner);
    eventually("the learner has the data", || async {
        client.get_serializable("load/0/000000").await?.context("not yet").map(|_| ())
    })
    .await?;
    let (code, learner) = (Code::FailedPrecondition, "etcdserver: rpc not supported for learner");
    refused(client.get("k").await, code, learner)?;
    refused(client.put("k", "v").await, code, learner)?;
    refused(client.members(false).await, code, learner)?;
    refused(client.hash_kv(0).await, code, learner)?;
    let grant = LeaseGrantRequest { ttl: 60, id: 0 };
    refused(client.lease.clone().lease_grant(grant).await, code, learner)?;
    let watch = open(&client, "k", 0, Request::new).await.expect_err("a watch on a learner");
    ensure!(watch.downcast_ref::<Status>().is_some_and(|status| status.message() == learner), "{watch}");
    let transfer = MoveLeaderRequest { target_id: id };
    let leader_now = cluster.leader().await?;
    let transfer = cluster.client(leader_now).maintenance.move_leader(transfer).await;
    refused(transfer, code, "etcdserver: bad leader transferee")?;

    eventually("the learner is promoted", || async { Ok(promote(&cluster, id, follower).await?) }).await?;
    let again = promote(&cluster, id, leader).await;
    refused(again, code, "etcdserver: can only promote a learner member")?;
    put_eventually(&cluster, at, "by the new voter", "").await?;
    cluster.leader().await?;
    load.flows(50).await?;
    load.finish().await?.check(&cluster, &[0, 1, 2, 3]).await?;

    let removed = cluster.remove(id, follower).await?;
    ensure!(removed.members.len() == 3 && removed.members.iter().all(|member| member.id != id));
    cluster[at].wait_exit(EXIT_MAX).await.context("a removed member ends by itself")?;
    // Whoever was removed stays so.
    cluster[at].spawn()?;
    cluster[at].wait_exit(EXIT_MAX).await.context("a removed member cannot come back")?;
    refused(promote(&cluster, id, leader).await, Code::NotFound, "etcdserver: member not found")?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_can_be_removed_and_a_fourth_takes_its_place() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let first = cluster.leader().await?;
    let follower = cluster.others(&[first])[0];
    let at = cluster.grow().await?;
    cluster.add(at, false, follower).await?;
    cluster[at].start_again().await?;
    let leader = cluster.leader().await?;
    let rest = cluster.others(&[leader]);
    let load = Load::start(rest.iter().map(|&at| cluster.client(at)).collect(), "load/");
    load.flows(50).await?;
    let id = cluster.id(leader).await?;
    cluster.remove(id, rest[0]).await?;
    cluster[leader].wait_exit(EXIT_MAX).await.context("the removed leader ends by itself")?;
    let next = cluster.leader_among(&rest).await?;
    ensure!(next != leader);
    load.flows(50).await?;
    load.finish().await?.check(&cluster, &rest).await?;
    ensure!(cluster.client(rest[0]).members(true).await?.members.len() == 3);
    cluster.finish().await
}

/// What one does with a member whose disk is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_replaced_under_load() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let leader = cluster.leader().await?;
    let load = Load::start(cluster.clients(), "load/");
    load.flows(50).await?;
    let at = cluster.others(&[leader])[0];
    let id = cluster.id(at).await?;
    cluster[at].kill().await?;
    cluster.remove(id, leader).await?;
    cluster[at].wipe()?;
    let new = cluster.add(at, false, leader).await?;
    ensure!(new != id, "an ID is never used again");
    load.flows(50).await?;
    cluster[at].start_again().await?;
    cluster.leader().await?;
    ensure!(cluster.id(at).await? == new);
    load.flows(50).await?;
    load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    let known = cluster.client(at).members(true).await?.members;
    ensure!(known.len() == 3 && known.iter().all(|member| !member.name.is_empty()), "{known:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_moves_to_another_peer_address() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let leader = cluster.leader().await?;
    let at = cluster.others(&[leader])[0];
    let id = cluster.id(at).await?;
    let load = Load::start(cluster.clients(), "load/");
    load.flows(50).await?;
    cluster[at].terminate().await?;
    let url = format!("http://127.0.0.1:{}", free_port());
    let update = MemberUpdateRequest { id, peer_ur_ls: vec![url.clone()] };
    let updated = cluster.client(leader).cluster.member_update(update).await?.into_inner();
    ensure!(updated.members.iter().any(|member| member.id == id && member.peer_ur_ls == [url.clone()]));
    // The last of a repeated flag wins.
    cluster[at].options_mut().args.push(format!("--listen-peer-urls={url}"));
    cluster[at].start_again().await?;
    cluster.leader().await?;
    load.flows(50).await?;
    load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    ensure!(cluster.id(at).await? == id, "it is the same member");
    cluster.finish().await
}

/// Every refusal of the member services, by name.
async fn refusals(program: Program) -> Result<Vec<(&'static str, Code, String)>> {
    let mut cluster = Cluster::start(Shape::new(program, 3)).await?;
    let leader = cluster.leader().await?;
    let follower = cluster.others(&[leader])[0];
    let mut seen = Vec::new();
    let client = cluster.client(follower).cluster;
    let add = |urls: &[&str], is_learner| {
        let urls = urls.iter().map(|&url| url.to_owned()).collect();
        let (request, mut client) = (MemberAddRequest { peer_ur_ls: urls, is_learner }, client.clone());
        async move { client.member_add(request).await.map(|_| ()) }
    };
    let remove = |id| {
        let mut client = client.clone();
        async move { client.member_remove(MemberRemoveRequest { id }).await.map(|_| ()) }
    };
    let update = |id, urls: &[&str]| {
        let peer_ur_ls = urls.iter().map(|&url| url.to_owned()).collect();
        let (request, mut client) = (MemberUpdateRequest { id, peer_ur_ls }, client.clone());
        async move { client.member_update(request).await.map(|_| ()) }
    };
    let mut note = |what, answer: Result<(), Status>| {
        let (code, text) =
            answer.map_or_else(|s| (s.code(), s.message().to_owned()), |()| (Code::Ok, String::new()));
        seen.push((what, code, text));
    };
    let (taken, free) = (cluster[leader].peer_url(), "http://127.0.0.1:1");
    note("add without URLs", add(&[], false).await);
    note("add a URL with a path", add(&["http://127.0.0.1:1/path"], false).await);
    note("add a URL without a port", add(&["http://127.0.0.1"], false).await);
    note("add no URL at all", add(&["x"], false).await);
    note("add an unknown scheme", add(&["ftp://127.0.0.1:1"], false).await);
    note("add before all are connected for 5 s", add(&[free], false).await);
    // From here on the members have been connected for long enough.
    tokio::time::sleep(Duration::from_secs(6)).await;
    note("add a URL that is taken", add(&[&taken], false).await);
    note("add a learner at a URL that is taken", add(&[&taken], true).await);
    note("remove an unknown member", remove(4711).await);
    note("promote an unknown member", promote(&cluster, 4711, follower).await);
    let (own, other) = (cluster.id(follower).await?, cluster.id(leader).await?);
    note("promote a voter", promote(&cluster, other, follower).await);
    note("update an unknown member", update(4711, &[free]).await);
    note("update to a URL that is taken", update(own, &[&taken]).await);
    note("add a learner", add(&[free], true).await);
    note("add a second learner", add(&["http://127.0.0.1:2"], true).await);
    let members = cluster.client(leader).members(true).await?.members;
    let learner = members.iter().find(|member| member.is_learner).context("the learner")?.id;
    note("promote a learner that never started", promote(&cluster, learner, follower).await);
    let transfer = MoveLeaderRequest { target_id: learner };
    let transfer = cluster.client(leader).maintenance.move_leader(transfer).await;
    note("make a learner the leader", transfer.map(|_| ()));
    note("remove the learner", remove(learner).await);
    note("remove it again", remove(learner).await);
    note("promote it after that", promote(&cluster, learner, follower).await);
    // An ID comes from the URLs and the second, and one that was removed is never used again.
    note("add a voter that does not start", add(&["http://127.0.0.1:3"], false).await);
    note("add another", add(&["http://127.0.0.1:4"], false).await);
    let members = cluster.client(leader).members(true).await?.members;
    for unstarted in members.iter().filter(|member| member.name.is_empty()) {
        note("remove one that never started", remove(unstarted.id).await);
    }

    let gone = cluster.others(&[leader, follower])[0];
    let gone_id = cluster.id(gone).await?;
    cluster[gone].kill().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    note("add a voter while one is down", add(&["http://127.0.0.1:5"], false).await);
    note("remove a live one while one is down", remove(other).await);
    note("remove the one that is down", remove(gone_id).await);
    let left = cluster.client(leader).members(true).await?.members.len();
    ensure!(left == 2, "{left} members are left");
    cluster.finish().await?;
    Ok(seen)
}

/// The same steps on etcd, answer by answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_refusals_are_etcds() -> Result<()> {
    let ours = refusals(crate::program()).await?;
    for (what, code, text) in &ours {
        eprintln!("{what}: {code:?} {text:?}");
    }
    let Some(etcd) = Program::etcd() else {
        skipped("comparing the refusals of the member services", "REAL_ETCD_BIN is not set");
        return Ok(());
    };
    let theirs = refusals(etcd).await?;
    for (ours, theirs) in ours.iter().zip(&theirs) {
        ensure!(ours == theirs, "ours: {ours:?}, etcd's: {theirs:?}");
    }
    Ok(())
}

/// What cannot be, refused before anything is changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_member_cannot_be_removed() -> Result<()> {
    let mut cluster = Cluster::start(shape(1)).await?;
    let id = cluster.id(0).await?;
    let answer = cluster.client(0).cluster.member_remove(MemberRemoveRequest { id }).await;
    let text = "etcdserver: re-configuration failed due to not enough started members";
    refused(answer, Code::Unknown, text)?;
    let read = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    within(Duration::from_secs(5), cluster.client(0).kv.range(read)).await?;
    cluster.leader().await?;
    cluster.finish().await
}
