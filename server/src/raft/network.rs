//! What openraft sends to a peer, over the ways of [`super::peers`].

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use mutants::Mutant;
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use prost::Message;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::{Code, Status, Streaming};

use super::peers::{Link, Peers, Way};
use super::pulse::Pulse;
use super::send_state::SendState;
use super::state_machine::StateFiles;
use super::status::Shared;
use super::types::{Node, Term, TypeConfig, Vote, new_log_id, state_log_id};
use super::wire;
use crate::metrics::METRICS;

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

/// The shortest time a vote may take: its receiver writes it to disk.
const VOTE_TIME_MIN: Duration = Duration::from_millis(500);

/// Appends to one peer that may wait for their answers. While one is written there, the next is on its way; more
/// would only cut what is written into smaller pieces.
const APPENDS_IN_FLIGHT: usize = 2;

/// Makes clients for peers.
pub(crate) struct Network {
    peers: Peers,
    send_state: Arc<SendState>,
    status: Arc<Shared>,
}

impl Network {
    pub fn new(peers: Peers, send_state: Arc<SendState>, status: Arc<Shared>) -> Self {
        Self { peers, send_state, status }
    }

    fn peer(&self, id: u64, node: &Node, beats: bool) -> Peer {
        self.peers.set(id, &node.peer_urls);
        let (send_state, status) = (Arc::clone(&self.send_state), Arc::clone(&self.status));
        Peer {
            id,
            peers: self.peers.clone(),
            send_state,
            status,
            beats,
            pulse: Pulse::default(),
            heartbeats: None,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Node) -> Peer {
        self.peer(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Peer {
        self.peer(target, node, true)
    }
}

/// The way to one peer.
pub(crate) struct Peer {
    id: u64,
    peers: Peers,
    send_state: Arc<SendState>,
    status: Arc<Shared>,
    /// Its appends are single heartbeats, which go over the control connection.
    beats: bool,
    pulse: Pulse,
    heartbeats: Option<Heartbeats>,
}

impl Peer {
    fn error(&self, way: Way, status: Status) -> RPCError<TypeConfig> {
        if let Ok(link) = self.peers.link(self.id) {
            self.peers.failed(&link, way, &status);
        }
        error(status)
    }

    async fn append(
        &self,
        input: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    ) -> Result<BoxStream<'_, Rpc<StreamAppendResult<TypeConfig>>>, Status> {
        let link = self.peers.link(self.id)?;
        let mut client = self.peers.client(&link, Way::Append)?;
        let window = Arc::new(Semaphore::new(APPENDS_IN_FLIGHT));
        let (believed, believes) = mpsc::unbounded_channel();
        let term = Arc::new(AtomicU64::new(0));
        let (leads, sent) =
            (Arc::clone(&term), METRICS.network.peer_sent_bytes.with_label_values(&[&link.name()]));
        let requests = paced(input, Arc::clone(&window)).map(move |request| {
            leads.store(request.vote.leader_id().term, Ordering::Relaxed);
            let request = wire::append_request(request);
            sent.inc_by(request.encoded_len() as u64);
            if mutants::on(Mutant::AnswerBeforeCommit) {
                let last = request.entries.last().map(|entry| (entry.term, entry.index));
                let last = last.or(request.previous.map(|previous| (previous.term, previous.index)));
                believed.send(Ok(Ok(last.map(|(term, index)| new_log_id(term, index))))).ok();
            }
            request
        });
        let mut answers = client.append(link.request(requests)).await?.into_inner();
        link.succeeded();
        if mutants::on(Mutant::AnswerBeforeCommit) {
            tokio::spawn(async move {
                while let Ok(Some(_)) = answers.message().await {
                    window.add_permits(1);
                }
            });
            return Ok(Box::pin(UnboundedReceiverStream::new(believes)));
        }
        Ok(Box::pin(answers.map(move |answer| {
            window.add_permits(1);
            let term = term.load(Ordering::Relaxed);
            let answer =
                answer.and_then(wire::to_append_response).and_then(|answer| noted(&link, term, answer));
            answer.map_err(|status| self.error(Way::Append, status))
        })))
    }

    /// Sends one heartbeat. Dropped before the answer has come, it takes the stream with it: the next one would get
    /// this answer for its own.
    async fn heartbeat(
        &mut self,
        mut input: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
    ) -> Result<Option<StreamAppendResult<TypeConfig>>, Status> {
        let Some(request) = input.next().await else { return Ok(None) };
        let link = self.peers.link(self.id)?;
        let term = request.vote.leader_id().term;
        let mut request = wire::append_request(request);
        let told = self.status.fingerprints.tell().into_iter().map(|(index, fingerprint)| {
            proto::peer::Fingerprint { index, since: fingerprint.since, value: fingerprint.value }
        });
        request.fingerprints = told.collect();
        let mut stream = match self.heartbeats.take() {
            Some(stream) if Arc::ptr_eq(&stream.link, &link) => stream,
            _ => Heartbeats::open(&self.peers, &link).await?,
        };
        let gone = || Status::unavailable("the stream of heartbeats has ended");
        stream.requests.send(request).await.map_err(|_| gone())?;
        let answer = stream.answers.message().await?.ok_or_else(gone)?;
        self.heartbeats = Some(stream);
        noted(&link, term, wire::to_append_response(answer)?).map(Some)
    }
}

/// A stream of heartbeats to one peer, over the control connection: one is answered before the next is sent.
struct Heartbeats {
    link: Arc<Link>,
    requests: mpsc::Sender<proto::peer::AppendRequest>,
    answers: Streaming<proto::peer::AppendResponse>,
}

impl Heartbeats {
    async fn open(peers: &Peers, link: &Arc<Link>) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(1);
        let mut client = peers.client(link, Way::Control)?;
        let answers = client.append(link.request(ReceiverStream::new(receiver))).await?.into_inner();
        Ok(Self { link: Arc::clone(link), requests, answers })
    }
}

/// Remembers what a peer has, and stops at one that has lost it: openraft would take that for its own fault, and end.
fn noted(
    link: &Link,
    term: u64,
    answer: StreamAppendResult<TypeConfig>,
) -> Result<StreamAppendResult<TypeConfig>, Status> {
    match &answer {
        Ok(Some(matched)) => link.has(term, matched.index),
        Err(StreamAppendError::Conflict(missing)) => link.lacks(term, missing.index)?,
        _ => {}
    }
    Ok(answer)
}

/// Takes the next request only when there is room for it: what is written meanwhile goes into it.
fn paced(
    input: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    window: Arc<Semaphore>,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
    futures::stream::unfold((input, window), |(mut input, window)| async move {
        window.acquire().await.ok()?.forget();
        let request = input.next().await?;
        Some((request, (input, window)))
    })
}

/// Whoever cannot be reached is tried again after a pause.
fn error(status: Status) -> RPCError<TypeConfig> {
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => {
            NetworkError::<TypeConfig>::from_string(status.to_string()).into()
        }
        _ => Unreachable::<TypeConfig>::from_string(status.to_string()).into(),
    }
}

