//! The bytes of one record.
//!
//! ```text
//!   0    4    8     12     16    17   18     20      24     32     40
//!   len  crc  prev  epoch  kind  tag  zero   synced  term   index  payload, padded with zeros to 8
//! ```
//!
//! `crc` covers everything but itself, padding included; `prev` is the `crc` of the record before.
//! `epoch` is the segment's number: a recycled file still holds records, of another epoch.
//! `synced` is the offset up to which the segment was durable when the record was written.
//! Records begin at multiples of 8.

use crate::LogId;

pub(crate) const HEADER_BYTES: usize = 40;
pub(crate) const ALIGNMENT: u64 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// First record of a segment; payload: [`crate::segment::Header`].
    Header = 1,
    /// An entry of the log.
    Entry = 2,
    /// The owner's vote, opaque.
    Vote = 3,
    /// What stands after the id is gone; tag 0: the log holds nothing but what is purged.
    Truncate = 4,
    /// The owner knew this id to be committed: a hint.
    Committed = 5,
    /// What stands up to the id is gone.
    Purged = 6,
}

impl Kind {
    fn parse(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Header,
            2 => Self::Entry,
            3 => Self::Vote,
            4 => Self::Truncate,
            5 => Self::Committed,
            6 => Self::Purged,
            _ => return None,
        })
    }
}

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub len: u32,
    pub crc: u32,
    pub prev: u32,
    pub epoch: u32,
    pub kind: Kind,
    pub tag: u8,
    pub synced: u32,
    pub log_id: LogId,
}

impl Head {
    /// Reads a head that could be one of this epoch; the checksum is not looked at.
    pub fn parse(bytes: &[u8; HEADER_BYTES], epoch: u32) -> Option<Self> {
        if u32_at(bytes, 12) != epoch || bytes[18] != 0 || bytes[19] != 0 {
            return None;
        }
        Some(Self {
            len: u32_at(bytes, 0),
            crc: u32_at(bytes, 4),
            prev: u32_at(bytes, 8),
            epoch,
            kind: Kind::parse(bytes[16])?,
            tag: bytes[17],
            synced: u32_at(bytes, 20),
            log_id: LogId { term: u64_at(bytes, 24), index: u64_at(bytes, 32) },
        })
    }

    /// Bytes of the whole record.
    pub fn size(&self) -> u64 {
        size(self.len as usize)
    }

    /// Whether the record's bytes are what was written.
    pub fn matches(&self, record: &[u8]) -> bool {
        checksum(record) == self.crc
    }
}

/// Bytes of a record with such a payload.
pub(crate) fn size(payload: usize) -> u64 {
    (HEADER_BYTES as u64 + payload as u64).next_multiple_of(ALIGNMENT)
}

/// Appends a record to the buffer and returns its checksum.
pub(crate) fn encode(buffer: &mut Vec<u8>, head: Head, payload: &[u8]) -> u32 {
    let start = buffer.len();
    buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&head.prev.to_le_bytes());
    buffer.extend_from_slice(&head.epoch.to_le_bytes());
    buffer.extend_from_slice(&[head.kind as u8, head.tag, 0, 0]);
    buffer.extend_from_slice(&head.synced.to_le_bytes());
    buffer.extend_from_slice(&head.log_id.term.to_le_bytes());
    buffer.extend_from_slice(&head.log_id.index.to_le_bytes());
    buffer.extend_from_slice(payload);
    buffer.resize(start + size(payload.len()) as usize, 0);
    let crc = checksum(&buffer[start..]);
    buffer[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    crc
}

pub(crate) fn checksum(record: &[u8]) -> u32 {
    let mut checksum = Checksum::default();
    checksum.update(record);
    checksum.finish()
}

/// The checksum of a record that is read in pieces; the first one holds the whole head.
#[derive(Default)]
pub(crate) struct Checksum {
    hasher: crc32fast::Hasher,
    begun: bool,
}

impl Checksum {
    pub fn update(&mut self, mut piece: &[u8]) {
        if !self.begun {
            self.hasher.update(&piece[..4]);
            piece = &piece[8..];
            self.begun = true;
        }
        self.hasher.update(piece);
    }

    pub fn finish(self) -> u32 {
        self.hasher.finalize()
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_every_byte_counts() {
        let head = Head {
            len: 5,
            crc: 0,
            prev: 7,
            epoch: 9,
            kind: Kind::Entry,
            tag: 3,
            synced: 64,
            log_id: LogId { term: 2, index: 11 },
        };
        let mut bytes = Vec::new();
        let crc = encode(&mut bytes, head, b"hello");
        assert_eq!(bytes.len() as u64, size(5));

        let fixed = bytes[..HEADER_BYTES].try_into().expect("a head");
        let read = Head::parse(fixed, 9).expect("a record");
        assert_eq!(read, Head { crc, ..head });
        assert!(read.matches(&bytes));
        assert_eq!(Head::parse(fixed, 8), None);

        for at in 0..bytes.len() {
            bytes[at] ^= 0x10;
            let good = Head::parse(bytes[..HEADER_BYTES].try_into().expect("a head"), 9)
                .is_some_and(|head| head.size() == bytes.len() as u64 && head.matches(&bytes));
            assert!(!good, "a flip at {at} went unnoticed");
            bytes[at] ^= 0x10;
        }
    }
}
