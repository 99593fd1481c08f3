//! Leases that end too early, too late, or take what is not theirs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use jepsen::cluster::{Cluster, Shape};
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest,
};
use tests::{Client, Program, eventually};
use tokio::time::{sleep, timeout};

use super::{leader, next_leader, on_disks, one, play, play_once, put, three, value};

/// The TTL of leases that are watched as they run out.
const TTL: i64 = 4;
/// How long the old leader is away: its view of such a lease ends, and a bit.
const AWAY: Duration = Duration::from_secs(6);

/// Leases are checkpointed.
const CHECKPOINTS: &str = "--feature-gates=LeaseCheckpoint=true,LeaseCheckpointPersist=true";

async fn grant(client: &Client, ttl: i64) -> Result<i64> {
    let request = LeaseGrantRequest { ttl, id: 0 };
    Ok(client.lease.clone().lease_grant(request).await?.into_inner().id)
}

async fn put_with(client: &Client, key: &str, lease: i64) -> Result<()> {
    let request =
        PutRequest { key: key.to_owned().into(), value: "1".into(), lease, ..PutRequest::default() };
    client.kv.clone().put(request).await?;
    Ok(())
}

async fn revoke(client: &Client, id: i64) -> Result<()> {
    client.lease.clone().lease_revoke(LeaseRevokeRequest { id }).await?;
    Ok(())
}

/// Keeps a lease alive once; gives the seconds that were promised, 0 where it is gone.
async fn keep_alive(client: &Client, id: i64) -> Result<i64> {
    let once = async {
        let requests = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
        let mut answers = client.lease.clone().lease_keep_alive(requests).await?.into_inner();
        Ok::<_, anyhow::Error>(answers.message().await?.context("the stream ended")?.ttl)
    };
    timeout(Duration::from_secs(2), once).await?
}

async fn left(client: &Client, id: i64) -> Result<i64> {
    eventually("a lease's time to live", || async {
        let request = LeaseTimeToLiveRequest { id, keys: false };
        Ok(client.lease.clone().lease_time_to_live(request).await?.into_inner().ttl)
    })
    .await
}

/// etcd #12528 and #15247: a leader that was stuck came back with leases that had run out in its own view,
/// and its revocations were carried out although clients had kept these leases alive with the new leader.
///
/// The leader sleeps for longer than the TTL, while the lease is kept alive elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_paused_revokes_a_living_lease() -> Result<()> {
    play(three, async |cluster| {
        let old = leader(cluster).await?;
        let id = grant(&cluster.client(old), TTL).await?;
        put_with(&cluster.client(old), "alive", id).await?;
        cluster.pause(old).await?;
        let new = next_leader(cluster, old).await?;
        keep_alive_for(cluster, new, id, AWAY).await?;
        cluster.resume(old)?;
        keep_alive_for(cluster, new, id, Duration::from_secs(4)).await?;
        let kept = value(&cluster.client(new), "alive").await?;
        ensure!(kept.is_some(), "the key is gone although its lease was kept alive");
        ends(cluster, new, id).await
    })
    .await
}

