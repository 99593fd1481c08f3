//! What a request must satisfy before it is looked at any further.
//!
//! These rules need no state, so they hold on the member that got the request
//! and a refused one never reaches the log. The order of the tests is etcd's:
//! a request that breaks several rules is told the same one.

use std::collections::{BTreeMap, BTreeSet};

use proto::etcdserverpb::{self as pb, request_op::Request};

/// A request that makes no sense whatever the state is. The API layer turns it into etcd's code and text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A key is empty.
    #[error("key is not provided")]
    KeyNotProvided,
    /// `ignore_value` together with a value.
    #[error("value is provided")]
    ValueProvided,
    /// `ignore_lease` together with a lease.
    #[error("lease is provided")]
    LeaseProvided,
    /// A transaction with too many compares or operations, or nested too deeply.
    #[error("too many operations in txn request")]
    TooManyOperations,
    /// A transaction that changes one key twice.
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    /// An operation of a transaction that says nothing; etcd answers "key not found".
    #[error("key not found")]
    EmptyOperation,
    /// A sort order or target that does not exist.
    #[error("invalid sort option")]
    InvalidSortOption,
}

/// Transactions may nest this deeply. etcd bounds the depth by the number of operations only;
/// protobuf decoders stop at 100 levels, which this stays below also where a command wraps the request.
pub const TXN_DEPTH_MAX: usize = 48;

/// Checks a range request, alone or in a transaction.
///
/// # Errors
/// What is wrong with it.
pub fn range(request: &pb::RangeRequest) -> Result<(), Invalid> {
    key(&request.key)?;
    if pb::range_request::SortOrder::try_from(request.sort_order).is_err()
        || pb::range_request::SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Invalid::InvalidSortOption);
    }
    Ok(())
}

/// Checks a put request, alone or in a transaction.
///
/// # Errors
/// What is wrong with it.
pub fn put(request: &pb::PutRequest) -> Result<(), Invalid> {
    key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Invalid::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Invalid::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete request, alone or in a transaction.
///
/// # Errors
/// What is wrong with it.
pub fn delete_range(request: &pb::DeleteRangeRequest) -> Result<(), Invalid> {
    key(&request.key)
}

/// Checks a transaction with at most `operations_max` compares or operations in a list.
///
/// # Errors
/// What is wrong with it: first of all lists in order, then what the lists do to each other.
pub fn txn(request: &pb::TxnRequest, operations_max: usize) -> Result<(), Invalid> {
    lists(request, operations_max, TXN_DEPTH_MAX)?;
    Changes::of(&request.success)?;
    Changes::of(&request.failure)?;
    Ok(())
}

fn key(key: &[u8]) -> Result<(), Invalid> {
    if key.is_empty() { Err(Invalid::KeyNotProvided) } else { Ok(()) }
}

fn lists(request: &pb::TxnRequest, operations_max: usize, depth_max: usize) -> Result<(), Invalid> {
    let operations = request.compare.len().max(request.success.len()).max(request.failure.len());
    // What a list holds is taken off what the lists nested in it may hold.
    let (Some(operations_max), Some(depth_max)) =
        (operations_max.checked_sub(operations), depth_max.checked_sub(1))
    else {
        return Err(Invalid::TooManyOperations);
    };
    for compare in &request.compare {
        key(&compare.key)?;
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Request::RequestTxn(request)) => lists(request, operations_max, depth_max)?,
            None => return Err(Invalid::EmptyOperation),
        }
    }
    Ok(())
}

/// The keys a list of operations puts and deletes, with what is nested in it.
#[derive(Default)]
struct Changes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Spans<'a>,
}

impl<'a> Changes<'a> {
    /// etcd 3.7 looks at the list's own deletes first, then at nested transactions in order, then at the
    /// list's own puts. So a put conflicts with a delete anywhere in its list, with one exception that
    /// is kept: a nested transaction may delete what an earlier nested one has put.
    fn of(operations: &'a [pb::RequestOp]) -> Result<Self, Invalid> {
        let mut all = Self::default();
        for operation in operations {
            if let Some(Request::RequestDeleteRange(request)) = &operation.request {
                all.deletes.insert_request(request);
            }
        }
        for operation in operations {
            if let Some(Request::RequestTxn(request)) = &operation.request {
                let success = Self::of(&request.success)?;
                let failure = Self::of(&request.failure)?;
                // Only one of the two branches runs: they may put the same key.
                for key in success.puts.union(&failure.puts) {
                    all.put(key)?;
                }
                all.deletes.extend(success.deletes);
                all.deletes.extend(failure.deletes);
            }
        }
        for operation in operations {
            if let Some(Request::RequestPut(request)) = &operation.request {
                all.put(&request.key)?;
            }
        }
        Ok(all)
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), Invalid> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(Invalid::DuplicateKey);
        }
        Ok(())
    }
}

