//! What "the same answer" means. Every leniency here has a line in `tests/differences.md`.

use bytes::Bytes;
use proto::etcdserverpb::range_request::SortTarget;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{RangeRequest, RangeResponse, RequestOp, ResponseOp};
use proto::mvccpb::KeyValue;

use super::step::{Answer, Call, Outcome};

/// Up to this many rows Go's sort is an insertion sort and keeps the order of equals.
const STABLE_MAX: i64 = 12;
/// How far two remaining TTLs may be apart, in seconds: clocks and restarts, not rules.
const TTL_SLACK: i64 = 600;

/// Whether both members answered the same; they are brought into a common form first.
pub fn same(call: &Call, reference: &mut Outcome, ours: &mut Outcome) -> bool {
    for answer in [&mut *reference, &mut *ours].into_iter().flatten() {
        common(call, answer);
    }
    if let (Ok(Answer::TimeToLive(a)), Ok(Answer::TimeToLive(b))) = (&mut *reference, &mut *ours)
        && a.ttl > 0
        && a.ttl.abs_diff(b.ttl) <= TTL_SLACK as u64
    {
        b.ttl = a.ttl;
    }
    reference == ours
}

fn common(call: &Call, answer: &mut Answer) {
    match (call, answer) {
        (Call::RangeStream(request), Answer::Chunks(chunks, _)) if request.limit < 0 => {
            if let Some(mut all) = chunks.pop() {
                all.kvs = chunks.drain(..).flat_map(|chunk| chunk.kvs).chain(all.kvs).collect();
                chunks.push(all);
            }
        }
        (Call::Range(request), Answer::Range(answer)) => order_equals(request, answer),
        (Call::Txn(request), Answer::Txn(answer)) => {
            let ops = if answer.succeeded { &request.success } else { &request.failure };
            order_equals_nested(ops, &mut answer.responses);
        }
        (_, Answer::TimeToLive(answer)) => answer.keys.sort(),
        (_, Answer::Leases(answer)) => answer.leases.sort_by_key(|lease| lease.id),
        (_, Answer::Status(answer)) => {
            answer.version = answer.version.split('.').take(2).collect::<Vec<_>>().join(".");
            // Sizes and positions in the log are each member's own.
            answer.db_size = answer.db_size.signum();
            answer.db_size_in_use = answer.db_size_in_use.signum();
            answer.raft_index = answer.raft_index.min(1);
            answer.raft_applied_index = answer.raft_applied_index.min(1);
            for error in &mut answer.errors {
                *error = error.replace("  ", " ");
            }
        }
        _ => {}
    }
}

fn order_equals_nested(ops: &[RequestOp], answers: &mut [ResponseOp]) {
    for (op, answer) in ops.iter().zip(answers) {
        match (&op.request, &mut answer.response) {
            (Some(Request::RequestRange(request)), Some(Response::ResponseRange(answer))) => {
                order_equals(request, answer);
            }
            (Some(Request::RequestTxn(request)), Some(Response::ResponseTxn(answer))) => {
                let ops = if answer.succeeded { &request.success } else { &request.failure };
                order_equals_nested(ops, &mut answer.responses);
            }
            _ => {}
        }
    }
}

/// Puts rows that compare equal into key order where Go's sort leaves their order open,
/// and forgets which of them a limit kept.
fn order_equals(request: &RangeRequest, answer: &mut RangeResponse) {
    let target = request.sort_target();
    let by_key = target == SortTarget::Key;
    if by_key || answer.count <= STABLE_MAX {
        return;
    }
    let rank = |kv: &KeyValue| match target {
        SortTarget::Version => (kv.version, Bytes::new()),
        SortTarget::Create => (kv.create_revision, Bytes::new()),
        SortTarget::Mod => (kv.mod_revision, Bytes::new()),
        // Without their values, rows cannot be told apart by them.
        SortTarget::Value if request.keys_only => (0, Bytes::new()),
        _ => (0, kv.value.clone()),
    };
    let cut = answer.more.then(|| answer.kvs.last().map(rank)).flatten();
    for kv in &mut answer.kvs {
        if cut.as_ref() == Some(&rank(kv)) {
            let value = if request.keys_only { Bytes::new() } else { kv.value.clone() };
            *kv = match target {
                SortTarget::Version => KeyValue { version: kv.version, ..KeyValue::default() },
                SortTarget::Create => KeyValue { create_revision: kv.create_revision, ..KeyValue::default() },
                SortTarget::Mod => KeyValue { mod_revision: kv.mod_revision, ..KeyValue::default() },
                _ => KeyValue { value, ..KeyValue::default() },
            };
        }
    }
    for equals in answer.kvs.chunk_by_mut(|a, b| rank(a) == rank(b)) {
        equals.sort_by(|a, b| a.key.cmp(&b.key));
    }
}
