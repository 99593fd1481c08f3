//! What the hub needs of the store.
//!
//! Traits, so that the hub can be driven step by step over a naive store in
//! tests; a closure over [`state::Reader::view`] is the real one.

use std::ops::ControlFlow;

use bytes::Bytes;
use state::{Fault, Revision, mvcc};

/// The way to consistent states of the store.
pub trait Store: Send + Sync + 'static {
    /// The newest state. Never older than one handed out before, on any thread.
    fn view(&self) -> Box<dyn View>;
}

/// The store at one revision.
pub trait View: Send {
    /// The revision it shows.
    fn revision(&self) -> i64;

    /// Records below this revision may be gone; -1 when nothing was ever compacted.
    fn compacted(&self) -> i64;

    /// Visits all records from main revision `from` on, ascending, until `visit` breaks.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan(&self, from: i64, visit: &mut dyn FnMut(Record) -> ControlFlow<()>) -> Result<(), Fault>;

    /// The encoded `mvccpb.KeyValue` put at a revision; none once compacted away.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn row(&self, revision: Revision) -> Result<Option<Bytes>, Fault>;

    /// The encoded `mvccpb.KeyValue` that `key` had just before main revision `before`.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn previous(&self, key: &[u8], before: i64) -> Result<Option<Bytes>, Fault>;
}

/// One record of the history.
#[derive(Debug, Clone)]
pub struct Record {
    /// When it was written.
    pub revision: Revision,
    /// True when it records a delete.
    pub tombstone: bool,
    /// The encoded `mvccpb.KeyValue`; that of a tombstone holds only the key.
    pub kv: Bytes,
}

impl<F: Fn() -> mvcc::View + Send + Sync + 'static> Store for F {
    fn view(&self) -> Box<dyn View> {
        Box::new(self())
    }
}

impl View for mvcc::View {
    fn revision(&self) -> i64 {
        self.revision()
    }

    fn compacted(&self) -> i64 {
        self.compacted()
    }

    fn scan(&self, from: i64, visit: &mut dyn FnMut(Record) -> ControlFlow<()>) -> Result<(), Fault> {
        for record in self.scan_revisions(from) {
            let (revision, tombstone, kv) = record?;
            if visit(Record { revision, tombstone, kv }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn row(&self, revision: Revision) -> Result<Option<Bytes>, Fault> {
        self.row(revision)
    }

    fn previous(&self, key: &[u8], before: i64) -> Result<Option<Bytes>, Fault> {
        self.previous(key, before)
    }
}
