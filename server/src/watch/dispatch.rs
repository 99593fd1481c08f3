//! From apply to the synced watchers.

use std::sync::Arc;

use parking_lot::Mutex;
use state::{Block, Fault};
use tokio::sync::Notify;

use super::slice::Slice;
use super::{Shared, queue};
use crate::threads;

/// Bytes and revisions that go out together: small enough that a response stays small and the
/// mutex is free soon, large enough that a burst costs one wake-up and not one per revision.
const SLICE_BYTES_MAX: usize = 64 << 10;
const SLICE_REVISIONS_MAX: i64 = 256;

/// What apply left for the dispatcher.
pub(super) struct Inbox {
    inner: Mutex<Inner>,
    filled: Notify,
}

struct Inner {
    blocks: Vec<Block>,
    bytes: usize,
    /// The last revision published.
    head: i64,
    /// Blocks up to this revision are not in `blocks` and will not be.
    skipped: i64,
    /// With no stream open blocks are not kept.
    streams: usize,
    /// The dispatcher waits.
    idle: bool,
    ended: bool,
}

/// What the dispatcher takes at once.
struct Taken {
    skipped: i64,
    blocks: Vec<Block>,
}

impl Inbox {
    pub(super) fn new(head: i64) -> Self {
        let inner = Inner {
            blocks: Vec::new(),
            bytes: 0,
            head,
            skipped: head,
            streams: 0,
            idle: false,
            ended: false,
        };
        Self { inner: Mutex::new(inner), filled: Notify::new() }
    }

    /// Keeps blocks for the dispatcher.
    pub(super) fn put(&self, mut blocks: Vec<Block>, bytes_max: usize) {
        let Some(last) = blocks.last() else { return };
        let mut inner = self.inner.lock();
        inner.head = last.revision;
        if inner.streams == 0 {
            inner.skip();
            return;
        }
        inner.bytes +=
            blocks.iter().flat_map(|block| &block.events).map(|e| e.key.len() + e.kv.len()).sum::<usize>();
        if inner.bytes > bytes_max {
            inner.skip();
        } else {
            inner.blocks.append(&mut blocks);
        }
        self.notify(&mut inner);
    }

    /// The store stands at `head` now, and what led there is in it alone: nothing that was kept is needed any more.
    pub(super) fn replaced(&self, head: i64) {
        let mut inner = self.inner.lock();
        inner.head = inner.head.max(head);
        inner.skip();
        self.notify(&mut inner);
    }

    /// One more stream. The caller registers no watcher before this returns: so what its view does not show is kept.
    pub(super) fn open(&self) {
        let mut inner = self.inner.lock();
        inner.streams += 1;
        if inner.streams == 1 {
            // The dispatcher has to learn how far things went meanwhile.
            self.notify(&mut inner);
        }
    }

    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.streams -= 1;
        if inner.streams == 0 {
            inner.skip();
        }
    }

    pub(super) fn end(&self) {
        let mut inner = self.inner.lock();
        inner.ended = true;
        self.notify(&mut inner);
    }

    fn notify(&self, inner: &mut Inner) {
        if std::mem::take(&mut inner.idle) {
            self.filled.notify_one();
        }
    }

    /// Takes what there is.
    #[cfg(test)]
    fn take(&self) -> Taken {
        self.inner.lock().take()
    }

    /// Waits until there is something above `dispatched`; none when the hub ends.
    async fn wait(&self, dispatched: i64) -> Option<Taken> {
        loop {
            {
                let mut inner = self.inner.lock();
                if inner.ended {
                    return None;
                }
                if inner.head > dispatched && inner.streams > 0 {
                    return Some(inner.take());
                }
                inner.idle = true;
            }
            self.filled.notified().await;
        }
    }
}

impl Inner {
    fn skip(&mut self) {
        self.blocks = Vec::new();
        self.bytes = 0;
        self.skipped = self.head;
    }

    fn take(&mut self) -> Taken {
        self.bytes = 0;
        Taken { skipped: self.skipped, blocks: std::mem::take(&mut self.blocks) }
    }
}

/// The worker behind the thread `watch`.
pub(super) struct Dispatcher {
    shared: Arc<Shared>,
    dispatched: i64,
}

impl Dispatcher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let dispatched = shared.table.lock().dispatched();
        Self { shared, dispatched }
    }

    /// Works until the hub ends.
    pub(super) async fn run(mut self) {
        while let Some(taken) = self.shared.inbox.wait(self.dispatched).await {
            threads::turn().await;
            if let Err(fault) = self.dispatch(taken) {
                super::stop(&fault);
            }
        }
    }

    /// Dispatches what there is, without waiting.
    #[cfg(test)]
    pub(super) fn step(&mut self) -> Result<(), Fault> {
        let taken = self.shared.inbox.take();
        self.dispatch(taken)
    }

    fn dispatch(&mut self, taken: Taken) -> Result<(), Fault> {
        if taken.skipped > self.dispatched {
            self.skip(taken.skipped);
        }
        let mut slice = Slice::default();
        let mut revisions = 0;
        for block in taken.blocks {
            if block.revision > self.dispatched + 1 + revisions {
                // A hole: what is in it can only be read back.
                self.flush(&mut slice, &mut revisions)?;
                self.skip(block.revision - 1);
            }
            if block.revision <= self.dispatched + revisions {
                continue;
            }
            slice.push_block(block);
            revisions += 1;
            if slice.bytes() >= SLICE_BYTES_MAX || revisions >= SLICE_REVISIONS_MAX {
                self.flush(&mut slice, &mut revisions)?;
            }
        }
        self.flush(&mut slice, &mut revisions)
    }

    fn flush(&mut self, slice: &mut Slice, revisions: &mut i64) -> Result<(), Fault> {
        if slice.is_empty() {
            return Ok(());
        }
        let last = self.dispatched + std::mem::take(revisions);
        let view = self.shared.store.view();
        let mut news = Vec::new();
        let events = {
            let mut table = self.shared.table.lock();
            let events = table.dispatch(slice, last, &*view)?;
            table.take_news(&mut news);
            events
        };
        self.dispatched = last;
        slice.clear();
        queue::wake(&mut news);
        self.shared.sent(events);
        Ok(())
    }

    fn skip(&mut self, last: i64) {
        let mut news = Vec::new();
        {
            let mut table = self.shared.table.lock();
            table.skip(last);
            table.take_news(&mut news);
        }
        self.dispatched = last;
        self.shared.behind.notify_one();
        queue::wake(&mut news);
    }
}
