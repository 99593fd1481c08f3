//! What the index knows of one key: its newest record and where the older ones are.
//!
//! ```text
//!   flags · main · [sub] · put only: main−created, version, [lease], value length · older…
//!   older, newest first:  (distance to the next newer main) << 2 | sub? << 1 | tombstone · [sub] · put only: row length
//! ```
//! All numbers are varints. Distances chain, so a new record goes in front
//! without touching those behind it.

use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

use crate::{Fault, Revision};

const TOMBSTONE: u64 = 1;
const SUB: u64 = 2;
const LEASE: u64 = 4;
const SPILLED: u64 = 8;

/// One record of a key, as far as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub revision: Revision,
    pub tombstone: bool,
    /// Length of the row in the `rev` column; 0 for a tombstone, whose row holds the key alone.
    pub row_len: u32,
}

/// All the index knows of one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Entry {
    /// The newest record.
    pub modified: Revision,
    /// Whether it is a delete; then the next four are zero.
    pub tombstone: bool,
    pub created: i64,
    pub version: i64,
    pub lease: i64,
    pub value_len: u32,
    /// Whether records older than those in `older` stand in the history column.
    pub spilled: bool,
    /// How many records `older` holds.
    pub older_len: u32,
    /// The older records, newest first, encoded.
    pub older: Vec<u8>,
}

impl Entry {
    /// Puts a newer record in front; the present one becomes the first of the older ones.
    pub(super) fn push(&mut self, key_len: usize, newer: Entry) {
        let mut older = Vec::with_capacity(self.older.len() + 8);
        encode_mark(&mut older, newer.modified.main, self.mark(key_len));
        older.extend_from_slice(&self.older);
        *self = Entry { spilled: self.spilled, older_len: self.older_len + 1, older, ..newer };
    }

    /// The newest record.
    pub(super) fn mark(&self, key_len: usize) -> Mark {
        let row_len = if self.tombstone { 0 } else { self.row_len(key_len) as u32 };
        Mark { revision: self.modified, tombstone: self.tombstone, row_len }
    }

    /// Length of the newest record as an encoded `mvccpb.KeyValue`.
    pub(super) fn row_len(&self, key_len: usize) -> usize {
        // Of no key a record has version 0, but for the empty one that a restore puts behind all others.
        if self.version == 0 {
            return 0;
        }
        kv_len(key_len, self.created, self.modified.main, self.version, self.value_len as usize, self.lease)
    }

    /// The records in `older`, newest first.
    pub(super) fn older(&self) -> Marks<'_> {
        Marks::after(self.modified.main, &self.older)
    }

    /// Replaces the older records; `marks` newest first.
    pub(super) fn set_older(&mut self, marks: &[Mark]) {
        self.older = encode_marks(self.modified.main, marks);
        self.older_len = marks.len() as u32;
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        let flags = flag(self.tombstone, TOMBSTONE)
            | flag(self.modified.sub != 0, SUB)
            | flag(self.lease != 0, LEASE)
            | flag(self.spilled, SPILLED);
        encode_varint(flags | u64::from(self.older_len) << 4, out);
        encode_varint(self.modified.main as u64, out);
        if self.modified.sub != 0 {
            encode_varint(self.modified.sub as u64, out);
        }
        if !self.tombstone {
            encode_varint((self.modified.main - self.created) as u64, out);
            encode_varint(self.version as u64, out);
            if self.lease != 0 {
                encode_varint(self.lease as u64, out);
            }
            encode_varint(u64::from(self.value_len), out);
        }
        out.extend_from_slice(&self.older);
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, Fault> {
        let whole = bytes;
        let mut next = || decode_varint(&mut bytes).map_err(|_| corrupt(whole));
        let flags = next()?;
        let main = next()? as i64;
        let sub = if flags & SUB != 0 { next()? as i64 } else { 0 };
        let mut entry = Entry {
            modified: Revision { main, sub },
            tombstone: flags & TOMBSTONE != 0,
            spilled: flags & SPILLED != 0,
            older_len: (flags >> 4) as u32,
            ..Entry::default()
        };
        if !entry.tombstone {
            entry.created = main - next()? as i64;
            entry.version = next()? as i64;
            if flags & LEASE != 0 {
                entry.lease = next()? as i64;
            }
            entry.value_len = next()? as u32;
        }
        entry.older = bytes.to_vec();
        Ok(entry)
    }
}

