//! Proposals that another member leads to the log.
//!
//! The entry carries who waits for it and under which number. Every member
//! applies it alike; the one that waits takes the reply from its own apply
//! thread, so its client reads its own write there, and no reply travels.
//!
//! A forwarded proposal is for one leader, the one of the term it was sent in:
//! no later leader takes it. So once an entry of a later term is applied, those
//! that were not are known to be lost, and may be proposed again.

use std::collections::HashMap;

use openraft::errors::{ClientWriteError, ForwardToLeader};
use parking_lot::Mutex;
use proto::peer as pb;
use state::Reply;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::requests::Written;
use super::types::new_log_id;

/// How many may wait before those who gave up are looked for.
const SWEEP_MIN: usize = 1024;

/// Those who wait, by number.
pub(crate) struct Forwarded(Mutex<Waiting>);

struct Waiting {
    next: u64,
    answers: HashMap<u64, Waiter>,
    sweep_at: usize,
    /// No waiter is of an earlier term.
    term_min: u64,
}

struct Waiter {
    term: u64,
    answer: oneshot::Sender<Written>,
    /// The room that its message takes up among those under way, until it is answered.
    _room: Option<OwnedSemaphorePermit>,
}

impl Default for Forwarded {
    fn default() -> Self {
        // An entry from before a restart must not be taken for one of now.
        let next = rand::random();
        Self(Mutex::new(Waiting { next, answers: HashMap::new(), sweep_at: SWEEP_MIN, term_min: 0 }))
    }
}

impl Forwarded {
    /// From now on this one waits for the leader of the term, under the number given.
    pub fn expect(
        &self,
        term: u64,
        answer: oneshot::Sender<Written>,
        room: Option<OwnedSemaphorePermit>,
    ) -> u64 {
        let mut waiting = self.0.lock();
        let number = waiting.next;
        waiting.next = number.wrapping_add(1);
        if waiting.answers.len() >= waiting.sweep_at {
            waiting.answers.retain(|_, waiter| !waiter.answer.is_closed());
            waiting.sweep_at = SWEEP_MIN.max(2 * waiting.answers.len());
        }
        waiting.term_min = waiting.term_min.min(term);
        waiting.answers.insert(number, Waiter { term, answer, _room: room });
        number
    }

    /// The proposal went into no log: whoever waits is told so.
    pub fn refused(&self, refusal: pb::Refusal) {
        let error = match refusal.refused() {
            pb::Refused::NoLeader | pb::Refused::NotLeader | pb::Refused::TooMany => {
                ClientWriteError::ForwardToLeader(ForwardToLeader::empty())
            }
            _ => ClientWriteError::LogEntryDiscarded(ForwardToLeader::empty()),
        };
        if let Some(waiter) = self.0.lock().answers.remove(&refusal.number) {
            waiter.answer.send(Err(error)).ok();
        }
    }

    /// The leader may never have heard of those who wait: what comes now does not wait for them.
    pub fn unanswered(&self) {
        for waiter in self.0.lock().answers.values_mut() {
            waiter._room = None;
        }
    }

    /// The entry was applied.
    pub fn applied(&self, number: u64, log_id: state::LogId, reply: Reply) {
        let waiter = self.0.lock().answers.remove(&number);
        if let Some(waiter) = waiter {
            let written = super::requests::written(new_log_id(log_id.term, log_id.index - 1), reply);
            waiter.answer.send(Ok(written)).ok();
        }
    }

    /// An entry of this term is about to be applied: what went to earlier leaders and is not applied never will be.
    pub fn term_begins(&self, term: u64) {
        let mut waiting = self.0.lock();
        if waiting.term_min >= term {
            return;
        }
        waiting.term_min = term;
        for (_, waiter) in waiting.answers.extract_if(|_, waiter| waiter.term < term) {
            let lost = ClientWriteError::ForwardToLeader(ForwardToLeader::empty());
            waiter.answer.send(Err(lost)).ok();
        }
    }

    /// Entries were skipped: what became of those in them is not known.
    pub fn skipped(&self) {
        for (_, waiter) in self.0.lock().answers.drain() {
            let unknown = ClientWriteError::LogEntryDiscarded(ForwardToLeader::empty());
            waiter.answer.send(Err(unknown)).ok();
        }
    }

    /// Nothing will be applied any more.
    pub fn stop(&self) {
        self.0.lock().answers.clear();
    }
}
