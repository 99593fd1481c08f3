//! Between what a history says and what goes over the wire.

use proto::etcdserverpb as pb;
use proto::etcdserverpb::{request_op, response_op};
use proto::mvccpb;

use crate::history::{Body, Compare, Delete, Event, Keys, Operand, Pair, Put, Range, Relation, Request, Txn};

impl From<&Range> for pb::RangeRequest {
    fn from(range: &Range) -> Self {
        Self {
            key: bytes(&range.keys.key),
            range_end: bytes(&range.keys.end),
            revision: range.revision,
            limit: range.limit,
            serializable: range.serializable,
            ..Self::default()
        }
    }
}

impl From<&Put> for pb::PutRequest {
    fn from(put: &Put) -> Self {
        Self {
            key: bytes(&put.key),
            value: bytes(&put.value),
            lease: put.lease,
            prev_kv: put.previous,
            ..Self::default()
        }
    }
}

impl From<&Delete> for pb::DeleteRangeRequest {
    fn from(delete: &Delete) -> Self {
        let Keys { key, end } = &delete.keys;
        Self { key: bytes(key), range_end: bytes(end), prev_kv: delete.previous }
    }
}

impl From<&Txn> for pb::TxnRequest {
    fn from(txn: &Txn) -> Self {
        Self {
            compare: txn.compares.iter().map(Into::into).collect(),
            success: txn.then.iter().map(Into::into).collect(),
            failure: txn.otherwise.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Request> for pb::RequestOp {
    fn from(request: &Request) -> Self {
        let request = match request {
            Request::Range(range) => request_op::Request::RequestRange(range.into()),
            Request::Put(put) => request_op::Request::RequestPut(put.into()),
            Request::Delete(delete) => request_op::Request::RequestDeleteRange(delete.into()),
        };
        Self { request: Some(request) }
    }
}

impl From<&Compare> for pb::Compare {
    fn from(compare: &Compare) -> Self {
        use pb::compare::{CompareResult, CompareTarget, TargetUnion};
        let result = match compare.relation {
            Relation::Equal => CompareResult::Equal,
            Relation::NotEqual => CompareResult::NotEqual,
            Relation::Greater => CompareResult::Greater,
            Relation::Less => CompareResult::Less,
        };
        let (target, union) = match &compare.operand {
            Operand::Value(value) => (CompareTarget::Value, TargetUnion::Value(bytes(value))),
            Operand::Modified(revision) => (CompareTarget::Mod, TargetUnion::ModRevision(*revision)),
            Operand::Created(revision) => (CompareTarget::Create, TargetUnion::CreateRevision(*revision)),
            Operand::Version(version) => (CompareTarget::Version, TargetUnion::Version(*version)),
            Operand::Lease(lease) => (CompareTarget::Lease, TargetUnion::Lease(*lease)),
        };
        Self {
            key: bytes(&compare.key),
            result: result.into(),
            target: target.into(),
            target_union: Some(union),
            ..Self::default()
        }
    }
}

impl From<pb::RangeResponse> for Body {
    fn from(answer: pb::RangeResponse) -> Self {
        let pairs = answer.kvs.into_iter().map(Into::into).collect();
        Self::Range { pairs, count: answer.count, more: answer.more }
    }
}

impl From<pb::PutResponse> for Body {
    fn from(answer: pb::PutResponse) -> Self {
        Self::Put { previous: answer.prev_kv.map(Into::into) }
    }
}

impl From<pb::DeleteRangeResponse> for Body {
    fn from(answer: pb::DeleteRangeResponse) -> Self {
        let previous = answer.prev_kvs.into_iter().map(Into::into).collect();
        Self::Delete { deleted: answer.deleted, previous }
    }
}

impl From<pb::TxnResponse> for Body {
    fn from(answer: pb::TxnResponse) -> Self {
        let answers = answer.responses.into_iter().map(of_response).collect();
        Self::Txn { succeeded: answer.succeeded, answers }
    }
}

/// An answer that is missing, or to a question nobody asked, is kept as [`Body::Nothing`] for the checkers to find.
fn of_response(response: pb::ResponseOp) -> Body {
    match response.response {
        Some(response_op::Response::ResponseRange(answer)) => answer.into(),
        Some(response_op::Response::ResponsePut(answer)) => answer.into(),
        Some(response_op::Response::ResponseDeleteRange(answer)) => answer.into(),
        Some(response_op::Response::ResponseTxn(answer)) => answer.into(),
        None => Body::Nothing,
    }
}

impl From<mvccpb::KeyValue> for Pair {
    fn from(pair: mvccpb::KeyValue) -> Self {
        Self {
            key: text(&pair.key),
            value: text(&pair.value),
            created: pair.create_revision,
            modified: pair.mod_revision,
            version: pair.version,
            lease: pair.lease,
        }
    }
}

impl From<mvccpb::Event> for Event {
    fn from(event: mvccpb::Event) -> Self {
        Self {
            deleted: event.r#type() == mvccpb::event::EventType::Delete,
            pair: event.kv.unwrap_or_default().into(),
            previous: event.prev_kv.map(Into::into),
        }
    }
}

/// Text as it goes over the wire.
pub fn bytes(text: &str) -> bytes::Bytes {
    text.as_bytes().to_vec().into()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
