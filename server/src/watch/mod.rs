//! Watches: who is told what changed.
//!
//! Apply hands over what it changed and goes on. The thread `watch` offers it
//! to the watchers that have everything before it; the thread `watch-catchup`
//! reads the history for the others. Both only put responses into the queues
//! of streams, which are bounded; a stream that is full makes its watchers lag
//! and catch up later. So nobody waits for a slow client, and it costs no more
//! memory than its queue.
//!
//! ```text
//!   apply ─ publish ─► inbox ─► watch ──────────┐      ┌─► queue ─► a gRPC stream
//!                                               ├─► table ─► queue ─► a gRPC stream
//!   history ─────────────────► watch-catchup ───┘      └─► queue ─► a gRPC stream
//! ```

mod catch_up;
mod dispatch;
mod index;
mod lane;
mod matcher;
#[cfg(test)]
pub(crate) mod naive;
mod queue;
mod slab;
mod slice;
pub mod store;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod watcher;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use state::{Block, Fault};
use tokio::sync::Notify;

use crate::metrics::METRICS;
use crate::threads;
use catch_up::CatchUp;
use dispatch::{Dispatcher, Inbox};
pub use queue::Item;
use queue::Total;
use store::Store;
pub use stream::Stream;
pub use table::Counts;
use table::Table;
pub use watcher::Create;

/// How the hub works.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often a watch that wants it and has nothing to tell tells how far it is.
    pub progress_interval: Duration,
    /// Bytes that may wait for the client of one stream; one response more if it is bigger.
    pub queue_bytes_max: usize,
    /// Bytes that may wait for the clients of all streams together; beyond, a stream may have only a small share.
    pub queues_bytes_max: usize,
    /// Bytes of changes that may wait to be dispatched; beyond, watchers read them from the store.
    pub inbox_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            progress_interval: Duration::from_mins(10),
            queue_bytes_max: 1 << 20,
            queues_bytes_max: 64 << 20,
            inbox_bytes_max: 64 << 20,
        }
    }
}

/// The way to the watchers; a clone is another way to the same ones.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
    /// Ends the threads when the last clone goes.
    _end: Arc<End>,
}

/// What the threads and the streams share.
struct Shared {
    store: Arc<dyn Store>,
    options: Options,
    inbox: Inbox,
    queued: Arc<Total>,
    table: Mutex<Table>,
    /// Somebody has to catch up.
    behind: Notify,
    ended: AtomicBool,
}

impl Hub {
    /// Starts the threads over a store.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(store: Arc<dyn Store>, options: Options) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new(store, options));
        let end = Arc::new(End(shared.clone()));
        let dispatcher = Dispatcher::new(shared.clone());
        let catch_up = CatchUp::new(shared.clone());
        threads::start("watch", dispatcher.run())?;
        threads::start("watch-catchup", catch_up.run())?;
        Ok(Self { shared, _end: end })
    }

    /// Takes what was applied, in revision order, once views show it. Never waits for a watcher.
    pub fn publish(&self, blocks: Vec<Block>) {
        self.shared.inbox.put(blocks, self.shared.options.inbox_bytes_max);
    }

    /// The store was replaced by a newer one of the same history, and views show it. Who was synced reads what it has
    /// not been given yet from there, or learns that it was compacted.
    pub fn replaced(&self) {
        self.shared.replaced();
    }

    /// Opens a stream. Call it on the runtime that will read it, so that its wake-ups are shared.
    pub fn open(&self) -> Stream {
        self.shared.inbox.open();
        Stream::new(self.shared.clone())
    }

    /// Ends the threads and, once they have sent what is queued, all streams.
    pub fn end(&self) {
        self.shared.end();
    }

    /// How many watchers there are now.
    pub fn counts(&self) -> Counts {
        self.shared.table.lock().counts()
    }

    /// How often quiet watches that want it tell how far they are.
    pub fn progress_interval(&self) -> Duration {
        self.shared.options.progress_interval
    }
}

impl Shared {
    fn new(store: Arc<dyn Store>, options: Options) -> Self {
        let revision = store.view().revision();
        Self {
            store,
            options,
            inbox: Inbox::new(revision),
            queued: Total::new(options.queues_bytes_max),
            table: Mutex::new(Table::new(revision)),
            behind: Notify::new(),
            ended: AtomicBool::new(false),
        }
    }

    fn replaced(&self) {
        self.inbox.replaced(self.store.view().revision());
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.inbox.end();
        self.behind.notify_one();
        let mut queues = self.table.lock().queues();
        queues.iter().for_each(|queue| queue.close());
        queue::wake(&mut queues);
    }

    fn closed(&self) {
        self.inbox.close();
    }

    /// Counts events that were put into queues.
    fn sent(&self, events: u64) {
        METRICS.storage.events.inc_by(events);
    }
}

struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Splits off the first of the concatenated events of an [`Item::Events`].
pub fn first_event(events: &Bytes) -> (Bytes, Bytes) {
    slice::first_event(events)
}

/// A store that cannot be read cannot be watched: the member stops.
fn stop(fault: &Fault) -> ! {
    tracing::error!(%fault, "watch cannot read the store");
    std::process::abort();
}
