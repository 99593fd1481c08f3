//! Whether all members hold the same data: hashes are compared, and who differs is reported.
//!
//! ```text
//!   at a start        this member against all others; it does not serve when it differs
//!   now and then      the leader against all others, at its current revision
//!   after compactions the leader against all others, at the compacted revision
//!   all the time      this member against its leader, by the fingerprint of what was applied
//! ```
//!
//! Hashes say something only for the same revision and the same compacted one.
//! A member that is found to differ is named in a CORRUPT alarm, which goes
//! through the log: from then on no member takes writes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::future::join_all;
use prost::Message;
use proto::command::command::Op;
use proto::etcdserverpb::{self as pb, alarm_request::AlarmAction};
use proto::peer::Method;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::config::ids::hex;
use crate::node::{Encoded, Failure, Node, calls, stopped};

/// What the leader checks while it leads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checks {
    /// How often all data is compared; `None`: never.
    pub data: Option<Duration>,
    /// How often the data below the last compaction is compared; `None`: never.
    pub compacted: Option<Duration>,
}

/// The pause after an alarm that could not be raised.
const PAUSE: Duration = Duration::from_secs(1);

/// Another member's hash, or why there is none.
type Asked = (u64, Result<pb::HashKvResponse, String>);

/// Compares this member with the others.
///
/// # Errors
/// When one of them holds other data at the same revision.
pub async fn initial(node: &Node) -> anyhow::Result<()> {
    let local_member_id = hex(node.member_id());
    info!(local_member_id, timeout = ?node.settings().request_timeout(), "starting initial corruption check");
    let own = own(node, 0).await.with_context(|| format!("{local_member_id} failed to fetch hash"))?;
    let mut differ = 0;
    for (id, asked) in others(node, own.hash_revision).await {
        let remote_peer_id = hex(id);
        match asked {
            Err(error) => warn!(local_member_id, remote_peer_id, error, "cannot fetch hash from remote peer"),
            Ok(peer) if peer.hash == own.hash => {}
            Ok(peer) if peer.compact_revision == own.compact_revision => {
                differ += 1;
                warn!(
                    local_member_id,
                    remote_peer_id,
                    ?own,
                    ?peer,
                    "found different hash values from remote peer"
                );
            }
            Ok(peer) => {
                warn!(
                    local_member_id,
                    remote_peer_id,
                    ?own,
                    ?peer,
                    "found different compact revision values from remote peer"
                );
            }
        }
    }
    if differ > 0 {
        bail!("{local_member_id} found data inconsistency with peers");
    }
    info!(local_member_id, "initial corruption checking passed; no corruption");
    Ok(())
}

/// Checks while this member leads, and says when it has itself gone another way than its leader.
pub async fn run(node: Node, checks: Checks, stop: watch::Receiver<bool>) {
    tokio::join!(
        report_own(&node, stop.clone()),
        check_data_now_and_then(&node, checks.data, stop.clone()),
        check_compacted_now_and_then(&node, checks.compacted, stop)
    );
}

