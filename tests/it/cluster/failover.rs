//! Members that die, hang and come back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, RangeRequest};
use tests::{Cluster, eventually};
use tonic::{Code, Request};

use super::load::Load;
use super::watcher::{Watcher, open};
use super::{REQUEST_MAX, put_eventually, refused, shape, with_leader, within};

/// What a refusal may come late on a busy machine.
const MARGIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_leader_is_killed() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let load = Load::start(cluster.clients(), "load/");
    // One watcher that goes where a member lives, and one on each member.
    let roaming = Watcher::start(cluster.clients(), "load/").await?;
    let mut watchers = Vec::new();
    for client in cluster.clients() {
        watchers.push(Watcher::start(vec![client], "load/").await?);
    }
    let mut killed = Vec::new();
    for _ in 0..2 {
        load.flows(150).await?;
        let leader = cluster.leader().await?;
        let before: Vec<usize> = watchers.iter().map(Watcher::breaks).collect();
        cluster[leader].kill().await?;
        let next = cluster.leader().await?;
        ensure!(next != leader);
        load.flows(150).await?;
        for at in cluster.others(&[leader]) {
            ensure!(watchers[at].breaks() == before[at], "the watch on survivor {at} ended");
        }
        cluster[leader].start_again().await?;
        killed.push(leader);
    }
    load.flows(100).await?;
    let written = load.finish().await?;
    eprintln!(
        "{} writes acknowledged over kills of {killed:?}; longest pause {:?}",
        written.acknowledged.len(),
        written.gap
    );
    let written = written.check(&cluster, &[0, 1, 2]).await?;
    roaming.finish(&written).await?;
    for watcher in watchers {
        watcher.finish(&written).await?;
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_members_go_on_without_two() -> Result<()> {
    let mut cluster = Cluster::start(shape(5)).await?;
    let load = Load::start(cluster.clients(), "load/");
    load.flows(100).await?;
    let leader = cluster.leader().await?;
    let other = cluster.others(&[leader])[0];
    cluster[leader].kill().await?;
    cluster[other].kill().await?;
    cluster.leader().await?;
    load.flows(100).await?;
    cluster[leader].start_again().await?;
    cluster[other].start_again().await?;
    cluster.leader().await?;
    load.finish().await?.check(&cluster, &[0, 1, 2, 3, 4]).await?;
    cluster.finish().await
}

/// A leader that was stopped for a while, and does not know it, must not tell what was true then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hung_never_answers_stale() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let load = Load::start(cluster.clients(), "load/");
    for _ in 0..3 {
        let leader = cluster.leader().await?;
        put_eventually(&cluster, leader, "k", "old").await?;
        let others = cluster.others(&[leader]);
        let mut readers = Vec::new();
        for _ in 0..20 {
            readers.push(cluster[leader].connect().await?);
        }
        cluster[leader].pause()?;
        cluster.leader_among(&others).await?;
        let newest = put_eventually(&cluster, others[0], "k", "new").await?;
        // These wait in the paused member's sockets, and are the first it sees.
        let reads: Vec<_> = readers
            .into_iter()
            .map(|client| tokio::spawn(async move { within(REQUEST_MAX + MARGIN, client.get("k")).await }))
            .collect();
        load.flows(100).await?;
        cluster[leader].resume()?;
        let mut answered = 0;
        for read in reads {
            if let Ok(found) = read.await? {
                let found = found.context("the key is there")?.mod_revision;
                ensure!(found >= newest, "revision {found} after {newest} was acknowledged");
                answered += 1;
            }
        }
        eprintln!("{answered} of 20 reads were answered");
        cluster.leader().await?;
        eventually("the resumed member serves", || async { Ok(cluster.client(leader).get("k").await?) })
            .await?;
    }
    load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_only_serializable_reads_go_on() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let leader = cluster.leader().await?;
    put_eventually(&cluster, leader, "k", "v").await?;
    // One round on the leader that is left alone, one on a follower.
    for round in 0..2 {
        let leader = cluster.leader().await?;
        let left = if round == 0 { leader } else { cluster.others(&[leader])[0] };
        let gone = cluster.others(&[left]);
        let client = cluster.client(left);
        let lease =
            client.lease.clone().lease_grant(LeaseGrantRequest { ttl: 600, id: 0 }).await?.into_inner();
        let (_watch, mut strict) = open(&client, "k", 0, with_leader).await?;
        let (_watch, mut loose) = open(&client, "k", 0, Request::new).await?;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.send(LeaseKeepAliveRequest { id: lease.id }).await?;
        let alive = with_leader(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let mut alive = client.lease.clone().lease_keep_alive(alive).await?.into_inner();
        ensure!(within(MARGIN, alive.message()).await?.is_some_and(|alive| alive.ttl == 600));
        for &at in &gone {
            cluster[at].kill().await?;
        }
        // The member needs up to two election timeouts to see that it has no leader.
        eventually("the leader is given up", || async {
            ensure!(client.status().await?.leader == 0);
            Ok(())
        })
        .await?;
        let began = Instant::now();
        let put = within(REQUEST_MAX + MARGIN, client.put("k", "lost?"));
        let get = within(REQUEST_MAX + MARGIN, client.get("k"));
        let list = client.members(true);
        let (put, get, list) = tokio::join!(put, get, within(REQUEST_MAX + MARGIN, list));
        let took = began.elapsed();
        refused(get, Code::Unavailable, "etcdserver: request timed out")?;
        refused(list, Code::Unavailable, "etcdserver: request timed out")?;
        // etcd's own error where a write finds no leader; the other is what one gets that was on its way.
        if put.as_ref().is_err_and(|status| status.code() == Code::DeadlineExceeded) {
            refused(put, Code::DeadlineExceeded, "context deadline exceeded")?;
        } else {
            refused(put, Code::Unavailable, "etcdserver: request timed out")?;
        }
        ensure!(took < REQUEST_MAX + MARGIN, "the refusals took {took:?}");
        let no_leader = "etcdserver: no leader";
        let get = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        refused(client.kv.clone().range(with_leader(get.clone())).await, Code::Unavailable, no_leader)?;
        let get = RangeRequest { serializable: true, ..get };
        let old = client.kv.clone().range(get).await?.into_inner();
        ensure!(old.kvs.len() == 1, "a serializable read needs nobody");
        ensure!(client.status().await?.errors.iter().any(|error| error == no_leader));
        refused(within(MARGIN, strict.message()).await, Code::Unavailable, no_leader)?;
        let ended = loop {
            // An answer may have been on its way.
            match within(MARGIN, alive.message()).await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        };
        refused(ended, Code::Unavailable, no_leader)?;
        // One comes back, and with it the majority.
        cluster[gone[0]].start_again().await?;
        let revision = put_eventually(&cluster, left, "k", "goes on").await?;
        let seen = loop {
            let answer = within(MARGIN, loose.message()).await?.context("a watch that does not ask stays")?;
            let last =
                answer.events.last().and_then(|event| event.kv.as_ref()).map_or(0, |kv| kv.mod_revision);
            if last >= revision {
                break last;
            }
        };
        ensure!(seen == revision);
        cluster[gone[1]].start_again().await?;
    }
    cluster.finish().await
}
