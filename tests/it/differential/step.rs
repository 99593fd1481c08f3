//! One step of a history, and what a member answered to it.

use std::fmt;

use proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, HashKvRequest, HashKvResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, MemberListResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, ResponseHeader, StatusResponse, TxnRequest, TxnResponse, WatchCreateRequest,
};
use tonic::Status;

/// What is done to both members.
#[derive(Debug, Clone)]
pub enum Step {
    /// One request and its answer.
    Call(Call),
    /// A watch is created on a stream.
    Watch { stream: usize, create: WatchCreateRequest },
    /// A watch is cancelled, known or not.
    Cancel { stream: usize, id: i64 },
    /// Progress of a whole stream is asked for.
    Progress { stream: usize },
    /// A stream and its watches end; a new one takes its place.
    Reopen { stream: usize },
    /// A lease is left to expire with its keys.
    Expire { id: i64, keys: usize },
    /// The members are stopped and started again.
    Restart { kill: bool },
}

/// A request.
#[derive(Debug, Clone)]
pub enum Call {
    Range(RangeRequest),
    RangeStream(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    KeepAlive(i64),
    Leases,
    HashKv(HashKvRequest),
    Alarm(AlarmRequest),
    Status,
    Members { linearizable: bool },
    Health { service: String },
}

/// What came back: an answer, or the code and the text of an error.
pub type Outcome = Result<Answer, Refused>;

/// A gRPC error as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub code: tonic::Code,
    pub text: String,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Refused {
        Refused { code: status.code(), text: status.message().to_owned() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.text)
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Range(RangeResponse),
    /// The chunks of a stream, and how it ended if not well.
    Chunks(Vec<RangeResponse>, Option<Refused>),
    Put(PutResponse),
    Delete(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    Grant(LeaseGrantResponse),
    Revoke(LeaseRevokeResponse),
    TimeToLive(LeaseTimeToLiveResponse),
    KeepAlive(LeaseKeepAliveResponse),
    Leases(LeaseLeasesResponse),
    HashKv(HashKvResponse),
    Alarm(AlarmResponse),
    Status(StatusResponse),
    Members(MemberListResponse),
    Health(i32),
}

impl Answer {
    /// The headers of this answer, outermost first.
    pub fn headers_mut(&mut self) -> Vec<&mut ResponseHeader> {
        let header = match self {
            Answer::Range(answer) => &mut answer.header,
            Answer::Chunks(chunks, _) => {
                return chunks.iter_mut().filter_map(|chunk| chunk.header.as_mut()).collect();
            }
            Answer::Put(answer) => &mut answer.header,
            Answer::Delete(answer) => &mut answer.header,
            Answer::Txn(answer) => &mut answer.header,
            Answer::Compact(answer) => &mut answer.header,
            Answer::Grant(answer) => &mut answer.header,
            Answer::Revoke(answer) => &mut answer.header,
            Answer::TimeToLive(answer) => &mut answer.header,
            Answer::KeepAlive(answer) => &mut answer.header,
            Answer::Leases(answer) => &mut answer.header,
            Answer::HashKv(answer) => &mut answer.header,
            Answer::Alarm(answer) => &mut answer.header,
            Answer::Status(answer) => &mut answer.header,
            Answer::Members(answer) => &mut answer.header,
            Answer::Health(_) => return Vec::new(),
        };
        header.iter_mut().collect()
    }
}
