//! The lock service, over raw gRPC, beside etcd's.

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::v3lockpb::lock_client::LockClient;
use proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use tests::{Client, Cluster, Member, eventually};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::script::{Stage, grant, play, three, under_way};
use crate::{program, raw};

fn request(name: &str, lease: i64) -> LockRequest {
    LockRequest { name: name.to_owned().into(), lease }
}

fn key(key: &str) -> UnlockRequest {
    UnlockRequest { key: key.to_owned().into() }
}

/// A call that waits.
fn lock(
    locks: &LockClient<Channel>,
    name: &str,
    lease: i64,
) -> JoinHandle<Result<Response<LockResponse>, Status>> {
    let (mut locks, request) = (locks.clone(), request(name, lease));
    tokio::spawn(async move { locks.lock(request).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_are_taken_and_waited_for_as_etcds_are() -> Result<()> {
    play("locks", include_str!("testdata/lock.txt"), &[], async |stage: &mut Stage| {
        let mut locks = stage.locks();
        for id in [0x10, 0x20, 0x30, -0x1f] {
            stage.grant(id).await?;
        }
        for (name, lease) in [("a", 0x10), ("a", 0x10), ("a", 0x99), ("", 0x10), ("b", -0x1f), ("b/c", 0x10)]
        {
            let answer = locks.lock(request(name, lease)).await;
            stage.tell(&format!("lock {name:?} with lease {lease:x}"), answer);
        }

        stage.say("-- two leases wait for the one that has it; one of them twice");
        let second = lock(&locks, "a", 0x20);
        stage.there("a/20").await?;
        let third = lock(&locks, "a", 0x30);
        stage.there("a/30").await?;
        let again = lock(&locks, "a", 0x20);
        ensure!(!second.is_finished() && !third.is_finished(), "a lock is held twice");
        let answer = locks.unlock(key("a/10")).await;
        stage.tell("unlock a/10", answer);
        let answer = second.await?;
        stage.tell("the second has it", answer);
        let answer = again.await?;
        stage.tell("and has it again", answer);

        stage.say("-- a client that goes while it waits takes its key with it");
        ensure!(!third.is_finished(), "a lock is held twice");
        third.abort();
        stage.gone("a/30").await?;

        stage.say("-- a key that goes before its turn");
        let third = lock(&locks, "a", 0x30);
        stage.there("a/30").await?;
        stage.delete("a/30").await?;
        let answer = locks.unlock(key("a/20")).await;
        stage.tell("unlock a/20", answer);
        let answer = third.await?;
        stage.tell("the third", answer);

        stage.say("-- a lease that ends");
        stage.tell("lock a", locks.lock(request("a", 0x10)).await);
        let second = lock(&locks, "a", 0x20);
        stage.there("a/20").await?;
        stage.client.lease.clone().lease_revoke(pb::LeaseRevokeRequest { id: 0x10 }).await?;
        let answer = second.await?;
        stage.tell("the second has it", answer);

        stage.say("-- what cannot be unlocked");
        for none in ["a/10", ""] {
            let answer = locks.unlock(key(none)).await;
            stage.tell(&format!("unlock {none:?}"), answer);
        }

        stage.say("-- no lease is given");
        let made = locks.lock(request("made", 0)).await?.into_inner();
        let held = stage.there(std::str::from_utf8(&made.key)?).await?;
        ensure!(made.key == format!("made/{:x}", held.lease), "{made:?} of lease {:x}", held.lease);
        let granted = stage.granted(held.lease).await?;
        stage.say(format!("revision {}, lease of {granted} s", made.header.unwrap_or_default().revision));

        stage.say("-- no space");
        stage.no_space(AlarmAction::Activate).await?;
        for (name, lease) in [("full", 0x30), ("full", 0), ("a", 0x20)] {
            let answer = locks.lock(request(name, lease)).await;
            stage.tell(&format!("lock {name:?} with lease {lease:x}"), answer);
        }
        let answer = locks.unlock(key("a/20")).await;
        stage.tell("unlock a/20", answer);
        stage.no_space(AlarmAction::Deactivate).await?;

        stage.series(&["v3lockpb.Lock"]).await
    })
    .await
}

/// A lock is a transaction of two operations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limits_for_transactions_hold_for_locks_too() -> Result<()> {
    let expected = include_str!("testdata/lock_limits.txt");
    play(
        "limits of locks",
        expected,
        &["--max-txn-ops=1", "--max-request-bytes=1000"],
        async |stage: &mut Stage| {
            let mut locks = stage.locks();
            stage.grant(0x10).await?;
            let answer = locks.lock(request("a", 0x10)).await;
            stage.tell("lock", answer);
            let answer = locks.unlock(key(&"k".repeat(1000))).await;
            stage.tell("unlock", answer);
            Ok(())
        },
    )
    .await
}

/// The members of a cluster give one lock to one at a time, whichever of them is asked, and whatever befalls the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_outlives_the_leader_and_those_who_wait_on_the_others() -> Result<()> {
    let mut cluster = Cluster::start(three()).await?;
    let leader = cluster.leader().await?;
    let others = cluster.others(&[leader]);
    let (one, other) = (cluster.client(others[0]), cluster.client(others[1]));
    let locks = |client: &Client| LockClient::new(client.channel.clone());
    grant(&one, &[0x10, 0x20, 0x30]).await?;
    eventually("the first", || async { Ok(locks(&one).lock(request("a", 0x10)).await?) }).await?;
    let second = under_way(&other, "a/20", || lock(&locks(&other), "a", 0x20)).await?;
    let third = under_way(&one, "a/30", || lock(&locks(&one), "a", 0x30)).await?;

    cluster[leader].kill().await?;
    cluster.leader_among(&others).await?;
    let held = eventually("a read", || async { Ok(one.get("a/10").await?) }).await?;
    ensure!(held.is_some(), "the lock went with the leader");
    ensure!(!second.is_finished() && !third.is_finished(), "a call that waited ended with the leader");
    let unlock = || async { Ok(locks(&one).unlock(key("a/10")).await?) };
    eventually("unlocked", unlock).await?;
    let second = second.await??.into_inner();
    ensure!(second.key == "a/20" && !third.is_finished(), "{second:?}");

    // A client that goes is missed by a member that does not lead as well.
    third.abort();
    let gone = || async { one.get("a/30").await?.is_none().then_some(()).context("still there") };
    eventually("the third has gone", gone).await?;
    cluster[leader].start_again().await?;
    cluster.ready().await?;
    cluster.finish().await
}

/// A client that sets a time is not kept waiting for longer, and does not stay in the queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_when_its_time_is_up() -> Result<()> {
    let member = Member::start(program()).await?;
    let client = member.connect().await?;
    let mut locks = LockClient::new(client.channel.clone());
    grant(&client, &[0x10, 0x20]).await?;
    locks.lock(request("a", 0x10)).await?;
    let limited = [("grpc-timeout", "300m")];
    match raw::call(&member.client_url(), "/v3lockpb.Lock/Lock", &request("a", 0x20), &limited).await {
        Ok(status) => ensure!(
            (status.code(), status.message()) == (Code::DeadlineExceeded, "context deadline exceeded"),
            "{status:?}"
        ),
        // etcd resets the stream, which says the same to a client.
        Err(reset) => ensure!(!member.options().program.is_ours(), "{reset:?}"),
    }
    eventually("the key has gone", || async {
        client.get("a/20").await?.is_none().then_some(()).context("still there")
    })
    .await
}

/// A member that is told to stop does not wait for a lock, and takes the key of whoever waits with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_does_not_keep_its_member_from_stopping() -> Result<()> {
    let mut member = Member::start(program()).await?;
    let client = member.connect().await?;
    let locks = LockClient::new(client.channel.clone());
    grant(&client, &[0x10, 0x20]).await?;
    locks.clone().lock(request("a", 0x10)).await?;
    let waiting = under_way(&client, "a/20", || lock(&locks, "a", 0x20)).await?;
    member.terminate().await?;
    let status = waiting.await?.err().context("a lock that another one holds")?;
    ensure!(status.code() == Code::Unavailable || !member.options().program.is_ours(), "{status:?}");
    member.start_again().await?;
    let client = member.connect().await?;
    ensure!(client.get("a/10").await?.is_some() && client.get("a/20").await?.is_none(), "the keys left");
    Ok(())
}
