//! A cluster in which nothing fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, PutRequest, RequestOp, TxnRequest,
    request_op,
};
use tests::Cluster;

use super::watcher::Watcher;
use super::{load::Load, put_eventually, shape};

/// Two of three are enough to begin with; the third comes when it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_start_in_any_order_and_one_of_them_late() -> Result<()> {
    let mut cluster = Cluster::prepare(shape(3)).await?;
    cluster[2].spawn()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(cluster[2].runs(), "a member that waits for the others goes on waiting");
    ensure!(!cluster[2].log().contains("ready to serve client requests"), "one of three serves");
    cluster[0].spawn()?;
    cluster.ready().await?;
    let load = Load::start(vec![cluster.client(0), cluster.client(2)], "load/");
    load.flows(100).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster[1].spawn()?;
    cluster.ready().await?;
    load.flows(100).await?;
    load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_serves_everything() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let mut ids = Vec::new();
    let mut members = Vec::new();
    for at in 0..3 {
        let (client, next) = (cluster.client(at), cluster.client((at + 1) % 3));
        let put = client.put(format!("k{at}"), "v").await?;
        let get = next.get(format!("k{at}")).await?.context("what another member was given")?;
        ensure!(get.mod_revision == put.revision, "{get:?} was put by {put:?}");
        let op = |request| RequestOp { request: Some(request) };
        let txn = PutRequest { key: format!("t{at}").into(), ..PutRequest::default() };
        let txn =
            TxnRequest { success: vec![op(request_op::Request::RequestPut(txn))], ..Default::default() };
        let txn = client.kv.clone().txn(txn).await?.into_inner();
        let header = txn.header.context("a header")?;
        ensure!(header.revision == put.revision + 1, "{header:?} follows {put:?}");

        let id = 100 + at as i64;
        client.lease.clone().lease_grant(LeaseGrantRequest { ttl: 600, id }).await?;
        let alive = tokio_stream::once(LeaseKeepAliveRequest { id });
        let alive = next.lease.clone().lease_keep_alive(alive).await?.into_inner().message().await?;
        ensure!(alive.as_ref().is_some_and(|alive| alive.ttl == 600), "{alive:?}");
        let left = LeaseTimeToLiveRequest { id, keys: false };
        let left = next.lease.clone().lease_time_to_live(left).await?.into_inner();
        ensure!(left.granted_ttl == 600 && left.ttl > 500, "{left:?}");

        let status = client.status().await?;
        let known = status.header.context("a header")?;
        ensure!(known.member_id == put.member_id && header.member_id == put.member_id, "{known:?}, {put:?}");
        ids.push((put.cluster_id, put.raft_term, status.leader));
        members.push(client.members(false).await?.members);
        ensure!(members[at].iter().any(|m| m.id == put.member_id && m.name == cluster[at].name()));
    }
    ensure!(ids.windows(2).all(|pair| pair[0] == pair[1]), "cluster, term and leader: {ids:x?}");
    ensure!(members.windows(2).all(|pair| pair[0] == pair[1]), "{members:?}");
    ensure!(members[0].len() == 3 && members[0].iter().all(|m| m.client_ur_ls.len() == 1), "{members:?}");

    // Each member's watchers see what went in anywhere.
    let load = Load::start(cluster.clients(), "load/");
    let mut watchers = Vec::new();
    for client in cluster.clients() {
        watchers.push(Watcher::start(vec![client], "load/").await?);
    }
    load.flows(300).await?;
    let written = load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    for watcher in watchers {
        watcher.finish(&written).await?;
    }
    cluster.leader().await?;
    cluster.finish().await
}

/// A write that one member acknowledged is there for whoever asks another one afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_after_a_write_is_never_stale() -> Result<()> {
    const TIME: Duration = Duration::from_secs(4);
    let mut cluster = Cluster::start(shape(3)).await?;
    let leader = cluster.leader().await?;
    put_eventually(&cluster, leader, "counter", "").await?;
    // The revision that is acknowledged: every read that begins later must know it.
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = Vec::new();
    for client in cluster.clients() {
        let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            let mut puts = 0;
            while !stop.load(Ordering::Relaxed) {
                let revision = client.put("counter", "").await?.revision;
                acknowledged.fetch_max(u64::try_from(revision)?, Ordering::SeqCst);
                puts += 1;
            }
            Ok::<_, anyhow::Error>((puts, 0))
        }));
    }
    for (at, client) in cluster.clients().into_iter().enumerate().cycle().take(9) {
        let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            let mut gets = 0;
            while !stop.load(Ordering::Relaxed) {
                let least = acknowledged.load(Ordering::SeqCst);
                let found = client.get("counter").await?.context("the key")?.mod_revision;
                ensure!(
                    u64::try_from(found)? >= least,
                    "member {at} read revision {found} after {least} was acknowledged"
                );
                gets += 1;
            }
            Ok((0, gets))
        }));
    }
    let start = Instant::now();
    while start.elapsed() < TIME && !tasks.iter().any(tokio::task::JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut puts, mut gets) = (0, 0);
    for task in tasks {
        let (more_puts, more_gets) = task.await??;
        puts += more_puts;
        gets += more_gets;
    }
    ensure!(puts > 20 && gets > 20, "only {puts} puts and {gets} reads");
    cluster.finish().await
}
