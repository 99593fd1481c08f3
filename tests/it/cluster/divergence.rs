//! A member whose state is not what its log says.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use prost::Message;
use proto::command::{Command, command::Op};
use proto::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType, PutRequest, alarm_request::AlarmAction};
use state::{Entry, EntryBody, LogId, Options, State};
use tests::{Cluster, eventually};
use tonic::Code;

use super::{put_eventually, refused, shape};

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

/// Applies to a state what is not in the log.
fn falsify(dir: &Path) -> Result<()> {
    let (mut state, reader) = State::open(Options::new(dir))?;
    let LogId { term, index } = state.applied();
    let put = PutRequest { key: "never".into(), value: "written".into(), ..Default::default() };
    let body = EntryBody::Command(Command { op: Some(Op::Put(put)) }.encode_to_vec().into());
    state.apply(vec![Entry { log_id: LogId { term, index: index + 1 }, body }])?;
    state.flush()?;
    drop((state, reader));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_applied_something_else_is_found_and_serves_no_more() -> Result<()> {
    let mut cluster = Cluster::start(shape(3)).await?;
    let leader = cluster.leader().await?;
    let (odd, other) = (cluster.others(&[leader])[0], cluster.others(&[leader])[1]);
    let odd_id = cluster.id(odd).await?;
    put_eventually(&cluster, odd, "a", "1").await?;

    cluster[odd].terminate().await?;
    let db = cluster[odd].data_dir().join("member/snap/db");
    let before = cluster.dir().join("before");
    copy(&db, &before)?;
    cluster[odd].start_again().await?;
    put_eventually(&cluster, odd, "b", "2").await?;
    cluster[odd].terminate().await?;
    fs::remove_dir_all(&db)?;
    copy(&before, &db)?;
    falsify(&db)?;
    cluster[odd].spawn()?;

    // Every member knows, and none takes writes any more.
    eventually("an alarm", || async {
        let alarms =
            cluster.client(other).maintenance.alarm(AlarmRequest::default()).await?.into_inner().alarms;
        ensure!(
            alarms == [AlarmMember { member_id: odd_id, alarm: AlarmType::Corrupt as i32 }],
            "{alarms:?}"
        );
        Ok(())
    })
    .await?;
    let text = "etcdserver: corrupt cluster";
    refused(cluster.client(other).put("c", "3").await, Code::DataLoss, text)?;
    ensure!(cluster.client(other).get("b").await?.is_some(), "the others still answer");
    // It answers nothing, if it serves at all.
    match cluster.client(odd).get("never").await {
        Err(status) => {
            ensure!(status.code() == Code::DataLoss || status.code() == Code::Unavailable, "{status}")
        }
        Ok(found) => ensure!(false, "a member that diverged answered {found:?}"),
    }

    // It is replaced like any member that is lost: removed, wiped, added.
    cluster.remove(odd_id, other).await?;
    let disarm = AlarmRequest {
        action: AlarmAction::Deactivate as i32,
        member_id: odd_id,
        alarm: AlarmType::Corrupt as i32,
    };
    cluster.client(other).maintenance.alarm(disarm).await?;
    cluster[odd].wait_exit(Duration::from_secs(30)).await?;
    cluster[odd].wipe()?;
    eventually("a member can be added", || async { Ok(cluster.client(other).put("c", "3").await?) }).await?;
    cluster.add(odd, false, other).await?;
    cluster[odd].start_again().await?;
    put_eventually(&cluster, odd, "d", "4").await?;
    ensure!(cluster.client(odd).get("never").await?.is_none(), "what it made up is gone");
    cluster.finish().await
}