/// etcd #15247 as it was met: the leader's disk hung. It revoked as above once the disk came back, and
/// meanwhile it kept leases alive by itself, of which the new leader did not know.
///
/// One lease is kept alive at the others, one only at the member whose disk hangs: what that one promises has
/// to hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_hung_disk_revokes_a_living_lease() -> Result<()> {
    play(
        |program: Program| on_disks(program, 3),
        async |cluster| {
            let old = leader(cluster).await?;
            let id = grant(&cluster.client(old), TTL).await?;
            let theirs = grant(&cluster.client(old), TTL).await?;
            put_with(&cluster.client(old), "alive", id).await?;
            put_with(&cluster.client(old), "theirs", theirs).await?;
            cluster.with_disk(old, |disk| disk.set_hanging(true))?;
            let stuck = cluster.client(old);
            let stuck = tokio::spawn(async move { timeout(AWAY, stuck.put("stuck", "1")).await });
            let new = next_leader(cluster, old).await?;
            let (client, began) = (cluster.client(old), Instant::now());
            let promises = tokio::spawn(async move {
                let mut last = None;
                while began.elapsed() < AWAY {
                    let asked = Instant::now();
                    if keep_alive(&client, theirs).await.is_ok_and(|ttl| ttl > 0) {
                        last = Some(asked);
                    }
                    sleep(Duration::from_millis(300)).await;
                }
                last
            });
            let mut gone = None;
            while began.elapsed() < AWAY {
                ensure!(
                    keep_alive(&cluster.client(new), id).await? > 0,
                    "the lease is gone before the disk is back"
                );
                if gone.is_none() && value(&cluster.client(new), "theirs").await?.is_none() {
                    gone = Some(Instant::now());
                }
                sleep(Duration::from_millis(300)).await;
            }
            let promised = promises.await?.map(|at| at + Duration::from_secs(TTL.unsigned_abs()));
            if let (Some(gone), Some(promised)) = (gone, promised) {
                ensure!(gone >= promised, "a lease ended {:?} before what was promised", promised - gone);
            }
            cluster.with_disk(old, |disk| disk.heal())?;
            stuck.await?.ok();
            keep_alive_for(cluster, new, id, Duration::from_secs(4)).await?;
            let kept = value(&cluster.client(new), "alive").await?;
            ensure!(kept.is_some(), "the key is gone although its lease was kept alive");
            ends(cluster, new, id).await
        },
    )
    .await
}

/// Each keep-alive must go well, except while leadership moves.
async fn keep_alive_for(cluster: &Cluster, at: usize, id: i64, time: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        let kept = eventually("a keep-alive", || keep_alive_at(cluster, at, id)).await?;
        ensure!(kept > 0, "the lease is gone {:?} after the first keep-alive", began.elapsed());
        sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

async fn keep_alive_at(cluster: &Cluster, at: usize, id: i64) -> Result<i64> {
    keep_alive(&cluster.client(at), id).await
}

/// Nobody keeps it alive any more: it ends.
async fn ends(cluster: &Cluster, at: usize, id: i64) -> Result<()> {
    let client = cluster.client(at);
    eventually("a lease ends", || async {
        ensure!(left(&client, id).await? == -1, "it lives");
        Ok(())
    })
    .await
}

/// etcd #17132, #13508: with checkpoints switched on, what was left of a lease was known to the first leaders
/// after a checkpoint, and the third one counted from the whole TTL again. Checkpoints were not stored
/// either.
///
/// Five minutes pass by the leader's own clock, in steps that leave it the leader; then leadership moves
/// three times and the members restart. A keep-alive then gives the whole TTL, also to the leader after.
/// Clocks of their own are only to be had for our members.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_third_leader_gives_the_whole_ttl_again() -> Result<()> {
    let mut shape = Shape::new(Program::ours(), 3);
    shape.clocks = true;
    shape.args = vec![
        CHECKPOINTS.to_owned(),
        // A leader that does not hear of the others for so long is none any more.
        "--election-timeout=10000".to_owned(),
    ];
    play_once(shape, &async |cluster: &mut Cluster| {
        let mut at = leader(cluster).await?;
        let id = grant(&cluster.client(at), 600).await?;
        checkpoint(cluster, at).await?;
        for change in 0..3 {
            let to = (leader(cluster).await? + 1) % 3;
            cluster.move_leader(to).await?;
            at = next_leader(cluster, at).await?;
            let now = left(&cluster.client(at), id).await?;
            ensure!((200..=330).contains(&now), "{now} s are left after leader change {change}");
        }
        for at in cluster.all() {
            cluster.kill(at).await?;
        }
        let all = cluster.all();
        cluster.start_all_again(&all).await?;
        at = leader(cluster).await?;
        let now = left(&cluster.client(at), id).await?;
        ensure!((200..=330).contains(&now), "{now} s are left after a restart");
        let whole = eventually("a keep-alive", || keep_alive_at(cluster, at, id)).await?;
        ensure!(whole == 600, "{whole} s are promised");
        cluster.move_leader((at + 1) % 3).await?;
        at = next_leader(cluster, at).await?;
        let now = left(&cluster.client(at), id).await?;
        ensure!(now > 500, "600 s were promised, and the next leader gives {now}");
        Ok(())
    })
    .await
}

