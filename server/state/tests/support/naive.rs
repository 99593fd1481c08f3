//! The state machine as one would write it with nothing to care for but the rules: all in memory, everything by walking.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use proto::command::command::Op;
use proto::etcdserverpb::{self as pb, compare::TargetUnion, request_op::Request, response_op};
use proto::mvccpb::KeyValue;
use state::{Block, EntryBody, Event, HashKv, Lease, LeaseChange, LogId, Node, Refusal, Response, Revision};

/// A record: a put, or a delete of a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub revision: Revision,
    pub key: Bytes,
    pub put: Option<KeyValue>,
}

impl Row {
    /// The record as etcd stores it.
    pub fn encoded(&self) -> Bytes {
        let tombstone = KeyValue { key: self.key.clone(), ..Default::default() };
        self.put.as_ref().unwrap_or(&tombstone).encode_to_vec().into()
    }
}

/// What applying one entry gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub revision: i64,
    pub result: Result<Response, Refusal>,
    pub block: Option<Block>,
    pub changes: Vec<LeaseChange>,
}

type Keys = BTreeMap<Bytes, (Revision, KeyValue)>;

#[derive(Debug, Clone)]
pub struct Naive {
    /// In order; what a compaction deletes is gone at once.
    pub rows: Vec<Row>,
    pub revision: i64,
    pub compacted: i64,
    pub leases: BTreeMap<i64, Lease>,
    pub alarms: BTreeSet<(i32, u64)>,
    pub members: BTreeMap<u64, pb::Member>,
    pub removed: BTreeSet<u64>,
    pub membership: Option<(LogId, Bytes)>,
    pub version: Option<String>,
    pub storage_version: Option<String>,
    pub downgrade: pb::DowngradeInfo,
    live: Keys,
    events: Vec<Event>,
    changes: Vec<LeaseChange>,
}

impl Default for Naive {
    fn default() -> Self {
        Self {
            rows: vec![],
            revision: 1,
            compacted: -1,
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
            members: BTreeMap::new(),
            removed: BTreeSet::new(),
            membership: None,
            version: None,
            storage_version: None,
            downgrade: pb::DowngradeInfo::default(),
            live: Keys::new(),
            events: vec![],
            changes: vec![],
        }
    }
}

impl Naive {
    pub fn apply(&mut self, log_id: LogId, body: &EntryBody) -> Outcome {
        let result = match body {
            EntryBody::Blank => Ok(Response::Done),
            EntryBody::Membership { opaque, nodes } => {
                self.set_members(nodes);
                self.membership = Some((log_id, opaque.clone()));
                Ok(Response::Done)
            }
            EntryBody::Command(bytes) => {
                let command = proto::command::Command::decode(&bytes[..]).expect("a generated command");
                self.command(command.op.expect("a generated command"))
            }
        };
        let events = std::mem::take(&mut self.events);
        let block = (!events.is_empty()).then(|| {
            self.revision += 1;
            Block { revision: self.revision, events }
        });
        Outcome { revision: self.revision, result, block, changes: std::mem::take(&mut self.changes) }
    }

