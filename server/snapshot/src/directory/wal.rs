//! etcd's write-ahead log: records in frames, each with the CRC-32C of all data so far.
//!
//! ```text
//!   frame   u64 LE: 0x80 | padding in the top byte if any, length below it │ walpb.Record │ zeros to 8 bytes
//!   file    crc, metadata, snapshot 0, …                                   │ zeros where it was preallocated
//! ```

use prost::Message;

use super::raft;
use crate::schema::Malformed;

/// The name of the first file of a log, which begins with entry 0.
pub const FIRST: &str = "0000000000000000-0000000000000000.wal";
/// Bytes etcd gives a file before it writes to it.
pub const PREALLOCATED: u64 = 64_000_000;

/// What a record is (`walpb.Record.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Crc = 4,
    Snapshot = 5,
}

/// A log that is being written, in memory.
#[derive(Debug, Default)]
pub(super) struct Writer {
    crc: u32,
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn put(&mut self, kind: Kind, data: Option<Vec<u8>>) {
        self.crc = crc32c::crc32c_append(self.crc, data.as_deref().unwrap_or_default());
        let record = raft::Record { kind: Some(kind.into()), crc: Some(self.crc), data };
        let record = record.encode_to_vec();
        let padding = record.len().wrapping_neg() % 8;
        let marked = if padding == 0 { 0 } else { (0x80 | padding as u64) << 56 };
        self.bytes.extend_from_slice(&(marked | record.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(&record);
        self.bytes.resize(self.bytes.len() + padding, 0);
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The records of a file, up to where it was preallocated.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    crc: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, crc: 0 }
    }

    /// Where the next record begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next record: its kind and data.
    ///
    /// # Errors
    /// When what is there is none; nothing behind it can be read.
    pub(super) fn next(&mut self) -> Result<Option<(Kind, Vec<u8>)>, Malformed> {
        let frame = |detail: &str| Malformed::Protobuf { message: "walpb.Record", detail: detail.into() };
        let Some((length, rest)) = self.bytes[self.at..].split_first_chunk() else { return Ok(None) };
        let length = u64::from_le_bytes(*length);
        if length == 0 {
            return Ok(None);
        }
        let padding = if length >> 63 == 1 { (length >> 56) as usize & 7 } else { 0 };
        let length = (length & ((1 << 56) - 1)) as usize;
        let end = length.checked_add(padding).filter(|end| *end <= rest.len());
        let end = end.ok_or_else(|| frame("it is longer than what is left of the file"))?;
        let record = raft::Record::decode(&rest[..length]).map_err(|error| frame(&error.to_string()))?;
        let data = record.data.unwrap_or_default();
        let crc = crc32c::crc32c_append(self.crc, &data);
        if record.crc.unwrap_or_default() != crc {
            return Err(frame("its CRC is another"));
        }
        let kind = Kind::try_from(record.kind.unwrap_or_default());
        let kind = kind.map_err(|_| frame("it is of no known type"))?;
        self.crc = crc;
        self.at += 8 + end;
        Ok(Some((kind, data)))
    }
}
