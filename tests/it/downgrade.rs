//! Going down one minor version: asked for as from etcd, with the answers of etcd.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::downgrade_request::DowngradeAction as Action;
use tests::{Client, Cluster, Member, http};
use tonic::{Code, Response, Status};

use crate::script::{Stage, eventually, play, three};

fn request(action: i32, version: &str) -> pb::DowngradeRequest {
    pb::DowngradeRequest { action, version: version.to_owned() }
}

async fn ask(
    client: &Client,
    action: impl Into<i32>,
    version: &str,
) -> Result<Response<pb::DowngradeResponse>, Status> {
    client.maintenance.clone().downgrade(request(action.into(), version)).await
}

/// What `/version` says of the cluster and of the storage.
fn versions(member: &Member, port: u16) -> Result<String> {
    let (_, _, body) = http(port, "GET", "/version")?;
    let rest = body.split_once("\"etcdcluster\"").with_context(|| format!("{}: {body}", member.name()))?;
    Ok(format!("cluster{}", rest.1))
}

/// Waits until the cluster and the storage are of a version, on both of a member's ports.
async fn versions_are(member: &Member, version: &str) -> Result<String> {
    eventually(&format!("the cluster is {version}"), async || {
        let here = versions(member, member.client_port())?;
        let peers = versions(member, member.peer_port())?;
        let all = here.matches(version).count() == 2 && here == peers;
        Ok(all.then_some(here))
    })
    .await
}

/// What `Status` says of versions.
async fn status(stage: &mut Stage) -> Result<()> {
    let status = stage.client.status().await?;
    let (storage, downgrade) = (status.storage_version, status.downgrade_info);
    stage.say(format!("status: storage {storage:?}, {downgrade:?}"));
    Ok(())
}

async fn enabled(stage: &mut Stage) -> Result<()> {
    let (status, head, body) = http(stage.member.peer_port(), "GET", "/downgrade/enabled")?;
    let kind = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-type:"));
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    stage.say(format!("/downgrade/enabled: {status} {kind} {body}"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_downgrade_is_prepared_and_cancelled_as_etcds_is() -> Result<()> {
    play("downgrade", include_str!("testdata/downgrade.txt"), &[], async |stage: &mut Stage| {
        versions_are(&stage.member, "3.7.0").await?;
        status(stage).await?;
        enabled(stage).await?;
        for version in [
            "3.6",
            "3.6.0",
            "3.6.9",
            "03.6",
            "3.6.0-rc.1",
            "3.5",
            "3.7",
            "3.8",
            "2.6",
            "3",
            "v3.6",
            "",
            "3.6-rc",
        ] {
            let answer = ask(&stage.client, Action::Validate, version).await;
            stage.tell(&format!("validate {version:?}"), answer);
        }
        for version in ["3.5.0", "x"] {
            let answer = ask(&stage.client, Action::Enable, version).await;
            stage.tell(&format!("enable {version:?}"), answer);
        }
        let answer = ask(&stage.client, Action::Cancel, "").await;
        stage.tell("cancel, with nothing to cancel", answer);
        let answer = ask(&stage.client, 7, "3.6").await;
        stage.tell("something else", answer);
        status(stage).await?;

        stage.say("-- enabled");
        let answer = ask(&stage.client, Action::Enable, "3.6").await;
        stage.tell("enable \"3.6\"", answer);
        let versions = versions_are(&stage.member, "3.6.0").await?;
        stage.say(versions);
        status(stage).await?;
        enabled(stage).await?;
        for version in ["3.6", "3.5"] {
            for action in [Action::Validate, Action::Enable] {
                let answer = ask(&stage.client, action, version).await;
                stage.tell(&format!("{action:?} {version:?}"), answer);
            }
        }
        stage.client.put("k", "v").await?;

        for kill in [false, true] {
            stage.say(format!("-- started again, killed: {kill}"));
            match kill {
                true => stage.member.kill().await?,
                false => drop(stage.member.terminate().await?),
            }
            stage.member.start_again().await?;
            stage.client = stage.member.connect().await?;
            let versions = versions_are(&stage.member, "3.6.0").await?;
            stage.say(versions);
            status(stage).await?;
            enabled(stage).await?;
            ensure!(stage.client.get("k").await?.is_some(), "a key was lost");
        }

        stage.say("-- cancelled: back up it goes");
        let answer = ask(&stage.client, Action::Cancel, "").await;
        let answer = answer.map(|answer| Response::new(answer.into_inner().version));
        stage.tell("cancel", answer);
        let versions = versions_are(&stage.member, "3.7.0").await?;
        stage.say(versions);
        status(stage).await?;
        enabled(stage).await
    })
    .await
}

/// The leader ends a downgrade when all members run the version that it is to; these do not, however often it looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_go_down_together_and_none_of_the_version_before_joins() -> Result<()> {
    let mut cluster = Cluster::start(three().arg("--downgrade-check-time=100ms")).await?;
    let leader = cluster.leader().await?;
    let follower = cluster.others(&[leader])[0];
    for at in 0..3 {
        versions_are(&cluster[at], "3.7.0").await?;
    }
    eventually("enabled", async || match ask(&cluster.client(follower), Action::Enable, "3.6").await {
        Err(status) if status.code() == Code::Unavailable => Ok(None),
        enabled => Ok(Some(enabled?)),
    })
    .await?;
    let again = ask(&cluster.client(leader), Action::Enable, "3.6.0").await.err().context("twice")?;
    ensure!(
        [Code::FailedPrecondition, Code::InvalidArgument].contains(&again.code()),
        "under way, or, once the cluster has gone down, to the version that it has: {again:?}"
    );
    for at in 0..3 {
        versions_are(&cluster[at], "3.6.0").await?;
        let status = cluster.client(at).status().await?;
        let expected = pb::DowngradeInfo { enabled: true, target_version: "3.6.0".to_owned() };
        ensure!(status.downgrade_info == Some(expected), "{status:?}");
    }

    cluster[leader].kill().await?;
    cluster.leader_among(&cluster.others(&[leader])).await?;
    cluster[leader].start_again().await?;
    let heir = cluster.ready().await?;
    let new = cluster.grow().await?;
    cluster.add(new, true, heir).await?;
    cluster[new].spawn()?;
    let ended = cluster[new].wait_exit(Duration::from_secs(60)).await?;
    let log = cluster[new].log();
    ensure!(!ended.success() && log.contains("incompatible with current running cluster"), "{ended}: {log}");

    // What hinders a cancel is logged and told to nobody.
    eventually("cancelled", async || {
        ask(&cluster.client(heir), Action::Cancel, "").await?;
        let downgrade = cluster.client(heir).status().await?.downgrade_info;
        Ok((downgrade == Some(pb::DowngradeInfo::default())).then_some(()))
    })
    .await?;
    cluster[new].start_again().await?;
    cluster.ready().await?;
    for at in 0..4 {
        versions_are(&cluster[at], "3.7.0").await?;
        let status = cluster.client(at).status().await?;
        ensure!(status.downgrade_info == Some(pb::DowngradeInfo::default()), "{status:?}");
    }
    cluster.finish().await
}
