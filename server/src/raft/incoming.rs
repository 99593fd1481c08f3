//! What peers ask of this member's consensus.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::raft::StreamAppendError;
use openraft::storage::Snapshot;
use parking_lot::Mutex;
use prost::Message;
use proto::peer as pb;
use proto::peer::lead_request::Request;
use proto::peer::lead_response::Response;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::state_machine::{StateFiles, stored};
use super::types::{Origin, SnapshotMeta};
use super::{Raft, wire};
use crate::error::Unavailable;
use crate::metrics::METRICS;

/// Answers that may wait for a peer to take them.
const ANSWERS_MAX: usize = 4096;

impl Raft {
    /// Entries or heartbeats from a leader; answers come in the order of the requests. A stream ends at the first
    /// request that is refused.
    pub fn on_append(
        &self,
        from: u64,
        requests: impl Stream<Item = Result<pb::AppendRequest, Status>> + Send + 'static,
    ) -> impl Stream<Item = Result<pb::AppendResponse, Status>> + Send + 'static {
        let received = METRICS.network.peer_received_bytes.with_label_values(&[&format!("{from:x}")]);
        // What the requests say of the leader's state counts once they are accepted.
        let told = Arc::new(Mutex::new(VecDeque::new()));
        let tells = Arc::clone(&told);
        let requests = requests.scan((), move |(), request| {
            let request = request.and_then(|mut request| {
                received.inc_by(request.encoded_len() as u64);
                tells.lock().push_back(std::mem::take(&mut request.fingerprints));
                wire::to_append_request(request)
            });
            let request = request.inspect_err(|status| tracing::debug!(%status, "an append stream ends"));
            futures::future::ready(request.ok())
        });
        let status = self.shared.status.clone();
        self.shared.core.stream_append(requests).map(move |result| {
            let result = result.map_err(|fatal| Status::unavailable(fatal.to_string()))?;
            let fingerprints = told.lock().pop_front().unwrap_or_default();
            if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
                status.hear();
                for pb::Fingerprint { index, since, value } in fingerprints {
                    status.fingerprints.hear(index, state::Fingerprint { since, value });
                }
            }
            Ok(wire::append_response(&result))
        })
    }

    /// Somebody wants this member's vote.
    ///
    /// # Errors
    /// When it is malformed or consensus has ended.
    pub async fn on_vote(&self, request: pb::VoteRequest) -> Result<pb::VoteResponse, Status> {
        let answer = self.shared.core.vote(wire::to_vote_request(request)?).await;
        answer.map(|answer| wire::vote_response(&answer)).map_err(ended)
    }

    /// Somebody asks whether they would get it.
    ///
    /// # Errors
    /// When it is malformed or consensus has ended.
    pub async fn on_pre_vote(&self, request: pb::VoteRequest) -> Result<pb::VoteResponse, Status> {
        let answer = self.shared.core.pre_vote(wire::to_vote_request(request)?).await;
        answer.map(|answer| wire::vote_response(&answer)).map_err(ended)
    }

    /// The leader hands over, to this member or another.
    ///
    /// # Errors
    /// When it is malformed or consensus has ended.
    pub async fn on_transfer_leader(
        &self,
        request: pb::TransferRequest,
    ) -> Result<pb::TransferResponse, Status> {
        if self.shared.status.fingerprints.diverged() && request.to == self.status().member_id {
            return Err(Status::failed_precondition("a member whose data differs does not lead"));
        }
        let answer = self.shared.core.handle_transfer_leader(wire::to_transfer_request(request)?).await;
        answer.map(|answer| wire::transfer_response(&answer)).map_err(ended)
    }

    /// A member takes this one for the leader: it wants to know from where on reads are safe, and its clients'
    /// commands go into this leader's log. Only what is refused of those is answered.
    pub fn on_lead(
        &self,
        from: u64,
        requests: impl Stream<Item = Result<pb::LeadRequest, Status>> + Send + 'static,
    ) -> impl Stream<Item = Result<pb::LeadResponse, Status>> + Send + 'static {
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let raft = self.clone();
        tokio::spawn(async move {
            let mut requests = std::pin::pin!(requests);
            // An error is the end of the connection.
            while let Some(Ok(pb::LeadRequest { request: Some(request) })) = requests.next().await {
                match request {
                    Request::ReadIndex(request) => raft.on_read_index(request.number, answers.clone()),
                    Request::Propose(request) => raft.on_propose(from, request, &answers),
                }
            }
        });
        ReceiverStream::new(receiver).map(Ok)
    }

    fn on_read_index(&self, number: u64, answers: mpsc::Sender<pb::LeadResponse>) {
        self.shared.requests.take_read(move |read| {
            let answer = match read {
                Ok(index) => pb::ReadIndexResponse { number, index, ..Default::default() },
                Err(error) => {
                    pb::ReadIndexResponse { number, refused: refused(error).into(), ..Default::default() }
                }
            };
            tell(&answers, Response::ReadIndex(answer));
        });
    }

    fn on_propose(&self, from: u64, request: pb::ProposeRequest, answers: &mpsc::Sender<pb::LeadResponse>) {
        for pb::Proposal { number, command } in request.proposals {
            let (origin, answers) = (Origin { member_id: from, number }, answers.clone());
            self.shared.requests.take(command, origin, request.term, move |error| {
                tell(&answers, Response::Refusal(pb::Refusal { number, refused: refused(error).into() }));
            });
        }
    }

    /// A leader is about to send its state.
    ///
    /// # Errors
    /// When there is no room for it.
    pub async fn on_offer_state(&self, manifest: pb::StateManifest) -> Result<pb::StateProgress, Status> {
        let receive = self.shared.receive.clone();
        blocking(move || receive.offer(manifest)).await
    }

    /// Bytes of the state.
    ///
    /// # Errors
    /// When they are not what comes next, or there is no room for them.
    pub async fn on_state_chunk(&self, chunk: pb::StateChunk) -> Result<(), Status> {
        let receive = self.shared.receive.clone();
        blocking(move || receive.chunk(&chunk)).await
    }

    /// Where the transfer stands.
    pub fn state_progress(&self) -> pb::StateProgress {
        self.shared.receive.progress()
    }

    /// All of the state is here and takes the place of this member's own.
    ///
    /// # Errors
    /// When something is missing or malformed, or consensus has ended.
    pub async fn on_install_state(&self, request: pb::InstallRequest) -> Result<pb::InstallResponse, Status> {
        let vote = wire::to_vote(request.vote)?;
        let id = |id: pb::LogId| state::LogId { term: id.term, index: id.index };
        let membership = request.membership_at.map(|at| (id(at), request.membership));
        let malformed = |error: std::io::Error| Status::invalid_argument(error.to_string());
        let meta = SnapshotMeta {
            last_log_id: request.last.map(id).and_then(super::types::log_id),
            last_membership: stored(membership).map_err(malformed)?,
        };
        let receive = self.shared.receive.clone();
        let name = request.name;
        let files = blocking(move || receive.finish(&name)).await?;
        let snapshot = Snapshot { meta, snapshot: StateFiles::Received(files) };
        let answer = self.shared.core.install_full_snapshot(vote, snapshot).await;
        let answer = answer.map_err(|fatal| Status::unavailable(fatal.to_string()))?;
        Ok(pb::InstallResponse { vote: Some(wire::vote(&answer.vote)) })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))?
}

fn ended(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

/// A peer that does not take its answers asks again, or its clients give up.
fn tell(answers: &mpsc::Sender<pb::LeadResponse>, response: Response) {
    answers.try_send(pb::LeadResponse { response: Some(response) }).ok();
}

fn refused(error: Unavailable) -> pb::Refused {
    match error {
        Unavailable::NoLeader => pb::Refused::NoLeader,
        Unavailable::NotLeader { .. } => pb::Refused::NotLeader,
        Unavailable::TimedOut => pb::Refused::TimedOut,
        Unavailable::LeaderChanged => pb::Refused::Discarded,
        Unavailable::TooManyRequests => pb::Refused::TooMany,
        Unavailable::Stopped => pb::Refused::Stopped,
    }
}
