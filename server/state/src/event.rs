//! What watchers are told.

use bytes::Bytes;

use crate::Revision;

/// All changes of one main revision, in the order they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The main revision.
    pub revision: i64,
    /// Its changes; never empty.
    pub events: Vec<Event>,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The key that changed.
    pub key: Bytes,
    /// The encoded `mvccpb.KeyValue` a client sees: for a delete it holds only key and mod revision.
    pub kv: Bytes,
    /// True for a delete.
    pub delete: bool,
    /// The record this one replaced, if the key existed.
    pub previous: Option<Revision>,
}
