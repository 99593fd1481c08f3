//! Old records of keys that changed so often that their index row would grow without bound.
//!
//! A row of the history column is a block of marks:
//! `BE32(key length) key BE64(newest main)` → marks, newest first, as distances below that main.

use super::entry::{Entry, Mark, Marks, encode_marks};
use crate::Fault;
use crate::storage::{Batch, Column, Storage};

/// An index row holds at most this many older marks …
const INLINE_MAX: u32 = 64;
/// … and when it would hold more, all but this many go into a block.
const INLINE_KEPT: usize = 32;

/// Moves the oldest marks of an entry into a block once there are too many of them.
pub(super) fn spill(batch: &mut Batch, key: &[u8], entry: &mut Entry) -> Result<(), Fault> {
    if entry.older_len <= INLINE_MAX {
        return Ok(());
    }
    let marks = Marks::after(entry.modified.main, &entry.older).collect::<Result<Vec<_>, _>>()?;
    let (kept, spilled) = marks.split_at(INLINE_KEPT);
    let newest = spilled[0].revision.main;
    batch.put(Column::History, &block_key(key, newest), &encode_marks(newest, spilled));
    entry.set_older(kept);
    entry.spilled = true;
    Ok(())
}

/// The newest spilled mark with main revision ≤ `main`.
pub(super) fn find(storage: &Storage, key: &[u8], main: i64) -> Result<Option<Mark>, Fault> {
    let (first, last) = (block_key(key, 0), block_key(key, i64::MAX));
    // The block that reaches up to or beyond `main` may hold it …
    if let Some(block) = storage.scan(Column::History, &block_key(key, main), Some(&last)).next() {
        for mark in read_block(&block?)? {
            if mark.revision.main <= main {
                return Ok(Some(mark));
            }
        }
    }
    // … else it is the newest of the block before.
    match storage.scan_back(Column::History, &block_key(key, main), &first).next() {
        Some(block) => Ok(read_block(&block?)?.first().copied()),
        None => Ok(None),
    }
}

/// All spilled marks, newest first.
pub(super) fn all(storage: &Storage, key: &[u8]) -> Result<Vec<Mark>, Fault> {
    let mut marks = Vec::new();
    for block in storage.scan_back(Column::History, &block_key(key, i64::MAX), &block_key(key, 0)) {
        marks.extend(read_block(&block?)?);
    }
    Ok(marks)
}

/// Replaces what is spilled; `marks` newest first.
pub(super) fn replace(storage: &Storage, batch: &mut Batch, key: &[u8], marks: &[Mark]) -> Result<(), Fault> {
    let last = block_key(key, i64::MAX);
    for block in storage.scan(Column::History, &block_key(key, 0), Some(&last)) {
        batch.delete(Column::History, &block?.0);
    }
    for block in marks.chunks(INLINE_MAX as usize) {
        let newest = block[0].revision.main;
        batch.put(Column::History, &block_key(key, newest), &encode_marks(newest, block));
    }
    Ok(())
}

fn block_key(key: &[u8], newest: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 12);
    out.extend_from_slice(&(key.len() as u32).to_be_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(&newest.to_be_bytes());
    out
}

fn read_block((key, marks): &(bytes::Bytes, bytes::Bytes)) -> Result<Vec<Mark>, Fault> {
    let newest = key.last_chunk().map(|bytes| i64::from_be_bytes(*bytes));
    let newest =
        newest.ok_or_else(|| Fault::Corrupt { what: "history row", detail: format!("{key:02x?}") })?;
    Marks::after(newest, marks).collect()
}