    fn command(&mut self, op: Op) -> Result<Response, Refusal> {
        let alarm = |kind| self.alarms.iter().any(|(active, _)| *active == kind as i32);
        let (corrupt, no_space) = (alarm(pb::AlarmType::Corrupt), alarm(pb::AlarmType::Nospace));
        match &op {
            Op::Put(_) | Op::LeaseGrant(_) if corrupt => return Err(Refusal::Corrupt),
            Op::Txn(_) | Op::DeleteRange(_) | Op::Compaction(_) | Op::LeaseRevoke(_) if corrupt => {
                return Err(Refusal::Corrupt);
            }
            Op::Put(_) | Op::LeaseGrant(_) if no_space => return Err(Refusal::NoSpace),
            Op::Txn(request) if no_space && has_put(request) => return Err(Refusal::NoSpace),
            _ => {}
        }
        Ok(match op {
            Op::Put(request) => {
                self.check_put(&self.live, &request)?;
                Response::Put(self.put(&request))
            }
            Op::DeleteRange(request) => Response::DeleteRange(self.delete_range(&request)),
            Op::Txn(request) => {
                let before = self.live.clone();
                self.check_txn(&before, &request)?;
                Response::Txn(self.run_txn(&before, &request))
            }
            Op::Compaction(request) => {
                self.compact(request.revision)?;
                Response::Compaction
            }
            Op::LeaseGrant(pb::LeaseGrantRequest { id, ttl }) => {
                if id == 0 {
                    return Err(Refusal::LeaseNotFound);
                }
                if ttl > 9_000_000_000 {
                    return Err(Refusal::LeaseTtlTooLarge);
                }
                if self.leases.contains_key(&id) {
                    return Err(Refusal::LeaseExists);
                }
                self.leases.insert(id, Lease { id, ttl, remaining: 0 });
                self.changes.push(LeaseChange::Granted { id, ttl });
                Response::LeaseGrant(pb::LeaseGrantResponse { id, ttl, ..Default::default() })
            }
            Op::LeaseRevoke(pb::LeaseRevokeRequest { id }) => {
                if self.leases.remove(&id).is_none() {
                    return Err(Refusal::LeaseNotFound);
                }
                for key in self.lease_keys(id) {
                    self.delete(&key);
                }
                self.changes.push(LeaseChange::Revoked { id });
                Response::LeaseRevoke
            }
            Op::LeaseCheckpoint(request) => {
                for pb::LeaseCheckpoint { id, remaining_ttl } in request.checkpoints {
                    if let Some(lease) = self.leases.get_mut(&id) {
                        lease.remaining = remaining_ttl;
                        self.changes.push(LeaseChange::Checkpointed { id, remaining: remaining_ttl });
                    }
                }
                Response::Done
            }
            Op::Alarm(request) => Response::Alarm(self.alarm(&request)),
            Op::MemberAttributes(attributes) => {
                if let Some(member) = self.members.get_mut(&attributes.member_id) {
                    member.name = attributes.name;
                    member.client_ur_ls = attributes.client_urls;
                }
                Response::Done
            }
            Op::ClusterVersion(version) => {
                if version.version != "3.0.0" {
                    self.storage_version = Some(version.version.clone());
                }
                self.version = Some(version.version);
                Response::Done
            }
            Op::Downgrade(downgrade) => {
                self.downgrade = pb::DowngradeInfo {
                    enabled: !downgrade.target_version.is_empty(),
                    target_version: downgrade.target_version,
                };
                Response::Done
            }
        })
    }

    fn set_members(&mut self, nodes: &[Node]) {
        let before = std::mem::take(&mut self.members);
        for node in nodes {
            let mut member = before.get(&node.id).cloned().unwrap_or_default();
            member.id = node.id;
            if member.name.is_empty() {
                member.name = node.name.clone();
            }
            member.peer_ur_ls = node.peer_urls.clone();
            member.is_learner = node.learner;
            self.members.insert(node.id, member);
        }
        self.removed.extend(before.into_keys().filter(|id| !self.members.contains_key(id)));
    }

    fn alarm(&mut self, request: &pb::AlarmRequest) -> pb::AlarmResponse {
        let own = (request.alarm, request.member_id);
        let answer = |alarms: Vec<(i32, u64)>| pb::AlarmResponse {
            header: None,
            alarms: alarms
                .into_iter()
                .map(|(alarm, member_id)| pb::AlarmMember { member_id, alarm })
                .collect(),
        };
        match request.action {
            0 => answer(
                self.alarms.iter().copied().filter(|a| request.alarm == 0 || a.0 == request.alarm).collect(),
            ),
            1 if request.alarm != 0 => {
                self.alarms.insert(own);
                answer(vec![own])
            }
            2 if self.alarms.remove(&own) => answer(vec![own]),
            _ => answer(vec![]),
        }
    }