/// From the moment a member is found to differ it answers no client; all it has left to do is to say so.
async fn report_own(node: &Node, mut stop: watch::Receiver<bool>) {
    let mut divergence = node.raft().divergence();
    tokio::select! {
        found = divergence.wait_for(Option::is_some) => if found.is_err() { return },
        () = stopped(&mut stop) => return,
    }
    while let Err(failure) = raise(node, node.member_id()).await {
        warn!(%failure, "failed to raise an alarm for this member");
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

async fn check_data_now_and_then(node: &Node, interval: Option<Duration>, mut stop: watch::Receiver<bool>) {
    while next_round(interval, &mut stop).await {
        if node.is_leader()
            && let Err(failure) = check_data(node).await
        {
            warn!(%failure, "failed to check hash KV");
        }
    }
}

async fn check_compacted_now_and_then(
    node: &Node,
    interval: Option<Duration>,
    mut stop: watch::Receiver<bool>,
) {
    let mut checked = 0;
    while next_round(interval, &mut stop).await {
        if node.is_leader() {
            match check_compacted(node, checked).await {
                Ok(revision) => checked = revision,
                Err(failure) => warn!(%failure, "failed to check the hash of a compaction"),
            }
        }
    }
}

/// Waits for the next round; false when there is none.
async fn next_round(interval: Option<Duration>, stop: &mut watch::Receiver<bool>) -> bool {
    let Some(interval) = interval else { return false };
    tokio::select! {
        () = tokio::time::sleep(interval) => true,
        () = stopped(stop) => false,
    }
}

async fn check_data(node: &Node) -> Result<(), Failure> {
    let before = own(node, 0).await?;
    let peers = others(node, before.hash_revision).await;
    node.linearizable_view().await?;
    let after = own(node, 0).await?;
    if let Some((blamed, reason)) = judge(node.member_id(), &before, &after, &peers) {
        warn!(member_id = hex(blamed), reason, ?before, ?after, "found hash mismatch");
        raise(node, blamed).await?;
    }
    let checked = peers.iter().filter(|(_, asked)| asked.is_ok()).count();
    info!("number-of-peers-checked" = checked, "finished peer corruption check");
    Ok(())
}

/// Who must be wrong, if anybody: the first that contradicts the leader.
fn judge(
    leader: u64,
    before: &pb::HashKvResponse,
    after: &pb::HashKvResponse,
    peers: &[Asked],
) -> Option<(u64, &'static str)> {
    let place = |hash: &pb::HashKvResponse| (hash.hash_revision, hash.compact_revision);
    if place(before) == place(after) && before.hash != after.hash {
        return Some((leader, "the leader's own hash changed"));
    }
    let current = |hash: &pb::HashKvResponse| hash.header.map_or(0, |header| header.revision);
    peers.iter().find_map(|(id, asked)| {
        let peer = asked.as_ref().ok()?;
        if current(peer) > current(after) {
            return Some((*id, "revision from follower must be less than or equal to leader's"));
        }
        if peer.compact_revision > after.compact_revision {
            return Some((*id, "compact revision from follower must be less than or equal to leader's"));
        }
        let comparable = peer.compact_revision == before.compact_revision;
        (comparable && peer.hash != before.hash)
            .then_some((*id, "same compact revision then hashes must match"))
    })
}

/// Compares at the compacted revision, unless that has been done; answers up to where all members agree.
async fn check_compacted(node: &Node, checked: i64) -> Result<i64, Failure> {
    let revision = node.serializable_view().compacted();
    if revision <= checked.max(0) {
        return Ok(checked);
    }
    info!(local_member_id = hex(node.member_id()), revision, "starting compact hash check");
    let own = own(node, revision).await?;
    let peers = others(node, revision).await;
    let verdict = compare(node.member_id(), &own, &peers);
    let mut agreed = checked;
    match verdict {
        Verdict::Same { all: true } => {
            agreed = revision;
            info!(
                "number-of-peers-checked" = peers.len(),
                revision, "successfully checked hash on whole cluster"
            );
        }
        Verdict::Same { all: false } => {
            warn!(revision, "skipped revision in compaction hash check; was not able to check all peers");
        }
        Verdict::Differ { blamed } => {
            for id in blamed {
                error!(member_id = hex(id), revision, ?own, ?peers, "Detected compaction hash mismatch");
                raise(node, id).await?;
            }
        }
    }
    info!("finished compaction hash check");
    Ok(agreed)
}

/// What the hashes at a compacted revision say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// All that could be compared are equal; `all`: every member could be.
    Same { all: bool },
    /// These are not what most are; 0 when there is no majority, and so nobody knows who is wrong.
    Differ { blamed: Vec<u64> },
}

fn compare(leader: u64, own: &pb::HashKvResponse, peers: &[Asked]) -> Verdict {
    let mut by_hash = BTreeMap::from([(own.hash, vec![leader])]);
    let mut compared = 0;
    for (id, asked) in peers {
        match asked {
            Ok(peer) if peer.compact_revision == own.compact_revision => {
                compared += 1;
                by_hash.entry(peer.hash).or_default().push(*id);
            }
            Ok(peer) => {
                let compact_revision = peer.compact_revision;
                warn!("peer-id" = hex(*id), compact_revision, "Skipped peer's hash: another compaction");
            }
            Err(error) => warn!("peer-id" = hex(*id), error, "Skipped peer's hash: no response"),
        }
    }
    if by_hash.len() == 1 {
        return Verdict::Same { all: compared == peers.len() };
    }
    let members = peers.len() + 1;
    let quorum = members / 2 + 1;
    let Some(right) = by_hash.iter().find(|(_, ids)| ids.len() >= quorum).map(|(hash, _)| *hash) else {
        return Verdict::Differ { blamed: vec![0] };
    };
    by_hash.remove(&right);
    let mut blamed: Vec<u64> = by_hash.into_values().flatten().collect();
    blamed.sort_unstable();
    Verdict::Differ { blamed }
}

async fn own(node: &Node, revision: i64) -> Result<pb::HashKvResponse, Failure> {
    calls::hash_kv(node, pb::HashKvRequest { revision }).await
}

/// The other members' hashes at a revision.
async fn others(node: &Node, revision: i64) -> Vec<Asked> {
    let body = Bytes::from(pb::HashKvRequest { revision }.encode_to_vec());
    let members = node.reader().members();
    let ids = members.iter().map(|member| member.id).filter(|id| *id != node.member_id());
    join_all(ids.map(|id| {
        let body = body.clone();
        async move {
            let call = node.raft().call(id, Method::HashKv, body);
            let asked = match timeout(node.settings().request_timeout(), call).await {
                Ok(Ok(answer)) => pb::HashKvResponse::decode(answer).map_err(|error| error.to_string()),
                Ok(Err(status)) => Err(status.message().to_owned()),
                Err(_elapsed) => Err("no answer in time".to_owned()),
            };
            (id, asked)
        }
    }))
    .await
}

async fn raise(node: &Node, member_id: u64) -> Result<(), Failure> {
    let request = pb::AlarmRequest {
        action: AlarmAction::Activate as i32,
        member_id,
        alarm: pb::AlarmType::Corrupt as i32,
    };
    node.propose(Encoded::new(Op::Alarm(request))).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(hash: u32, compact_revision: i64, revision: i64) -> pb::HashKvResponse {
        let header = Some(pb::ResponseHeader { revision, ..Default::default() });
        pb::HashKvResponse { header, hash, compact_revision, hash_revision: revision }
    }

    fn silent(id: u64) -> Asked {
        (id, Err("no answer in time".to_owned()))
    }

    #[test]
    fn the_leader_blames_whoever_contradicts_it() {
        let (before, after) = (hash(7, 3, 10), hash(8, 5, 12));
        let blamed = |peers: &[Asked]| judge(1, &before, &after, peers).map(|(id, _)| id);
        assert_eq!(blamed(&[(2, Ok(hash(7, 3, 10))), silent(3)]), None);
        // It compacted meanwhile: its hash says nothing.
        assert_eq!(blamed(&[(2, Ok(hash(9, 5, 12)))]), None);
        assert_eq!(blamed(&[(2, Ok(hash(7, 3, 10))), (3, Ok(hash(9, 3, 10)))]), Some(3));
        assert_eq!(blamed(&[(2, Ok(hash(7, 3, 13)))]), Some(2));
        assert_eq!(blamed(&[(2, Ok(hash(7, 6, 10)))]), Some(2));
        assert_eq!(judge(1, &hash(7, 3, 10), &hash(8, 3, 10), &[]).map(|(id, _)| id), Some(1));
    }

    #[test]
    fn most_are_right_and_without_most_nobody_knows() {
        let own = hash(7, 5, 5);
        let right = |id| (id, Ok(hash(7, 5, 9)));
        let wrong = |id, value| (id, Ok(hash(value, 5, 9)));
        assert_eq!(compare(1, &own, &[right(2), right(3)]), Verdict::Same { all: true });
        assert_eq!(compare(1, &own, &[right(2), silent(3)]), Verdict::Same { all: false });
        assert_eq!(compare(1, &own, &[right(2), (3, Ok(hash(9, 6, 9)))]), Verdict::Same { all: false });
        assert_eq!(compare(1, &own, &[right(2), wrong(3, 9)]), Verdict::Differ { blamed: vec![3] });
        assert_eq!(compare(1, &own, &[wrong(2, 9), wrong(3, 9)]), Verdict::Differ { blamed: vec![1] });
        assert_eq!(compare(1, &own, &[wrong(2, 8), wrong(3, 9)]), Verdict::Differ { blamed: vec![0] });
        assert_eq!(compare(1, &own, &[wrong(2, 8)]), Verdict::Differ { blamed: vec![0] });
        assert_eq!(
            compare(1, &own, &[right(2), wrong(3, 9), silent(4), silent(5)]),
            Verdict::Differ { blamed: vec![0] }
        );
    }
}
