//! The replicated state machine: same log, same bytes on every member.
//!
//! It sees no clock, socket, task or random number. [`State`] is the one
//! writer: it applies log entries in order. [`Reader`] is the cheap, cloneable
//! way in for everybody else: it hands out a [`View`], a consistent state at
//! one revision. [`Reader::checkpoint`] on one member and [`State::install`] on
//! another bring one to where the other is.
//!
//! ```text
//!   entries ─► State::apply ─► one RocksDB batch ─► Applied { replies, blocks }
//!                                     │
//!                       Reader::view ─┴─► View: range, lease, members, hash
//! ```
//!
//! [`Reader::image`] gives the state as the buckets of an etcd, [`snapshot::restore`] makes one of them.

mod alarm;
pub mod apply;
mod auth;
mod checkpoint;
pub mod entry;
pub mod error;
pub mod event;
mod fingerprint;
pub mod hash;
mod home;
mod install;
pub mod key_range;
pub mod lease;
mod members;
pub mod mvcc;
mod options;
mod reader;
pub mod reply;
mod revision;
pub mod snapshot;
mod storage;
pub mod txn;
pub mod validate;

pub use apply::{Applied, State};
pub use checkpoint::Checkpoint;
pub use entry::{Entry, EntryBody, LogId, Node};
pub use error::{Fault, Refusal};
pub use event::{Block, Event};
pub use fingerprint::Fingerprint;
pub use hash::HashKv;
pub use key_range::KeyRange;
pub use lease::{Lease, LeaseChange};
pub use mvcc::{Query, Rows, View};
pub use options::Options;
pub use reader::{Reader, Sizes};
pub use reply::{Reply, Response};
pub use revision::Revision;
pub use validate::Invalid;