/// A union of key ranges, as disjoint spans by their first key.
#[derive(Default)]
struct Spans<'a> {
    by_start: BTreeMap<&'a [u8], End<'a>>,
}

/// Where a span ends; ordered by how far it reaches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct End<'a> {
    key: &'a [u8],
    inclusive: bool,
}

impl End<'_> {
    fn reaches(&self, key: &[u8]) -> bool {
        key < self.key || self.inclusive && key == self.key
    }
}

impl<'a> Spans<'a> {
    /// As etcd 3.7, an open-ended delete (`range_end` of one zero byte) counts as empty here.
    fn insert_request(&mut self, request: &'a pb::DeleteRangeRequest) {
        let end = match &request.range_end[..] {
            [] => End { key: &request.key, inclusive: true },
            end => End { key: end, inclusive: false },
        };
        self.insert(&request.key, end);
    }

    fn insert(&mut self, mut start: &'a [u8], mut end: End<'a>) {
        if !end.reaches(start) {
            return;
        }
        if let Some((&before, &before_end)) = self.by_start.range(..=start).next_back()
            && before_end.reaches(start)
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((&inside, &inside_end)) = self.by_start.range(start..).next()
            && end.reaches(inside)
        {
            end = end.max(inside_end);
            self.by_start.remove(inside);
        }
        self.by_start.insert(start, end);
    }

