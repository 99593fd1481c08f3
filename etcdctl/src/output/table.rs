//! `--write-out=table`, and the rows that `simple` joins with commas.

use manners::table::draw;
use proto::etcdserverpb as pb;

use super::{Health, Reply, Unsupported};
use crate::go;

/// Draws the reply.
pub(super) fn render(out: &mut Vec<u8>, reply: &Reply<'_>) -> Result<(), Unsupported> {
    let (head, rows): (&[&str], _) = match reply {
        Reply::MemberList(reply) => {
            (&["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"], members(&reply.members))
        }
        Reply::Health(list) => (&["ENDPOINT", "HEALTH", "TOOK", "ERROR"], health(list)),
        Reply::Status(list) => (&STATUS, status(list)),
        Reply::HashKv(list) => (&["ENDPOINT", "HASH", "HASH REVISION"], hash(list)),
        _ => return Err(Unsupported),
    };
    draw(out, head, &rows);
    Ok(())
}

const STATUS: [&str; 16] = [
    "ENDPOINT",
    "ID",
    "VERSION",
    "STORAGE VERSION",
    "DB SIZE",
    "IN USE",
    "PERCENTAGE NOT IN USE",
    "QUOTA",
    "IS LEADER",
    "IS LEARNER",
    "RAFT TERM",
    "RAFT INDEX",
    "RAFT APPLIED INDEX",
    "ERRORS",
    "DOWNGRADE TARGET VERSION",
    "DOWNGRADE ENABLED",
];

/// One row a member.
pub(super) fn members(members: &[pb::Member]) -> Vec<Vec<String>> {
    let row = |member: &pb::Member| {
        vec![
            format!("{:x}", member.id),
            if member.name.is_empty() { "unstarted" } else { "started" }.to_owned(),
            member.name.clone(),
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner.to_string(),
        ]
    };
    members.iter().map(row).collect()
}

/// One row an endpoint.
pub(super) fn status(list: &[(String, pb::StatusResponse)]) -> Vec<Vec<String>> {
    let row = |(endpoint, status): &(String, pb::StatusResponse)| {
        let id = status.header.map_or(0, |header| header.member_id);
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        // A server that reports no size has nothing that is not in use.
        let used = status.db_size_in_use.saturating_mul(100).checked_div(status.db_size).unwrap_or(100);
        vec![
            endpoint.clone(),
            format!("{id:x}"),
            status.version.clone(),
            status.storage_version.clone(),
            go::size(status.db_size as u64),
            go::size(status.db_size_in_use as u64),
            format!("{}%", 100 - used),
            go::size(status.db_size_quota as u64),
            (status.leader == id).to_string(),
            status.is_learner.to_string(),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
            status.raft_applied_index.to_string(),
            status.errors.join(", "),
            downgrade.target_version,
            downgrade.enabled.to_string(),
        ]
    };
    list.iter().map(row).collect()
}

/// One row an endpoint.
pub(super) fn hash(list: &[(String, pb::HashKvResponse)]) -> Vec<Vec<String>> {
    let row = |(endpoint, reply): &(String, pb::HashKvResponse)| {
        vec![endpoint.clone(), reply.hash.to_string(), reply.hash_revision.to_string()]
    };
    list.iter().map(row).collect()
}

fn health(list: &[Health]) -> Vec<Vec<String>> {
    let row = |health: &Health| {
        vec![health.endpoint.clone(), health.healthy.to_string(), health.took.clone(), health.error.clone()]
    };
    list.iter().map(row).collect()
}
