//! Looking after a member: alarms, status, hashes.

use proto::command::command::Op;
use proto::etcdserverpb as pb;
use state::Response;
use tokio::time::timeout;
use tracing::info;

use super::{range, timing};
use crate::config::help::ETCD_VERSION;
use crate::error::Unavailable;
use crate::node::{Encoded, Failure, Node, Reconfiguration, calls, downgrade, stop_on};

/// Lists, raises or lowers alarms; all of it through the log, so that all members say the same.
pub async fn alarm(node: Node, request: pb::AlarmRequest) -> Result<pb::AlarmResponse, Failure> {
    let timed = timing::ALARM.start();
    let applied = timed.end(node.propose(Encoded::new(Op::Alarm(request))).await)?;
    match applied.response {
        Response::Alarm(mut response) => {
            response.header = Some(node.header(applied.revision));
            Ok(response)
        }
        other => unreachable!("the state machine answered another command: {other:?}"),
    }
}

/// How this member is. Needs neither leader nor quorum.
pub async fn status(node: Node, _request: pb::StatusRequest) -> Result<pb::StatusResponse, Failure> {
    let status = node.status();
    let sizes = node.quota().sizes();
    let mut errors = Vec::new();
    if status.leader == 0 {
        errors.push("etcdserver: no leader".to_owned());
    }
    errors.extend(node.reader().alarms().iter().map(alarm_text));
    Ok(pb::StatusResponse {
        header: Some(node.header_now()),
        version: ETCD_VERSION.to_owned(),
        db_size: sizes.total,
        leader: status.leader,
        raft_index: status.committed,
        raft_term: status.term,
        raft_applied_index: status.applied,
        errors,
        db_size_in_use: sizes.in_use,
        is_learner: status.is_learner,
        storage_version: node.storage_version().unwrap_or_default(),
        db_size_quota: node.quota().configured(),
        downgrade_info: Some(node.reader().downgrade()),
    })
}

/// An alarm as etcd prints it: fields that are zero are left out.
fn alarm_text(alarm: &pb::AlarmMember) -> String {
    let name = pb::AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name());
    match (alarm.member_id, alarm.alarm) {
        (0, 0) => String::new(),
        (0, _) => format!("alarm:{name}"),
        (member_id, 0) => format!("memberID:{member_id}"),
        (member_id, _) => format!("memberID:{member_id} alarm:{name}"),
    }
}

/// Asks for deleted data to be dropped from the files. Nothing waits for it: there is nothing to stop for.
pub async fn defragment(
    node: Node,
    _request: pb::DefragmentRequest,
) -> Result<pb::DefragmentResponse, Failure> {
    info!("starting defragment");
    let reader = node.reader().clone();
    // Detached on purpose: reads and writes go on meanwhile.
    drop(tokio::task::spawn_blocking(move || {
        reader.rocksdb_compaction();
        info!("finished defragment");
    }));
    Ok(pb::DefragmentResponse { header: None })
}

/// The hash of everything this member keeps.
pub async fn hash(node: Node, _request: pb::HashRequest) -> Result<pb::HashResponse, Failure> {
    let reader = node.reader().clone();
    let hash = range::blocking(move || reader.hash()).await.unwrap_or_else(|fault| stop_on(fault));
    Ok(pb::HashResponse { header: Some(node.header_now()), hash })
}

/// The hash of the key space up to a revision: equal on all members, and to etcd's.
pub async fn hash_kv(node: Node, request: pb::HashKvRequest) -> Result<pb::HashKvResponse, Failure> {
    calls::hash_kv(&node, request).await
}

/// Has another voter lead. Only the leader can give that away.
pub async fn move_leader(
    node: Node,
    request: pb::MoveLeaderRequest,
) -> Result<pb::MoveLeaderResponse, Failure> {
    let leader = node.status().leader;
    if leader != node.member_id() {
        return Err(Unavailable::NotLeader { leader }.into());
    }
    let members = node.reader().members();
    if !members.iter().any(|member| member.id == request.target_id && !member.is_learner) {
        return Err(Reconfiguration::BadTransferee.into());
    }
    if request.target_id != leader {
        info!(
            "current-leader-member-id" = format!("{leader:x}"),
            "transferee-member-id" = format!("{:x}", request.target_id),
            "leadership transfer starting"
        );
        let transferred = node.raft().transfer_leader(request.target_id);
        match timeout(node.settings().request_timeout(), transferred).await {
            Ok(Err(Unavailable::TimedOut)) | Err(_) => return Err(Reconfiguration::TransferTimedOut.into()),
            Ok(transferred) => transferred?,
        }
        info!("leadership transfer finished");
    }
    Ok(pb::MoveLeaderResponse { header: None })
}

/// Prepares the cluster to go down one minor version, or ends that; or says whether it could.
pub async fn downgrade(node: Node, request: pb::DowngradeRequest) -> Result<pb::DowngradeResponse, Failure> {
    let version = downgrade::downgrade(&node, request.action, &request.version).await?;
    Ok(pb::DowngradeResponse { header: Some(node.header_now()), version: version.short() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_read_as_etcd_prints_them() {
        let alarm = pb::AlarmMember { member_id: 5, alarm: pb::AlarmType::Nospace as i32 };
        assert_eq!(alarm_text(&alarm), "memberID:5 alarm:NOSPACE");
        assert_eq!(alarm_text(&pb::AlarmMember { member_id: 0, ..alarm }), "alarm:NOSPACE");
    }
}
