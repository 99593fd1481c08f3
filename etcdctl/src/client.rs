//! A client of the cluster: connections, deadlines, and etcd's rules for repeating a call.
//!
//! A call that only reads (or that etcd's client treats so) is repeated while the
//! answer is `Unavailable`. A write is sent once: it waits for a connection, but when
//! that breaks afterwards nobody knows whether the write happened.

mod endpoint;
mod error;
mod pool;
pub mod renewal;
mod tls;
pub mod watch;

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prost::Message;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::insight::insight_client::InsightClient;
use proto::insight::{SampleRequest, SampleResponse};
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use self::endpoint::Endpoint;
pub use self::error::{CallError, broken, describe};
use self::pool::Pool;
use self::watch::Leader;
use crate::failure::{Failure, exit};
use crate::globals::{Auth, Settings};
use crate::log;

/// How often a call is sent at most.
const ATTEMPTS_MAX: usize = 100;
/// Pause after every quorum of attempts.
const PAUSE: Duration = Duration::from_millis(25);

/// A client of one cluster.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Arc<Pool>,
    settings: Arc<Settings>,
    token: Arc<RwLock<Option<MetadataValue<tonic::metadata::Ascii>>>>,
}

/// Whether a call may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    WhileUnavailable,
    Never,
}

/// A connection with the limits of this client.
#[derive(Clone, Debug)]
pub struct Connection {
    channel: Channel,
    response_bytes_max: usize,
}

macro_rules! services {
    ($($name:ident: $client:ident),*) => {
        impl Connection {
            $(
                #[doc = concat!("The `", stringify!($name), "` service.")]
                pub fn $name(&self) -> $client<Channel> {
                    $client::new(self.channel.clone())
                        .max_decoding_message_size(self.response_bytes_max)
                        .max_encoding_message_size(usize::MAX)
                }
            )*
        }
    };
}
services!(
    auth: AuthClient,
    cluster: ClusterClient,
    insight: InsightClient,
    kv: KvClient,
    lease: LeaseClient,
    maintenance: MaintenanceClient,
    watch: WatchClient
);