    pub fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        self.live.values().filter(|(_, kv)| kv.lease == id).map(|(_, kv)| kv.key.clone()).collect()
    }

    fn pending(&self) -> i64 {
        self.revision + i64::from(!self.events.is_empty())
    }

    /// The keys as they are at a revision that is not compacted.
    pub fn at(&self, revision: i64) -> Keys {
        if revision >= self.pending() {
            return self.live.clone();
        }
        let mut keys = Keys::new();
        for row in self.rows.iter().take_while(|row| row.revision.main <= revision) {
            match &row.put {
                Some(kv) => keys.insert(row.key.clone(), (row.revision, kv.clone())),
                None => keys.remove(&row.key),
            };
        }
        keys
    }

    fn write(&mut self, key: Bytes, put: Option<KeyValue>) -> Option<KeyValue> {
        let revision = Revision { main: self.revision + 1, sub: self.events.len() as i64 };
        let before = match &put {
            Some(kv) => self.live.insert(key.clone(), (revision, kv.clone())),
            None => self.live.remove(&key),
        };
        let seen = put.clone().unwrap_or(KeyValue {
            key: key.clone(),
            mod_revision: revision.main,
            ..Default::default()
        });
        self.events.push(Event {
            key: key.clone(),
            kv: seen.encode_to_vec().into(),
            delete: put.is_none(),
            previous: before.as_ref().map(|(revision, _)| *revision),
        });
        self.rows.push(Row { revision, key, put });
        before.map(|(_, kv)| kv)
    }

    fn delete(&mut self, key: &Bytes) -> Option<KeyValue> {
        if self.live.contains_key(key) { self.write(key.clone(), None) } else { None }
    }

    fn check_put(&self, before: &Keys, request: &pb::PutRequest) -> Result<(), Refusal> {
        if request.lease != 0 && !self.leases.contains_key(&request.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        if (request.ignore_value || request.ignore_lease) && !before.contains_key(&request.key) {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    fn put(&mut self, request: &pb::PutRequest) -> pb::PutResponse {
        let old = self.live.get(&request.key).map(|(_, kv)| kv.clone());
        let zero = old.clone().unwrap_or_default();
        let main = self.revision + 1;
        self.write(
            request.key.clone(),
            Some(KeyValue {
                key: request.key.clone(),
                create_revision: if old.is_some() { zero.create_revision } else { main },
                mod_revision: main,
                version: zero.version + 1,
                value: if request.ignore_value { zero.value } else { request.value.clone() },
                lease: if request.ignore_lease { zero.lease } else { request.lease },
            }),
        );
        pb::PutResponse { header: None, prev_kv: old.filter(|_| request.prev_kv) }
    }

    fn delete_range(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let keys: Vec<_> =
            self.live.keys().filter(|key| within(key, &request.key, &request.range_end)).cloned().collect();
        let mut response = pb::DeleteRangeResponse { deleted: keys.len() as i64, ..Default::default() };
        for key in keys {
            let old = self.delete(&key).expect("a live key");
            if request.prev_kv {
                response.prev_kvs.push(old);
            }
        }
        response
    }

    fn check_txn(&self, before: &Keys, request: &pb::TxnRequest) -> Result<(), Refusal> {
        for op in branch(before, request) {
            match op.request.as_ref().expect("validated") {
                Request::RequestRange(r) if r.revision > self.revision => {
                    return Err(Refusal::FutureRevision);
                }
                Request::RequestRange(r) if r.revision != 0 && r.revision < self.compacted => {
                    return Err(Refusal::Compacted);
                }
                Request::RequestPut(r) => self.check_put(before, r)?,
                Request::RequestTxn(r) => self.check_txn(before, r)?,
                Request::RequestRange(_) | Request::RequestDeleteRange(_) => {}
            }
        }
        Ok(())
    }

    fn run_txn(&mut self, before: &Keys, request: &pb::TxnRequest) -> pb::TxnResponse {
        let mut responses = vec![];
        for op in branch(before, request) {
            let response = match op.request.as_ref().expect("validated") {
                Request::RequestRange(r) => {
                    let mut response = self.range(r).expect("checked");
                    response.header = self.header();
                    response_op::Response::ResponseRange(response)
                }
                Request::RequestPut(r) => {
                    let mut response = self.put(r);
                    response.header = self.header();
                    response_op::Response::ResponsePut(response)
                }
                Request::RequestDeleteRange(r) => {
                    let mut response = self.delete_range(r);
                    response.header = self.header();
                    response_op::Response::ResponseDeleteRange(response)
                }
                Request::RequestTxn(r) => {
                    let mut response = self.run_txn(before, r);
                    response.header = Some(pb::ResponseHeader::default());
                    response_op::Response::ResponseTxn(response)
                }
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        pb::TxnResponse { header: None, succeeded: succeeds(before, request), responses }
    }

    /// A transaction that only reads, answered without the log.
    pub fn read_txn(&self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Refusal> {
        self.check_txn(&self.live, request)?;
        Ok(self.clone().run_txn(&self.live, request))
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { revision: self.pending(), ..Default::default() })
    }

    /// §2.4 of the reference, one rule after the other.
    pub fn range(&self, r: &pb::RangeRequest) -> Result<pb::RangeResponse, Refusal> {
        if r.revision > self.pending() {
            return Err(Refusal::FutureRevision);
        }
        if r.revision > 0 && r.revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        let keys = self.at(if r.revision <= 0 { i64::MAX } else { r.revision });
        let mut kvs: Vec<_> = keys.into_values().map(|(_, kv)| kv).collect();
        kvs.retain(|kv| within(&kv.key, &r.key, &r.range_end));
        let count = kvs.len() as i64;
        if r.count_only {
            return Ok(pb::RangeResponse { count, ..Default::default() });
        }
        let filtered =
            [r.min_mod_revision, r.max_mod_revision, r.min_create_revision, r.max_create_revision] != [0; 4];
        let limit = if r.limit > 0 { r.limit as usize } else { usize::MAX };
        if !filtered && (r.sort_order == 0 || r.sort_order == 1 && r.sort_target == 0) {
            kvs.truncate(limit.saturating_add(1));
        }
        kvs.retain(|kv| {
            (r.max_mod_revision == 0 || kv.mod_revision <= r.max_mod_revision)
                && (r.min_mod_revision == 0 || kv.mod_revision >= r.min_mod_revision)
                && (r.max_create_revision == 0 || kv.create_revision <= r.max_create_revision)
                && (r.min_create_revision == 0 || kv.create_revision >= r.min_create_revision)
        });
        let order = |a: &KeyValue, b: &KeyValue| match r.sort_target {
            0 => a.key.cmp(&b.key),
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            _ => a.value.cmp(&b.value),
        };
        // Equal ones stay in the order of their keys; etcd leaves theirs to chance.
        if r.sort_order == 2 {
            kvs.sort_by(|a, b| order(b, a));
        } else {
            kvs.sort_by(order);
        }
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        if r.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                if r.sort_target != 4 {
                    kv.lease = 0;
                }
            }
        }
        Ok(pb::RangeResponse { header: None, kvs, more, count })
    }

    fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        self.compacted = revision;
        let newest = self.newest(revision);
        self.rows.retain(|row| {
            let at = row.revision;
            at.main > revision || newest[&row.key] == at && (row.put.is_some() || at.main == revision)
        });
        Ok(())
    }

    /// A restore that raises the revision: an empty record, and all before it compacted.
    pub fn bump(&mut self, by: i64) {
        let latest = self.rows.last().map_or(0, |row| row.revision.main);
        let revision = Revision { main: latest + by, sub: 0 };
        let (key, kv) = (Bytes::new(), KeyValue::default());
        self.live.insert(key.clone(), (revision, kv.clone()));
        self.rows.push(Row { revision, key, put: Some(kv) });
        self.revision = self.compacted.max(revision.main);
        if revision.main > self.compacted {
            self.compact(revision.main).expect("above the last one");
        }
    }

    fn newest(&self, revision: i64) -> BTreeMap<Bytes, Revision> {
        let rows = self.rows.iter().filter(|row| row.revision.main <= revision);
        rows.map(|row| (row.key.clone(), row.revision)).collect()
    }

    /// §9.5 of the reference.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, Refusal> {
        if revision > 0 && revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        let hash_revision = if revision == 0 { self.revision } else { revision };
        let newest = self.newest(hash_revision);
        let live =
            self.rows.iter().filter(|row| row.put.is_some() && newest.get(&row.key) == Some(&row.revision));
        let keep: BTreeSet<_> = live.clone().map(|row| row.revision).collect();
        // A key that this very revision deleted and put again is live, but not enough to make a difference.
        let deleted_here = |key: &Bytes| {
            let mut rows = self.rows.iter().filter(|row| row.revision.main == hash_revision);
            rows.any(|row| row.put.is_none() && row.key == key)
        };
        let any_live = live.clone().any(|row| !deleted_here(&row.key));
        let mut bytes = b"key".to_vec();
        for row in &self.rows {
            let (at, tombstone) = (row.revision, row.put.is_none());
            let skipped = at.main > hash_revision
                || at.main <= self.compacted && any_live && !keep.contains(&at)
                || at.main == self.compacted && tombstone;
            if !skipped {
                bytes.extend_from_slice(at.to_key(tombstone).as_ref());
                bytes.extend_from_slice(&row.encoded());
            }
        }
        let hash = crc32c::crc32c(&bytes);
        Ok(HashKv { hash, compact_revision: self.compacted, hash_revision, current: self.revision })
    }
}

