//! Members that come to different conclusions from the same log.

use std::time::Duration;

use anyhow::{Result, ensure};
use jepsen::nemesis::outgrow;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{
    CompactionRequest, DefragmentRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use tests::Client;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::Status;

use super::{
    all_have, follower, has_all, isolate, leader, of_short_logs, play, put, revision, sent_a_state, three,
};

/// A transaction that puts `x/…` and reads a key at a revision.
async fn put_and_read(client: &Client, key: &str, at: i64) -> Result<(), Status> {
    let put = PutRequest { key: key.to_owned().into(), value: "1".into(), ..PutRequest::default() };
    let range = RangeRequest { key: "k/0".into(), revision: at, ..RangeRequest::default() };
    let success = vec![
        RequestOp { request: Some(Request::RequestPut(put)) },
        RequestOp { request: Some(Request::RequestRange(range)) },
    ];
    client.kv.clone().txn(TxnRequest { success, ..TxnRequest::default() }).await?;
    Ok(())
}

/// etcd before 3.7 (#18667): in a transaction with a read of a revision that is compacted, or still to come,
/// only the member that was asked looked at the read and refused; the others left it out and put.
///
/// Each member is asked, one of them also while it has not heard of the compaction yet. All refuse, and
/// nobody puts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_reads_a_compacted_revision_divides_members() -> Result<()> {
    play(three, async |cluster| {
        let mut last = 0;
        for round in 0..3 {
            for n in 0..20 {
                last = put(&cluster.client(n % 3), &format!("k/{}", n % 5), "1").await?;
            }
            all_have(cluster, last).await?;
            let lagging = follower(cluster).await?;
            let via = leader(cluster).await?;
            // It looks at the transaction before it applies the compaction, or after: both wait for it to wake up.
            cluster.pause(lagging).await?;
            let compact = CompactionRequest { revision: last, physical: false };
            cluster.client(via).kv.clone().compact(compact).await?;
            let late = cluster.client(lagging);
            let key = format!("x/{round}/late");
            let late = tokio::spawn(async move { put_and_read(&late, &key, last - 3).await });
            sleep(Duration::from_millis(200)).await;
            cluster.resume(lagging)?;
            let refused =
                |answer: Result<(), Status>| answer.is_err_and(|why| why.code() == tonic::Code::OutOfRange);
            let late = late.await?;
            ensure!(late.is_err(), "a member that did not know of the compaction lets it pass");
            for at in cluster.all() {
                let client = cluster.client(at);
                let compacted = put_and_read(&client, &format!("x/{round}/{at}"), last - 3).await;
                ensure!(refused(compacted.clone()), "member {at} on a compacted revision: {compacted:?}");
                let future = put_and_read(&client, &format!("x/{round}/{at}"), last + 1000).await;
                ensure!(refused(future.clone()), "member {at} on a revision to come: {future:?}");
            }
            sleep(Duration::from_millis(100)).await;
            for at in cluster.all() {
                let now = revision(&cluster.client(at)).await?;
                ensure!(now == last, "member {at} is at revision {now} instead of {last}");
                let found = cluster.client(at).get_serializable(format!("x/{round}/{at}")).await?;
                ensure!(found.is_none(), "member {at} put what was refused");
            }
        }
        Ok(())
    })
    .await
}

/// etcd #18055, #20657 (panics where the file of a received state was gone when it was to be installed) and
/// #14685 (defragmentation): what replaces the whole store, beside what rewrites it.
///
/// A follower is cut off until it has to be sent a state, and defragmented without a pause while it is sent. In
/// the middle it is also killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_breaks_that_is_defragmented_while_it_is_sent_a_state() -> Result<()> {
    play(of_short_logs, async |cluster| {
        let at = follower(cluster).await?;
        let via = leader(cluster).await?;
        let text = "x".repeat(20_000);
        isolate(cluster, at)?;
        for n in 0..150 {
            put(&cluster.client(via), &format!("k/{n}"), &text).await?;
        }
        outgrow(cluster).await?;
        let last = revision(&cluster.client(via)).await?;
        let (stop, stopped) = watch::channel(false);
        let client = cluster.client(at);
        let defragment = tokio::spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                // While the member is down, or its store is being replaced, it may fail.
                match client.maintenance.clone().defragment(DefragmentRequest {}).await {
                    Ok(_) => count += 1,
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
            }
            count
        });
        cluster.heal_network();
        sent_a_state(cluster, 1).await?;
        cluster.kill(at).await?;
        cluster.start_again(at).await?;
        all_have(cluster, last).await?;
        sleep(Duration::from_millis(300)).await;
        stop.send_replace(true);
        println!("{} defragmentations", defragment.await?);
        has_all(cluster, "k", 150).await
    })
    .await
}
