//! What the key space is after each entry, worked out a second time and without haste.
//!
//! All versions of all keys are kept, compacted or not, so that whatever anybody
//! read or was told at any revision can be looked up.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use proto::command::{Command, command::Op};
use proto::etcdserverpb::{self as pb, compare::TargetUnion, request_op::Request};
use proto::mvccpb::KeyValue;
use state::{EntryBody, KeyRange};

/// One change of one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The revision.
    pub revision: i64,
    /// The record put, or key and revision of a delete.
    pub kv: KeyValue,
    /// Whether it was deleted.
    pub delete: bool,
    /// What was there before the revision, unless the key was created by it.
    pub before: Option<KeyValue>,
}

/// What a command gives, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The revision after it.
    pub revision: i64,
    /// Whether it was refused.
    pub refused: bool,
    /// Whether the compares of a transaction held, and how many keys a delete deleted.
    pub detail: i64,
}

#[derive(Default)]
struct Key {
    /// By revision; none for a delete.
    versions: Vec<(i64, Option<KeyValue>)>,
}

/// The key space, and all it has been.
pub struct Model {
    revision: i64,
    compacted: i64,
    keys: BTreeMap<Bytes, Key>,
    changes: Vec<Change>,
    leases: BTreeMap<i64, BTreeSet<Bytes>>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            revision: 1,
            compacted: -1,
            keys: BTreeMap::new(),
            changes: Vec::new(),
            leases: BTreeMap::new(),
        }
    }
}

impl Model {
    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The last compaction.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Whether a lease exists.
    pub fn has_lease(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// All records of a range as of a revision, by key.
    pub fn at(&self, range: &KeyRange, revision: i64) -> Vec<KeyValue> {
        let keys = self.keys.iter().filter(|(key, _)| range.contains(key));
        keys.filter_map(|(_, key)| key.at(revision).cloned()).collect()
    }

    /// All changes of a range from a revision on.
    pub fn changes(&self, range: &KeyRange, from: i64) -> impl Iterator<Item = &Change> {
        let begin = self.changes.partition_point(|change| change.revision < from);
        self.changes[begin..].iter().filter(|change| range.contains(&change.kv.key))
    }

    /// Applies an entry.
    pub fn apply(&mut self, body: &EntryBody) -> Outcome {
        let op = match body {
            EntryBody::Command(bytes) => Command::decode(bytes.clone()).ok().and_then(|command| command.op),
            _ => None,
        };
        let next = self.revision + 1;
        let begun = self.changes.len();
        let (refused, detail) = match &op {
            Some(Op::Put(request)) => (!self.may_put(request), 0),
            Some(Op::Txn(request)) => {
                let holds = self.holds(request);
                let puts = branch(request, holds).iter().filter_map(|operation| match &operation.request {
                    Some(Request::RequestPut(put)) => Some(put),
                    _ => None,
                });
                let refused = !puts.into_iter().all(|put| self.may_put(put));
                (refused, if refused { 0 } else { i64::from(holds) })
            }
            Some(Op::Compaction(request)) => {
                (request.revision > self.revision || request.revision <= self.compacted, 0)
            }
            Some(Op::LeaseGrant(request)) => (self.has_lease(request.id), 0),
            Some(Op::LeaseRevoke(request)) => (!self.has_lease(request.id), 0),
            _ => (false, 0),
        };
        let mut outcome = Outcome { revision: self.revision, refused, detail };
        if refused {
            return outcome;
        }
        match op {
            Some(Op::Put(request)) => self.put(&request, next),
            Some(Op::DeleteRange(request)) => outcome.detail = self.delete_range(&request, next),
            Some(Op::Txn(request)) => {
                for operation in branch(&request, detail == 1) {
                    match &operation.request {
                        Some(Request::RequestPut(put)) => self.put(put, next),
                        Some(Request::RequestDeleteRange(delete)) => {
                            self.delete_range(delete, next);
                        }
                        _ => {}
                    }
                }
            }
            Some(Op::Compaction(request)) => self.compacted = request.revision,
            Some(Op::LeaseGrant(request)) => {
                self.leases.insert(request.id, BTreeSet::new());
            }
            Some(Op::LeaseRevoke(request)) => {
                for key in self.leases.remove(&request.id).unwrap_or_default() {
                    self.delete(key, next);
                }
            }
            _ => {}
        }
        if self.changes.len() > begun {
            self.revision = next;
        }
        outcome.revision = self.revision;
        outcome
    }

    fn may_put(&self, request: &pb::PutRequest) -> bool {
        request.lease == 0 || self.has_lease(request.lease)
    }

    fn holds(&self, request: &pb::TxnRequest) -> bool {
        request.compare.iter().all(|compare| {
            let record = self.keys.get(&compare.key).and_then(|key| key.newest());
            match &compare.target_union {
                Some(TargetUnion::ModRevision(wanted)) => record.map_or(0, |kv| kv.mod_revision) == *wanted,
                Some(TargetUnion::Version(wanted)) => record.map_or(0, |kv| kv.version) == *wanted,
                Some(TargetUnion::Value(wanted)) => record.is_some_and(|kv| kv.value == *wanted),
                _ => false,
            }
        })
    }

    fn put(&mut self, request: &pb::PutRequest, revision: i64) {
        let key = self.keys.entry(request.key.clone()).or_default();
        let old = key.newest().cloned();
        let kv = KeyValue {
            key: request.key.clone(),
            value: request.value.clone(),
            create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.as_ref().map_or(0, |old| old.version) + 1,
            lease: request.lease,
        };
        let before = key.at(revision - 1).cloned().filter(|_| kv.create_revision != revision);
        key.versions.push((revision, Some(kv.clone())));
        if let Some(keys) = old.and_then(|old| self.leases.get_mut(&old.lease)) {
            keys.remove(&request.key);
        }
        if let Some(keys) = self.leases.get_mut(&request.lease) {
            keys.insert(request.key.clone());
        }
        self.changes.push(Change { revision, kv, delete: false, before });
    }

    fn delete_range(&mut self, request: &pb::DeleteRangeRequest, revision: i64) -> i64 {
        let range = KeyRange::parse(request.key.clone(), request.range_end.clone());
        let live = self.keys.iter().filter(|(key, all)| range.contains(key) && all.newest().is_some());
        let live: Vec<Bytes> = live.map(|(key, _)| key.clone()).collect();
        let deleted = live.len();
        live.into_iter().for_each(|key| self.delete(key, revision));
        deleted as i64
    }

    fn delete(&mut self, name: Bytes, revision: i64) {
        let Some(key) = self.keys.get_mut(&name) else { return };
        let Some(old) = key.newest().cloned() else { return };
        let before = key.at(revision - 1).cloned();
        key.versions.push((revision, None));
        if let Some(keys) = self.leases.get_mut(&old.lease) {
            keys.remove(&name);
        }
        let kv = KeyValue { key: name, mod_revision: revision, ..KeyValue::default() };
        self.changes.push(Change { revision, kv, delete: true, before });
    }
}

impl Key {
    fn newest(&self) -> Option<&KeyValue> {
        self.versions.last().and_then(|(_, kv)| kv.as_ref())
    }

    fn at(&self, revision: i64) -> Option<&KeyValue> {
        let versions = self.versions.iter().rev();
        versions.clone().find(|(at, _)| *at <= revision).and_then(|(_, kv)| kv.as_ref())
    }
}

fn branch(request: &pb::TxnRequest, holds: bool) -> &[pb::RequestOp] {
    if holds { &request.success } else { &request.failure }
}
