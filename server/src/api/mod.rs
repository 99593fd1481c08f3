//! The services clients talk to, one file each.
//!
//! A call goes from [`Service::call`] straight into its handler: no layers, no
//! task of its own. What all calls have in common stands in `interceptor`.

mod auth;
pub mod body;
mod cluster;
mod election;
mod health;
mod insight;
mod interceptor;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod message;
mod method;
mod range;
mod range_stream;
mod snapshot;
pub mod status;
mod timing;
mod turn;
pub mod watch;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use prost::Message;
use tokio::time::timeout;
use tonic::Status;

pub use body::{Body, BoxError};
use interceptor::Call;
use message::Messages;
use method::Method;

use crate::node::{Failure, Invalid, Node};

/// How long a call that is refused anyway may take to send its message.
const LET_IN_TIMEOUT: Duration = Duration::from_millis(100);

/// A request's body as it comes from the connection.
type Incoming = hyper::body::Incoming;

/// All gRPC services of a member.
#[derive(Clone)]
pub struct Service {
    node: Node,
}

impl Service {
    /// The services of this member.
    pub fn new(node: Node) -> Self {
        Self { node }
    }

    /// Answers one call.
    pub async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        let method = match Method::find(request.uri().path()) {
            Ok(method) => method,
            Err(unknown) => {
                self.let_in(request).await;
                return body::refusal(&unknown.into());
            }
        };
        let ending = interceptor::Ending::new(&self.node, method);
        match self.dispatch(method, request).await {
            Ok(response) => {
                ending.answered();
                response
            }
            Err(failure) => {
                let status = Status::from(failure);
                ending.failed(status.code());
                body::refusal(&status)
            }
        }
    }

    /// Reads what a client sends along with a call that is refused: some take an answer that
    /// comes before they are done for a broken stream.
    async fn let_in(&self, request: Request<Incoming>) {
        let (parts, body) = request.into_parts();
        let mut messages = Messages::new(&parts.headers, body, self.node.settings().message_bytes_max());
        if timeout(LET_IN_TIMEOUT, messages.next()).await.is_err() {
            tracing::debug!("a refused call sent nothing");
        }
    }

    async fn dispatch(&self, method: Method, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let (parts, body) = request.into_parts();
        let call = Call::new(&self.node, method, &parts.headers);
        let mut messages = Messages::new(&parts.headers, body, self.node.settings().message_bytes_max());
        match method {
            Method::LeaseKeepAlive => return lease::keep_alive(&call, messages),
            Method::Watch => return watch::watch(&call, messages),
            _ => {}
        }
        let message = messages.next().await.unwrap_or(Err(Invalid::Truncated))?;
        // The rest of the body can only be its end; the answer need not wait for that.
        call.received();
        match method {
            Method::Put => kv::put(&call, message).await,
            Method::Range => kv::range(&call, message).await,
            Method::Txn => kv::txn(&call, message).await,
            _ => Box::pin(rare(call, message)).await,
        }
    }
}

/// The calls that are few enough not to be made room for in the state of all others.
async fn rare(call: Call<'_>, message: Bytes) -> Result<Response<Body>, Failure> {
    match call.method() {
        Method::DeleteRange => kv::delete_range(&call, message).await,
        Method::RangeStream => kv::range_stream(&call, message).await,
        Method::Compact => call.unary(message, kv::compact).await,

        Method::LeaseGrant => call.unary(message, lease::grant).await,
        Method::LeaseRevoke => call.unary(message, lease::revoke).await,
        Method::LeaseTimeToLive => call.unary(message, lease::time_to_live).await,
        Method::LeaseLeases => call.unary(message, lease::leases).await,

        Method::MemberList => call.unary(message, cluster::member_list).await,
        Method::MemberAdd => call.unary(message, cluster::member_add).await,
        Method::MemberRemove => call.unary(message, cluster::member_remove).await,
        Method::MemberUpdate => call.unary(message, cluster::member_update).await,
        Method::MemberPromote => call.unary(message, cluster::member_promote).await,

        Method::Alarm => call.unary(message, maintenance::alarm).await,
        Method::Status => call.unary_of_learner(message, maintenance::status).await,
        Method::Defragment => call.unary(message, maintenance::defragment).await,
        Method::Hash => call.unary(message, maintenance::hash).await,
        Method::HashKv => call.unary(message, maintenance::hash_kv).await,
        Method::Snapshot => snapshot::answer(&call, message).await,
        Method::MoveLeader => call.unary(message, maintenance::move_leader).await,
        Method::Downgrade => call.unary(message, maintenance::downgrade).await,

        Method::AuthStatus => call.unary(message, auth::status).await,
        Method::Authenticate => call.unary(message, auth::authenticate).await,
        Method::AuthEnable
        | Method::AuthDisable
        | Method::UserAdd
        | Method::UserGet
        | Method::UserList
        | Method::UserDelete
        | Method::UserChangePassword
        | Method::UserGrantRole
        | Method::UserRevokeRole
        | Method::RoleAdd
        | Method::RoleGet
        | Method::RoleList
        | Method::RoleDelete
        | Method::RoleGrantPermission
        | Method::RoleRevokePermission => call.not_implemented("authentication"),

        Method::HealthCheck => call.unary(message, health::check).await,
        Method::HealthList => call.unary(message, health::list).await,
        Method::HealthWatch => health::watch(&call, message),

        Method::Lock => call.inner(message, lock::lock).await,
        Method::Unlock => call.inner(message, lock::unlock).await,
        Method::Campaign => call.inner(message, election::campaign).await,
        Method::Proclaim => call.inner(message, election::proclaim).await,
        Method::Leader => call.inner(message, election::leader).await,
        Method::Observe => election::observe(&call, message),
        Method::Resign => call.inner(message, election::resign).await,

        Method::Sample => call.unary_of_learner(message, insight::sample).await,

        Method::Put | Method::Range | Method::Txn | Method::LeaseKeepAlive | Method::Watch => {
            unreachable!("dispatched before")
        }
    }
}

/// Reads a request off its message.
fn decode<M: Message + Default>(message: Bytes) -> Result<M, Invalid> {
    M::decode(message).map_err(|error| Invalid::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests;
