//! A client's end of the hub: one gRPC stream.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::Shared;
use super::queue::{Item, Popped, Queue};
use super::slab::Key;
use super::watcher::Create;

/// How many watchers of a closing stream go while the mutex is held.
const CLOSES_PER_STEP: usize = 1024;

/// An open watch stream; dropping it ends its watches.
pub struct Stream {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    key: Key,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let queue = Arc::new(Queue::new(shared.options.queue_bytes_max, shared.queued.clone()));
        let key = shared.table.lock().open(queue.clone());
        Self { shared, queue, key }
    }

    /// Creates a watch, or says in its place among the answers why not.
    pub fn create(&self, create: &Create) {
        let behind = {
            let mut table = self.shared.table.lock();
            // Taken under the mutex: nothing above its revision has been dispatched yet.
            let view = self.shared.store.view();
            table.create(self.key, create, &*view)
        };
        if behind {
            self.shared.behind.notify_one();
        }
    }

    /// Answers a create with why there is no watch.
    pub fn refuse(&self, reason: String) {
        let revision = self.shared.store.view().revision();
        self.queue.push(Item::Refused { revision, reason });
    }

    /// Ends a watch; nothing happens if there is none of that id.
    pub fn cancel(&self, id: i64) {
        let mut table = self.shared.table.lock();
        let view = self.shared.store.view();
        table.cancel(self.key, id, &*view);
    }

    /// Asks how far all watches of the stream are; not answered while one of them is behind.
    pub fn ask_progress(&self) {
        let mut table = self.shared.table.lock();
        let view = self.shared.store.view();
        table.ask_progress(self.key, &*view);
    }

    /// Lets the watches that want it and had nothing to tell since the last tick tell how far they are.
    pub fn tick(&self) {
        self.shared.table.lock().tick(self.key);
    }

    /// Whether more requests should be read: answers to them are always queued.
    pub fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    /// The next response; none when the hub has ended.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        match self.queue.poll_pop(context) {
            Poll::Ready(Popped::Item { item, resume }) => {
                if resume && self.shared.table.lock().resume(self.key) {
                    self.shared.behind.notify_one();
                }
                Poll::Ready(Some(item))
            }
            Poll::Ready(Popped::Closed) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        while !self.shared.table.lock().close(self.key, CLOSES_PER_STEP) {}
        self.shared.closed();
    }
}
