//! The bytes of what openraft puts into the log: durable, so numbers are never used again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use prost::Message;

use super::types::{Command, Entry, Membership, Node, Origin, Vote, new_log_id};

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;
/// A command behind the id of the member that waits for it and its number there, eight bytes each.
const FORWARDED: u8 = 3;
const ORIGIN_LEN: usize = 16;

#[derive(Clone, PartialEq, Message)]
struct VoteRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    voted_for: u64,
    #[prost(bool, tag = "3")]
    committed: bool,
}

#[derive(Clone, PartialEq, Message)]
struct MembershipRecord {
    #[prost(message, repeated, tag = "1")]
    configs: Vec<VoterSet>,
    #[prost(message, repeated, tag = "2")]
    nodes: Vec<NodeRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct VoterSet {
    #[prost(uint64, repeated, tag = "1")]
    voters: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeRecord {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    peer_urls: Vec<String>,
    #[prost(bool, tag = "4")]
    learner: bool,
}

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let leader = vote.leader_id();
    let record =
        VoteRecord { term: leader.term, voted_for: leader.voted_for, committed: vote.is_committed() };
    record.encode_to_vec().into()
}

pub(crate) fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    let record = VoteRecord::decode(bytes).map_err(|error| invalid("vote", &error))?;
    let mut vote = Vote::new(record.term, record.voted_for);
    vote.committed = record.committed;
    Ok(vote)
}

pub(crate) fn encode_membership(membership: &Membership) -> Bytes {
    let configs = membership.get_joint_config().iter();
    let nodes = membership.nodes();
    let record = MembershipRecord {
        configs: configs.map(|voters| VoterSet { voters: voters.iter().copied().collect() }).collect(),
        nodes: nodes
            .map(|(id, node)| NodeRecord {
                id: *id,
                name: node.name.clone(),
                peer_urls: node.peer_urls.clone(),
                learner: node.learner,
            })
            .collect(),
    };
    record.encode_to_vec().into()
}

pub(crate) fn decode_membership(bytes: &[u8]) -> io::Result<Membership> {
    let record = MembershipRecord::decode(bytes).map_err(|error| invalid("membership", &error))?;
    let configs: Vec<BTreeSet<u64>> =
        record.configs.into_iter().map(|set| set.voters.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, Node> = record
        .nodes
        .into_iter()
        .map(|node| (node.id, Node { name: node.name, peer_urls: node.peer_urls, learner: node.learner }))
        .collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|error| invalid("membership", &error))
}

/// An entry as the log stores it.
pub(crate) fn encode_entry(entry: Entry) -> raftlog::Entry {
    let log_id = raftlog::LogId { term: entry.log_id.leader_id.term, index: entry.log_id.index };
    let (tag, payload) = match entry.payload {
        EntryPayload::Blank => (BLANK, Bytes::new()),
        EntryPayload::Normal(Command { origin: None, bytes }) => (COMMAND, bytes),
        EntryPayload::Normal(Command { origin: Some(origin), bytes }) => {
            let mut payload = BytesMut::with_capacity(ORIGIN_LEN + bytes.len());
            payload.put_u64(origin.member_id);
            payload.put_u64(origin.number);
            payload.put_slice(&bytes);
            (FORWARDED, payload.freeze())
        }
        EntryPayload::Membership(membership) => (MEMBERSHIP, encode_membership(&membership)),
    };
    raftlog::Entry { log_id, tag, payload }
}

pub(crate) fn decode_entry(entry: raftlog::Entry) -> io::Result<Entry> {
    let payload = match entry.tag {
        BLANK => EntryPayload::Blank,
        COMMAND => EntryPayload::Normal(Command { origin: None, bytes: entry.payload }),
        FORWARDED if entry.payload.len() >= ORIGIN_LEN => {
            let mut bytes = entry.payload;
            let origin = Origin { member_id: bytes.get_u64(), number: bytes.get_u64() };
            EntryPayload::Normal(Command { origin: Some(origin), bytes })
        }
        MEMBERSHIP => EntryPayload::Membership(decode_membership(&entry.payload)?),
        tag => return Err(invalid("entry", &format!("unknown kind {tag}, written by a newer version"))),
    };
    Ok(Entry { log_id: new_log_id(entry.log_id.term, entry.log_id.index), payload })
}

/// A committed entry as the state machine takes it.
pub(crate) fn state_entry(entry: Entry) -> state::Entry {
    let log_id = super::types::state_log_id(&entry.log_id);
    let body = match entry.payload {
        EntryPayload::Blank => state::EntryBody::Blank,
        EntryPayload::Normal(command) => state::EntryBody::Command(command.bytes),
        EntryPayload::Membership(membership) => {
            state::EntryBody::Membership { opaque: encode_membership(&membership), nodes: nodes(&membership) }
        }
    };
    state::Entry { log_id, body }
}

/// The members of a membership. A member that is to vote and has not caught up yet counts as a voter here.
pub(crate) fn nodes(membership: &Membership) -> Vec<state::Node> {
    let nodes = membership.nodes().map(|(id, node)| state::Node {
        id: *id,
        name: node.name.clone(),
        peer_urls: node.peer_urls.clone(),
        learner: node.learner,
    });
    nodes.collect()
}

fn invalid(what: &str, detail: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} in the raft log: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn votes_and_memberships_read_back() {
        let vote = Vote::new_committed(7, 9);
        assert_eq!(decode_vote(&encode_vote(&vote)).expect("a vote"), vote);

        let node = |name: &str, learner| Node {
            name: name.into(),
            peer_urls: vec!["http://a:2380".into()],
            learner,
        };
        let nodes = BTreeMap::from([(1, node("a", false)), (2, node("b", false)), (3, node("c", true))]);
        let membership = Membership::new(vec![BTreeSet::from([1])], nodes).expect("valid");
        assert_eq!(decode_membership(&encode_membership(&membership)).expect("a membership"), membership);
        let learners: Vec<u64> =
            super::nodes(&membership).iter().filter(|node| node.learner).map(|node| node.id).collect();
        assert_eq!(learners, [3], "a voter to be counts as one");
    }

    #[test]
    fn commands_remember_who_waits_for_them() {
        for origin in [None, Some(Origin { member_id: u64::MAX, number: 1 })] {
            let payload = EntryPayload::Normal(Command { origin, bytes: Bytes::from_static(b"put") });
            let entry = Entry { log_id: new_log_id(3, 4), payload };
            assert_eq!(decode_entry(encode_entry(entry.clone())).expect("an entry"), entry);
        }
    }
}
