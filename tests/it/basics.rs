//! A member starts, serves, stops and starts again.

use std::os::unix::process::ExitStatusExt;

use anyhow::Result;
use proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DefragmentRequest, MemberListRequest, StatusRequest,
};
use tests::{Member, Options};
use tonic::Code;

use crate::program;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_is_there_after_every_kind_of_stop() -> Result<()> {
    let mut member = Member::start(program()).await?;
    let first = member.connect().await?.put("a", "1").await?;
    assert_eq!(first.revision, 2, "the first write of an empty store is revision 2");
    let status = member.terminate().await?;
    assert_eq!(status.signal(), Some(15), "a member that was told to stop ends by that signal, as etcd does");
    member.start_again().await?;
    let second = member.connect().await?.put("b", "2").await?;
    assert_eq!((second.revision, second.cluster_id), (3, first.cluster_id));
    assert_eq!(second.member_id, first.member_id);
    member.kill().await?;
    member.start_again().await?;
    let client = member.connect().await?;
    for (key, value) in [("a", "1"), ("b", "2")] {
        assert_eq!(client.get(key).await?.expect("a key that was acknowledged").value, value);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_knows_itself() -> Result<()> {
    let member = Member::start(program()).await?;
    let client = member.connect().await?;
    let members =
        client.cluster.clone().member_list(MemberListRequest { linearizable: true }).await?.into_inner();
    let [only] = &members.members[..] else { panic!("one member is {:?}", members.members) };
    assert_eq!(only.name, "m");
    assert_eq!(only.client_ur_ls, [member.client_url()]);
    let status = client.maintenance.clone().status(StatusRequest {}).await?.into_inner();
    assert_eq!(status.leader, only.id);
    assert!(status.version.starts_with("3.7."), "{}", status.version);
    assert!(status.db_size >= status.db_size_in_use && status.db_size_in_use > 0, "{status:?}");
    Ok(())
}

/// The quota stops writers before the disk does; freeing space and disarming the alarm lets them go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_stops_writers_until_space_is_freed() -> Result<()> {
    let member = Member::start_with(Options::new(program()).arg("--quota-backend-bytes=16777216")).await?;
    let client = member.connect().await?;
    let value = vec![b'x'; 512 * 1024];
    let mut last = 0;
    let refused = loop {
        match client.put("same", value.clone()).await {
            Ok(header) => last = header.revision,
            Err(status) => break status,
        }
        assert!(last < 1_000, "16 MiB hold less than {last} half MiB");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
    let get = AlarmRequest { action: 0, member_id: 0, alarm: 0 };
    let alarms = client.maintenance.clone().alarm(get).await?.into_inner().alarms;
    let [alarm] = &alarms[..] else { panic!("the alarm is {alarms:?}") };
    assert_eq!(alarm.alarm, 1);
    assert_eq!(client.get("same").await?.expect("reads go on").value.len(), value.len());

    client.kv.clone().compact(CompactionRequest { revision: last, physical: true }).await?;
    client.maintenance.clone().defragment(DefragmentRequest {}).await?;
    let disarm = AlarmRequest { action: 2, member_id: alarm.member_id, alarm: 1 };
    for attempt in 0.. {
        client.maintenance.clone().alarm(disarm).await?;
        match client.put("other", "1").await {
            Ok(_) => break,
            // Space may return a moment after it was freed.
            Err(status) => assert!(attempt < 200, "still refused: {status}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Ok(())
}

/// What is older than the retention is compacted away by the member itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_compaction_forgets_what_is_old() -> Result<()> {
    let options =
        Options::new(program()).arg("--auto-compaction-mode=periodic").arg("--auto-compaction-retention=1s");
    let member = Member::start_with(options).await?;
    let client = member.connect().await?;
    for attempt in 0.. {
        client.put("a", attempt.to_string()).await?;
        let past = proto::etcdserverpb::RangeRequest { key: "a".into(), revision: 2, ..Default::default() };
        match client.kv.clone().range(past).await {
            Ok(_) => assert!(attempt < 300, "nothing was compacted in 30 s"),
            Err(status) => {
                assert_eq!(status.message(), "etcdserver: mvcc: required revision has been compacted");
                return Ok(());
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Ok(())
}
