//! What waits for the flush thread. Unbounded by itself: whoever proposes is held back above.

use parking_lot::{Condvar, Mutex};

use bytes::Bytes;

use crate::{Done, Entry, LogId};

pub(crate) enum Op {
    Append { entries: Vec<Entry>, done: Done },
    Vote { vote: Bytes, done: Done },
    Truncate { after: Option<LogId>, done: Done },
    Purge { upto: LogId },
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    ops: Vec<Op>,
    closed: bool,
}

impl Queue {
    /// Queues the operation; gives it back if the log is closed.
    pub fn push(&self, op: Op) -> Result<(), Op> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(op);
        }
        state.ops.push(op);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes all that waits, after waiting for something; `false` once closed and empty.
    pub fn drain_wait(&self, into: &mut Vec<Op>) -> bool {
        let mut state = self.state.lock();
        while state.ops.is_empty() && !state.closed {
            self.wake.wait(&mut state);
        }
        std::mem::swap(&mut state.ops, into);
        !into.is_empty()
    }

    /// Takes all that waits.
    pub fn drain(&self, into: &mut Vec<Op>) {
        std::mem::swap(&mut self.state.lock().ops, into);
    }

    /// Nothing more is accepted; what waits is still done.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_all();
    }
}
