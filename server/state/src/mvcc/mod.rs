//! The revisioned key space.
//!
//! A put never overwrites: it adds a record under the next revision, and the
//! key index learns where. Old records go only when a compaction says so.
//!
//! ```text
//!   Mvcc (one writer)                      View (any number of readers)
//!     │ staged changes of a group            │ page table, revision
//!     ▼ commit: one batch, then visible      ▼
//!   index   page table ─► pages of about 100 keys, loaded from `idx`, bounded in bytes
//!             "a" ─► { changed 7, older 4 }
//!   disk    rev   4.0 ─► a=1     7.0 ─► a=2     7.1 ─► b=9
//! ```
//!
//! Invariants
//!  1. A command's records, index rows and the applied log id are in one batch:
//!     after a crash all are there or none, so replay repeats and skips nothing.
//!  2. A command that changed nothing takes no revision.
//!  3. The index holds no fact the disk does not: a page can be dropped at any
//!     time and loaded again. It may be newer than the view that looks at it,
//!     never older: pages carry the history a view needs.
//!  4. Rows that a view may still read are not deleted while the view is held.

mod cache;
mod compaction;
mod entry;
mod history;
mod index;
mod page;
mod query;
mod rows;
mod state_row;
mod table;
mod view;
mod writer;

pub use query::{Order, Query, Selection, Sort, Target};
pub use rows::Rows;
pub(crate) use state_row::{FIRST_REVISION, Standing, applied, persisted_applied};
pub use view::{View, Views};
pub(crate) use writer::take_over::{End, Taken};
pub use writer::{Mvcc, Record};
