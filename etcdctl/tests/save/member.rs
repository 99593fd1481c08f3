//! A member that sends a snapshot, in one of several ways.

use std::net::SocketAddr;
use std::pin::Pin;

use proto::etcdserverpb as pb;
use proto::etcdserverpb::maintenance_server::{Maintenance, MaintenanceServer};
use snapshot::file::Hasher;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

/// Bytes of a message, as etcd sends it.
const CHUNK: usize = 32 * 1024;

/// How a snapshot ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its digest.
    Well,
    /// With the digest of something else.
    Damaged,
    /// Without a digest.
    Short,
    /// With a refusal, after half of it.
    Refused,
    /// Not at all, after half of it.
    Never,
}

/// A member that has started. What is under way breaks when it is dropped.
pub struct Member {
    runtime: Option<Runtime>,
    address: SocketAddr,
}

impl Member {
    /// Starts a member with an image of so many bytes.
    pub fn start(bytes: usize, end: End) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let service = MaintenanceServer::new(Service { image: image(bytes), end });
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await });
        Self { runtime: Some(runtime), address }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Bytes that stand for an image: saving does not look into it.
fn image(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 % 251) as u8).collect()
}

/// The whole file that a member with an image of so many bytes sends.
pub fn file(bytes: usize) -> Vec<u8> {
    let mut file = image(bytes);
    let mut hasher = Hasher::default();
    hasher.update(&file);
    file.extend_from_slice(&hasher.finish().0);
    file
}

struct Service {
    image: Vec<u8>,
    end: End,
}

type Messages = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Maintenance for Service {
    type SnapshotStream = Messages;

    async fn snapshot(
        &self,
        _request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let total = self.image.len();
        let message = |remaining: usize, blob: &[u8]| pb::SnapshotResponse {
            header: None,
            remaining_bytes: remaining as u64,
            blob: blob.to_vec().into(),
            version: "3.7.0".to_owned(),
        };
        let mut messages = Vec::new();
        for (at, chunk) in self.image.chunks(CHUNK).enumerate() {
            messages.push(Ok(message(total - at * CHUNK - chunk.len(), chunk)));
        }
        let digest = file(total)[total..].to_vec();
        match self.end {
            End::Well => messages.push(Ok(message(0, &digest))),
            End::Damaged => messages.push(Ok(message(0, &[0; 32]))),
            End::Short => {}
            End::Refused | End::Never => messages.truncate(messages.len() / 2),
        }
        if self.end == End::Refused {
            messages.push(Err(Status::unavailable("the disk of this member is gone")));
        }
        let sent = tokio_stream::iter(messages);
        Ok(Response::new(match self.end {
            End::Never => Box::pin(sent.chain(tokio_stream::pending())),
            _ => Box::pin(sent),
        }))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let header = pb::ResponseHeader { cluster_id: 0xabc, ..Default::default() };
        Ok(Response::new(pb::StatusResponse { header: Some(header), ..Default::default() }))
    }

    async fn alarm(&self, _: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn hash_kv(&self, _: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn move_leader(
        &self,
        _: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn downgrade(
        &self,
        _: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
