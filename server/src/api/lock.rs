//! Locks that the members hold for their clients.
//!
//! A lock is held by the oldest key under its name ([`turn`]). Who calls again with
//! the lease it called with before finds its key, and holds or waits for the
//! same lock. A client that goes while it waits takes its key with it.

use proto::command::command::Op;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request;
use proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use state::validate;

use super::timing;
use super::turn::{self, Keys, Leaving};
use crate::node::{Contest, Encoded, Failure, Invalid, Node};

/// Takes the lock of a name, and waits until it can be had.
pub async fn lock(node: Node, request: LockRequest) -> Result<LockResponse, Failure> {
    let lease = turn::lease(&node, request.lease).await?;
    let keys = Keys::of(&request.name);
    let key = keys.of_lease(lease);
    let owner = || Request::RequestRange(keys.oldest());
    let answer = turn::transact(
        &node,
        turn::transaction(
            turn::created(key.clone(), 0),
            vec![turn::put(key.clone(), Default::default(), lease), owner()],
            vec![Request::RequestRange(turn::get(key.clone())), owner()],
        ),
    )
    .await?;
    let created = match turn::found(&answer, 0) {
        Some(key) => key.create_revision,
        None => answer.header.unwrap_or_default().revision,
    };
    if turn::found(&answer, 1).is_none_or(|owner| owner.create_revision == created) {
        return Ok(LockResponse { header: answer.header, key });
    }
    let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
    let leaving = Leaving::by(&node, Op::DeleteRange(delete));
    let waited = async {
        turn::come(&node, &keys, created).await?;
        turn::first(&node, turn::get(key.clone())).await
    };
    match waited.await {
        Ok((header, found)) => {
            leaving.stay();
            found.ok_or(Contest::Expired)?;
            Ok(LockResponse { header: Some(header), key })
        }
        Err(failure) => {
            leaving.go().await;
            Err(failure)
        }
    }
}

/// Gives a lock up: its key goes. One that is not there is as good.
pub async fn unlock(node: Node, request: UnlockRequest) -> Result<UnlockResponse, Failure> {
    let request = pb::DeleteRangeRequest { key: request.key, ..Default::default() };
    validate::delete_range(&request).map_err(Invalid::Request)?;
    let timed = timing::DELETE_RANGE.start();
    let applied = timed.end(node.propose(Encoded::new(Op::DeleteRange(request))).await)?;
    Ok(UnlockResponse { header: Some(node.header(applied.revision)) })
}
