//! A source of commands: all kinds, sensible and not, as the API layer would let them pass.

use bytes::Bytes;
use prost::Message;
use proto::command::{ClusterVersion, Command, Downgrade, MemberAttributes, command::Op};
use proto::etcdserverpb::{self as pb, compare::TargetUnion, request_op::Request};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use state::{EntryBody, Node, validate};

/// Some of these exist at any time; the last two sit at the ends of the order of their rows.
const LEASES: [i64; 6] = [1, 2, 3, -7, i64::MAX, -1];
/// Of these some are in each membership.
pub const MEMBERS: [u64; 3] = [3, 0x8e9e05c52164694d, 0x2e1259d415f2a040];

pub struct Generator {
    pub rng: StdRng,
    keys: Vec<Bytes>,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let keys = match rng.random_range(0..4) {
            0 | 1 => 8,
            2 => 60,
            _ => 3000,
        };
        let mut keys: Vec<Bytes> = (0..keys).map(|n| format!("/registry/pods/{n:05}").into()).collect();
        keys.extend([Bytes::from_static(&[0]), Bytes::from_static(&[0xff; 3]), "a".into(), "a\0".into()]);
        Self { rng, keys }
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    pub fn key(&mut self) -> Bytes {
        // A few keys are changed again and again, so that they have a history.
        let among = if self.chance(50) { self.keys.len().min(6) } else { self.keys.len() };
        self.keys[self.rng.random_range(0..among)].clone()
    }

    /// A key and a range end.
    pub fn span(&mut self) -> (Bytes, Bytes) {
        match self.rng.random_range(0..20) {
            0..8 => (self.key(), Bytes::new()),
            8..14 => (self.key(), self.key()),
            14..16 => (self.key(), Bytes::from_static(&[0])),
            16..18 => ("/registry/pods/0".into(), "/registry/pods/1".into()),
            _ => (Bytes::from_static(&[0]), Bytes::from_static(&[0])),
        }
    }

    /// Like [`Self::span`], but seldom everything.
    fn small_span(&mut self) -> (Bytes, Bytes) {
        let (start, end) = self.span();
        if end.is_empty() || self.chance(15) {
            return (start, end);
        }
        let at = self.rng.random_range(0..self.keys.len());
        let to = (at + self.rng.random_range(0..6)).min(self.keys.len() - 1);
        (self.keys[at].clone(), self.keys[to].clone())
    }

    pub fn revision(&mut self, current: i64) -> i64 {
        if self.chance(40) { 0 } else { self.rng.random_range(-3..=current + 2) }
    }

    fn lease(&mut self) -> i64 {
        LEASES[self.rng.random_range(0..LEASES.len())]
    }

    fn value(&mut self) -> Bytes {
        let len = match self.rng.random_range(0..20) {
            0 => self.rng.random_range(1000..6000),
            1..8 => 1,
            _ => self.rng.random_range(0..40),
        };
        (0..len).map(|_| self.rng.random_range(b'a'..b'e')).collect()
    }

