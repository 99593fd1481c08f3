//! The election service, over raw gRPC, beside etcd's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::v3electionpb::election_client::ElectionClient;
use proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ResignRequest,
};
use tests::{Cluster, eventually};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::script::{Stage, grant, play, three, under_way};

fn campaign(name: &str, lease: i64, value: &str) -> CampaignRequest {
    CampaignRequest { name: name.to_owned().into(), lease, value: value.to_owned().into() }
}

/// A call that waits.
fn stand(
    elections: &ElectionClient<Channel>,
    lease: i64,
    value: &str,
) -> JoinHandle<Result<Response<CampaignResponse>, Status>> {
    let (mut elections, request) = (elections.clone(), campaign("e", lease, value));
    tokio::spawn(async move { elections.campaign(request).await })
}

fn of(name: &str) -> LeaderRequest {
    LeaderRequest { name: name.to_owned().into() }
}

fn leader_key(key: &str, rev: i64, lease: i64) -> LeaderKey {
    LeaderKey { name: "e".into(), key: key.to_owned().into(), rev, lease }
}

fn proclaim(leader: LeaderKey, value: &str) -> ProclaimRequest {
    ProclaimRequest { leader: Some(leader), value: value.to_owned().into() }
}

/// Writes down the next thing that an observer is told.
async fn told(stage: &mut Stage, stream: &mut Streaming<LeaderResponse>) -> Result<()> {
    let told = tokio::time::timeout(Duration::from_secs(60), stream.message()).await?;
    stage.say(format!("    told {told:?}"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_are_held_as_etcds_are() -> Result<()> {
    play("elections", include_str!("testdata/election.txt"), &[], async |stage: &mut Stage| {
        let mut elections = stage.elections();
        for id in [0x10, 0x20, 0x30] {
            stage.grant(id).await?;
        }
        stage.say("-- nobody is elected, or says who they are");
        let answer = elections.leader(of("e")).await;
        stage.tell("leader", answer);
        let answer = elections.proclaim(ProclaimRequest::default()).await;
        stage.tell("proclaim", answer);
        let answer = elections.resign(ResignRequest::default()).await;
        stage.tell("resign", answer);
        let answer = elections.campaign(campaign("e", 0x99, "lost")).await;
        stage.tell("campaign with a lease that is not there", answer);

        stage.say("-- one stands, and again, with another value");
        for (asked, value) in [("campaign", "one"), ("again", "one"), ("with another value", "eins")] {
            let answer = elections.campaign(campaign("e", 0x10, value)).await;
            stage.tell(asked, answer);
        }
        let answer = elections.leader(of("e")).await;
        let leader = stage.tell("leader", answer).context("somebody is elected")?.kv.context("a key")?;
        let first = leader_key("e/10", leader.create_revision, 0x10);

        stage.say("-- what the elected says is observed");
        let mut observer = elections.observe(of("e")).await?.into_inner();
        told(stage, &mut observer).await?;
        let answer = elections.proclaim(proclaim(first.clone(), "uno")).await;
        stage.tell("proclaim", answer);
        told(stage, &mut observer).await?;
        let others = [
            ("another revision", leader_key("e/10", 1, 0x10)),
            ("no key", leader_key("", 1, 0x10)),
            ("a key that is not there", leader_key("e/40", 7, 0x10)),
            ("a lease that is not there", LeaderKey { lease: 0x99, ..first.clone() }),
        ];
        for (asked, leader) in others {
            let answer = elections.proclaim(proclaim(leader, "no")).await;
            stage.tell(&format!("proclaim with {asked}"), answer);
        }

        stage.say("-- another one stands, and the first resigns");
        let second = stand(&elections, 0x20, "two");
        stage.there("e/20").await?;
        ensure!(!second.is_finished(), "two are elected");
        let resign = || ResignRequest { leader: Some(first.clone()) };
        let answer = elections.resign(resign()).await;
        stage.tell("resign", answer);
        let answer = second.await?;
        let second = stage.tell("the second is elected", answer).context("elected")?.leader;
        told(stage, &mut observer).await?;
        let answer = elections.resign(resign()).await;
        stage.tell("resign again", answer);

        stage.say("-- one that stands goes");
        let third = stand(&elections, 0x30, "three");
        stage.there("e/30").await?;
        third.abort();
        stage.gone("e/30").await?;

        stage.say("-- one that stands is deleted");
        let third = stand(&elections, 0x30, "three");
        stage.there("e/30").await?;
        stage.delete("e/30").await?;
        let answer = elections.resign(ResignRequest { leader: second }).await;
        stage.tell("the second resigns", answer);
        let answer = third.await?;
        stage.tell("the third", answer);
        let answer = elections.leader(of("e")).await;
        stage.tell("leader", answer);

        stage.say("-- an observer waits for the next");
        let answer = elections.campaign(campaign("e", 0x20, "two")).await;
        stage.tell("campaign", answer);
        told(stage, &mut observer).await?;
        let revoke = pb::LeaseRevokeRequest { id: 0x20 };
        stage.client.lease.clone().lease_revoke(revoke).await?;
        let answer = elections.campaign(campaign("e", 0x10, "one")).await;
        let again = stage.tell("campaign", answer).context("elected")?.leader.context("a key")?;
        told(stage, &mut observer).await?;

        stage.say("-- no lease is given");
        let answer = elections.proclaim(proclaim(LeaderKey { lease: 0, ..again }, "unleased")).await;
        stage.tell("proclaim", answer);
        let lease = stage.there("e/10").await?.lease;
        let granted = stage.granted(lease).await?;
        let told = observer.message().await?.context("a value")?.kv.context("a key")?;
        stage.say(format!("told {:?}, bound to a lease of {granted} s", told.value));
        let made =
            elections.campaign(campaign("made", 0, "v")).await?.into_inner().leader.context("a key")?;
        let granted = stage.granted(made.lease).await?;
        ensure!(made.key == format!("made/{:x}", made.lease), "{made:?}");
        stage.say(format!("created {} with a lease of {granted} s", made.rev));

        stage.say("-- no space");
        stage.no_space(AlarmAction::Activate).await?;
        let answer = elections.campaign(campaign("e", 0x30, "three")).await;
        stage.tell("campaign", answer);
        let answer = elections.campaign(campaign("e", 0x10, "four")).await;
        stage.tell("campaign with a value", answer);
        let leader = elections.leader(of("e")).await?.into_inner().kv.context("a leader")?;
        stage.say(format!("leader says {:?}", leader.value));
        stage.no_space(AlarmAction::Deactivate).await?;

        stage.say("-- who stands already, and cannot say another value, stands no more");
        stage.client.put("e/99", "old").await?;
        let answer = elections.campaign(campaign("e", 0x99, "new")).await;
        stage.tell("campaign with another value", answer);
        let left = stage.client.get("e/99").await?;
        stage.say(format!("left: {left:?}"));
        drop(observer);
        stage.series(&["v3electionpb.Election"]).await
    })
    .await
}

/// Each change of an election is told by every member, and no leader ends only the streams of those who asked for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_go_on_without_the_member_that_led() -> Result<()> {
    let mut cluster = Cluster::start(three()).await?;
    let leader = cluster.leader().await?;
    let others = cluster.others(&[leader]);
    let client = cluster.client(others[0]);
    let elections = |at: usize| ElectionClient::new(cluster.client(at).channel.clone());
    let (one, other) = (elections(others[0]), elections(others[1]));
    grant(&client, &[0x10, 0x20]).await?;
    let stood = || async { Ok(one.clone().campaign(campaign("e", 0x10, "one")).await?) };
    eventually("the first is elected", stood).await?;
    let observe = || async { Ok(other.clone().observe(of("e")).await?) };
    let mut observer = eventually("observed", observe).await?.into_inner();
    let first = observer.message().await?.context("an elected")?.kv.context("a key")?;
    let second = under_way(&client, "e/20", || stand(&other, 0x20, "two")).await?;

    cluster[leader].kill().await?;
    cluster.leader_among(&others).await?;
    let resign = || async {
        let leader = leader_key("e/10", first.create_revision, 0x10);
        Ok(one.clone().resign(ResignRequest { leader: Some(leader) }).await?)
    };
    eventually("the first resigns", resign).await?;
    let second = second.await??.into_inner().leader.context("a key")?;
    let told = observer.message().await?.context("the next")?.kv.context("a key")?;
    ensure!((&told.key, told.create_revision) == (&second.key, second.rev), "{told:?} {second:?}");

    // Alone, a member knows no leader after a while.
    let with_leader = || {
        let mut asked = Request::new(of("e"));
        asked.metadata_mut().insert("hasleader", "true".parse().expect("plain ASCII"));
        asked
    };
    let observe = || async { Ok(other.clone().observe(with_leader()).await?) };
    let mut asking = eventually("observed", observe).await?.into_inner();
    asking.message().await?.context("the elected")?;
    cluster[others[0]].kill().await?;
    let ended = asking.message().await.err().context("a stream without a leader")?;
    ensure!((ended.code(), ended.message()) == (Code::Unavailable, "etcdserver: no leader"), "{ended:?}");
    let refused = other.clone().leader(with_leader()).await.err().context("no leader can be asked")?;
    ensure!(
        (refused.code(), refused.message()) == (Code::Unavailable, "etcdserver: no leader"),
        "{refused:?}"
    );
    for at in [leader, others[0]] {
        cluster[at].start_again().await?;
    }
    cluster.ready().await?;
    let proclaimed = || async { Ok(other.clone().proclaim(proclaim(second.clone(), "zwei")).await?) };
    eventually("proclaimed, with all members there again", proclaimed).await?;
    let told = observer.message().await?.context("the same stream")?.kv.context("a key")?;
    ensure!(told.value == "zwei", "{told:?}");
    cluster.finish().await
}