pub fn within(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == start,
        [0] => key >= start,
        end => key >= start && key < end,
    }
}

fn has_put(request: &pb::TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(request)) => has_put(request),
        _ => false,
    })
}

fn branch<'r>(before: &Keys, request: &'r pb::TxnRequest) -> &'r [pb::RequestOp] {
    if succeeds(before, request) { &request.success } else { &request.failure }
}

fn succeeds(before: &Keys, request: &pb::TxnRequest) -> bool {
    request.compare.iter().all(|c| {
        let mut kvs: Vec<_> = before
            .values()
            .map(|(_, kv)| kv.clone())
            .filter(|kv| within(&kv.key, &c.key, &c.range_end))
            .collect();
        if kvs.is_empty() {
            if c.target == 3 {
                return false;
            }
            kvs.push(KeyValue::default());
        }
        kvs.iter().all(|kv| {
            let zero = |n: i64| n.cmp(&0);
            let ordering = match (c.target, c.target_union.as_ref()) {
                (0, Some(TargetUnion::Version(n))) => kv.version.cmp(n),
                (0, _) => zero(kv.version),
                (1, Some(TargetUnion::CreateRevision(n))) => kv.create_revision.cmp(n),
                (1, _) => zero(kv.create_revision),
                (2, Some(TargetUnion::ModRevision(n))) => kv.mod_revision.cmp(n),
                (2, _) => zero(kv.mod_revision),
                (3, Some(TargetUnion::Value(v))) => kv.value.cmp(v),
                (3, _) => kv.value.cmp(&Bytes::new()),
                (4, Some(TargetUnion::Lease(n))) => kv.lease.cmp(n),
                (4, _) => zero(kv.lease),
                _ => Ordering::Equal,
            };
            match c.result {
                0 => ordering == Ordering::Equal,
                1 => ordering == Ordering::Greater,
                2 => ordering == Ordering::Less,
                3 => ordering != Ordering::Equal,
                _ => true,
            }
        })
    })
}
