//! Who belongs to the cluster, the version all of them speak, and the one they are to go down to.
//!
//! Who is in it, where its peers reach it and whether it votes comes with the
//! membership entries of the log; name and client addresses a member publishes
//! itself once it has started.
//!
//! Invariant: an id that was removed stays removed, also if a membership entry
//! names it again. Its member may still run, with what it knew of the cluster
//! before; nobody must take the one for the other.
//!
//! The version of the storage says which etcd could read a snapshot of it. It
//! follows the cluster's, and stands for itself until there is one: in the state
//! that a snapshot was restored to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use prost::Message;
use proto::command::MemberAttributes;
use proto::etcdserverpb as pb;

use crate::storage::{Batch, Column, Read, Storage};
use crate::{Fault, LogId, Node};

/// Rows in the meta column.
const MEMBER: &[u8] = b"member/";
const MEMBER_END: &[u8] = b"member0";
const REMOVED: &[u8] = b"removed/";
const REMOVED_END: &[u8] = b"removed0";
const MEMBERSHIP: &[u8] = b"membership";
const CLUSTER_VERSION: &[u8] = b"cluster_version";
const STORAGE_VERSION: &[u8] = b"storage_version";
/// An encoded `DowngradeInfo`; the row is there once a downgrade was asked for.
const DOWNGRADE: &[u8] = b"downgrade";

/// The cluster's version before all members have said theirs: nothing follows it.
const UNDECIDED: &str = "3.0.0";

/// The cluster as the log describes it.
#[derive(Debug)]
pub(crate) struct Table {
    cluster: Cluster,
    membership: Option<(LogId, Bytes)>,
    published: Published,
}

/// The members by id, the ids that were removed, and the versions, as readers see them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    pub(crate) members: BTreeMap<u64, pb::Member>,
    pub(crate) removed: BTreeSet<u64>,
    pub(crate) version: Option<String>,
    pub(crate) storage_version: Option<String>,
    /// Kept when it has been cancelled, as etcd keeps it; none if there never was one.
    pub(crate) downgrade: Option<pb::DowngradeInfo>,
}

pub(crate) type Published = Arc<ArcSwap<Cluster>>;

impl Table {
    pub(crate) fn load(storage: &Storage) -> Result<Self, Fault> {
        let (cluster, membership) = (Cluster::read(storage)?, membership(storage)?);
        let table = Self { cluster, membership, published: Published::default() };
        table.publish();
        Ok(table)
    }

    pub(crate) fn published(&self) -> Published {
        self.published.clone()
    }

    /// The last membership entry: where it stands in the log, and its opaque form.
    pub(crate) fn membership(&self) -> Option<(LogId, Bytes)> {
        self.membership.clone()
    }

    /// The cluster consists of these nodes from here on.
    pub(crate) fn set(&mut self, batch: &mut Batch, log_id: LogId, opaque: Bytes, nodes: Vec<Node>) {
        let mut before = std::mem::take(&mut self.cluster.members);
        for node in nodes {
            let known = before.remove(&node.id);
            let (name, client_ur_ls) = known.map(|m| (m.name, m.client_ur_ls)).unwrap_or_default();
            let member = pb::Member {
                id: node.id,
                name: if name.is_empty() { node.name } else { name },
                peer_ur_ls: node.peer_urls,
                client_ur_ls,
                is_learner: node.learner,
            };
            put_member(batch, &member);
            self.cluster.members.insert(member.id, member);
        }
        for id in before.into_keys() {
            batch.delete(Column::Meta, &row_key(MEMBER, id));
            batch.put(Column::Meta, &row_key(REMOVED, id), &[]);
            self.cluster.removed.insert(id);
        }
        batch.put(Column::Meta, MEMBERSHIP, &encode_membership(log_id, &opaque));
        self.membership = Some((log_id, opaque));
        self.publish();
    }

    /// A member says who it is. One that is not in the cluster (any more) is not listened to.
    pub(crate) fn set_attributes(&mut self, batch: &mut Batch, attributes: MemberAttributes) {
        if let Some(member) = self.cluster.members.get_mut(&attributes.member_id) {
            member.name = attributes.name;
            member.client_ur_ls = attributes.client_urls;
            put_member(batch, member);
            self.publish();
        }
    }

    pub(crate) fn set_version(&mut self, batch: &mut Batch, version: String) {
        batch.put(Column::Meta, CLUSTER_VERSION, version.as_bytes());
        self.cluster.version = Some(version);
        self.publish();
        if let Some(version) = self.version_to_follow() {
            self.set_storage_version(batch, version);
        }
    }

    /// The version that the storage's has to become: the cluster's, once that is decided.
    pub(crate) fn version_to_follow(&self) -> Option<String> {
        let decided = self.cluster.version.clone().filter(|version| version != UNDECIDED);
        decided.filter(|version| self.cluster.storage_version.as_ref() != Some(version))
    }

    pub(crate) fn set_storage_version(&mut self, batch: &mut Batch, version: String) {
        batch.put(Column::Meta, STORAGE_VERSION, version.as_bytes());
        self.cluster.storage_version = Some(version);
        self.publish();
    }

    /// The cluster is to be able to go down to this version; to none any more if it is empty.
    pub(crate) fn set_downgrade(&mut self, batch: &mut Batch, target_version: String) {
        let downgrade = pb::DowngradeInfo { enabled: !target_version.is_empty(), target_version };
        batch.put(Column::Meta, DOWNGRADE, &downgrade.encode_to_vec());
        self.cluster.downgrade = Some(downgrade);
        self.publish();
    }

    fn publish(&self) {
        self.published.store(Arc::new(self.cluster.clone()));
    }
}

