//! Makes up the next step of a history, valid or not.
//!
//! Everything follows from the seed and from what the reference member
//! answered, which is itself a function of the steps: the same seed gives the
//! same history again.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::step::{Answer, Call, Outcome, Step};

/// How many watch streams are open at a time.
pub const STREAMS: usize = 3;
/// A TTL that does not run out during a history.
const TTL_LONG: std::ops::Range<i64> = 100_000..200_000;

/// The source of steps, and what it knows of the store.
pub struct Generator {
    random: StdRng,
    /// Steps that have to come next.
    queued: VecDeque<Step>,
    revision: i64,
    compacted: i64,
    leases: BTreeSet<i64>,
    values: u64,
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator {
            random: StdRng::seed_from_u64(seed),
            queued: VecDeque::new(),
            revision: 1,
            compacted: 0,
            leases: BTreeSet::new(),
            values: 0,
        }
    }

    /// The store's revision as far as the history shows.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Learns from what the reference answered.
    pub fn learn(&mut self, call: &Call, outcome: &Outcome) {
        let Ok(answer) = outcome else { return };
        if let Some(header) = answer.clone().headers_mut().last() {
            self.revision = self.revision.max(header.revision);
        }
        match (call, answer) {
            (Call::Compact(request), _) => self.compacted = request.revision,
            (Call::Grant(_), Answer::Grant(granted)) => {
                self.leases.insert(granted.id);
            }
            (Call::Revoke(request), _) => {
                self.leases.remove(&request.id);
            }
            _ => {}
        }
    }

    /// The next step.
    pub fn step(&mut self) -> Step {
        if let Some(step) = self.queued.pop_front() {
            return step;
        }
        match self.random.random_range(0..2000) {
            0..500 => Step::Call(Call::Put(self.put())),
            500..900 => Step::Call(Call::Range(self.range())),
            900..1020 => Step::Call(Call::Delete(self.delete())),
            1020..1420 => {
                let mut txn = self.txn(3);
                if deletes_to_the_end(&txn) {
                    keep_nothing(&mut txn);
                }
                Step::Call(Call::Txn(txn))
            }
            1420..1500 => {
                let mut range = self.range();
                if range.sort_order == 0 {
                    // etcd goes on after the last key of rows that are not in key order.
                    range.sort_target = 0;
                }
                Step::Call(Call::RangeStream(range))
            }
            1500..1525 => Step::Call(Call::Compact(self.compaction())),
            1525..1575 => self.grant(),
            1575..1605 => Step::Call(Call::Revoke(LeaseRevokeRequest { id: self.lease() })),
            1605..1650 => {
                let request = LeaseTimeToLiveRequest { id: self.lease(), keys: self.chance(0.6) };
                Step::Call(Call::TimeToLive(request))
            }
            1650..1665 => Step::Call(Call::KeepAlive(self.lease())),
            1665..1685 => Step::Call(Call::Leases),
            1685..1760 => Step::Call(Call::HashKv(HashKvRequest { revision: self.revision_asked() })),
            1760..1768 => self.alarm(),
            1768..1775 => Step::Call(Call::Status),
            1775..1780 => Step::Call(Call::Members { linearizable: self.chance(0.5) }),
            1780..1785 => {
                let service = if self.chance(0.7) { String::new() } else { "etcdserverpb.KV".to_owned() };
                Step::Call(Call::Health { service })
            }
            1785..1900 => Step::Watch { stream: self.stream(), create: self.watch() },
            1900..1940 => Step::Cancel { stream: self.stream(), id: self.random.random_range(-1..8) },
            1940..1955 => Step::Progress { stream: self.stream() },
            1955..1962 => Step::Reopen { stream: self.stream() },
            1962 => {
                let id = 7_000 + self.revision;
                Step::Expire { id, keys: self.random.random_range(0..4) }
            }
            1963 => Step::Restart { kill: self.chance(0.5) },
            _ => Step::Call(Call::Txn(self.txn_of_many())),
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    fn stream(&mut self) -> usize {
        self.random.random_range(0..STREAMS)
    }

    /// One of a few keys, close to each other and at the edges of what a key can be.
    pub fn key(&mut self) -> Bytes {
        const EDGES: [&[u8]; 10] =
            [b"a", b"a\0", b"aa", b"ab", b"b", b"\0", b"\x01", b"\xfe", b"\xff", b"\xff\xff"];
        match self.random.random_range(0..100) {
            0..2 => Bytes::new(),
            2..40 => Bytes::from_static(EDGES[self.random.random_range(0..EDGES.len())]),
            _ => format!("k/{:02}", self.random.random_range(0..20)).into(),
        }
    }

    /// A key and the end of a range: one key, a prefix, everything, nothing, upside down.
    fn span(&mut self) -> (Bytes, Bytes) {
        match self.random.random_range(0..100) {
            0..40 => (self.key(), Bytes::new()),
            40..55 => (Bytes::from_static(b"k/"), Bytes::from_static(b"k0")),
            55..65 => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            65..75 => (self.key(), Bytes::from_static(b"\0")),
            _ => (self.key(), self.key()),
        }
    }

    fn value(&mut self) -> Bytes {
        self.values += 1;
        match self.random.random_range(0..100) {
            0..5 => Bytes::new(),
            // Few enough that compares and sorts by value find equals.
            5..60 => format!("v{}", self.random.random_range(0..8)).into(),
            60..98 => format!("value {}", self.values).into(),
            _ => vec![b'x'; self.random.random_range(1_000..40_000)].into(),
        }
    }

    fn lease(&mut self) -> i64 {
        match self.random.random_range(0..100) {
            0..75 if !self.leases.is_empty() => {
                let at = self.random.random_range(0..self.leases.len());
                *self.leases.iter().nth(at).expect("the index is within")
            }
            0..95 => self.random.random_range(-3..12),
            _ => 0,
        }
    }

    /// A revision as a request names it: none, past, compacted, future, negative.
    fn revision_asked(&mut self) -> i64 {
        let (first, last) = (self.compacted.max(1), self.revision);
        match self.random.random_range(0..100) {
            0..55 => 0,
            55..85 => self.random.random_range(first..=last.max(first)),
            85..90 => last + self.random.random_range(0..4),
            90..96 => self.compacted + self.random.random_range(-2..3),
            _ => -self.random.random_range(1..5_i64),
        }
    }

    fn put(&mut self) -> PutRequest {
        let mut put = PutRequest { key: self.key(), value: self.value(), ..PutRequest::default() };
        put.prev_kv = self.chance(0.3);
        put.ignore_value = self.chance(0.08);
        if put.ignore_value && self.chance(0.8) {
            put.value = Bytes::new();
        }
        put.ignore_lease = self.chance(0.08);
        if self.chance(if put.ignore_lease { 0.1 } else { 0.25 }) {
            put.lease = self.lease();
        }
        put
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = self.span();
        DeleteRangeRequest { key, range_end, prev_kv: self.chance(0.4) }
    }

    fn range(&mut self) -> RangeRequest {
        let (key, range_end) = self.span();
        let mut range =
            RangeRequest { key, range_end, revision: self.revision_asked(), ..RangeRequest::default() };
        range.limit = match self.random.random_range(0..100) {
            0..60 => 0,
            60..94 => self.random.random_range(1..9),
            94..97 => -1,
            _ => i64::MAX,
        };
        if self.chance(0.5) {
            range.sort_order = self.random.random_range(0..3);
        } else if self.chance(0.03) {
            range.sort_order = if self.chance(0.5) { 3 } else { -1 };
        }
        if self.chance(0.4) {
            range.sort_target = self.random.random_range(0..5);
        } else if self.chance(0.03) {
            range.sort_target = if self.chance(0.5) { 5 } else { -1 };
        }
        range.serializable = self.chance(0.2);
        range.keys_only = self.chance(0.15);
        range.count_only = self.chance(0.08);
        for at in 0..4 {
            if self.chance(0.06) {
                let bound = self.random.random_range(-1..=self.revision + 1);
                match at {
                    0 => range.min_mod_revision = bound,
                    1 => range.max_mod_revision = bound,
                    2 => range.min_create_revision = bound,
                    _ => range.max_create_revision = bound,
                }
            }
        }
        range
    }

    fn compare(&mut self) -> Compare {
        let key = self.key();
        let number = match self.random.random_range(0..3) {
            0 => self.random.random_range(0..4),
            1 => self.revision,
            _ => self.random.random_range(0..=self.revision),
        };
        let target = self.random.random_range(0..5);
        let union = match target {
            0 => TargetUnion::Version(number),
            1 => TargetUnion::CreateRevision(number),
            2 => TargetUnion::ModRevision(number),
            3 => TargetUnion::Value(self.value()),
            _ => TargetUnion::Lease(self.lease()),
        };
        let mut compare = Compare { key, target, target_union: Some(union), ..Compare::default() };
        compare.result = self.random.random_range(0..4);
        if self.chance(0.03) {
            compare.target_union = None;
        }
        if self.chance(0.02) {
            compare.result = 9;
        }
        if self.chance(0.25) {
            (compare.key, compare.range_end) = self.span();
        }
        compare
    }

    fn txn(&mut self, depth: u32) -> TxnRequest {
        let compares = [0, 0, 1, 1, 2, 3][self.random.random_range(0..6)];
        let compare = (0..compares).map(|_| self.compare()).collect();
        TxnRequest { compare, success: self.ops(depth), failure: self.ops(depth) }
    }

    fn ops(&mut self, depth: u32) -> Vec<RequestOp> {
        let ops = self.random.random_range(0..5);
        (0..ops).map(|_| self.op(depth)).collect()
    }

    fn op(&mut self, depth: u32) -> RequestOp {
        let request = match self.random.random_range(0..200) {
            0..80 => Request::RequestPut(self.put()),
            80..140 => Request::RequestRange(self.range()),
            140..165 => Request::RequestDeleteRange(self.delete()),
            165..199 if depth > 0 => Request::RequestTxn(self.txn(depth - 1)),
            165..199 => Request::RequestPut(self.put()),
            _ => return RequestOp { request: None },
        };
        RequestOp { request: Some(request) }
    }

    /// A transaction around the limit of operations.
    fn txn_of_many(&mut self) -> TxnRequest {
        let ops = self.random.random_range(100..132);
        let put = |at: usize| {
            let put = PutRequest { key: format!("many/{at:03}").into(), ..PutRequest::default() };
            RequestOp { request: Some(Request::RequestPut(put)) }
        };
        let mut txn = TxnRequest { success: (0..ops).map(put).collect(), ..TxnRequest::default() };
        if self.chance(0.3) {
            let nested = TxnRequest { success: (200..220).map(put).collect(), ..TxnRequest::default() };
            txn.success.push(RequestOp { request: Some(Request::RequestTxn(nested)) });
        }
        let clean = DeleteRangeRequest { key: "many/".into(), range_end: "many0".into(), prev_kv: false };
        self.queued.push_back(Step::Call(Call::Delete(clean)));
        txn
    }

    fn compaction(&mut self) -> CompactionRequest {
        let revision = match self.random.random_range(0..100) {
            0..80 => self.random.random_range(self.compacted..=self.revision.max(self.compacted)),
            80..88 => self.revision + self.random.random_range(0..3),
            88..95 => self.compacted - self.random.random_range(0..3),
            _ => -self.random.random_range(0..3_i64),
        };
        // etcd remembers a hash under revision 0 if it is compacted to 0, and gives it for ever as the current one.
        let revision = if revision == 0 { 1 } else { revision };
        CompactionRequest { revision, physical: self.chance(0.5) }
    }

    fn grant(&mut self) -> Step {
        // Id 0 would let each member choose its own.
        let id = [1, 2, 3, 4, 5, 6, 7, 8, -1, -2][self.random.random_range(0..10)];
        let ttl = match self.random.random_range(0..20) {
            0 => [0, -5, 1, 2][self.random.random_range(0..4)],
            1 => [9_000_000_000, 9_000_000_001, i64::MAX][self.random.random_range(0..3)],
            _ => self.random.random_range(TTL_LONG),
        };
        if ttl < 10 {
            // A short one goes before its clock can matter.
            self.queued.push_back(Step::Call(Call::Revoke(LeaseRevokeRequest { id })));
        }
        Step::Call(Call::Grant(LeaseGrantRequest { ttl, id }))
    }

    /// An alarm is raised, felt and cleared.
    fn alarm(&mut self) -> Step {
        let request = |action, alarm, member_id| AlarmRequest { action, member_id, alarm };
        let (alarm, member_id) = (self.random.random_range(0..3), self.random.random_range(1..3));
        for _ in 0..self.random.random_range(0..6) {
            let call = match self.random.random_range(0..6) {
                0 => Call::Range(self.range()),
                1 => Call::Delete(self.delete()),
                2 => {
                    let mut txn = self.txn(1);
                    keep_nothing(&mut txn);
                    Call::Txn(txn)
                }
                3 => Call::Status,
                4 => Call::Revoke(LeaseRevokeRequest { id: self.lease() }),
                _ => Call::Put(self.put()),
            };
            self.queued.push_back(Step::Call(call));
        }
        let id = 99;
        self.queued.push_back(Step::Call(Call::Grant(LeaseGrantRequest { ttl: 100_000, id })));
        self.queued.push_back(Step::Call(Call::Alarm(request(0, self.random.random_range(0..3), 0))));
        for alarm in [1, 2] {
            self.queued.push_back(Step::Call(Call::Alarm(request(2, alarm, member_id))));
        }
        self.queued.push_back(Step::Call(Call::Revoke(LeaseRevokeRequest { id })));
        Step::Call(Call::Alarm(request(1, alarm, member_id)))
    }

    fn watch(&mut self) -> WatchCreateRequest {
        let (key, range_end) = self.span();
        let mut create = WatchCreateRequest { key, range_end, ..WatchCreateRequest::default() };
        create.start_revision = match self.random.random_range(0..100) {
            0..40 => 0,
            40..70 => self.revision_asked(),
            70..80 => self.revision + self.random.random_range(0..20),
            80..90 => self.compacted + self.random.random_range(-1..2),
            _ => self.random.random_range(self.compacted..=self.revision.max(self.compacted)),
        };
        create.prev_kv = self.chance(0.4);
        create.fragment = self.chance(0.2);
        if self.chance(0.3) {
            create.filters =
                (0..self.random.random_range(1..3)).map(|_| self.random.random_range(0..2)).collect();
        }
        if self.chance(0.15) {
            create.watch_id = [1, 2, 3, 100, -7][self.random.random_range(0..5)];
        }
        create
    }
}

/// Whether an open-ended range is deleted anywhere in it: etcd then misses that a put of the same
/// transaction has nothing left to keep, and panics (`tests/differences.md`).
fn deletes_to_the_end(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Request::RequestDeleteRange(delete)) => delete.range_end == b"\0"[..],
        Some(Request::RequestTxn(nested)) => deletes_to_the_end(nested),
        _ => false,
    })
}

/// Its puts bring their own values and leases.
fn keep_nothing(txn: &mut TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestPut(put)) => (put.ignore_value, put.ignore_lease) = (false, false),
            Some(Request::RequestTxn(nested)) => keep_nothing(nested),
            _ => {}
        }
    }
}
