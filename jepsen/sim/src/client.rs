//! Clients: what they ask, and what they may be answered.
//!
//! Whoever asks remembers the highest revision that anybody had been told of
//! before. The answer must not be older, and a write must be newer: revisions
//! number all writes, so that with what the [`Oracle`] checks of every read this
//! is linearizability.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use proto::command::command::Op;
use proto::etcdserverpb::{
    self as pb,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};
use proto::mvccpb::KeyValue;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use server::error::Unavailable;
use server::node::{Applied, Encoded, Failure, Node};
use state::{KeyRange, Query, Response, mvcc::View};

use crate::mutant::Mutant;
use crate::net::Id;
use crate::oracle::Oracle;
use crate::time::Nanos;

/// How many keys there are.
const KEYS: u64 = 12;

/// What a client asks for.
#[derive(Debug, Clone)]
pub enum Ask {
    /// A command, and the value it writes, if one.
    Write(Op, Option<Bytes>),
    /// The newest of all keys.
    Read,
    /// The newest of all keys, however old.
    ReadAnyhow,
    /// A lease is to go on.
    KeepAlive(i64),
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    /// A write took place, or was refused by all: the revision, and whether it changed anything.
    Written { revision: i64, changed: bool },
    /// Rows at a revision.
    Rows { revision: i64, rows: Vec<KeyValue> },
    /// A lease goes on for so many seconds; 0: there is none.
    Alive(i64),
    /// All members refuse it: it changed nothing.
    Refused,
    /// For sure nothing took place.
    Not,
    /// Nobody knows.
    Unknown,
}

/// A question under way.
#[derive(Debug)]
pub struct Asked {
    /// By whom.
    pub client: usize,
    /// Which of its questions.
    pub number: u64,
    /// What for.
    pub ask: Ask,
    /// Of whom.
    pub host: Id,
    /// The highest revision anybody had been told of.
    pub since: i64,
    /// When.
    pub at: Nanos,
}

/// Where answers arrive.
pub type Answers = Arc<Mutex<Vec<(Asked, Answer)>>>;

/// Thinks of something to ask.
pub fn think(random: &mut StdRng, oracle: &Oracle, unique: &mut u64, leases: &[i64]) -> Ask {
    *unique += 1;
    let value = Bytes::from(format!("v{unique}"));
    let key = key(random);
    match random.random_range(0..100) {
        0..25 => Ask::Read,
        25..32 => Ask::ReadAnyhow,
        32..60 => {
            let lease = leases.get(random.random_range(0..4)).copied().unwrap_or(0);
            // Sometimes long, so that files of the log fill up.
            let mut bytes = value.to_vec();
            if random.random_bool(0.1) {
                bytes.resize(random.random_range(1_000..6_000), b'.');
            }
            let value = Bytes::from(bytes);
            let put = pb::PutRequest { key, value: value.clone(), lease, ..Default::default() };
            Ask::Write(Op::Put(put), Some(value))
        }
        60..80 => txn(random, oracle, key, value),
        80..86 => Ask::Write(Op::DeleteRange(pb::DeleteRangeRequest { key, ..Default::default() }), None),
        86..88 => {
            let all = pb::DeleteRangeRequest { key: "k0".into(), range_end: "k5".into(), prev_kv: false };
            Ask::Write(Op::DeleteRange(all), None)
        }
        88..90 => {
            let revision = oracle.told() - random.random_range(0..60);
            Ask::Write(
                Op::Compaction(pb::CompactionRequest { revision: revision.max(1), physical: false }),
                None,
            )
        }
        90..93 => {
            let id = random.random_range(1..1_000_000);
            Ask::Write(Op::LeaseGrant(pb::LeaseGrantRequest { id, ttl: random.random_range(2..12) }), None)
        }
        93..94 if !leases.is_empty() => {
            let id = leases[random.random_range(0..leases.len())];
            Ask::Write(Op::LeaseRevoke(pb::LeaseRevokeRequest { id }), None)
        }
        _ if !leases.is_empty() => Ask::KeepAlive(leases[random.random_range(0..leases.len())]),
        _ => Ask::Read,
    }
}

fn key(random: &mut impl Rng) -> Bytes {
    format!("k{:x}", random.random_range(0..KEYS)).into()
}

/// All keys.
pub fn everything() -> KeyRange {
    KeyRange::parse("k".into(), "l".into())
}