/// As #17132, where it is a restart that forgets: a member alone knows what its log holds only once it leads, and
/// a checkpoint that it applied then came too late for the deadline.
///
/// The member is killed after a checkpoint and applies all of its log again, which is long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_gives_the_whole_ttl_again() -> Result<()> {
    let mut shape = one(Program::ours());
    shape.clocks = true;
    shape.args = vec![CHECKPOINTS.to_owned()];
    play_once(shape, &async |cluster: &mut Cluster| {
        let client = cluster.client(0);
        for _ in 0..40 {
            try_join_all((0..200).map(|n| client.put(format!("k/{n}"), "x".repeat(500)))).await?;
        }
        let id = grant(&client, 600).await?;
        checkpoint(cluster, 0).await?;
        for restart in 0..3 {
            cluster.kill(0).await?;
            cluster.start_again(0).await?;
            put(&cluster.client(0), "k", "1").await?;
            let now = left(&cluster.client(0), id).await?;
            ensure!((200..=330).contains(&now), "{now} s are left after restart {restart}");
        }
        Ok(())
    })
    .await
}

/// Moves the leader's clock until it has written down what is left of a lease, and all members know.
async fn checkpoint(cluster: &Cluster, at: usize) -> Result<()> {
    let before = cluster.client(at).status().await?.raft_applied_index;
    // Between two steps it hears of the others. Where it was too late for that, its time counts from there on.
    for step in 0.. {
        cluster.with_clock(at, |clock| clock.add_monotonic(Duration::from_secs(2)))??;
        timeout(Duration::from_secs(2), cluster.client(at).get("any")).await.ok();
        if cluster.client(at).status().await?.raft_applied_index > before {
            println!("a checkpoint after {step} steps");
            break;
        }
        ensure!(step < 600, "no checkpoint");
    }
    for member in cluster.all() {
        eventually("a checkpoint is applied", || async {
            let now = cluster.client(member).status().await?.raft_applied_index;
            ensure!(now > before, "not yet");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// etcd #6102, #6093: after a restart a lease still had keys that had been moved to another one, and a
/// deletion of such a key ended the members.
///
/// A key is moved from one lease to another, one is taken off its lease; then the member restarts and the
/// leases end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_takes_keys_that_are_not_its_own_after_a_restart() -> Result<()> {
    play(one, async |cluster| {
        let client = cluster.client(0);
        let (first, second) = (grant(&client, 600).await?, grant(&client, 600).await?);
        for key in ["stays", "moved", "free", "deleted"] {
            put_with(&client, key, first).await?;
        }
        put_with(&client, "moved", second).await?;
        put(&client, "free", "1").await?;
        cluster.kill(0).await?;
        cluster.start_again(0).await?;
        eventually("a deletion", || async {
            let request =
                proto::etcdserverpb::DeleteRangeRequest { key: "deleted".into(), ..Default::default() };
            Ok(client.kv.clone().delete_range(request).await?)
        })
        .await?;
        revoke(&client, first).await?;
        let there = async || -> Result<Vec<bool>> {
            let mut there = Vec::new();
            for key in ["stays", "moved", "free", "deleted"] {
                there.push(value(&client, key).await?.is_some());
            }
            Ok(there)
        };
        ensure!(there().await? == [false, true, true, false], "after the first: {:?}", there().await?);
        cluster.kill(0).await?;
        cluster.start_again(0).await?;
        ensure!(there().await? == [false, true, true, false], "after a restart: {:?}", there().await?);
        revoke(&client, second).await?;
        ensure!(there().await? == [false, false, true, false], "after the second: {:?}", there().await?);
        Ok(())
    })
    .await
}
