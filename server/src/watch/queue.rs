//! What waits to be sent on one stream, bounded in bytes.
//!
//! Events are taken only while there is room, and one response at least: so a
//! queue holds at most its bound and one response. The small answers to a
//! client's own requests are always taken; whoever reads the requests stops
//! reading them while there is no room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use super::lane::Lane;
use crate::metrics::METRICS;

/// One response, or several when it has to be sent in fragments; the sender adds the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The watch exists; `revision` is the store's at that moment.
    Created {
        /// The watch.
        id: i64,
        /// For the header.
        revision: i64,
    },
    /// The watch was not created.
    Refused {
        /// For the header.
        revision: i64,
        /// Why, as the client reads it.
        reason: String,
    },
    /// The watch ended because the client asked for it.
    Canceled {
        /// The watch.
        id: i64,
        /// For the header.
        revision: i64,
    },
    /// The watch ended because what it needs was compacted.
    Compacted {
        /// The watch.
        id: i64,
        /// What was compacted.
        compact_revision: i64,
    },
    /// Changes, whole revisions in order.
    Events {
        /// The watch.
        id: i64,
        /// For the header.
        revision: i64,
        /// Whether a big response may be sent in fragments.
        fragment: bool,
        /// How many events there are.
        count: u32,
        /// Encoded elements of `WatchResponse.events`.
        events: Bytes,
    },
    /// All changes up to `revision` were sent.
    Progress {
        /// The watch; -1 when it holds for all of the stream.
        id: i64,
        /// Up to where.
        revision: i64,
    },
}

impl Item {
    fn events(&self) -> i64 {
        if let Self::Events { count, .. } = self { i64::from(*count) } else { 0 }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Events { events, .. } => events.len(),
                Self::Refused { reason, .. } => reason.len(),
                _ => 0,
            }
    }
}

/// The queue of one stream.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    bytes_max: usize,
    lane: Option<Arc<Lane>>,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    bytes: usize,
    /// Watchers wait for room.
    parked: bool,
    closed: bool,
    waker: Option<Waker>,
}

/// What a queue had.
pub(super) enum Popped {
    /// The next item; `resume` when watchers that wait for room should go on.
    Item { item: Item, resume: bool },
    /// Nothing ever again.
    Closed,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), bytes_max, lane: Lane::here() }
    }

    /// Adds an answer to a request.
    pub(super) fn push(&self, item: Item) {
        self.inner.lock().push(item);
    }

    /// Adds events if there is room; if not, `pop` will ask to resume once there is.
    pub(super) fn offer(&self, item: impl FnOnce() -> Item) -> bool {
        let mut inner = self.inner.lock();
        if inner.bytes >= self.bytes_max {
            inner.parked = true;
            return false;
        }
        inner.push(item());
        true
    }

    pub(super) fn has_room(&self) -> bool {
        self.inner.lock().bytes < self.bytes_max
    }

    pub(super) fn poll_pop(&self, context: &mut Context<'_>) -> Poll<Popped> {
        let mut inner = self.inner.lock();
        if let Some(item) = inner.items.pop_front() {
            inner.bytes -= item.bytes();
            METRICS.storage.pending_events.sub(item.events());
            if inner.items.is_empty() && inner.items.capacity() > 64 {
                inner.items = VecDeque::new();
            }
            let resume = inner.parked && inner.bytes <= self.bytes_max / 2;
            inner.parked &= !resume;
            return Poll::Ready(Popped::Item { item, resume });
        }
        if inner.closed {
            return Poll::Ready(Popped::Closed);
        }
        match &mut inner.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Ends the queue once it is empty.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
    }

    fn take_waker(&self) -> Option<Waker> {
        self.inner.lock().waker.take()
    }
}

impl Inner {
    fn push(&mut self, item: Item) {
        self.bytes += item.bytes();
        METRICS.storage.pending_events.add(item.events());
        self.items.push_back(item);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let pending = self.inner.get_mut().items.iter().map(Item::events).sum();
        METRICS.storage.pending_events.sub(pending);
    }
}

/// Wakes the readers of these queues, each runtime once.
pub(super) fn wake(queues: &mut Vec<Arc<Queue>>) {
    let lane = |queue: &Queue| queue.lane.as_ref().map_or(std::ptr::null(), Arc::as_ptr);
    queues.sort_unstable_by_key(|queue| lane(queue));
    let mut wakers = Vec::new();
    for same in queues.chunk_by(|a, b| lane(a) == lane(b)) {
        wakers.extend(same.iter().filter_map(|queue| queue.take_waker()));
        match &same[0].lane {
            Some(lane) if wakers.len() > 1 => lane.wake(&mut wakers),
            _ => wakers.drain(..).for_each(Waker::wake),
        }
    }
    queues.clear();
}
