//! Leases across restarts.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, PutRequest};
use tests::Member;

use crate::program;

/// A lease that outlives its member's process counts again from what it had, and still ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_survive_a_kill_and_still_expire() -> Result<()> {
    let mut member = Member::start(program()).await?;
    let mut client = member.connect().await?;
    for (id, ttl) in [(1, 3), (2, 10_000)] {
        client.lease.lease_grant(LeaseGrantRequest { ttl, id }).await?;
        let put = PutRequest { key: format!("k{id}").into(), lease: id, ..PutRequest::default() };
        client.kv.put(put).await?;
    }
    member.kill().await?;
    member.start_again().await?;
    let mut client = member.connect().await?;
    let long =
        client.lease.lease_time_to_live(LeaseTimeToLiveRequest { id: 2, keys: true }).await?.into_inner();
    assert_eq!((long.granted_ttl, long.keys.len()), (10_000, 1));
    let deadline = Instant::now() + Duration::from_secs(60);
    while client.get("k1").await?.is_some() {
        ensure!(Instant::now() < deadline, "a lease of 3 s is there after a minute");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let gone =
        client.lease.lease_time_to_live(LeaseTimeToLiveRequest { id: 1, keys: true }).await?.into_inner();
    assert_eq!((gone.ttl, gone.granted_ttl), (-1, 0));
    assert!(client.get("k2").await?.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_kept_alive_stays() -> Result<()> {
    let member = Member::start(program()).await?;
    let mut client = member.connect().await?;
    client.lease.lease_grant(LeaseGrantRequest { ttl: 2, id: 7 }).await?;
    let put = PutRequest { key: "k".into(), lease: 7, ..PutRequest::default() };
    client.kv.put(put).await?;
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let answers = client.lease.lease_keep_alive(tokio_stream::wrappers::ReceiverStream::new(receiver));
    requests.send(LeaseKeepAliveRequest { id: 7 }).await?;
    let mut answers = answers.await?.into_inner();
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        let answer = answers.message().await?.expect("an answer to each");
        ensure!(answer.ttl == 2, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        requests.send(LeaseKeepAliveRequest { id: 7 }).await?;
    }
    assert!(client.get("k").await?.is_some(), "the key of a live lease");
    answers.message().await?;
    requests.send(LeaseKeepAliveRequest { id: 999 }).await?;
    assert_eq!(answers.message().await?.expect("an answer").ttl, 0, "an unknown lease has no time left");
    Ok(())
}
