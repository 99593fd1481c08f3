//! Leases and the clock: who must be kept alive by when.
//!
//! The state machine knows which leases exist and what was granted; it has no
//! clock. The lessor of the leader counts: keep-alives move a deadline here and
//! nowhere else, and a deadline that passes becomes a proposal to revoke.
//!
//! Invariants
//!  1. A lease never ends early: a new leader counts from what was granted, or
//!     checkpointed, and adds an election.
//!  2. No leader, no expiry.
//!  3. A lease whose deadline has passed is not kept alive any more, even before
//!     it is revoked: nobody is told that it lives when it is about to end.

mod expiry;
mod table;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use state::{Lease, LeaseChange};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

pub(crate) use expiry::run;
use table::{Renewed, Table};

use crate::error::Unavailable;
use crate::metrics::METRICS;
use crate::node::{Failure, Invalid, Node};

/// A lease as a client may ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeToLive {
    /// Whole seconds left.
    pub remaining: i64,
    /// Seconds granted.
    pub granted: i64,
}

/// Deadlines of leases. Clones share them.
#[derive(Clone)]
pub struct Lessor(Arc<Shared>);

struct Shared {
    table: Mutex<Table>,
    /// Rung when leases went, or when this member began or ceased to lead.
    changed: Notify,
}

impl Lessor {
    /// Takes the leases that exist when the member starts.
    pub fn new(leases: impl IntoIterator<Item = Lease>) -> Self {
        let table = Table::new(leases);
        Self(Arc::new(Shared { table: Mutex::new(table), changed: Notify::new() }))
    }

    /// Follows what was applied.
    pub fn apply(&self, changes: &[LeaseChange]) {
        if changes.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut revoked = false;
        let mut table = self.0.table.lock();
        for change in changes {
            match *change {
                LeaseChange::Granted { id, ttl } => {
                    table.grant(id, ttl, now);
                    METRICS.storage.leases_granted.inc();
                    METRICS.storage.lease_ttl.observe(ttl as f64);
                }
                LeaseChange::Revoked { id } => {
                    table.revoke(id);
                    METRICS.storage.leases_revoked.inc();
                    revoked = true;
                }
                LeaseChange::Checkpointed { id, remaining } => table.checkpoint(id, remaining),
            }
        }
        drop(table);
        if revoked {
            self.0.changed.notify_waiters();
        }
    }

    /// The state was replaced: these are all leases there are from now on.
    pub fn replace(&self, leases: impl IntoIterator<Item = Lease>) {
        self.0.table.lock().replace(leases, Instant::now());
        self.0.changed.notify_waiters();
    }

    /// This member leads from now on: every lease gets what it has left, and `extension`.
    pub fn promote(&self, extension: Duration) {
        self.0.table.lock().promote(Instant::now(), extension);
        self.0.changed.notify_waiters();
    }

    /// This member does not lead any more.
    pub fn demote(&self) {
        self.0.table.lock().demote();
        self.0.changed.notify_waiters();
    }

    /// Whether a lease exists.
    pub fn has(&self, id: i64) -> bool {
        self.0.table.lock().has(id)
    }

    /// Keeps a lease alive without waiting for anything: what most keep-alives come to.
    /// `None` when only [`renew`] can tell.
    pub fn renew_now(&self, id: i64) -> Option<i64> {
        let mut table = self.0.table.lock();
        if table.is_checkpointed(id) {
            return None;
        }
        match table.renew(id, Instant::now()) {
            Renewed::Done { ttl, .. } => Some(ttl),
            Renewed::Expired | Renewed::Unknown | Renewed::NotPrimary => None,
        }
    }

    /// Seconds left and granted; `None` for an unknown lease.
    pub fn time_to_live(&self, id: i64) -> Option<TimeToLive> {
        self.0.table.lock().time_to_live(id, Instant::now())
    }

    /// How many leases there are.
    pub fn count(&self) -> usize {
        self.0.table.lock().len()
    }

    /// All leases, those that end first first.
    pub fn ids(&self) -> Vec<i64> {
        self.0.table.lock().ids(Instant::now())
    }
}

/// Keeps a lease alive. Answers the seconds it was granted, 0 when it does not exist.
///
/// # Errors
/// When this member does not lead or cannot find out.
pub async fn renew(node: &Node, id: i64) -> Result<i64, Failure> {
    let lessor = node.lessor();
    lead(node).await?;
    if !lessor.has(id) {
        // It may have been granted a moment ago.
        node.catch_up().await?;
    }
    loop {
        let changed = lessor.0.changed.notified();
        tokio::pin!(changed);
        // From here on no change is missed.
        changed.as_mut().enable();
        let renewed = lessor.0.table.lock().renew(id, Instant::now());
        match renewed {
            Renewed::Done { ttl, checkpointed } => {
                if checkpointed {
                    expiry::clear_checkpoint(node, id).await;
                }
                return Ok(ttl);
            }
            Renewed::Unknown => return Ok(0),
            // Elected a moment ago: the table is about to follow.
            Renewed::NotPrimary if node.is_leader() => changed.await,
            Renewed::NotPrimary => return Err(Invalid::NotPrimary.into()),
            Renewed::Expired => changed.await,
        }
    }
}

/// Returns once this member leads.
///
/// # Errors
/// When somebody else does, or nobody for too long.
pub async fn lead(node: &Node) -> Result<(), Failure> {
    if node.is_leader() {
        return Ok(());
    }
    let mut status = node.raft().status_watch();
    let elected = status.wait_for(|status| status.leader != 0);
    match timeout(node.settings().request_timeout(), elected).await {
        Ok(Ok(status)) if status.leader == node.member_id() => Ok(()),
        Ok(Ok(_)) => Err(Invalid::NotPrimary.into()),
        Ok(Err(_)) => Err(Unavailable::Stopped.into()),
        Err(_elapsed) => Err(Unavailable::NoLeader.into()),
    }
}