    pub fn entry(&mut self, current: i64) -> EntryBody {
        let op = match self.rng.random_range(0..200) {
            0..70 => Op::Put(self.put()),
            70..90 => Op::DeleteRange(self.delete_range()),
            90..150 => Op::Txn(self.txn(current)),
            150..156 => {
                let revision =
                    if self.chance(30) { current } else { self.rng.random_range(-2..=current + 1) };
                Op::Compaction(pb::CompactionRequest { revision, physical: false })
            }
            156..168 => {
                let ttl = if self.chance(5) { 9_000_000_001 } else { self.rng.random_range(2..1000) };
                let id = if self.chance(3) { 0 } else { self.lease() };
                Op::LeaseGrant(pb::LeaseGrantRequest { id, ttl })
            }
            168..174 => Op::LeaseRevoke(pb::LeaseRevokeRequest { id: self.lease() }),
            174..178 => {
                let mut one = || pb::LeaseCheckpoint {
                    id: self.lease(),
                    remaining_ttl: self.rng.random_range(0..1000),
                };
                Op::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints: vec![one(), one()] })
            }
            178..188 => {
                // Seldom raised and often cleared, or nothing would happen any more.
                let action = match self.rng.random_range(0..25) {
                    0 => 1,
                    1..6 => 0,
                    _ => 2,
                };
                let alarm = self.rng.random_range(if action == 2 { 1 } else { 0 }..3);
                Op::Alarm(pb::AlarmRequest { action, member_id: self.rng.random_range(1..3), alarm })
            }
            188..190 => Op::MemberAttributes(MemberAttributes {
                member_id: MEMBERS[self.rng.random_range(0..3)],
                name: if self.chance(20) { String::new() } else { "m\"<1>".into() },
                client_urls: vec!["http://127.0.0.1:2379".into()],
            }),
            190..192 => {
                let version = ["3.0.0", "3.6.0", "3.7.0"][self.rng.random_range(0..3)];
                Op::ClusterVersion(ClusterVersion { version: version.into() })
            }
            192 => {
                let target_version = if self.chance(50) { String::new() } else { "3.6.0".into() };
                Op::Downgrade(Downgrade { target_version })
            }
            193..196 => return self.membership(),
            _ => return EntryBody::Blank,
        };
        EntryBody::Command(Command { op: Some(op) }.encode_to_vec().into())
    }

    fn membership(&mut self) -> EntryBody {
        let mut nodes = vec![];
        for id in MEMBERS {
            if self.chance(70) {
                nodes.push(Node {
                    id,
                    name: if self.chance(50) { "n".into() } else { String::new() },
                    peer_urls: vec![format!("http://host-{id}:2380")],
                    learner: self.chance(20),
                });
            }
        }
        EntryBody::Membership { opaque: self.value(), nodes }
    }

    fn put(&mut self) -> pb::PutRequest {
        let mut request = pb::PutRequest {
            key: self.key(),
            prev_kv: self.chance(30),
            ignore_value: self.chance(10),
            ignore_lease: self.chance(10),
            ..Default::default()
        };
        if !request.ignore_value {
            request.value = self.value();
        }
        if !request.ignore_lease && self.chance(30) {
            request.lease = self.lease();
        }
        request
    }

    fn delete_range(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = self.small_span();
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.chance(30) }
    }

    pub fn range(&mut self, current: i64) -> pb::RangeRequest {
        let (key, range_end) = self.span();
        let mut request = pb::RangeRequest {
            key,
            range_end,
            revision: self.revision(current),
            keys_only: self.chance(20),
            count_only: self.chance(15),
            ..Default::default()
        };
        if self.chance(50) {
            request.limit = self.rng.random_range(-1..12);
        }
        if self.chance(40) {
            request.sort_order = self.rng.random_range(0..3);
            request.sort_target = self.rng.random_range(0..5);
        }
        if self.chance(20) {
            let mut bound = || if self.chance(50) { 0 } else { self.rng.random_range(-1..=current + 1) };
            request.min_mod_revision = bound();
            request.max_mod_revision = bound();
            request.min_create_revision = bound();
            request.max_create_revision = bound();
        }
        request
    }

    /// A transaction that passes validation.
    pub fn txn(&mut self, current: i64) -> pb::TxnRequest {
        loop {
            let request = self.any_txn(current, 2, false);
            if validate::txn(&request, 128).is_ok() {
                return request;
            }
        }
    }

    /// A transaction of ranges alone.
    pub fn read_txn(&mut self, current: i64) -> pb::TxnRequest {
        self.any_txn(current, 0, true)
    }

    /// A transaction that may change a key twice.
    pub fn any_txn(&mut self, current: i64, depth: u32, reads: bool) -> pb::TxnRequest {
        let mut list = |max| -> Vec<pb::RequestOp> {
            (0..self.rng.random_range(0..max)).map(|_| self.operation(current, depth, reads)).collect()
        };
        let (success, failure) = (list(5), list(4));
        let compare = (0..self.rng.random_range(0..3)).map(|_| self.compare(current)).collect();
        pb::TxnRequest { compare, success, failure }
    }

    fn operation(&mut self, current: i64, depth: u32, reads: bool) -> pb::RequestOp {
        let request = match self.rng.random_range(0..10) {
            _ if reads => Request::RequestRange(self.range(current)),
            0..4 => Request::RequestPut(self.put()),
            4..6 => Request::RequestDeleteRange(self.delete_range()),
            6..8 if depth > 0 => Request::RequestTxn(self.any_txn(current, depth - 1, false)),
            _ => Request::RequestRange(self.range(current)),
        };
        pb::RequestOp { request: Some(request) }
    }

    fn compare(&mut self, current: i64) -> pb::Compare {
        let (key, range_end) = self.small_span();
        let revision = if self.chance(30) { 0 } else { self.rng.random_range(0..=current) };
        let target = self.rng.random_range(0..5);
        let named = if self.chance(95) { target } else { self.rng.random_range(0..5) };
        let target_union = match named {
            0 => TargetUnion::Version(self.rng.random_range(0..4)),
            1 => TargetUnion::CreateRevision(revision),
            2 => TargetUnion::ModRevision(revision),
            3 => TargetUnion::Value(self.value()),
            _ => TargetUnion::Lease(if self.chance(50) { 0 } else { self.lease() }),
        };
        let results = if self.chance(3) { 6 } else { 4 };
        let result = self.rng.random_range(0..results);
        pb::Compare {
            result,
            target,
            key,
            range_end,
            target_union: Some(target_union).filter(|_| self.chance(95)),
        }
    }
}