impl Cluster {
    /// The cluster as these rows have it.
    pub(crate) fn read(from: &impl Read) -> Result<Self, Fault> {
        let mut members = BTreeMap::new();
        for row in from.scan(Column::Meta, MEMBER, Some(MEMBER_END)) {
            let (_, value) = row?;
            let member = pb::Member::decode(value).map_err(|e| corrupt("member", e))?;
            members.insert(member.id, member);
        }
        let downgrade = from.get(Column::Meta, DOWNGRADE)?.map(pb::DowngradeInfo::decode).transpose();
        Ok(Self {
            members,
            removed: removed(from)?,
            version: text(from, CLUSTER_VERSION, "cluster version")?,
            storage_version: text(from, STORAGE_VERSION, "storage version")?,
            downgrade: downgrade.map_err(|e| corrupt("downgrade", e))?,
        })
    }
}

/// The last membership entry in a database.
pub(crate) fn membership(storage: &Storage) -> Result<Option<(LogId, Bytes)>, Fault> {
    storage.get(Column::Meta, MEMBERSHIP)?.map(decode_membership).transpose()
}

fn removed(from: &impl Read) -> Result<BTreeSet<u64>, Fault> {
    let rows = from.scan(Column::Meta, REMOVED, Some(REMOVED_END)).map(|row| {
        let (key, _) = row?;
        let id = key[REMOVED.len()..].try_into().map_err(|e| corrupt("removed member", e))?;
        Ok(u64::from_be_bytes(id))
    });
    rows.collect()
}

fn text(from: &impl Read, row: &[u8], what: &'static str) -> Result<Option<String>, Fault> {
    let text = from.get(Column::Meta, row)?.map(|text| String::from_utf8(text.into()));
    text.transpose().map_err(|e| corrupt(what, e))
}

fn put_member(batch: &mut Batch, member: &pb::Member) {
    batch.put(Column::Meta, &row_key(MEMBER, member.id), &member.encode_to_vec());
}

fn row_key(prefix: &[u8], id: u64) -> Vec<u8> {
    [prefix, &id.to_be_bytes()].concat()
}

fn encode_membership(log_id: LogId, opaque: &[u8]) -> Vec<u8> {
    [&log_id.term.to_be_bytes()[..], &log_id.index.to_be_bytes(), opaque].concat()
}

fn decode_membership(row: Bytes) -> Result<(LogId, Bytes), Fault> {
    let number = |at: usize| {
        let bytes = row.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_be_bytes).ok_or_else(|| corrupt("membership", "too short"))
    };
    let log_id = LogId { term: number(0)?, index: number(8)? };
    Ok((log_id, row.slice(16..)))
}

fn corrupt(what: &'static str, detail: impl ToString) -> Fault {
    Fault::Corrupt { what, detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use proto::command::{ClusterVersion, Command, command::Op};

    use super::*;
    use crate::{Entry, EntryBody, Options, State};

    /// A member that was removed came back with a membership entry, and passed for one that had never gone.
    #[test]
    fn a_removed_id_stays_removed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options::new(dir.path().join("db"));
        let (mut state, reader) = State::open(options.clone()).expect("open");
        let node = |id| Node { id, name: String::new(), peer_urls: vec![], learner: false };
        let mut index = 0;
        let mut set = |ids: &[u64]| {
            index += 1;
            let nodes = ids.iter().map(|id| node(*id)).collect();
            let body = EntryBody::Membership { opaque: Bytes::new(), nodes };
            state.apply(vec![Entry { log_id: LogId { term: 1, index }, body }]).expect("apply");
            let members: Vec<_> = reader.members().iter().map(|member| member.id).collect();
            assert_eq!(members, ids);
            [1, 2, 3].map(|id| reader.removed(id))
        };
        assert_eq!(set(&[1, 2]), [false, false, false]);
        assert_eq!(set(&[1, 3]), [false, true, false]);
        assert_eq!(set(&[1, 2, 3]), [false, true, false]);
        assert_eq!(set(&[1]), [false, true, true]);
        state.flush().expect("written");
        drop((state, reader));
        let (_state, reader) = State::open(options).expect("open");
        assert_eq!([1, 2, 3].map(|id| reader.removed(id)), [false, true, true]);
    }

    /// A tool set the storage's version by itself, and an older release has no row for it.
    #[test]
    fn the_storage_follows_the_cluster_when_it_is_opened() {
        for row in [Some("3.6.0"), None] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let options = Options::new(dir.path().join("db"));
            let (mut state, reader) = State::open(options.clone()).expect("open");
            assert_eq!(reader.storage_version(), None);
            let mut apply = |index, version: &str| {
                let version = ClusterVersion { version: version.to_owned() };
                let command = Command { op: Some(Op::ClusterVersion(version)) }.encode_to_vec();
                let body = EntryBody::Command(command.into());
                state.apply(vec![Entry { log_id: LogId { term: 1, index }, body }]).expect("apply");
                reader.storage_version()
            };
            assert_eq!(apply(1, UNDECIDED), None);
            assert_eq!(apply(2, "3.7.0"), Some("3.7.0".to_owned()));
            let mut batch = state.storage.batch();
            match row {
                Some(version) => batch.put(Column::Meta, STORAGE_VERSION, version.as_bytes()),
                None => batch.delete(Column::Meta, STORAGE_VERSION),
            }
            state.storage.write(batch).expect("written");
            state.flush().expect("flushed");
            drop((state, reader));
            let (_state, reader) = State::open(options).expect("open");
            assert_eq!(reader.storage_version(), Some("3.7.0".to_owned()));
        }
    }
}
