//! What etcd's log and snapshot files hold, as far as a directory without a history needs it.
//!
//! `raftpb`, `walpb`, `snappb` and `etcdserverpb.Metadata` of etcd 3.7. In them a field that is 0 is written too.

use prost::Message;

/// `walpb.Record`
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Record {
    #[prost(int32, optional, tag = "1")]
    pub kind: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    pub crc: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "3")]
    pub data: Option<Vec<u8>>,
}

/// `etcdserverpb.Metadata`: whose log it is.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Metadata {
    #[prost(uint64, optional, tag = "1")]
    pub node_id: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub cluster_id: Option<u64>,
}

/// The kind of an entry that changes the members.
pub(super) const ENTRY_CONF_CHANGE: i32 = 1;
/// The kind of a change that adds a member with a vote.
pub(super) const CHANGE_ADD_NODE: i32 = 0;

/// `raftpb.Entry`
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Entry {
    #[prost(int32, optional, tag = "1")]
    pub kind: Option<i32>,
    #[prost(uint64, optional, tag = "2")]
    pub term: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub index: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub data: Option<Vec<u8>>,
}

/// `raftpb.ConfChange`; the context is the member's row.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ConfChange {
    #[prost(int32, optional, tag = "2")]
    pub kind: Option<i32>,
    #[prost(uint64, optional, tag = "3")]
    pub node_id: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub context: Option<Vec<u8>>,
}

/// `raftpb.HardState`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct HardState {
    #[prost(uint64, optional, tag = "1")]
    pub term: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub vote: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub commit: Option<u64>,
}

/// `raftpb.ConfState`
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ConfState {
    #[prost(uint64, repeated, packed = "false", tag = "1")]
    pub voters: Vec<u64>,
}

/// `walpb.Snapshot`
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct WalSnapshot {
    #[prost(uint64, optional, tag = "1")]
    pub index: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub term: Option<u64>,
    #[prost(message, optional, tag = "3")]
    pub conf_state: Option<ConfState>,
}

/// `raftpb.SnapshotMetadata`
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct SnapshotMetadata {
    #[prost(message, optional, tag = "1")]
    pub conf_state: Option<ConfState>,
    #[prost(uint64, optional, tag = "2")]
    pub index: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub term: Option<u64>,
}

/// `raftpb.Snapshot`
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Snapshot {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub data: Option<Vec<u8>>,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<SnapshotMetadata>,
}

/// `snappb.Snapshot`: the file.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct SnapshotFile {
    #[prost(uint32, optional, tag = "1")]
    pub crc: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub data: Option<Vec<u8>>,
}