impl NetBackoff<TypeConfig> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl NetStreamAppend<TypeConfig> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.beats {
                self.pulse.beat(Instant::now(), option.hard_ttl(), self.id);
                return match self.heartbeat(input).await {
                    Ok(answer) => Ok(Box::pin(futures::stream::iter(answer.map(Ok))) as BoxStream<'s, _>),
                    Err(status) => Err(self.error(Way::Control, status)),
                };
            }
            match self.append(input).await {
                Ok(answers) => Ok(answers),
                Err(status) => {
                    let error = self.error(Way::Append, status);
                    // openraft would be back at once.
                    if let Ok(link) = self.peers.link(self.id) {
                        link.back_off().await;
                    }
                    Err(error)
                }
            }
        })
    }
}

impl NetVote<TypeConfig> for Peer {
    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let request = wire::vote_request(&rpc);
        let limit = option.hard_ttl().max(VOTE_TIME_MIN);
        let answer =
            self.peers.control(self.id, limit, request, |mut client, r| async move { client.vote(r).await });
        answer.await.and_then(wire::to_vote_response).map_err(error)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let request = wire::vote_request(&rpc);
        let answer = self.peers.control(self.id, option.hard_ttl(), request, |mut client, r| async move {
            client.pre_vote(r).await
        });
        answer.await.and_then(wire::to_vote_response).map_err(error)
    }
}

impl NetSnapshot<TypeConfig> for Peer {
    type SnapshotData = StateFiles;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Term, u64, Node, StateFiles>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let at_least = snapshot.meta.last_log_id.map(|log_id| state_log_id(&log_id).index);
        let sent = self.send_state.send(&self.peers, self.id, vote, at_least);
        tokio::select! {
            sent = sent => sent.map_err(|status| StreamingError::from(self.error(Way::State, status))),
            closed = cancel => Err(closed.into()),
        }
    }
}

impl NetTransferLeader<TypeConfig> for Peer {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let request = wire::transfer_request(&req);
        let limit = option.hard_ttl().max(VOTE_TIME_MIN);
        let answer = self
            .peers
            .control(self.id, limit, request, |mut client, r| async move { client.transfer_leader(r).await });
        answer.await.and_then(wire::to_transfer_response).map_err(error)
    }
}
