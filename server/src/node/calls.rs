//! Requests that only the leader can answer, wherever they come in.
//!
//! ```text
//!   api ──► here, when this member leads
//!       └─► raft.call ──► the leader's peer port ──► answer ──► here, over there
//! ```
//!
//! Nothing is handed on twice: a member that is asked and does not lead says so,
//! and whoever asked looks again for the leader, as long as the request may wait.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb as pb;
use proto::peer::Method;
use state::Fault;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use super::{Failure, Invalid, Node, cluster, stop_on};
use crate::error::Unavailable;
use crate::lessor;

/// The pause before the leader is looked for again.
const PAUSE: Duration = Duration::from_millis(50);
/// What a member answers that is asked and does not lead.
const NOT_LEADER: &str = "etcdserver: not leader";

/// Answers what another member asks this one.
///
/// # Errors
/// What the other member is to tell its client, or that this one does not lead.
pub async fn answer(node: &Node, method: Method, body: Bytes) -> Result<Bytes, Status> {
    if method != Method::HashKv && !node.is_leader() {
        return Err(Status::new(Code::FailedPrecondition, NOT_LEADER));
    }
    let answered = async {
        Ok(match method {
            Method::LeaseKeepAlive => encoded(&keep_alive_here(node, decoded(body)?).await?),
            Method::LeaseTimeToLive => encoded(&time_to_live_here(node, &decoded(body)?).await?),
            Method::MemberAdd => encoded(&cluster::add_here(node, &decoded(body)?).await?),
            Method::MemberRemove => encoded(&cluster::remove_here(node, &decoded(body)?).await?),
            Method::MemberUpdate => encoded(&cluster::update_here(node, &decoded(body)?).await?),
            Method::MemberPromote => encoded(&cluster::promote_here(node, &decoded(body)?).await?),
            Method::HashKv => encoded(&hash_kv(node, decoded(body)?).await?),
            Method::Unknown => return Err(Invalid::NotImplemented("this call").into()),
        })
    };
    answered.await.map_err(|failure| match elsewhere(&failure) {
        true => Status::new(Code::FailedPrecondition, NOT_LEADER),
        false => failure.into(),
    })
}

/// Keeps a lease alive. The header is left for the member that was asked.
///
/// # Errors
/// When no leader can be asked in time.
pub async fn lease_keep_alive(
    node: &Node,
    request: pb::LeaseKeepAliveRequest,
) -> Result<pb::LeaseKeepAliveResponse, Failure> {
    at_leader(node, Method::LeaseKeepAlive, &request, true, || keep_alive_here(node, request)).await
}

/// How long a lease has still to live. The header is left for the member that was asked.
///
/// # Errors
/// When no leader can be asked in time.
pub async fn lease_time_to_live(
    node: &Node,
    request: &pb::LeaseTimeToLiveRequest,
) -> Result<pb::LeaseTimeToLiveResponse, Failure> {
    at_leader(node, Method::LeaseTimeToLive, request, true, || time_to_live_here(node, request)).await
}

async fn keep_alive_here(
    node: &Node,
    request: pb::LeaseKeepAliveRequest,
) -> Result<pb::LeaseKeepAliveResponse, Failure> {
    let ttl = lessor::renew(node, request.id).await?;
    Ok(pb::LeaseKeepAliveResponse { header: None, id: request.id, ttl })
}

async fn time_to_live_here(
    node: &Node,
    request: &pb::LeaseTimeToLiveRequest,
) -> Result<pb::LeaseTimeToLiveResponse, Failure> {
    let id = request.id;
    lessor::lead(node).await?;
    node.catch_up().await?;
    let Some(time) = node.lessor().time_to_live(id) else {
        return Ok(pb::LeaseTimeToLiveResponse { id, ttl: -1, ..Default::default() });
    };
    let keys = match request.keys {
        true => {
            let reader = node.reader().clone();
            blocking(move || reader.lease_keys(id)).await
        }
        false => Vec::new(),
    };
    let (ttl, granted_ttl) = (time.remaining, time.granted);
    Ok(pb::LeaseTimeToLiveResponse { header: None, id, ttl, granted_ttl, keys })
}

/// The hash of this member's key space up to a revision.
///
/// # Errors
/// When the revision is compacted or in the future.
pub async fn hash_kv(node: &Node, request: pb::HashKvRequest) -> Result<pb::HashKvResponse, Failure> {
    let reader = node.reader().clone();
    let hash = blocking(move || reader.hash_kv(request.revision)).await?;
    Ok(pb::HashKvResponse {
        header: Some(node.header(hash.current)),
        hash: hash.hash,
        compact_revision: hash.compact_revision,
        hash_revision: hash.hash_revision,
    })
}

/// Runs a long read off the thread that serves others.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> T {
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => read.unwrap_or_else(|fault| stop_on(fault)),
        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
    }
}

/// Asks the leader, be it this member, until it answers or the time is up.
///
/// `repeats`: whether to ask again when the connection was lost and nobody knows what became of the request.
pub(super) async fn at_leader<Q, A, F>(
    node: &Node,
    method: Method,
    request: &Q,
    repeats: bool,
    here: impl Fn() -> F,
) -> Result<A, Failure>
where
    Q: Message,
    A: Message + Default,
    F: Future<Output = Result<A, Failure>>,
{
    let asking = async {
        let mut status = node.raft().status_watch();
        loop {
            let leader = match status.wait_for(|status| status.leader != 0).await {
                Ok(status) => status.leader,
                Err(_) => return Err(Unavailable::Stopped.into()),
            };
            let answer = match leader == node.member_id() {
                true => here().await,
                false => ask(node, leader, method, encoded(request)).await,
            };
            match answer {
                Err(failure) if elsewhere(&failure) || repeats && failure == Failure::ConnectionLost => {
                    sleep(PAUSE).await;
                }
                answer => return answer,
            }
        }
    };
    match timeout(node.settings().request_timeout(), asking).await {
        Ok(answer) => answer,
        Err(_elapsed) if node.status().leader == 0 => Err(Unavailable::NoLeader.into()),
        Err(_elapsed) => Err(Unavailable::TimedOut.into()),
    }
}

async fn ask<A: Message + Default>(
    node: &Node,
    leader: u64,
    method: Method,
    body: Bytes,
) -> Result<A, Failure> {
    match node.raft().call(leader, method, body).await {
        Ok(answer) => Ok(decoded(answer)?),
        Err(status) if status.message() == NOT_LEADER => Err(Unavailable::NotLeader { leader: 0 }.into()),
        // Every refusal of a member has such a text; what has not comes from the way there.
        Err(status) if status.message().starts_with("etcdserver: ") => {
            Err(Failure::Relayed { code: status.code(), text: status.message().to_owned() })
        }
        Err(status) => {
            tracing::debug!(leader = format!("{leader:x}"), %status, "the leader could not be asked");
            Err(Failure::ConnectionLost)
        }
    }
}

/// Whether nothing was done, because another member leads.
fn elsewhere(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Unavailable(Unavailable::NoLeader | Unavailable::NotLeader { .. })
            | Failure::Invalid(Invalid::NotPrimary)
    )
}

fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

fn decoded<M: Message + Default>(body: Bytes) -> Result<M, Invalid> {
    M::decode(body).map_err(|error| Invalid::Malformed(error.to_string()))
}