/// One method a unary call: its name, messages, service, method and repetition.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $reply:ident = $service:ident.$method:ident, $repeat:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                pub async fn $name(
                    &self,
                    deadline: Option<Instant>,
                    request: pb::$request,
                ) -> Result<pb::$reply, CallError> {
                    self.unary(deadline, Repeat::$repeat, request, |connection: Connection, request| async move {
                        connection.$service().$method(request).await
                    })
                    .await
                }
            )*
        }
    };
}
calls! {
    /// Reads a range of keys.
    range(RangeRequest) -> RangeResponse = kv.range, WhileUnavailable;
    /// Puts a key.
    put(PutRequest) -> PutResponse = kv.put, Never;
    /// Deletes a range of keys.
    delete_range(DeleteRangeRequest) -> DeleteRangeResponse = kv.delete_range, Never;
    /// Runs a transaction.
    txn(TxnRequest) -> TxnResponse = kv.txn, Never;
    /// Puts a key that may be put twice.
    put_again(PutRequest) -> PutResponse = kv.put, WhileUnavailable;
    /// Runs a transaction that may run twice.
    txn_again(TxnRequest) -> TxnResponse = kv.txn, WhileUnavailable;
    /// Forgets old revisions.
    compact(CompactionRequest) -> CompactionResponse = kv.compact, Never;
    /// Grants a lease.
    lease_grant(LeaseGrantRequest) -> LeaseGrantResponse = lease.lease_grant, WhileUnavailable;
    /// Revokes a lease.
    lease_revoke(LeaseRevokeRequest) -> LeaseRevokeResponse = lease.lease_revoke, WhileUnavailable;
    /// Asks what is left of a lease.
    lease_time_to_live(LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse = lease.lease_time_to_live, WhileUnavailable;
    /// Lists the leases.
    lease_leases(LeaseLeasesRequest) -> LeaseLeasesResponse = lease.lease_leases, WhileUnavailable;
    /// Lists the members.
    member_list(MemberListRequest) -> MemberListResponse = cluster.member_list, WhileUnavailable;
    /// Adds a member.
    member_add(MemberAddRequest) -> MemberAddResponse = cluster.member_add, Never;
    /// Removes a member.
    member_remove(MemberRemoveRequest) -> MemberRemoveResponse = cluster.member_remove, Never;
    /// Changes a member's peer addresses.
    member_update(MemberUpdateRequest) -> MemberUpdateResponse = cluster.member_update, Never;
    /// Makes a learner a voter.
    member_promote(MemberPromoteRequest) -> MemberPromoteResponse = cluster.member_promote, Never;
    /// Lists or changes alarms.
    alarm(AlarmRequest) -> AlarmResponse = maintenance.alarm, WhileUnavailable;
    /// The state of one member.
    status(StatusRequest) -> StatusResponse = maintenance.status, WhileUnavailable;
    /// The hash of one member's history.
    hash_kv(HashKvRequest) -> HashKvResponse = maintenance.hash_kv, WhileUnavailable;
    /// Gives the space of one member's store back.
    defragment(DefragmentRequest) -> DefragmentResponse = maintenance.defragment, Never;
    /// Has another member lead.
    move_leader(MoveLeaderRequest) -> MoveLeaderResponse = maintenance.move_leader, Never;
    /// Prepares the cluster for an older version.
    downgrade(DowngradeRequest) -> DowngradeResponse = maintenance.downgrade, Never;
    /// Trades a password for a token.
    authenticate(AuthenticateRequest) -> AuthenticateResponse = auth.authenticate, Never;
    /// Turns authentication on.
    auth_enable(AuthEnableRequest) -> AuthEnableResponse = auth.auth_enable, Never;
    /// Turns authentication off.
    auth_disable(AuthDisableRequest) -> AuthDisableResponse = auth.auth_disable, Never;
    /// Tells whether authentication is on.
    auth_status(AuthStatusRequest) -> AuthStatusResponse = auth.auth_status, Never;
    /// Adds a user.
    user_add(AuthUserAddRequest) -> AuthUserAddResponse = auth.user_add, Never;
    /// Shows a user's roles.
    user_get(AuthUserGetRequest) -> AuthUserGetResponse = auth.user_get, WhileUnavailable;
    /// Lists the users.
    user_list(AuthUserListRequest) -> AuthUserListResponse = auth.user_list, WhileUnavailable;
    /// Deletes a user.
    user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse = auth.user_delete, Never;
    /// Changes a user's password.
    user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse = auth.user_change_password, Never;
    /// Gives a user a role.
    user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse = auth.user_grant_role, Never;
    /// Takes a role from a user.
    user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse = auth.user_revoke_role, Never;
    /// Adds a role.
    role_add(AuthRoleAddRequest) -> AuthRoleAddResponse = auth.role_add, Never;
    /// Shows what a role permits.
    role_get(AuthRoleGetRequest) -> AuthRoleGetResponse = auth.role_get, WhileUnavailable;
    /// Lists the roles.
    role_list(AuthRoleListRequest) -> AuthRoleListResponse = auth.role_list, WhileUnavailable;
    /// Deletes a role.
    role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse = auth.role_delete, Never;
    /// Lets a role read or write keys.
    role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse = auth.role_grant_permission, Never;
    /// Takes the permission of keys from a role.
    role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse = auth.role_revoke_permission, Never;
}

/// Fetches a path of one endpoint by HTTP.
///
/// # Errors
/// In words, when the endpoint cannot be reached or answers something that is not text.
pub async fn http_get(settings: &Settings, endpoint: &str, path: &str) -> Result<String, String> {
    let endpoint = Endpoint::parse(endpoint, tls::wanted(settings));
    let tls = match endpoint.encrypted() {
        true => Some(tls::http(settings).map_err(|failure| failure.message.unwrap_or_default())?),
        false => None,
    };
    let body = endpoint.get(settings, tls, path).await?;
    String::from_utf8(body.into()).map_err(|error| error.to_string())
}

impl Client {
    /// A client of the endpoints in the settings; authenticates if they say so.
    pub async fn open(settings: &Settings) -> Result<Self, Failure> {
        Self::open_to(settings, &settings.endpoints).await
    }

    /// A client of these endpoints alone.
    pub async fn open_to(settings: &Settings, endpoints: &[String]) -> Result<Self, Failure> {
        let settings = Arc::new(settings.clone());
        let pool = Pool::new(endpoints, settings.clone())?;
        if pool.len() == 0 {
            let message = "etcdclient: no available endpoints";
            return Err(Failure::new(exit::BAD_CONNECTION, message));
        }
        let client = Self { pool: Arc::new(pool), settings, token: Arc::default() };
        if let Auth::Token(token) = &client.settings.auth {
            client.set_token(Some(token))?;
        }
        let deadline = Instant::now() + client.settings.dial_timeout;
        client
            .refresh_token((!client.settings.dial_timeout.is_zero()).then_some(deadline))
            .await
            .map_err(|error| Failure::new(exit::BAD_CONNECTION, error))?;
        Ok(client)
    }

    /// The deadline of a short command that starts now.
    pub fn deadline(&self) -> Option<Instant> {
        Some(Instant::now() + self.settings.command_timeout)
    }

    /// Reads a range as a stream, put together into one response.
    pub async fn range_stream(
        &self,
        deadline: Option<Instant>,
        request: pb::RangeRequest,
    ) -> Result<pb::RangeResponse, CallError> {
        let call = async {
            self.fresh_token().await?;
            let (_, connection) = self.connection(None).await;
            let request = self.request(request, deadline);
            let mut stream = connection.kv().range_stream(request).await?.into_inner();
            let mut whole = pb::RangeResponse::default();
            while let Some(part) = stream.message().await? {
                let Some(part) = part.range_response else { continue };
                whole.header = part.header.or(whole.header);
                whole.kvs.extend(part.kvs);
                whole.more |= part.more;
                whole.count = if part.count == 0 { whole.count } else { part.count };
            }
            Ok(whole)
        };
        self.limited(deadline, call).await.and_then(|result| result.map_err(CallError::Status))
    }

    /// Opens the stream of a member's snapshot.
    pub async fn snapshot(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Streaming<pb::SnapshotResponse>, CallError> {
        let request = pb::SnapshotRequest {};
        self.unary(
            deadline,
            Repeat::WhileUnavailable,
            request,
            |connection: Connection, request| async move { connection.maintenance().snapshot(request).await },
        )
        .await
    }

    /// Why the last attempt to connect failed.
    pub fn last_connection_error(&self) -> Option<String> {
        self.pool.last_error()
    }

    /// What one member sees of its load; servers other than Quorate's do not implement it.
    pub async fn insight(
        &self,
        deadline: Option<Instant>,
        request: SampleRequest,
    ) -> Result<SampleResponse, CallError> {
        self.unary(deadline, Repeat::Never, request, |connection: Connection, request| async move {
            connection.insight().sample(request).await
        })
        .await
    }

    /// Opens the stream that renews leases.
    pub async fn keep_alive(
        &self,
        requests: impl tokio_stream::Stream<Item = pb::LeaseKeepAliveRequest> + Send + 'static,
    ) -> Result<Streaming<pb::LeaseKeepAliveResponse>, Status> {
        self.fresh_token().await?;
        let (index, connection) = self.connection(None).await;
        let reply = connection.lease().lease_keep_alive(self.request(requests, None)).await;
        self.opened(index, reply)
    }

    /// Opens a watch stream.
    pub async fn watch(
        &self,
        requests: impl tokio_stream::Stream<Item = pb::WatchRequest> + Send + 'static,
        leader: Leader,
    ) -> Result<Streaming<pb::WatchResponse>, Status> {
        self.fresh_token().await?;
        let (index, connection) = self.connection(None).await;
        let mut request = self.request(requests, None);
        if leader == Leader::Required {
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
        self.opened(index, connection.watch().watch(request).await)
    }

    /// Drops every connection, so that the next call makes a new one.
    pub fn disconnect(&self) {
        (0..self.pool.len()).for_each(|index| self.pool.forget(index));
    }

    fn opened<T>(&self, index: usize, reply: Result<Response<T>, Status>) -> Result<T, Status> {
        if reply.as_ref().is_err_and(broken) {
            self.pool.forget(index);
        }
        reply.map(Response::into_inner)
    }

    async fn connection(&self, avoid: Option<usize>) -> (usize, Connection) {
        let (index, channel) = self.pool.pick(avoid).await;
        (index, Connection { channel, response_bytes_max: self.settings.response_bytes_max })
    }

    fn request<T>(&self, message: T, deadline: Option<Instant>) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(deadline) = deadline {
            // The server gives up a little later than we do: our clock decides what the user reads.
            request.set_timeout(deadline.saturating_duration_since(Instant::now()) + PAUSE);
        }
        request.metadata_mut().insert("client-api-version", MetadataValue::from_static(crate::API_VERSION));
        if let Some(token) = &*self.token.read().unwrap_or_else(PoisonError::into_inner) {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    async fn unary<M, R, F, Call>(
        &self,
        deadline: Option<Instant>,
        repeat: Repeat,
        message: M,
        call: F,
    ) -> Result<R, CallError>
    where
        M: Message + Clone,
        F: Fn(Connection, Request<M>) -> Call,
        Call: Future<Output = Result<Response<R>, Status>>,
    {
        let (size, limit) = (message.encoded_len(), self.settings.request_bytes_max);
        if size > limit {
            let text = format!("trying to send message larger than max ({size} vs. {limit})");
            return Err(CallError::Status(Status::resource_exhausted(text)));
        }
        let quorum = self.pool.len() / 2 + 1;
        let attempts = async {
            let mut avoid = None;
            let mut attempt = 0;
            loop {
                if attempt > 0 && attempt % quorum == 0 {
                    tokio::time::sleep(PAUSE).await;
                }
                attempt += 1;
                let (index, connection) = self.connection(avoid).await;
                let status = match call(connection, self.request(message.clone(), deadline)).await {
                    Ok(reply) => return Ok(reply.into_inner()),
                    Err(status) => status,
                };
                log::warn("a call failed", "error", describe(&status));
                if broken(&status) {
                    self.pool.forget(index);
                }
                if attempt >= ATTEMPTS_MAX || !self.repeatable(repeat, &status, deadline).await? {
                    return Err(CallError::Status(status));
                }
                avoid = Some(index);
            }
        };
        self.limited(deadline, attempts).await?
    }

    /// Whether to send a call again after this refusal; fetches a new token where that is why.
    async fn repeatable(
        &self,
        repeat: Repeat,
        status: &Status,
        deadline: Option<Instant>,
    ) -> Result<bool, CallError> {
        match status.message() {
            "etcdserver: invalid auth token"
            | "etcdserver: revision of auth store is old"
            | "etcdserver: user name is empty"
                if matches!(self.settings.auth, Auth::Password { .. }) =>
            {
                Box::pin(self.refresh_token(deadline)).await?;
                Ok(true)
            }
            "etcdserver: rpc not supported for learner" => Ok(self.pool.len() > 1),
            _ => {
                let unavailable = status.code() == Code::Unavailable || broken(status);
                Ok(repeat == Repeat::WhileUnavailable && unavailable)
            }
        }
    }

    /// Authenticates by password, if that is how. A cluster without authentication wants no token.
    async fn refresh_token(&self, deadline: Option<Instant>) -> Result<(), CallError> {
        let Auth::Password { user, password } = &self.settings.auth else { return Ok(()) };
        let request = pb::AuthenticateRequest { name: user.clone(), password: password.clone() };
        let token = match self.authenticate(deadline, request).await {
            Ok(reply) => Some(reply.token),
            Err(error) if error.says("etcdserver: authentication is not enabled") => None,
            Err(error) => return Err(error),
        };
        self.set_token(token.as_deref())
            .map_err(|_| CallError::Status(Status::internal("the server sent a token that is not text")))
    }

    /// A token for a stream: one that is refused ends it, and cannot be replaced then.
    async fn fresh_token(&self) -> Result<(), Status> {
        self.refresh_token(None).await.map_err(|error| match error {
            CallError::Status(status) => status,
            CallError::DeadlineExceeded => Status::deadline_exceeded(error.to_string()),
        })
    }

    fn set_token(&self, token: Option<&str>) -> Result<(), Failure> {
        let token = token.map(str::parse).transpose().map_err(Failure::args)?;
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
        Ok(())
    }

    /// Runs a call until the deadline; without one, as long as it takes.
    async fn limited<T>(
        &self,
        deadline: Option<Instant>,
        call: impl Future<Output = T>,
    ) -> Result<T, CallError> {
        let Some(deadline) = deadline else { return Ok(call.await) };
        tokio::time::timeout_at(deadline, call).await.map_err(|_| {
            if let Some(error) = self.pool.last_error() {
                log::warn("no connection before the deadline", "error", error);
            }
            CallError::DeadlineExceeded
        })
    }
}
