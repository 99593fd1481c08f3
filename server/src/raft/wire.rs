//! What openraft says, in the messages of [`proto::peer`], and back.

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use proto::peer as pb;
use tonic::Status;

use super::codec;
use super::types::{Entry, LogId, TypeConfig, Vote, new_log_id};

pub(crate) fn vote(vote: &Vote) -> pb::Vote {
    let leader = vote.leader_id();
    pb::Vote { term: leader.term, candidate: leader.voted_for, committed: vote.is_committed() }
}

/// # Errors
/// When the message has none.
pub(crate) fn to_vote(vote: Option<pb::Vote>) -> Result<Vote, Status> {
    let message = vote.ok_or_else(|| malformed("a vote"))?;
    let mut vote = Vote::new(message.term, message.candidate);
    vote.committed = message.committed;
    Ok(vote)
}

pub(crate) fn log_id(log_id: &LogId) -> pb::LogId {
    pb::LogId { term: log_id.leader_id.term, index: log_id.index }
}

/// # Errors
/// When no entry could follow it.
fn to_log_id(log_id: pb::LogId) -> Result<LogId, Status> {
    match log_id.index {
        u64::MAX => Err(malformed("an index that can be")),
        index => Ok(new_log_id(log_id.term, index)),
    }
}

fn to_log_id_if_any(log_id: Option<pb::LogId>) -> Result<Option<LogId>, Status> {
    log_id.map(to_log_id).transpose()
}

fn entry(entry: Entry) -> pb::Entry {
    let raftlog::Entry { log_id, tag, payload } = codec::encode_entry(entry);
    pb::Entry { term: log_id.term, index: log_id.index, kind: tag.into(), payload }
}

fn to_entry(entry: pb::Entry) -> Result<Entry, Status> {
    to_log_id(pb::LogId { term: entry.term, index: entry.index })?;
    let log_id = raftlog::LogId { term: entry.term, index: entry.index };
    let tag = u8::try_from(entry.kind).map_err(|_| malformed("the kind of an entry"))?;
    codec::decode_entry(raftlog::Entry { log_id, tag, payload: entry.payload })
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

pub(crate) fn append_request(request: AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id),
        entries: request.entries.into_iter().map(entry).collect(),
        committed: request.leader_commit.as_ref().map(log_id),
        ..Default::default()
    }
}

pub(crate) fn to_append_request(
    request: pb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
    Ok(AppendEntriesRequest {
        vote: to_vote(request.vote)?,
        prev_log_id: to_log_id_if_any(request.previous)?,
        entries: request.entries.into_iter().map(to_entry).collect::<Result<_, _>>()?,
        leader_commit: to_log_id_if_any(request.committed)?,
    })
}

pub(crate) fn append_response(result: &StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Outcome;
    let outcome = match result {
        Ok(matched) => Outcome::Matched(pb::Matched { log_id: matched.as_ref().map(log_id) }),
        Err(StreamAppendError::Conflict(at)) => Outcome::Conflict(log_id(at)),
        Err(StreamAppendError::HigherVote(higher)) => Outcome::HigherVote(vote(higher)),
    };
    pb::AppendResponse { outcome: Some(outcome) }
}

pub(crate) fn to_append_response(
    response: pb::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, Status> {
    use pb::append_response::Outcome;
    Ok(match response.outcome.ok_or_else(|| malformed("an outcome"))? {
        Outcome::Matched(matched) => Ok(to_log_id_if_any(matched.log_id)?),
        Outcome::Conflict(at) => Err(StreamAppendError::Conflict(to_log_id(at)?)),
        Outcome::HigherVote(higher) => Err(StreamAppendError::HigherVote(to_vote(Some(higher))?)),
    })
}

pub(crate) fn vote_request(request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote(&request.vote)),
        last: request.last_log_id.as_ref().map(log_id),
        leader_agrees: request.leadership_transfer,
    }
}

pub(crate) fn to_vote_request(request: pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, Status> {
    let mut asked = VoteRequest::new(to_vote(request.vote)?, to_log_id_if_any(request.last)?);
    asked.leadership_transfer = request.leader_agrees;
    Ok(asked)
}

pub(crate) fn vote_response(response: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(log_id),
    }
}

pub(crate) fn to_vote_response(response: pb::VoteResponse) -> Result<VoteResponse<TypeConfig>, Status> {
    Ok(VoteResponse {
        vote: to_vote(response.vote)?,
        vote_granted: response.granted,
        last_log_id: to_log_id_if_any(response.last)?,
    })
}

pub(crate) fn transfer_request(request: &TransferLeaderRequest<TypeConfig>) -> pb::TransferRequest {
    pb::TransferRequest {
        from: Some(vote(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(log_id),
    }
}

pub(crate) fn to_transfer_request(
    request: pb::TransferRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, Status> {
    Ok(TransferLeaderRequest::new(to_vote(request.from)?, request.to, to_log_id_if_any(request.last)?))
}

pub(crate) fn transfer_response(response: &TransferLeaderResponse<TypeConfig>) -> pb::TransferResponse {
    let mismatch = match response {
        Ok(()) => return pb::TransferResponse::default(),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => pb::Mismatch {
            expected_vote: Some(vote(expected)),
            actual_vote: Some(vote(actual)),
            ..Default::default()
        },
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => pb::Mismatch {
            expected_log: expected.as_ref().map(log_id),
            actual_log: actual.as_ref().map(log_id),
            log: true,
            ..Default::default()
        },
    };
    pb::TransferResponse { refusal: Some(pb::transfer_response::Refusal::Mismatch(mismatch)) }
}

pub(crate) fn to_transfer_response(
    response: pb::TransferResponse,
) -> Result<TransferLeaderResponse<TypeConfig>, Status> {
    let Some(pb::transfer_response::Refusal::Mismatch(mismatch)) = response.refusal else {
        return Ok(Ok(()));
    };
    Ok(Err(match mismatch.log {
        true => TransferLeaderError::LogNotFlushed {
            expected: to_log_id_if_any(mismatch.expected_log)?,
            actual: to_log_id_if_any(mismatch.actual_log)?,
        },
        false => TransferLeaderError::VoteChanged {
            expected: to_vote(mismatch.expected_vote)?,
            actual: to_vote(mismatch.actual_vote)?,
        },
    }))
}

fn malformed(what: &str) -> Status {
    Status::invalid_argument(format!("a message between members lacks {what}"))
}
