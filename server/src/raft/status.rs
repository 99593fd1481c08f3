//! What the member knows of the cluster, readable without asking anybody.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::divergence::Fingerprints;
use super::forward::Forwarded;
use crate::error::Unavailable;

/// The term of the entries that found a cluster: etcd counts elections from the next one, openraft from 1.
const FOUNDING_TERM: u64 = 1;

/// A disk that takes longer for one write hangs.
const HANG: Duration = Duration::from_secs(2);

/// A look at the Raft group from this member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub member_id: u64,
    /// The member that leads; 0: none.
    pub leader: u64,
    /// The current term, counted as etcd counts.
    pub term: u64,
    /// Index of the last entry known to be committed.
    pub committed: u64,
    /// Index of the last entry readers see.
    pub applied: u64,
    /// True while this member has no vote.
    pub is_learner: bool,
    /// True once this member was found to have applied something else than its leader.
    pub diverged: bool,
}

pub(crate) struct Shared {
    member_id: u64,
    leader: AtomicU64,
    term: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    learner: AtomicBool,
    changes: watch::Sender<Status>,
    /// How many wait in `waiters`: looked at after every batch, so that it does not take the lock for nothing.
    waiting: AtomicUsize,
    waiters: Mutex<Vec<(u64, oneshot::Sender<()>)>>,
    /// Since when the log's disk is at work on one group commit.
    flushing: Mutex<Option<Instant>>,
    /// When the leader was last heard of.
    heard: Mutex<Option<Instant>>,
    pub fingerprints: Fingerprints,
    /// Proposals of this member that another one leads to the log.
    pub forwarded: Forwarded,
    /// Held while the membership is being changed.
    pub membership_turn: tokio::sync::Mutex<()>,
}

impl Shared {
    pub fn new(member_id: u64) -> Self {
        Self {
            member_id,
            leader: AtomicU64::new(0),
            term: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            learner: AtomicBool::new(false),
            changes: watch::Sender::new(Status { member_id, ..Status::default() }),
            waiting: AtomicUsize::new(0),
            waiters: Mutex::new(Vec::new()),
            flushing: Mutex::new(None),
            heard: Mutex::new(None),
            fingerprints: Fingerprints::default(),
            forwarded: Forwarded::default(),
            membership_turn: tokio::sync::Mutex::default(),
        }
    }

    pub fn status(&self) -> Status {
        // Applied first: read the other way round it could be seen beyond committed.
        let applied = self.applied.load(Ordering::SeqCst);
        Status {
            member_id: self.member_id,
            leader: self.leader.load(Ordering::Acquire),
            term: self.term.load(Ordering::Acquire),
            committed: self.committed.load(Ordering::Acquire).max(applied),
            applied,
            is_learner: self.learner.load(Ordering::Acquire),
            diverged: self.fingerprints.diverged(),
        }
    }

    pub fn watch(&self) -> watch::Receiver<Status> {
        self.changes.subscribe()
    }

    /// The member that leads, 0 if none is known, and the term as openraft counts it.
    pub fn leader(&self) -> (u64, u64) {
        let status = self.changes.borrow();
        (status.leader, status.term.saturating_sub(FOUNDING_TERM))
    }

    /// `term` as openraft counts it.
    pub fn set_role(&self, leader: u64, term: u64, learner: bool) {
        let term = FOUNDING_TERM + term;
        self.leader.store(leader, Ordering::Release);
        self.term.store(term, Ordering::Release);
        self.learner.store(learner, Ordering::Release);
        let status = self.status();
        self.changes.send_if_modified(|last| {
            let differs = (last.leader, last.term, last.is_learner) != (leader, term, learner);
            *last = status;
            differs
        });
    }

    /// The log's disk begins or ends a group commit.
    pub fn set_flushing(&self, flushing: bool) {
        *self.flushing.lock() = flushing.then(Instant::now);
    }

    /// Whether the log's disk has not answered for too long.
    pub fn disk_hangs(&self) -> bool {
        self.flushing.lock().is_some_and(|since| since.elapsed() > HANG)
    }

    /// The leader has just been heard of.
    pub fn hear(&self) {
        *self.heard.lock() = Some(Instant::now());
    }

    /// Whether the leader was heard of within the time.
    pub fn heard_within(&self, time: Duration) -> bool {
        self.heard.lock().is_some_and(|at| at.elapsed() < time)
    }

    pub fn set_committed(&self, index: u64) {
        self.committed.fetch_max(index, Ordering::AcqRel);
    }

    /// Called once readers see the entry; wakes those who wait for it.
    pub fn set_applied(&self, index: u64) {
        self.applied.store(index, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut waiters = self.waiters.lock();
        for (_, waiter) in waiters.extract_if(.., |(wanted, _)| *wanted <= index) {
            // Whoever waited may have given up.
            waiter.send(()).ok();
        }
        self.waiting.store(waiters.len(), Ordering::SeqCst);
    }

    pub async fn wait_applied(&self, index: u64) -> Result<(), Unavailable> {
        if self.applied.load(Ordering::SeqCst) >= index {
            return Ok(());
        }
        let receiver = {
            let mut waiters = self.waiters.lock();
            // Announced before the second look: then either this sees the entry, or `set_applied` sees the waiter.
            self.waiting.fetch_add(1, Ordering::SeqCst);
            if self.applied.load(Ordering::SeqCst) >= index {
                self.waiting.store(waiters.len(), Ordering::SeqCst);
                return Ok(());
            }
            let (sender, receiver) = oneshot::channel();
            waiters.push((index, sender));
            receiver
        };
        receiver.await.map_err(|_| Unavailable::Stopped)
    }

    /// Nothing will be applied any more.
    pub fn stop(&self) {
        self.forwarded.stop();
        self.waiters.lock().clear();
    }
}
