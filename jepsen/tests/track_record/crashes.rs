//! Processes that are killed, and machines that stop, at the worst moment.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use jepsen::disk::Loss;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{
    CompactionRequest, Compare, DefragmentRequest, DeleteRangeRequest, RequestOp, TxnRequest,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tests::{Client, Program};
use tokio::time::{sleep, timeout};

use super::load::Load;
use super::{follower, leader, on_disks, one, play, put, revision, three, value};

/// etcd 3.5.0 to 3.5.2 (#13766): the index of what is applied could be stored ahead of the data it stands
/// for. After a `kill -9` under load the member skipped these entries, and members differed for good.
///
/// Members are killed one after the other, at any moment, under puts, leased puts, transactions of which some
/// fail, and compactions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_differ_after_kills_under_load() -> Result<()> {
    play(three, async |cluster| {
        let mut rng = StdRng::seed_from_u64(13_766);
        let load = Load::start(cluster, "load").await?;
        for round in 0..12 {
            let at = if round % 3 == 0 { leader(cluster).await? } else { rng.random_range(0..3) };
            sleep(Duration::from_millis(rng.random_range(0..400))).await;
            cluster.kill(at).await?;
            cluster.start_again(at).await?;
        }
        let done = load.stop().await?;
        println!("{} acknowledged writes", done.len());
        ensure!(done.len() > 100, "only {} writes went well", done.len());
        done.is_kept(cluster, "load").await
    })
    .await
}

/// etcd 3.5.0 to 3.5.4 (#14370): a member alone answered before the entry was synced, and a machine that
/// stopped took what was acknowledged.
///
/// While the disk answers nothing, nothing may be acknowledged. And what is acknowledged outlives the
/// machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_alone_acknowledges_what_is_not_synced() -> Result<()> {
    play(
        |program: Program| on_disks(program, 1),
        async |cluster| {
            put(&cluster.client(0), "first", "1").await?;
            cluster.with_disk(0, |disk| disk.set_hanging(true))?;
            let early = timeout(Duration::from_millis(1500), cluster.client(0).put("early", "1")).await;
            ensure!(!matches!(early, Ok(Ok(_))), "a write is acknowledged while the disk hangs");
            cluster.with_disk(0, |disk| disk.heal())?;
            let mut rng = StdRng::seed_from_u64(14_370);
            for round in 0..6 {
                put(&cluster.client(0), "round", &round.to_string()).await?;
                let client = cluster.client(0);
                let puts = (0..10).map(|n| client.put(format!("k{round}/{n}"), "1"));
                for answer in join_all(puts).await {
                    answer.context("nothing stood in the way of a write")?;
                }
                let loss = if round % 2 == 0 { Loss::All } else { Loss::Torn };
                cluster.crash(&[0], loss, &mut rng).await?;
                cluster.start_again(0).await?;
                let found = value(&cluster.client(0), "round").await?;
                ensure!(found == Some(round.to_string()), "round {round} is {found:?} after the crash");
                let kept = cluster.client(0).count(&format!("k{round}/")).await?;
                ensure!(kept == 10, "{kept} of 10 acknowledged writes of round {round} are there");
            }
            Ok(())
        },
    )
    .await
}

/// etcd #17780, #16693: a compaction up to the last revision removed the tombstones there. A crash before it
/// was noted as finished left a store whose last revision was an earlier one, and revisions were given twice.
///
/// The last revisions are deletions; the compaction goes in small steps, and the member is killed after some
/// of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_revision_goes_back_after_a_crash_in_a_compaction() -> Result<()> {
    let shape = |program: Program| {
        let mut shape = one(program);
        shape.args =
            ["--compaction-batch-limit=5", "--compaction-sleep-interval=5ms"].map(str::to_owned).to_vec();
        shape
    };
    play(shape, async |cluster| {
        for (round, delay) in [0, 3, 10, 30, 60, 100, 150, 250, 600].into_iter().enumerate() {
            let client = cluster.client(0);
            for n in 0..40 {
                put(&client, &format!("k{round}/{n}"), "1").await?;
            }
            for n in 0..40 {
                put(&client, &format!("k{round}/{n}"), "2").await?;
            }
            let mut last = 0;
            for n in 0..10 {
                last = delete_if_there(&client, &format!("k{round}/{n}")).await?;
            }
            let compact = CompactionRequest { revision: last, physical: false };
            client.kv.clone().compact(compact).await?;
            sleep(Duration::from_millis(delay)).await;
            if round % 2 == 1 {
                // A stop in good order: the disk has all of it, and nothing is applied again.
                cluster.may_die(0);
                cluster.member_mut(0).terminate().await?;
            }
            cluster.kill(0).await?;
            cluster.start_again(0).await?;
            let now = revision(&client).await?;
            ensure!(now == last, "revision {last} was acknowledged, and after the crash it is {now}");
            let next = put(&client, "next", "1").await?;
            ensure!(next == last + 1, "revision {next} follows {last}");
            let left = client.count(&format!("k{round}/")).await?;
            ensure!(left == 30, "{left} keys are there after a compaction, of 30");
        }
        Ok(())
    })
    .await
}

/// As Kubernetes deletes: a transaction that goes by the key's state.
async fn delete_if_there(client: &Client, key: &str) -> Result<i64> {
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::Version(2)),
        ..Compare::default()
    };
    let delete = DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() };
    let success = vec![RequestOp { request: Some(Request::RequestDeleteRange(delete)) }];
    let txn = TxnRequest { compare: vec![compare], success, ..TxnRequest::default() };
    let answer = client.kv.clone().txn(txn).await?.into_inner();
    ensure!(answer.succeeded, "{key} is not as it was put");
    Ok(answer.header.unwrap_or_default().revision)
}

/// etcd 3.5 before 3.5.6 (#14685): a member killed in a defragmentation applied entries once more that it had
/// applied already, and its revisions were ahead of the others'.
///
/// A follower is killed again and again a few milliseconds after a defragmentation began, under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_differ_after_a_kill_in_a_defragmentation() -> Result<()> {
    play(three, async |cluster| {
        let value = "x".repeat(10_000);
        for n in 0..300 {
            put(&cluster.client(n % 3), &format!("big/{}", n % 100), &value).await?;
        }
        let load = Load::start(cluster, "load").await?;
        for delay in [1, 3, 8, 15, 30, 60] {
            let at = follower(cluster).await?;
            let client = cluster.client(at);
            let defragment =
                tokio::spawn(
                    async move { client.maintenance.clone().defragment(DefragmentRequest {}).await },
                );
            sleep(Duration::from_millis(delay)).await;
            cluster.kill(at).await?;
            // Whether it was through by then is no matter.
            defragment.await?.ok();
            cluster.start_again(at).await?;
        }
        load.stop().await?.is_kept(cluster, "load").await
    })
    .await
}
