//! What waits to be sent on one stream, bounded in bytes.
//!
//! Events are taken only while there is room, and one response at least: so a
//! queue holds at most its bound and one response. When all queues together
//! hold more than theirs, the bound of each shrinks to a small share. The small
//! answers to a client's own requests are always taken; whoever reads the
//! requests stops reading them while there is no room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use mutants::Mutant;
use parking_lot::Mutex;

use super::lane::Lane;
use super::slice::first_event;
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

/// What every queue may hold, however much the others do.
const SHARE_BYTES: usize = 16 << 10;

/// What all queues of a hub hold.
pub(super) struct Total {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Total {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), bytes_max })
    }
}

/// The queue of one stream.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    bytes_max: usize,
    total: Arc<Total>,
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
    pub(super) fn new(bytes_max: usize, total: Arc<Total>) -> Self {
        Self { inner: Mutex::default(), bytes_max, total, lane: Lane::here() }
    }

    /// Adds an answer to a request.
    pub(super) fn push(&self, item: Item) {
        self.push_to(&mut self.inner.lock(), item);
    }

    /// Adds events if there is room; if not, `pop` will ask to resume once there is.
    pub(super) fn offer(&self, item: impl FnOnce() -> Item) -> bool {
        let mut inner = self.inner.lock();
        if inner.bytes >= self.bound() {
            inner.parked = true;
            return false;
        }
        self.push_to(&mut inner, item());
        true
    }

    pub(super) fn has_room(&self) -> bool {
        self.inner.lock().bytes < self.bound()
    }

    pub(super) fn poll_pop(&self, context: &mut Context<'_>) -> Poll<Popped> {
        let mut inner = self.inner.lock();
        if let Some(item) = inner.items.pop_front() {
            inner.bytes -= item.bytes();
            self.total.bytes.fetch_sub(item.bytes(), Ordering::Relaxed);
            METRICS.storage.pending_events.sub(item.events());
            if inner.items.is_empty() && inner.items.capacity() > 64 {
                inner.items = VecDeque::new();
            }
            let resume = inner.parked && inner.bytes <= self.bound() / 2;
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

    fn bound(&self) -> usize {
        let crowded = self.total.bytes.load(Ordering::Relaxed) >= self.total.bytes_max;
        if crowded { self.bytes_max.min(SHARE_BYTES) } else { self.bytes_max }
    }

    fn push_to(&self, inner: &mut Inner, item: Item) {
        inner.bytes += item.bytes();
        self.total.bytes.fetch_add(item.bytes(), Ordering::Relaxed);
        METRICS.storage.pending_events.add(item.events());
        inner.items.push_back(item);
        let more = mutate(&mut inner.items);
        inner.bytes += more;
        self.total.bytes.fetch_add(more, Ordering::Relaxed);
    }

    fn take_waker(&self) -> Option<Waker> {
        self.inner.lock().waker.take()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        METRICS.storage.pending_events.sub(inner.items.iter().map(Item::events).sum());
        self.total.bytes.fetch_sub(inner.bytes, Ordering::Relaxed);
    }
}

/// What mutants make of the item just queued; gives how many bytes came with it.
fn mutate(items: &mut VecDeque<Item>) -> usize {
    let last = items.len() - 1;
    if mutants::on(Mutant::EventOrder)
        && let [.., Item::Events { id: a, .. }, Item::Events { id: b, .. }] = items.make_contiguous()
        && a == b
    {
        items.swap(last - 1, last);
    }
    match &mut items[last] {
        Item::Progress { revision, .. } if mutants::on(Mutant::EarlyProgress) => {
            *revision += 3;
            0
        }
        Item::Events { id, revision, fragment, count, events }
            if *count > 1 && mutants::on(Mutant::TornRevision) =>
        {
            let (first, rest) = first_event(events);
            let (id, revision, fragment) = (*id, *revision, *fragment);
            *events = first;
            let left = std::mem::replace(count, 1) - 1;
            items.push_back(Item::Events { id, revision, fragment, count: left, events: rest });
            size_of::<Item>()
        }
        Item::Events { .. } if mutants::sometimes(Mutant::RepeatEvent, 50) => {
            let again = items[last].clone();
            let more = again.bytes();
            items.push_back(again);
            more
        }
        _ => 0,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn events(len: usize) -> Item {
        Item::Events { id: 0, revision: 1, fragment: false, count: 1, events: vec![0; len].into() }
    }

    #[test]
    fn a_crowd_leaves_each_its_share() {
        let total = Total::new(100_000);
        let big = Queue::new(80_000, total.clone());
        let other = Queue::new(80_000, total.clone());
        for queue in [&big, &other] {
            assert!(queue.offer(|| events(50_000)));
        }
        assert!(!big.offer(|| events(1)) && !big.has_room());
        let small = Queue::new(80_000, total.clone());
        assert!(small.offer(|| events(SHARE_BYTES)));
        assert!(!small.offer(|| events(1)));
        drop(big);
        assert!(other.has_room() && small.has_room());
        drop((other, small));
        assert_eq!(total.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_waits_for_room_is_asked_to_go_on_once_when_half_is_free() {
        let queue = Queue::new(1000, Total::new(usize::MAX));
        while queue.offer(|| events(100)) {}
        let mut resumed = 0;
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Popped::Item { resume, .. }) = queue.poll_pop(&mut context) {
            resumed += usize::from(resume);
            assert!(!resume || queue.inner.lock().bytes <= 500);
        }
        assert_eq!(resumed, 1);
    }
}
