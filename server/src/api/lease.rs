//! Leases: granting and revoking go through the log, keeping alive does not.

use futures::Stream;
use hyper::body::Incoming;
use mutants::Mutant;
use proto::command::command::Op;
use proto::etcdserverpb as pb;
use state::Response;
use tonic::Status;

use bytes::Bytes;

use super::body::{Pieces, stream};
use super::interceptor::{Answer, Call, failed_to_receive};
use super::message::{Messages, framed};
use super::{Method, decode, timing};
use crate::metrics::METRICS;
use crate::node::{Encoded, Failure, Node, calls};
use crate::quota::LEASE_COST;

/// Creates a lease.
pub async fn grant(
    node: Node,
    mut request: pb::LeaseGrantRequest,
) -> Result<pb::LeaseGrantResponse, Failure> {
    node.check_quota(LEASE_COST).await?;
    while request.id == 0 {
        request.id = rand::random::<i64>() & i64::MAX;
    }
    // The shortest time depends on this member's settings: it is decided here, before the log.
    request.ttl = request.ttl.max(node.settings().lease_ttl_min());
    let timed = timing::LEASE_GRANT.start();
    let applied = timed.end(node.propose(Encoded::new(Op::LeaseGrant(request))).await)?;
    match applied.response {
        Response::LeaseGrant(mut response) => {
            response.header = Some(node.header(applied.revision));
            Ok(response)
        }
        other => unreachable!("the state machine answered another command: {other:?}"),
    }
}

/// Ends a lease and the keys attached to it.
pub async fn revoke(node: Node, request: pb::LeaseRevokeRequest) -> Result<pb::LeaseRevokeResponse, Failure> {
    let timed = timing::LEASE_REVOKE.start();
    let applied = timed.end(node.propose(Encoded::new(Op::LeaseRevoke(request))).await)?;
    Ok(pb::LeaseRevokeResponse { header: Some(node.header(applied.revision)) })
}

/// How long a lease has still to live.
pub async fn time_to_live(
    node: Node,
    request: pb::LeaseTimeToLiveRequest,
) -> Result<pb::LeaseTimeToLiveResponse, Failure> {
    // Filled as late as can be: by then this member has seen what the leader saw, or more, as a rule.
    let answer = calls::lease_time_to_live(&node, &request).await?;
    Ok(pb::LeaseTimeToLiveResponse { header: Some(node.header_now()), ..answer })
}

/// All leases, those that end first first.
pub async fn leases(
    node: Node,
    _request: pb::LeaseLeasesRequest,
) -> Result<pb::LeaseLeasesResponse, Failure> {
    let leases = node.lessor().ids().into_iter().map(|id| pb::LeaseStatus { id }).collect();
    Ok(pb::LeaseLeasesResponse { header: Some(node.header_now()), leases })
}

/// Keeps leases alive for as long as the client asks.
pub fn keep_alive(call: &Call<'_>, messages: Messages<Incoming>) -> Answer {
    let monitor = call.admit_stream()?;
    let answers = answers(call.node().clone(), messages, call.method());
    Ok(stream(monitor.over(Pieces::new(answers))))
}

fn answers(
    node: Node,
    messages: Messages<Incoming>,
    method: Method,
) -> impl Stream<Item = Result<Bytes, Status>> {
    futures::stream::unfold(Some((node, messages)), move |state| async move {
        let (node, mut messages) = state?;
        let message = match messages.next().await? {
            Ok(message) => message,
            Err(invalid) => {
                failed_to_receive("lease-keepalive", &invalid);
                return Some((Err(invalid.into()), None));
            }
        };
        if let Some(series) = method.series() {
            series.received.inc();
        }
        let answer = decode(message).map_err(Failure::from);
        let answer = match answer {
            Ok(request) => renew(&node, request).await,
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(answer) => Some((Ok(framed(&answer)), Some((node, messages)))),
            Err(failure) => Some((Err(failure.into()), None)),
        }
    })
}

async fn renew(
    node: &Node,
    request: pb::LeaseKeepAliveRequest,
) -> Result<pb::LeaseKeepAliveResponse, Failure> {
    // Filled before the lease is kept alive: when the client sees this revision, the lease lived at it.
    let header = Some(node.header_now());
    if mutants::on(Mutant::KeepAliveHere) && !node.is_leader() {
        let ttl = node.lessor().time_to_live(request.id).map_or(0, |lease| lease.granted);
        return Ok(pb::LeaseKeepAliveResponse { header, id: request.id, ttl });
    }
    let ttl = match node.is_leader().then(|| node.lessor().renew_now(request.id)).flatten() {
        Some(ttl) => ttl,
        None => calls::lease_keep_alive(node, request).await?.ttl,
    };
    if ttl > 0 {
        METRICS.storage.leases_renewed.inc();
    }
    Ok(pb::LeaseKeepAliveResponse { header, id: request.id, ttl })
}
