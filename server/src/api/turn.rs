//! Keys that wait for their turn under a name: what locks and elections have in common.
//!
//! Whoever wants a turn puts a key under `name/`, bound to its lease. It has
//! its turn once no key there is older, and keeps it for as long as its key is
//! there. It waits for the youngest of the older keys alone, so that a key that
//! goes wakes one.
//!
//! ```text
//!   name/694d9a1b30f2aa04   created 12   has its turn
//!   name/694d9a1b30f2aa08   created 15   waits for the one created at 12 to go
//!   name/694d9a1b30f2aa0c   created 19   waits for the one created at 15 to go
//! ```
//!
//! In etcd a member does this through a client of its own (etcd 3.7: package
//! `concurrency`), so that what fails on the way comes without a code
//! ([`Failure::Inner`]).

use std::future::poll_fn;

use bytes::Bytes;
use proto::command::command::Op;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response as Done;
use proto::mvccpb::KeyValue;
use state::{KeyRange, Refusal, Response, txn, validate};
use tracing::debug;

use super::{lease, range, timing};
use crate::error::Unavailable;
use crate::node::{Encoded, Failure, Invalid, Node};
use crate::watch::{Create, Item, Stream};

/// The time to live of a lease made for whoever brings none, in seconds. Nobody keeps it alive.
const LEASE_TTL: i64 = 60;

/// The end of every range of keys under a name: `/` is followed by `0`.
const AFTER_SLASH: u8 = b'/' + 1;

/// The keys under a name.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The name and `/`.
    pub prefix: Bytes,
    end: Bytes,
}

impl Keys {
    /// Those under this name.
    pub fn of(name: &[u8]) -> Self {
        let with = |last| Bytes::from([name, &[last][..]].concat());
        Self { prefix: with(b'/'), end: with(AFTER_SLASH) }
    }

    /// The key of a lease.
    pub fn of_lease(&self, lease: i64) -> Bytes {
        let sign = if lease < 0 { "-" } else { "" };
        [&self.prefix, format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
    }

    /// All of them.
    pub fn range(&self) -> KeyRange {
        KeyRange::Span { start: self.prefix.clone(), end: self.end.clone() }
    }

    /// Asks for the oldest.
    pub fn oldest(&self) -> pb::RangeRequest {
        self.one(SortOrder::Ascend)
    }

    /// Asks for the youngest of those created up to a revision.
    fn youngest(&self, created_max: i64) -> pb::RangeRequest {
        pb::RangeRequest { max_create_revision: created_max, ..self.one(SortOrder::Descend) }
    }

    fn one(&self, order: SortOrder) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.prefix.clone(),
            range_end: self.end.clone(),
            limit: 1,
            sort_order: order.into(),
            sort_target: SortTarget::Create.into(),
            ..Default::default()
        }
    }
}

/// The lease given, or a new one if it is 0.
///
/// # Errors
/// When a new one is refused.
pub async fn lease(node: &Node, given: i64) -> Result<i64, Failure> {
    match given {
        0 => {
            let request = pb::LeaseGrantRequest { id: 0, ttl: LEASE_TTL };
            Ok(lease::grant(node.clone(), request).await?.id)
        }
        given => Ok(given),
    }
}

