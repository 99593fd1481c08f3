//! What this member answers its peers, and to whom it answers nothing.

use std::pin::Pin;
use std::time::Instant;

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use proto::peer as pb;
use proto::peer::peer_server::{Peer, PeerServer};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::metrics::METRICS;
use crate::node::{Node, calls};
use crate::raft::{CLUSTER_HEADER, FROM_HEADER, MESSAGE_BYTES_MAX, TO_HEADER};

/// The service of one member.
pub struct PeerService {
    node: Node,
    /// When the transfer of a state under way began.
    receiving: Mutex<Option<Instant>>,
}

impl PeerService {
    /// Ready to be put on the peer port.
    pub fn new(node: Node) -> PeerServer<Self> {
        PeerServer::new(Self { node, receiving: Mutex::default() })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Who asks, if it is a member of this cluster that takes this one for who it is.
    fn admit<T>(&self, request: Request<T>) -> Result<(u64, T), Status> {
        let from = self.check(request.metadata())?;
        Ok((from, request.into_inner()))
    }

    fn check(&self, metadata: &MetadataMap) -> Result<u64, Status> {
        let (cluster, from, to) =
            (id(metadata, CLUSTER_HEADER)?, id(metadata, FROM_HEADER)?, id(metadata, TO_HEADER)?);
        if cluster != self.node.cluster_id() {
            warn!(
                local_member_id = format!("{:x}", self.node.member_id()),
                local_cluster_id = format!("{:x}", self.node.cluster_id()),
                remote_peer_id = format!("{from:x}"),
                remote_cluster_id = format!("{cluster:x}"),
                "request cluster ID mismatch"
            );
            return Err(Status::failed_precondition("cluster ID mismatch"));
        }
        if to != self.node.member_id() {
            warn!(
                local_member_id = format!("{:x}", self.node.member_id()),
                to = format!("{to:x}"),
                remote_peer_id = format!("{from:x}"),
                "ignored a message for another member"
            );
            return Err(Status::failed_precondition(format!("this is member {:x}", self.node.member_id())));
        }
        if self.node.reader().removed(from) {
            warn!(
                local_member_id = format!("{:x}", self.node.member_id()),
                removed_member_id = format!("{from:x}"),
                "rejected message from removed member"
            );
            return Err(Status::permission_denied(format!("member {from:x} was removed from the cluster")));
        }
        Ok(from)
    }

    /// A transfer of a state has ended, in one way or the other.
    fn received(&self, from: u64, well: bool) {
        let from = format!("{from:x}");
        let (network, labels) = (&METRICS.network, [from.as_str()]);
        network.snapshot_receive_inflight.with_label_values(&labels).set(0);
        let took = self.receiving.lock().take().map(|began| began.elapsed()).unwrap_or_default();
        if !well {
            network.snapshot_receive_failures.with_label_values(&labels).inc();
            return warn!(remote_peer_id = from, "failed to receive a database snapshot");
        }
        network.snapshot_receive_success.with_label_values(&labels).inc();
        network.snapshot_receive_seconds.with_label_values(&labels).observe(took.as_secs_f64());
        METRICS.storage.snap_db_save_seconds.observe(took.as_secs_f64());
        info!(
            remote_peer_id = from,
            took_ms = took.as_millis() as u64,
            "received and applied a database snapshot"
        );
    }
}

fn id(metadata: &MetadataMap, name: &str) -> Result<u64, Status> {
    let value = metadata.get(name).and_then(|value| value.to_str().ok());
    let id = value.and_then(|text| u64::from_str_radix(text, 16).ok());
    id.ok_or_else(|| Status::unauthenticated(format!("a peer says {name}")))
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = Pin<Box<dyn Stream<Item = Result<pb::AppendResponse, Status>> + Send>>;
    type LeadStream = Pin<Box<dyn Stream<Item = Result<pb::LeadResponse, Status>> + Send>>;

    async fn append(&self, request: Request<Streaming<pb::AppendRequest>>) -> Answer<Self::AppendStream> {
        let (from, requests) = self.admit(request)?;
        let failures = METRICS.network.peer_received_failures.with_label_values(&[&format!("{from:x}")]);
        let requests = requests.inspect(move |request| failures.inc_by(u64::from(request.is_err())));
        Ok(Response::new(Box::pin(self.node.raft().on_append(from, requests))))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Answer<pb::VoteResponse> {
        let (_, request) = self.admit(request)?;
        self.node.raft().on_vote(request).await.map(Response::new)
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Answer<pb::VoteResponse> {
        let (_, request) = self.admit(request)?;
        self.node.raft().on_pre_vote(request).await.map(Response::new)
    }

    async fn transfer_leader(&self, request: Request<pb::TransferRequest>) -> Answer<pb::TransferResponse> {
        let (_, request) = self.admit(request)?;
        self.node.raft().on_transfer_leader(request).await.map(Response::new)
    }

    async fn lead(&self, request: Request<Streaming<pb::LeadRequest>>) -> Answer<Self::LeadStream> {
        let (from, requests) = self.admit(request)?;
        Ok(Response::new(Box::pin(self.node.raft().on_lead(from, requests))))
    }

    async fn call(&self, request: Request<pb::CallRequest>) -> Answer<pb::CallResponse> {
        let (_, request) = self.admit(request)?;
        let answer = match calls::answer(&self.node, request.method(), request.body).await {
            Ok(body) => pb::CallResponse { body, ..Default::default() },
            Err(status) => pb::CallResponse {
                code: status.code().into(),
                message: status.message().to_owned(),
                ..Default::default()
            },
        };
        Ok(Response::new(answer))
    }

    async fn probe(&self, request: Request<pb::ProbeRequest>) -> Answer<pb::ProbeResponse> {
        self.admit(request)?;
        Ok(Response::new(pb::ProbeResponse {}))
    }

    async fn offer_state(&self, request: Request<pb::StateManifest>) -> Answer<pb::StateProgress> {
        let (from, manifest) = self.admit(request)?;
        METRICS.network.snapshot_receive_inflight.with_label_values(&[&format!("{from:x}")]).set(1);
        self.receiving.lock().get_or_insert_with(Instant::now);
        self.node.raft().on_offer_state(manifest).await.map(Response::new)
    }

    async fn send_state(&self, request: Request<Streaming<pb::StateChunk>>) -> Answer<pb::StateProgress> {
        let (from, mut chunks) = self.admit(request)?;
        while let Some(chunk) = chunks.next().await {
            let taken = async { self.node.raft().on_state_chunk(chunk?).await };
            taken.await.inspect_err(|_| self.received(from, false))?;
        }
        Ok(Response::new(self.node.raft().state_progress()))
    }

    async fn install_state(&self, request: Request<pb::InstallRequest>) -> Answer<pb::InstallResponse> {
        let (from, request) = self.admit(request)?;
        let answer = self.node.raft().on_install_state(request).await;
        self.received(from, answer.is_ok());
        answer.map(Response::new)
    }
}
