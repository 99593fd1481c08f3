//! A log that begins behind a state which no log led to.
//!
//! ```text
//!   etcd's restore   entries 1…n, one a member, committed in term 1
//!   here             nothing but: up to n all is purged, the leader of term 1 was the first member
//! ```
//!
//! Members that are restored from one snapshot agree on all of it, as if they
//! had been one cluster before and ended together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use raftlog::{Log, NoObserver, RealDisk};

use super::codec;
use super::start::log_options;
use super::types::{Membership, Vote, log_id};

/// The term of the entries that there would have been.
const TERM: u64 = 1;

/// Where the log of a cluster that is restored with so many members begins: the last entry before.
pub fn begin(members: usize) -> state::LogId {
    state::LogId { term: TERM, index: members as u64 }
}

/// The membership of a cluster of these members, all with a vote, as the state keeps it.
///
/// # Errors
/// When there are none.
pub fn membership(members: &[state::Node]) -> anyhow::Result<Bytes> {
    let voters: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
    let nodes: BTreeMap<u64, _> = members.iter().map(|member| (member.id, member.clone().into())).collect();
    Ok(codec::encode_membership(&Membership::new(vec![voters], nodes)?))
}

/// Makes the log of a member in `dir`, where none is: it begins behind `last`. When it returns, it is on disk.
///
/// # Errors
/// When the disk refuses.
pub fn create_log(
    dir: &Path,
    member_id: u64,
    last: state::LogId,
    members: &[state::Node],
) -> anyhow::Result<()> {
    let leader = members.iter().map(|member| member.id).min().context("a cluster has members")?;
    let disk = Arc::new(RealDisk::open(dir)?);
    let log = Log::open(disk, log_options(member_id), Arc::new(NoObserver))?;
    let last = log_id(last).context("the log begins behind an entry")?;
    log.purge(raftlog::LogId { term: last.leader_id.term, index: last.index })?;
    let vote = codec::encode_vote(&Vote::new_committed(last.leader_id.term, leader));
    let (sender, written) = std::sync::mpsc::channel();
    // What was queued before is on disk by then.
    log.save_vote(vote, Box::new(move |result| drop(sender.send(result))))?;
    written.recv()??;
    Ok(log.close()?)
}

#[cfg(test)]
mod tests {
    use raftlog::Options;

    use super::*;

    #[test]
    fn the_log_begins_behind_the_state_and_knows_a_leader() {
        let dir = tempfile::tempdir().expect("a folder");
        let node = |id| state::Node { id, name: "m".into(), peer_urls: vec![], learner: false };
        let members = [node(7), node(3), node(u64::MAX)];
        create_log(dir.path(), 7, begin(3), &members).expect("written");
        let options = Options { owner: 7, ..Options::default() };
        let disk = Arc::new(RealDisk::open(dir.path()).expect("there"));
        let log = Log::open(disk, options, Arc::new(NoObserver)).expect("a log");
        let last = Some(raftlog::LogId { term: 1, index: 2 });
        assert_eq!((log.state().purged, log.state().last), (last, last));
        let vote = codec::decode_vote(&log.vote().expect("a vote")).expect("a vote");
        assert_eq!(vote, Vote::new_committed(1, 3));
        let membership = membership(&members).expect("members");
        assert_eq!(codec::nodes(&codec::decode_membership(&membership).expect("as written")).len(), 3);
    }
}
