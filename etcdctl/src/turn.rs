//! Taking turns under a prefix, as locks and elections do.
//!
//! Whoever comes puts a key under the prefix, attached to a lease that is kept alive, and
//! the oldest key has its turn. Keys and order are those of etcd's client library: who
//! waits here and who waits there wait for each other.

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use proto::mvccpb::event::EventType;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::client::watch::{Leader, Stream};
use crate::client::{Client, renewal};
use crate::failure::Failure;
use crate::go::quote;
use crate::verb::prefix_end;

/// A lease that is renewed until it is gone.
#[derive(Debug)]
pub struct Session {
    client: Client,
    lease: i64,
    renewal: JoinHandle<Result<(), Failure>>,
}

impl Session {
    /// Grants a lease of so many seconds, and keeps it alive from now on.
    pub async fn open(client: &Client, ttl: i64) -> Result<Self, Failure> {
        let request = pb::LeaseGrantRequest { ttl, id: 0 };
        let lease = client.lease_grant(None, request).await.map_err(Failure::general)?.id;
        let renewing = client.clone();
        let renewal = tokio::spawn(async move { renewal::renew(&renewing, lease, |_reply| Ok(())).await });
        Ok(Self { client: client.clone(), lease, renewal })
    }

    /// Waits until the lease is gone.
    pub async fn ended(&mut self) {
        // Its end is all there is to know: nothing is told, so nothing fails.
        (&mut self.renewal).await.ok();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// A key among those that wait.
#[derive(Debug)]
pub struct Place {
    client: Client,
    prefix: Bytes,
    /// The key: the prefix and the lease's id.
    pub key: Bytes,
    /// The revision at which the key was put. Older keys go first.
    pub revision: i64,
}

impl Place {
    /// Goes to the end of the line under `name` with this value.
    pub async fn take(session: &Session, name: &[u8], value: Bytes) -> Result<Self, Failure> {
        let prefix = prefix(name);
        let key: Bytes = [&prefix, format!("{:x}", session.lease).as_bytes()].concat().into();
        let put = pb::PutRequest { key: key.clone(), value, lease: session.lease, ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![created(&key, 0)],
            success: vec![pb::RequestOp { request: Some(Request::RequestPut(put)) }],
            failure: Vec::new(),
        };
        let reply = session.client.txn(None, request).await.map_err(Failure::general)?;
        if !reply.succeeded {
            return Err(Failure::general(format!("{} was there before its lease", quote(&key))));
        }
        let revision = reply.header.map_or(0, |header| header.revision);
        Ok(Self { client: session.client.clone(), prefix, key, revision })
    }

    /// Waits until no older key is left, and tells whether there was one.
    pub async fn turn(&self) -> Result<bool, Failure> {
        let mut waited = false;
        loop {
            let request = pb::RangeRequest {
                max_create_revision: self.revision - 1,
                ..by_age(self.prefix.clone(), SortOrder::Descend)
            };
            let ahead = self.client.range(None, request).await.map_err(Failure::general)?;
            let Some(next) = ahead.kvs.first() else { return Ok(waited) };
            waited = true;
            let revision = ahead.header.map_or(0, |header| header.revision);
            deleted(&self.client, next.key.clone(), revision).await?;
        }
    }

    /// The key as it is now, with its value.
    pub async fn read(&self) -> Result<pb::RangeResponse, Failure> {
        let request = pb::RangeRequest { key: self.key.clone(), ..Default::default() };
        self.client.range(None, request).await.map_err(Failure::general)
    }

    /// Gives the place up, whoever it belongs to by now.
    pub async fn leave(&self) -> Result<(), Failure> {
        let request = pb::DeleteRangeRequest { key: self.key.clone(), ..Default::default() };
        self.client.delete_range(self.client.deadline(), request).await.map_err(Failure::general)?;
        Ok(())
    }

    /// Gives the place up if it is still ours.
    pub async fn resign(&self) -> Result<(), Failure> {
        let delete = pb::DeleteRangeRequest { key: self.key.clone(), ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![created(&self.key, self.revision)],
            success: vec![pb::RequestOp { request: Some(Request::RequestDeleteRange(delete)) }],
            failure: Vec::new(),
        };
        self.client.txn(self.client.deadline(), request).await.map_err(Failure::general)?;
        Ok(())
    }
}

/// What the keys under a name begin with.
pub fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// Asks for the oldest key with this prefix, or the newest.
pub fn by_age(prefix: Bytes, order: SortOrder) -> pb::RangeRequest {
    pb::RangeRequest {
        range_end: prefix_end(&prefix),
        key: prefix,
        limit: 1,
        sort_order: order.into(),
        sort_target: SortTarget::Create.into(),
        ..Default::default()
    }
}

/// Whether a key was created at this revision; 0 means that there is none.
fn created(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

/// Waits until a key is deleted, at this revision or later.
async fn deleted(client: &Client, key: Bytes, revision: i64) -> Result<(), Failure> {
    let request = pb::WatchCreateRequest { key, start_revision: revision, ..Default::default() };
    let mut notices = Stream::start(client.clone(), Leader::AnyTime).watch(request).await;
    while let Some(notice) = notices.recv().await {
        if notice.reply.events.iter().any(|event| event.r#type() == EventType::Delete) {
            return Ok(());
        }
        if let Some(reason) = notice.end() {
            return Err(Failure::general(reason));
        }
    }
    Err(Failure::general("lost watcher waiting for delete"))
}

/// The first request of the user that this process end. Later ones change nothing: what
/// ends it is under way.
#[derive(Debug)]
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Takes interrupts and terminations from here on.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::general);
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the first.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What a command says that the user ended while it waited.
pub fn cancelled() -> Failure {
    Failure::general("context canceled")
}
