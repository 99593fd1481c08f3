//! What applying a command gives back to the one who proposed it.

use proto::etcdserverpb as pb;

use crate::Refusal;

/// The result of one command.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The store's revision after the command; what the response header carries.
    pub revision: i64,
    /// What the command answers.
    pub result: Result<Response, Refusal>,
}

/// The answer of a command that was not refused. Top-level headers are left
/// empty for the API layer to fill; the headers nested in a txn are set here.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// Answer to a put.
    Put(pb::PutResponse),
    /// Answer to a delete.
    DeleteRange(pb::DeleteRangeResponse),
    /// Answer to a transaction.
    Txn(pb::TxnResponse),
    /// The compaction was taken; deleting goes on in the background.
    Compaction,
    /// Answer to a grant: the id, and the ttl that counts.
    LeaseGrant(pb::LeaseGrantResponse),
    /// The lease and its keys are gone.
    LeaseRevoke,
    /// Answer to an alarm request.
    Alarm(pb::AlarmResponse),
    /// Entries that answer nothing: blank, membership, checkpoint, attributes, cluster version.
    Done,
}