    fn extend(&mut self, other: Self) {
        for (start, end) in other.by_start {
            self.insert(start, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.by_start.range(..=key).next_back().is_some_and(|(_, end)| end.reaches(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    fn put_of(key: &'static str) -> pb::RequestOp {
        op(Request::RequestPut(pb::PutRequest { key: key.into(), ..Default::default() }))
    }

    fn delete_of(key: &'static str, range_end: &'static str) -> pb::RequestOp {
        op(Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..Default::default()
        }))
    }

    fn range_of(key: &'static str) -> pb::RequestOp {
        op(Request::RequestRange(pb::RangeRequest { key: key.into(), ..Default::default() }))
    }

    fn txn_of(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::TxnRequest {
        pb::TxnRequest { compare: vec![], success, failure }
    }

    fn nested(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::RequestOp {
        op(Request::RequestTxn(txn_of(success, failure)))
    }

    fn check(success: Vec<pb::RequestOp>) -> Result<(), Invalid> {
        let both = [txn_of(success.clone(), vec![]), txn_of(vec![], success)];
        let [success, failure] = both.map(|request| txn(&request, 128));
        assert_eq!(success, failure, "both branches are checked alike");
        success
    }

    const DUPLICATE: Result<(), Invalid> = Err(Invalid::DuplicateKey);

    #[test]
    fn puts_and_deletes_conflict_in_any_order() {
        assert_eq!(check(vec![put_of("a"), put_of("b")]), Ok(()));
        assert_eq!(check(vec![put_of("a"), put_of("a")]), DUPLICATE);
        assert_eq!(check(vec![put_of("b"), delete_of("a", "c")]), DUPLICATE);
        assert_eq!(check(vec![delete_of("a", "c"), put_of("b")]), DUPLICATE);
        assert_eq!(check(vec![delete_of("a", "c"), put_of("c")]), Ok(()));
        assert_eq!(check(vec![delete_of("a", ""), put_of("a")]), DUPLICATE);
        assert_eq!(check(vec![delete_of("a", ""), put_of("aa")]), Ok(()));
        assert_eq!(check(vec![delete_of("a", "c"), delete_of("b", "d")]), Ok(()));
        assert_eq!(check(vec![range_of("a"), put_of("a"), range_of("a")]), Ok(()));
    }

    #[test]
    fn overlapping_deletes_are_one_span() {
        let mut spans = Spans::default();
        let end = |key, inclusive| End { key, inclusive };
        for (start, to) in [("d", "f"), ("a", "b"), ("m", "k"), ("b", "e"), ("x", "z"), ("w", "y")] {
            spans.insert(start.as_bytes(), end(to.as_bytes(), false));
        }
        spans.insert(b"f", end(b"f", true));
        for key in ["a", "b", "c", "d", "e", "f", "w", "x", "y"] {
            assert!(spans.contains(key.as_bytes()), "{key}");
        }
        for key in ["0", "f0", "g", "k", "l", "m", "z"] {
            assert!(!spans.contains(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn nested_transactions_conflict_with_their_parent_and_siblings() {
        assert_eq!(check(vec![nested(vec![put_of("a")], vec![put_of("a")])]), Ok(()));
        assert_eq!(check(vec![nested(vec![put_of("a")], vec![]), put_of("a")]), DUPLICATE);
        assert_eq!(check(vec![delete_of("a", ""), nested(vec![], vec![put_of("a")])]), DUPLICATE);
        assert_eq!(check(vec![nested(vec![], vec![put_of("a")]), delete_of("a", "")]), DUPLICATE);
        let two = |a, b| check(vec![nested(vec![a], vec![]), nested(vec![], vec![b])]);
        assert_eq!(two(put_of("a"), put_of("a")), DUPLICATE);
        assert_eq!(two(delete_of("a", "b"), put_of("a")), DUPLICATE);
        assert_eq!(two(put_of("a"), delete_of("a", "b")), Ok(()), "etcd does not see this one");
        assert_eq!(
            check(vec![nested(vec![nested(vec![put_of("a"), put_of("a")], vec![])], vec![])]),
            DUPLICATE
        );
    }

    #[test]
    fn nesting_shrinks_the_allowance() {
        let many = |n: usize| (0..n).map(|_| range_of("a")).collect::<Vec<_>>();
        assert_eq!(check(many(128)), Ok(()));
        assert_eq!(check(many(129)), Err(Invalid::TooManyOperations));
        assert_eq!(check(vec![nested(many(127), vec![])]), Ok(()));
        assert_eq!(check(vec![nested(many(128), vec![])]), Err(Invalid::TooManyOperations));
        let compare = pb::Compare { key: "a".into(), ..Default::default() };
        let request = pb::TxnRequest { compare: vec![compare; 129], success: vec![], failure: vec![] };
        assert_eq!(txn(&request, 128), Err(Invalid::TooManyOperations));
    }

    /// A command wraps the request one level deeper than the client sent it: what passes
    /// here must still decode from the log, or every member would stop on it.
    #[test]
    fn what_passes_decodes_from_the_log() {
        use prost::Message;
        let mut request = txn_of(vec![put_of("a")], vec![]);
        for _ in 1..TXN_DEPTH_MAX {
            request = txn_of(vec![op(Request::RequestTxn(request))], vec![]);
        }
        assert_eq!(txn(&request, 128), Ok(()));
        let command = proto::command::Command { op: Some(proto::command::command::Op::Txn(request.clone())) };
        assert_eq!(proto::command::Command::decode(&command.encode_to_vec()[..]), Ok(command));
        let deeper = txn_of(vec![op(Request::RequestTxn(request))], vec![]);
        assert_eq!(txn(&deeper, 128), Err(Invalid::TooManyOperations));
    }

    #[test]
    fn the_first_rule_broken_is_told() {
        let empty_op = pb::RequestOp { request: None };
        assert_eq!(check(vec![put_of("a"), put_of("a"), empty_op.clone()]), Err(Invalid::EmptyOperation));
        assert_eq!(check(vec![put_of(""), empty_op]), Err(Invalid::KeyNotProvided));
        let request = pb::TxnRequest {
            compare: vec![pb::Compare::default()],
            success: vec![op(Request::RequestRange(pb::RangeRequest {
                key: "a".into(),
                sort_order: 3,
                ..Default::default()
            }))],
            failure: vec![],
        };
        assert_eq!(txn(&request, 128), Err(Invalid::KeyNotProvided));
        assert_eq!(check(request.success), Err(Invalid::InvalidSortOption));
        let put_both = pb::PutRequest {
            key: "a".into(),
            value: "v".into(),
            lease: 1,
            ignore_value: true,
            ignore_lease: true,
            ..Default::default()
        };
        assert_eq!(put(&put_both), Err(Invalid::ValueProvided));
        assert_eq!(put(&pb::PutRequest { value: "".into(), ..put_both }), Err(Invalid::LeaseProvided));
    }
}