/// A compare and set, and something beside it.
fn txn(random: &mut StdRng, oracle: &Oracle, key: Bytes, value: Bytes) -> Ask {
    let known = oracle.model.at(&KeyRange::Single(key.clone()), oracle.told());
    let revision = known.first().map_or(0, |kv| kv.mod_revision);
    let compare = pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Default::default()
    };
    let operation = |request| pb::RequestOp { request: Some(request) };
    let put = pb::PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
    let mut success = vec![operation(Request::RequestPut(put))];
    if random.random_bool(0.4) {
        let other = self::key(random);
        if other != key {
            let delete = pb::DeleteRangeRequest { key: other, ..Default::default() };
            success.push(operation(Request::RequestDeleteRange(delete)));
        }
    }
    let range = pb::RangeRequest { key, ..Default::default() };
    let failure = vec![operation(Request::RequestRange(range))];
    Ask::Write(Op::Txn(pb::TxnRequest { compare: vec![compare], success, failure }), Some(value))
}

/// Asks a member; the answer arrives with the others.
pub async fn ask(node: Node, asked: Asked, answers: Answers, mutant: Option<Mutant>) {
    let answer = match &asked.ask {
        Ask::Read if mutant == Some(Mutant::ReadWithoutIndex) => rows(&node.serializable_view()),
        Ask::Write(op, _) => match propose(&node, op, mutant).await {
            Ok(applied) => {
                let changed = match &applied.response {
                    Response::Txn(txn) => txn.succeeded,
                    Response::DeleteRange(deleted) => deleted.deleted > 0,
                    Response::Put(_) => true,
                    _ => false,
                };
                Answer::Written { revision: applied.revision, changed }
            }
            Err(Failure::Refusal(_)) => Answer::Refused,
            Err(Failure::Unavailable(
                Unavailable::NoLeader | Unavailable::NotLeader { .. } | Unavailable::TooManyRequests,
            )) => Answer::Not,
            Err(_) => Answer::Unknown,
        },
        Ask::Read => match node.linearizable_view().await {
            Ok(view) => rows(&view),
            Err(_) => Answer::Not,
        },
        Ask::ReadAnyhow => rows(&node.serializable_view()),
        Ask::KeepAlive(id) => match server::lessor::renew(&node, *id).await {
            Ok(ttl) => Answer::Alive(ttl),
            Err(_) => Answer::Not,
        },
    };
    answers.lock().push((asked, answer));
}

async fn propose(node: &Node, op: &Op, mutant: Option<Mutant>) -> Result<Applied, Failure> {
    match node.propose(Encoded::new(op.clone())).await {
        Err(Failure::Unavailable(_)) if mutant == Some(Mutant::RetriedBlindly) => {
            node.propose(Encoded::new(op.clone())).await
        }
        answer => answer,
    }
}

/// All rows of a view.
pub fn rows(view: &View) -> Answer {
    let Ok(Ok(mut found)) = view.range(&Query::all(everything())) else { return Answer::Not };
    let mut rows = Vec::new();
    while let Ok(Some(chunk)) = found.next_chunk(usize::MAX) {
        rows.extend(chunk.into_iter().filter_map(|row| KeyValue::decode(row).ok()));
    }
    Answer::Rows { revision: view.revision(), rows }
}

/// Compares an answer with what it may be.
pub fn check(oracle: &mut Oracle, asked: &Asked, answer: &Answer) {
    let Asked { client, host, since, .. } = asked;
    match answer {
        Answer::Written { revision, changed } => {
            oracle.trace((client, host, "written", revision));
            if *revision < *since || (*changed && *revision == *since) {
                oracle.violated(format!(
                    "client {client} writes at m{host} revision {revision}, though {since} was known before it began"
                ));
            }
            if let Ask::Write(_, Some(value)) = &asked.ask
                && *changed
                && !oracle.has_value(value)
            {
                oracle.violated(format!("client {client} is told of a write that is in no log"));
            }
            if let Ask::Write(Op::LeaseGrant(grant), _) = &asked.ask {
                oracle.keeps(grant.id, asked.at, grant.ttl);
            }
            oracle.tell(*revision);
        }
        Answer::Rows { revision, rows } => {
            oracle.trace((client, host, "read", revision));
            oracle.read(&format!("client {client} at m{host}"), &everything(), *revision, rows);
            if matches!(asked.ask, Ask::Read) {
                if revision < since {
                    oracle.violated(format!(
                        "client {client} reads at m{host} revision {revision}, though {since} was known before it began"
                    ));
                }
                oracle.tell(*revision);
            }
        }
        Answer::Alive(ttl) => {
            if let Ask::KeepAlive(id) = asked.ask
                && *ttl > 0
            {
                oracle.keeps(id, asked.at, *ttl);
            }
        }
        Answer::Refused | Answer::Not | Answer::Unknown => {}
    }
}
