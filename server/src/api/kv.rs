//! Keys and values.
//!
//! The order of the tests is etcd's: who may call, then the quota, then the
//! request itself, then the log.

use bytes::Bytes;
use proto::command::command::Op;
use proto::etcdserverpb as pb;
use state::{Response, txn, validate};
use std::time::Duration;

use super::body::reply;
use super::interceptor::{Answer, Call};
use super::message::framed;
use super::{decode, range, range_stream, timing};
use crate::node::{Encoded, Failure, Field, Invalid, Node, stop_on};

/// How long one wait for a compaction's deletions lasts before it looks again.
const COMPACTION_WAIT: Duration = Duration::from_secs(1);

/// Writes one key.
pub async fn put(call: &Call<'_>, message: Bytes) -> Answer {
    let (command, op) = Encoded::wrap(Field::Put, &message)?;
    drop(message);
    let Op::Put(request) = op else { return Err(not_itself()) };
    call.admit(false)?;
    let node = call.node();
    node.check_quota(txn::put_cost(&request)).await?;
    validate::put(&request).map_err(Invalid::Request)?;
    drop(request);
    let timed = timing::PUT.start();
    let applied = timed.end(node.propose(command).await)?;
    match applied.response {
        Response::Put(mut response) => {
            response.header = Some(node.header(applied.revision));
            Ok(reply(framed(&response)))
        }
        other => unexpected(&other),
    }
}

/// Deletes the keys of a range.
pub async fn delete_range(call: &Call<'_>, message: Bytes) -> Answer {
    let (command, op) = Encoded::wrap(Field::DeleteRange, &message)?;
    let Op::DeleteRange(request) = op else { return Err(not_itself()) };
    call.admit(false)?;
    let node = call.node();
    validate::delete_range(&request).map_err(Invalid::Request)?;
    let timed = timing::DELETE_RANGE.start();
    let applied = timed.end(node.propose(command).await)?;
    match applied.response {
        Response::DeleteRange(mut response) => {
            response.header = Some(node.header(applied.revision));
            Ok(reply(framed(&response)))
        }
        other => unexpected(&other),
    }
}

/// Compares, then does one of two lists of operations.
pub async fn txn(call: &Call<'_>, message: Bytes) -> Answer {
    let (command, op) = Encoded::wrap(Field::Txn, &message)?;
    drop(message);
    let Op::Txn(request) = op else { return Err(not_itself()) };
    call.admit(false)?;
    let node = call.node();
    node.check_quota(txn::cost(&request)).await?;
    validate::txn(&request, node.settings().txn_ops_max).map_err(Invalid::Request)?;
    if txn::is_read_only(&request) {
        let timed = timing::READONLY_TXN.start();
        let response = timed.end(read_only(node, request).await)?;
        return Ok(reply(framed(&response)));
    }
    drop(request);
    let timed = timing::TXN.start();
    let applied = timed.end(node.propose(command).await)?;
    match applied.response {
        Response::Txn(mut response) => {
            response.header = Some(node.header(applied.revision));
            Ok(reply(framed(&response)))
        }
        other => unexpected(&other),
    }
}

/// A transaction that changes nothing needs no place in the log.
async fn read_only(node: &Node, request: pb::TxnRequest) -> Result<pb::TxnResponse, Failure> {
    let view = match txn::is_serializable(&request) {
        true => node.serializable_view(),
        false => node.linearizable_view().await?,
    };
    let mut operations = request.success.iter().chain(&request.failure);
    let quick = operations.all(|operation| match &operation.request {
        Some(pb::request_op::Request::RequestRange(request)) => range::is_surely_short(request),
        _ => true,
    }) && request.compare.iter().all(|compare| compare.range_end.is_empty());
    let revision = view.revision();
    let read = move || txn::read(&view, &request);
    let read = if quick { read() } else { range::blocking(read).await };
    let mut response = read.unwrap_or_else(|fault| stop_on(fault))?;
    response.header = Some(node.header(revision));
    Ok(response)
}

/// Reads the keys of a range.
pub async fn range(call: &Call<'_>, message: Bytes) -> Answer {
    let request: pb::RangeRequest = decode(message)?;
    call.admit(request.serializable)?;
    validate::range(&request).map_err(Invalid::Request)?;
    let timed = timing::RANGE.start();
    timed.end(range::answer(call.node(), request).await)
}

/// Reads the keys of a range in messages of a bearable size.
pub async fn range_stream(call: &Call<'_>, message: Bytes) -> Answer {
    let request: pb::RangeRequest = decode(message)?;
    let monitor = call.admit_stream()?;
    validate::range(&request).map_err(Invalid::Request)?;
    range_stream::answer(call.node(), request, monitor).await
}

/// Gives up old revisions.
pub async fn compact(node: Node, request: pb::CompactionRequest) -> Result<pb::CompactionResponse, Failure> {
    let timed = timing::COMPACTION.start();
    let applied = timed.end(node.propose(Encoded::new(Op::Compaction(request))).await)?;
    if request.physical {
        let reader = node.reader().clone();
        range::blocking(move || while !reader.wait_compacted(request.revision, COMPACTION_WAIT) {}).await;
    }
    Ok(pb::CompactionResponse { header: Some(node.header(applied.revision)) })
}

/// The command of a request decoded as something else: only bytes made for it can do that.
fn not_itself() -> Failure {
    Invalid::Malformed("a field that a command knows otherwise".to_owned()).into()
}

fn unexpected<T>(response: &Response) -> T {
    unreachable!("the state machine answered another command: {response:?}")
}
