//! Reads and writes of the key space as requests name them, alone and in a transaction.
//!
//! A transaction goes in three steps. All compares, nested ones too, look at
//! the state before it and fix the path that is taken. Every operation on that
//! path is checked against the same state, so that the whole is refused or
//! runs to its end. Then the operations run in order, each seeing those before it.

use std::cmp::Ordering;

use bytes::Bytes;
use mutants::Mutant;
use prost::Message;
use proto::etcdserverpb::{
    self as pb,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
    response_op::Response,
};
use proto::mvccpb;

use crate::error::Stop;
use crate::mvcc::{Mvcc, Query, Record, View};
use crate::{Fault, KeyRange, Refusal, lease};

/// What etcd's quota counts for a record beside its key and value.
const RECORD_OVERHEAD: usize = 256;

/// What a put weighs against the quota.
pub fn put_cost(request: &pb::PutRequest) -> usize {
    RECORD_OVERHEAD + request.key.len() + request.value.len()
}

/// What a transaction weighs against the quota: its heavier branch. 0 means it cannot make the state grow.
pub fn cost(request: &pb::TxnRequest) -> usize {
    let branch = |operations: &[pb::RequestOp]| -> usize {
        let costs = operations.iter().map(|operation| match &operation.request {
            Some(Request::RequestPut(request)) => put_cost(request),
            Some(Request::RequestTxn(request)) => cost(request),
            _ => 0,
        });
        costs.sum()
    };
    branch(&request.success).max(branch(&request.failure))
}

/// Whether a transaction can be answered from a view. A nested one counts as a write even if it only reads.
pub fn is_read_only(request: &pb::TxnRequest) -> bool {
    let mut operations = request.success.iter().chain(&request.failure);
    operations.all(|operation| matches!(operation.request, Some(Request::RequestRange(_))))
}

/// Whether a transaction may be answered from any member's own state. One without operations may.
pub fn is_serializable(request: &pb::TxnRequest) -> bool {
    let mut operations = request.success.iter().chain(&request.failure);
    operations.all(
        |operation| matches!(&operation.request, Some(Request::RequestRange(range)) if range.serializable),
    )
}

