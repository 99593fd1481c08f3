//! Members that come and go, leaders that change, and what is forgotten.

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::RangeRequest;

use super::{begin, cluster, cluster_for, has_all, is_whole, put_some};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_replaced_and_the_cluster_grows_and_shrinks() -> Result<()> {
    let (_turn, mut cluster) = cluster(3).await?;
    put_some(&cluster, "k", 30).await?;
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0.. {
        let before: Vec<u64> = cluster.listed().await?.iter().map(|member| member.id).collect();
        let (mut nemesis, harm) = begin("member", seed, &mut cluster).await?;
        let during = cluster.listed().await?.len();
        ensure!(during == if harm.kind == "member-grow" { 4 } else { 2 }, "{harm:?}: {during} members");
        nemesis.end(&mut cluster).await?;
        let after = cluster.listed().await?;
        ensure!(after.len() == 3 && after.iter().all(|member| !member.is_learner), "{after:?}");
        let same = after.iter().all(|member| before.contains(&member.id));
        ensure!(same == (harm.kind == "member-grow"), "{before:x?}, then {after:?}");
        has_all(&cluster, "k", 30).await?;
        if harm.kind == "member-grow" {
            // Its log is evidence, too.
            let logs = tempfile::tempdir()?;
            cluster.keep_logs(logs.path())?;
            ensure!(logs.path().join("m3/log.1").metadata()?.len() > 0, "nothing is left of member 3");
        }
        kinds.insert(harm.kind);
        if kinds.len() == 2 {
            break;
        }
        ensure!(seed < 20, "only {kinds:?}");
    }
    is_whole(&mut cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_transferred() -> Result<()> {
    let (_turn, mut cluster) = cluster(3).await?;
    for seed in 0..3 {
        let leader = cluster.leader().await.context("somebody leads")?;
        let (mut nemesis, harm) = begin("transfer", seed, &mut cluster).await?;
        let now = cluster.leader().await;
        ensure!(now != Some(leader), "{harm:?}, but {now:?} leads");
        nemesis.end(&mut cluster).await?;
    }
    is_whole(&mut cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_revisions_are_compacted() -> Result<()> {
    let (_turn, mut cluster) = cluster(3).await?;
    put_some(&cluster, "k", 150).await?;
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let (mut nemesis, harm) = begin("compact", seed, &mut cluster).await?;
        nemesis.end(&mut cluster).await?;
        let first_compaction = kinds.insert(harm.kind.clone()) && harm.kind == "compact";
        if first_compaction {
            let old = RangeRequest { key: "k/0".into(), revision: 2, ..RangeRequest::default() };
            let answer = cluster.client(0).kv.range(old).await;
            ensure!(answer.is_err_and(|status| status.code() == tonic::Code::OutOfRange), "{harm:?}");
        }
        if kinds.len() == 2 {
            break;
        }
        put_some(&cluster, "k", 110).await?;
    }
    ensure!(kinds.len() == 2, "only {kinds:?}");
    has_all(&cluster, "k", 150).await?;
    is_whole(&mut cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_sent_a_whole_state() -> Result<()> {
    let (_turn, mut cluster) = cluster_for("snapshot").await?;
    put_some(&cluster, "k", 30).await?;
    let (mut nemesis, harm) = begin("snapshot", 1, &mut cluster).await?;
    let revision = cluster.statuses().await[0].1.header.as_ref().map_or(0, |header| header.revision);
    ensure!(revision == 31, "the nemesis writes no key, {revision}");
    nemesis.end(&mut cluster).await?;
    let sent = |at: &usize| cluster.member(*at).log().contains("sent database snapshot");
    ensure!(cluster.all().iter().any(sent), "{harm:?}: nobody sent a state");
    has_all(&cluster, "k", 30).await?;
    is_whole(&mut cluster).await
}