/// Whether an encoded entry's newest record is a delete.
pub(super) fn is_tombstone(entry: &[u8]) -> bool {
    entry.first().is_some_and(|flags| u64::from(*flags) & TOMBSTONE != 0)
}

/// Encodes marks, newest first, as distances below `main`.
pub(super) fn encode_marks(mut main: i64, marks: &[Mark]) -> Vec<u8> {
    let mut out = Vec::with_capacity(marks.len() * 3);
    for mark in marks {
        encode_mark(&mut out, main, *mark);
        main = mark.revision.main;
    }
    out
}

fn encode_mark(out: &mut Vec<u8>, newer_main: i64, mark: Mark) {
    let Revision { main, sub } = mark.revision;
    let bits = u64::from(sub != 0) << 1 | u64::from(mark.tombstone);
    encode_varint(((newer_main - main) as u64) << 2 | bits, out);
    if sub != 0 {
        encode_varint(sub as u64, out);
    }
    if !mark.tombstone {
        encode_varint(u64::from(mark.row_len), out);
    }
}

/// Length of an encoded `mvccpb.KeyValue`.
pub(super) fn kv_len(
    key_len: usize,
    created: i64,
    modified: i64,
    version: i64,
    value_len: usize,
    lease: i64,
) -> usize {
    let number = |n: i64| if n == 0 { 0 } else { 1 + encoded_len_varint(n as u64) };
    let bytes = |n: usize| if n == 0 { 0 } else { 1 + encoded_len_varint(n as u64) + n };
    bytes(key_len) + number(created) + number(modified) + number(version) + bytes(value_len) + number(lease)
}

/// Reads encoded marks, newest first.
pub(super) struct Marks<'a> {
    main: i64,
    bytes: &'a [u8],
}

impl<'a> Marks<'a> {
    /// The marks that were encoded as distances below `main`.
    pub(super) fn after(main: i64, bytes: &'a [u8]) -> Self {
        Self { main, bytes }
    }
}

impl Iterator for Marks<'_> {
    type Item = Result<Mark, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let whole = self.bytes;
        let mut number = || decode_varint(&mut self.bytes).map_err(|_| corrupt(whole));
        let mut read = || {
            let head = number()?;
            let sub = if head & 2 != 0 { number()? as i64 } else { 0 };
            let row_len = if head & 1 == 0 { number()? as u32 } else { 0 };
            Ok((head, sub, row_len))
        };
        match read() {
            Ok((head, sub, row_len)) => {
                self.main -= (head >> 2) as i64;
                let revision = Revision { main: self.main, sub };
                Some(Ok(Mark { revision, tombstone: head & 1 != 0, row_len }))
            }
            Err(fault) => {
                self.bytes = &[];
                Some(Err(fault))
            }
        }
    }
}

fn corrupt(bytes: &[u8]) -> Fault {
    Fault::Corrupt { what: "index row", detail: format!("{bytes:02x?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(main: i64, sub: i64, created: i64, version: i64) -> Entry {
        let modified = Revision { main, sub };
        Entry { modified, created, version, lease: -7, value_len: 300, ..Entry::default() }
    }

    #[test]
    fn survives_encoding_with_its_history() {
        let mut entry = put(2, 0, 2, 1);
        entry.push(3, put(300, 4, 2, 2));
        entry
            .push(3, Entry { modified: Revision { main: 301, sub: 1 }, tombstone: true, ..Entry::default() });
        entry.push(3, put(90_000, 0, 90_000, 1));
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        let read = Entry::decode(&bytes).expect("just encoded");
        assert_eq!(read, entry);
        let marks: Vec<_> = read.older().map(|mark| mark.expect("just encoded")).collect();
        let mains: Vec<_> = marks.iter().map(|m| (m.revision.main, m.revision.sub, m.tombstone)).collect();
        assert_eq!(mains, [(301, 1, true), (300, 4, false), (2, 0, false)]);
    }

    #[test]
    fn knows_the_length_of_a_row() {
        let kv = proto::mvccpb::KeyValue {
            key: "key".into(),
            create_revision: 2,
            mod_revision: 300,
            version: 2,
            value: vec![0; 300].into(),
            lease: -7,
        };
        assert_eq!(put(300, 0, 2, 2).row_len(3), prost::Message::encoded_len(&kv));
    }

    #[test]
    fn a_cut_row_is_a_fault() {
        let mut bytes = Vec::new();
        put(90_000, 3, 2, 2).encode(&mut bytes);
        assert!(matches!(Entry::decode(&bytes[..2]), Err(Fault::Corrupt { .. })));
    }
}