/// Answers a transaction that [is read-only](is_read_only) from a view. The header is left empty.
///
/// # Errors
/// Refuses a range at a revision that is compacted or in the future.
pub fn read(view: &View, request: &pb::TxnRequest) -> Result<Result<pb::TxnResponse, Refusal>, Fault> {
    let mut succeeded = true;
    for compare in &request.compare {
        if !compare_view(view, compare)? {
            succeeded = false;
            break;
        }
    }
    let operations = if succeeded { &request.success } else { &request.failure };
    let ranges = operations.iter().filter_map(|operation| match &operation.request {
        Some(Request::RequestRange(request)) => Some(request),
        _ => None,
    });
    for request in ranges.clone() {
        if let Err(refusal) = check_revision(request.revision, view.revision(), view.compacted()) {
            return Ok(Err(refusal));
        }
    }
    let mut responses = Vec::with_capacity(operations.len());
    for request in ranges {
        let mut query = query(request)?;
        if responses.is_empty() && operations.len() > 1 && mutants::sometimes(Mutant::TornRead, 10) {
            query.revision = (view.revision() - 3).max(1);
        }
        let mut rows = match view.range(&query)? {
            Ok(rows) => rows,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut kvs = Vec::with_capacity(rows.len());
        while let Some(chunk) = rows.next_chunk(usize::MAX)? {
            for row in chunk {
                kvs.push(decode(row)?);
            }
        }
        let header = header(view.revision());
        let response = pb::RangeResponse { header, kvs, more: rows.more, count: rows.count };
        responses.push(pb::ResponseOp { response: Some(Response::ResponseRange(response)) });
    }
    Ok(Ok(pb::TxnResponse { header: None, succeeded, responses }))
}

/// Runs a put.
pub(crate) fn put(
    mvcc: &mut Mvcc,
    leases: &lease::Table,
    request: pb::PutRequest,
) -> Result<pb::PutResponse, Stop> {
    check_put(mvcc, leases, &request)?;
    Ok(execute_put(mvcc, request)?)
}

/// Runs a delete.
pub(crate) fn delete_range(
    mvcc: &mut Mvcc,
    request: pb::DeleteRangeRequest,
) -> Result<pb::DeleteRangeResponse, Fault> {
    let mut response = pb::DeleteRangeResponse::default();
    match KeyRange::parse(request.key, request.range_end) {
        KeyRange::Single(key) => {
            if let Some(record) = delete(mvcc, key)? {
                response.deleted = 1;
                if request.prev_kv {
                    response.prev_kvs.push(row(mvcc, &record)?);
                }
            }
        }
        range => {
            for (key, record) in mvcc.live(&range)? {
                delete(mvcc, key)?;
                response.deleted += 1;
                if request.prev_kv {
                    response.prev_kvs.push(row(mvcc, &record)?);
                }
            }
        }
    }
    if mutants::on(Mutant::WrongDeleted) && mvcc.revision() % 8 == 0 {
        response.deleted += 1;
    }
    Ok(response)
}

/// Deletes one key, and takes it off its lease.
pub(crate) fn delete(mvcc: &mut Mvcc, key: Bytes) -> Result<Option<Record>, Fault> {
    let record = mvcc.delete(key.clone())?;
    if let Some(record) = &record {
        lease::attach(mvcc.batch(), &key, record.lease, 0);
    }
    Ok(record)
}

/// Runs a transaction.
pub(crate) fn txn(
    mvcc: &mut Mvcc,
    leases: &lease::Table,
    request: pb::TxnRequest,
) -> Result<pb::TxnResponse, Stop> {
    let mut path = Vec::new();
    choose(mvcc, &request, &mut path)?;
    check(mvcc, leases, &request, &mut path.iter().copied())?;
    Ok(execute(mvcc, request, &mut path.into_iter())?)
}

/// Which branch each transaction takes: first the outermost, then those nested in the branch taken, in order.
fn choose(mvcc: &mut Mvcc, request: &pb::TxnRequest, path: &mut Vec<bool>) -> Result<(), Fault> {
    let mut succeeded = true;
    let ignores = mutants::on(Mutant::IgnoreCompare) && mvcc.revision() % 16 == 0;
    for compare in &request.compare {
        if !ignores && !compare_staged(mvcc, compare)? {
            succeeded = false;
            break;
        }
    }
    path.push(succeeded);
    for operation in if succeeded { &request.success } else { &request.failure } {
        if let Some(Request::RequestTxn(nested)) = &operation.request {
            choose(mvcc, nested, path)?;
        }
    }
    Ok(())
}

fn check(
    mvcc: &mut Mvcc,
    leases: &lease::Table,
    request: &pb::TxnRequest,
    path: &mut impl Iterator<Item = bool>,
) -> Result<(), Stop> {
    let succeeded = next_branch(path);
    for operation in if succeeded { &request.success } else { &request.failure } {
        match &operation.request {
            Some(Request::RequestRange(request)) => {
                check_revision(request.revision, mvcc.revision(), mvcc.compacted())?;
            }
            Some(Request::RequestPut(request)) => check_put(mvcc, leases, request)?,
            Some(Request::RequestTxn(request)) => check(mvcc, leases, request, path)?,
            Some(Request::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

fn check_put(mvcc: &mut Mvcc, leases: &lease::Table, request: &pb::PutRequest) -> Result<(), Stop> {
    if request.lease != 0 && !leases.contains(request.lease) {
        return Err(Refusal::LeaseNotFound.into());
    }
    if (request.ignore_value || request.ignore_lease) && mvcc.lookup(&request.key)?.is_none() {
        return Err(Refusal::KeyNotFound.into());
    }
    Ok(())
}

/// In a transaction, as in etcd 3.7, a negative revision is not the current one but an old one.
fn check_revision(asked: i64, current: i64, compacted: i64) -> Result<(), Refusal> {
    if asked > current {
        return Err(Refusal::FutureRevision);
    }
    if asked != 0 && asked < compacted {
        return Err(Refusal::Compacted);
    }
    Ok(())
}

fn execute(
    mvcc: &mut Mvcc,
    request: pb::TxnRequest,
    path: &mut impl Iterator<Item = bool>,
) -> Result<pb::TxnResponse, Fault> {
    let succeeded = next_branch(path);
    let operations = if succeeded { request.success } else { request.failure };
    let mut responses = Vec::with_capacity(operations.len());
    for operation in operations {
        let response = match operation.request {
            Some(Request::RequestRange(request)) => {
                let mut response = execute_range(mvcc, &request)?;
                response.header = header(mvcc.pending_revision());
                Some(Response::ResponseRange(response))
            }
            Some(Request::RequestPut(request)) => {
                let mut response = execute_put(mvcc, request)?;
                response.header = header(mvcc.pending_revision());
                Some(Response::ResponsePut(response))
            }
            Some(Request::RequestDeleteRange(request)) => {
                let mut response = delete_range(mvcc, request)?;
                response.header = header(mvcc.pending_revision());
                Some(Response::ResponseDeleteRange(response))
            }
            Some(Request::RequestTxn(request)) => {
                let mut response = execute(mvcc, request, path)?;
                response.header = Some(pb::ResponseHeader::default());
                Some(Response::ResponseTxn(response))
            }
            None => None,
        };
        responses.push(pb::ResponseOp { response });
    }
    Ok(pb::TxnResponse { header: None, succeeded, responses })
}

fn execute_range(mvcc: &mut Mvcc, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Fault> {
    let selection = mvcc.range(&query(request)?)?.map_err(|refusal| Fault::Corrupt {
        what: "transaction",
        detail: format!("a range that was checked is refused: {refusal}"),
    })?;
    let kvs = selection.kvs.into_iter().map(decode).collect::<Result<_, _>>()?;
    Ok(pb::RangeResponse { header: None, kvs, more: selection.more, count: selection.count })
}

fn execute_put(mvcc: &mut Mvcc, request: pb::PutRequest) -> Result<pb::PutResponse, Fault> {
    let pb::PutRequest { key, mut value, mut lease, prev_kv, ignore_value, ignore_lease } = request;
    if ignore_value || ignore_lease {
        // The check found the key. It can only be missing if an open-ended delete ran before in
        // the same transaction; then there is nothing to keep.
        let record = mvcc.lookup(&key)?;
        if ignore_lease {
            lease = record.as_ref().map_or(0, |record| record.lease);
        }
        if ignore_value && let Some(record) = &record {
            value = row(mvcc, record)?.value;
        }
    }
    if mutants::sometimes(Mutant::OtherValue, 50 + u64::from(std::process::id() % 16)) {
        value = Bytes::new();
    }
    let replaced = mvcc.put(key.clone(), value, lease)?;
    let lease_before = replaced.as_ref().map_or(0, |record| record.lease);
    lease::attach(mvcc.batch(), &key, lease_before, lease);
    let prev_kv = match replaced {
        Some(record) if prev_kv => Some(row(mvcc, &record)?),
        _ => None,
    };
    Ok(pb::PutResponse { header: None, prev_kv })
}

fn compare_staged(mvcc: &mut Mvcc, compare: &pb::Compare) -> Result<bool, Fault> {
    match KeyRange::parse(compare.key.clone(), compare.range_end.clone()) {
        KeyRange::Single(key) => match mvcc.lookup(&key)? {
            Some(record) => holds(mvcc, compare, &record),
            None => Ok(holds_without_keys(compare)),
        },
        range => {
            let records = mvcc.live(&range)?;
            if records.is_empty() {
                return Ok(holds_without_keys(compare));
            }
            for (_, record) in &records {
                if !holds(mvcc, compare, record)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

fn holds(mvcc: &Mvcc, compare: &pb::Compare, record: &Record) -> Result<bool, Fault> {
    let by_value = compare.target == CompareTarget::Value as i32;
    let value = if by_value { row(mvcc, record)?.value } else { Bytes::new() };
    let subject = Subject {
        version: record.version,
        created: record.created,
        modified: record.modified.main,
        lease: record.lease,
        value,
    };
    Ok(subject.meets(compare))
}

fn compare_view(view: &View, compare: &pb::Compare) -> Result<bool, Fault> {
    let range = KeyRange::parse(compare.key.clone(), compare.range_end.clone());
    let Ok(mut rows) = view.range(&Query::all(range))? else { return Ok(false) };
    if rows.count == 0 {
        return Ok(holds_without_keys(compare));
    }
    while let Some(chunk) = rows.next_chunk(COMPARE_CHUNK)? {
        for row in chunk {
            let kv = decode(row)?;
            let subject = Subject {
                version: kv.version,
                created: kv.create_revision,
                modified: kv.mod_revision,
                lease: kv.lease,
                value: kv.value,
            };
            if !subject.meets(compare) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Bytes of rows read at once for a compare over a range.
const COMPARE_CHUNK: usize = 1 << 20;

/// A missing key has no value to compare with; in all else it is a key of zeros.
fn holds_without_keys(compare: &pb::Compare) -> bool {
    compare.target != CompareTarget::Value as i32 && Subject::default().meets(compare)
}

/// What a compare looks at.
#[derive(Default)]
struct Subject {
    version: i64,
    created: i64,
    modified: i64,
    lease: i64,
    value: Bytes,
}

impl Subject {
    fn meets(&self, compare: &pb::Compare) -> bool {
        // What the request does not name, or names for another target, is zero or empty.
        let ordering = match (CompareTarget::try_from(compare.target), &compare.target_union) {
            (Ok(CompareTarget::Version), Some(TargetUnion::Version(n))) => self.version.cmp(n),
            (Ok(CompareTarget::Version), _) => self.version.cmp(&0),
            (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(n))) => self.created.cmp(n),
            (Ok(CompareTarget::Create), _) => self.created.cmp(&0),
            (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(n))) => self.modified.cmp(n),
            (Ok(CompareTarget::Mod), _) => self.modified.cmp(&0),
            (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(n))) => self.lease.cmp(n),
            (Ok(CompareTarget::Lease), _) => self.lease.cmp(&0),
            (Ok(CompareTarget::Value), Some(TargetUnion::Value(value))) => self.value.cmp(value),
            (Ok(CompareTarget::Value), _) => self.value[..].cmp(&[]),
            (Err(_), _) => Ordering::Equal,
        };
        match CompareResult::try_from(compare.result) {
            Ok(CompareResult::Equal) => ordering.is_eq(),
            Ok(CompareResult::NotEqual) => ordering.is_ne(),
            Ok(CompareResult::Greater) => ordering.is_gt(),
            Ok(CompareResult::Less) => ordering.is_lt(),
            Err(_) => true,
        }
    }
}

fn next_branch(path: &mut impl Iterator<Item = bool>) -> bool {
    path.next().expect("the path names a branch for each transaction on it")
}

fn query(request: &pb::RangeRequest) -> Result<Query, Fault> {
    Query::from_request(request).ok_or_else(|| Fault::Corrupt {
        what: "transaction",
        detail: "a range with a sort option that was not checked".into(),
    })
}

fn row(mvcc: &Mvcc, record: &Record) -> Result<mvccpb::KeyValue, Fault> {
    decode(mvcc.row(record.modified)?)
}

fn decode(row: Bytes) -> Result<mvccpb::KeyValue, Fault> {
    mvccpb::KeyValue::decode(row).map_err(|e| Fault::Corrupt { what: "record", detail: e.to_string() })
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}