/// Compares the revision at which a key was created, 0 for a key that is not there.
pub fn created(key: Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

/// Puts a key bound to a lease.
pub fn put(key: Bytes, value: Bytes, lease: i64) -> Request {
    Request::RequestPut(pb::PutRequest { key, value, lease, ..Default::default() })
}

/// Reads one key.
pub fn get(key: Bytes) -> pb::RangeRequest {
    pb::RangeRequest { key, ..Default::default() }
}

/// A transaction that writes.
pub fn transaction(compare: pb::Compare, success: Vec<Request>, failure: Vec<Request>) -> pb::TxnRequest {
    let operations = |requests: Vec<Request>| {
        requests.into_iter().map(|request| pb::RequestOp { request: Some(request) }).collect()
    };
    pb::TxnRequest { compare: vec![compare], success: operations(success), failure: operations(failure) }
}

/// Runs a transaction that writes.
///
/// # Errors
/// As for one that comes from a client.
pub async fn transact(node: &Node, request: pb::TxnRequest) -> Result<pb::TxnResponse, Failure> {
    node.check_quota(txn::cost(&request)).await?;
    validate::txn(&request, node.settings().txn_ops_max).map_err(Invalid::Request)?;
    let timed = timing::TXN.start();
    let applied = timed.end(node.propose(Encoded::new(Op::Txn(request))).await)?;
    match applied.response {
        Response::Txn(mut response) => {
            response.header = Some(node.header(applied.revision));
            Ok(response)
        }
        other => unreachable!("the state machine answered another command: {other:?}"),
    }
}

/// The first key that the range at this place of a transaction found.
pub fn found(answer: &pb::TxnResponse, at: usize) -> Option<&KeyValue> {
    match answer.responses.get(at)?.response.as_ref()? {
        Done::ResponseRange(range) => range.kvs.first(),
        _ => None,
    }
}

/// Reads as of now in the whole cluster: the header, and the first key found.
///
/// # Errors
/// When the leader cannot be asked.
pub async fn first(
    node: &Node,
    request: pb::RangeRequest,
) -> Result<(pb::ResponseHeader, Option<KeyValue>), Failure> {
    let timed = timing::RANGE.start();
    timed.end(range::first(node, request).await)
}

/// Returns once no key is there any more that was created before this revision.
///
/// # Errors
/// When that cannot be found out, or the member stops.
pub async fn come(node: &Node, keys: &Keys, created: i64) -> Result<(), Failure> {
    loop {
        let (header, before) = first(node, keys.youngest(created - 1)).await?;
        let Some(before) = before else { return Ok(()) };
        gone(node, before.key, header.revision).await?;
    }
}

/// Returns once a key is deleted, if it was not by this revision.
async fn gone(node: &Node, key: Bytes, from: i64) -> Result<(), Failure> {
    let mut stream = watch(node, KeyRange::Single(key), from, true);
    let cut = node.cut(false);
    tokio::select! {
        event = next_events(&mut stream) => event.map(|_deleted| ()),
        why = cut.wait() => Err(why.into()),
    }
}

/// Watches a range from a revision on.
pub fn watch(node: &Node, range: KeyRange, from: i64, deletes_alone: bool) -> Stream {
    let stream = node.hub().open();
    stream.create(&Create {
        range,
        start_revision: from,
        watch_id: 0,
        progress_notify: false,
        no_put: deletes_alone,
        no_delete: false,
        prev_kv: false,
        fragment: false,
    });
    stream
}

/// The next events of a stream with one watch, encoded as elements of `WatchResponse.events`.
///
/// # Errors
/// When the watch has ended: it was compacted before it began, or the member stops.
pub async fn next_events(stream: &mut Stream) -> Result<Bytes, Failure> {
    loop {
        match poll_fn(|context| stream.poll_next(context)).await {
            Some(Item::Events { events, .. }) => return Ok(events),
            Some(Item::Compacted { .. }) => return Err(Refusal::Compacted.into()),
            Some(_created) => {}
            None => return Err(Unavailable::Stopped.into()),
        }
    }
}

/// A key that goes when whoever waits for its turn goes first, in whatever way.
pub struct Leaving {
    node: Node,
    command: Option<Op>,
}

impl Leaving {
    /// This command takes the key away.
    pub fn by(node: &Node, command: Op) -> Self {
        Self { node: node.clone(), command: Some(command) }
    }

    /// The key stays.
    pub fn stay(mut self) {
        self.command = None;
    }

    /// The key goes now.
    pub async fn go(mut self) {
        let Some(gone) = self.leave() else { return };
        if let Err(broken) = gone.await
            && broken.is_panic()
        {
            std::panic::resume_unwind(broken.into_panic());
        }
    }

    /// A task of its own: it must come to its end although nobody waits for it.
    fn leave(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        let command = Encoded::new(self.command.take()?);
        let node = self.node.clone();
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        Some(runtime.spawn(async move {
            if let Err(failure) = node.propose(command).await {
                // Its lease will end it.
                debug!(%failure, "a key of whoever has gone stays");
            }
        }))
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        // Its client went, or its time was up. The task goes on by itself.
        drop(self.leave());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_by_their_lease_as_go_prints_it() {
        let keys = Keys::of(b"a");
        assert_eq!(keys.of_lease(0x694d_9a1b_30f2_aa04), "a/694d9a1b30f2aa04");
        assert_eq!(keys.of_lease(-31), "a/-1f");
        assert_eq!(keys.of_lease(i64::MIN), "a/-8000000000000000");
        let range = keys.range();
        assert!(range.contains(b"a/") && range.contains(b"a/\xff") && !range.contains(b"a0"));
        assert_eq!(Keys::of(b"").prefix, "/");
    }
}
