//! Names of segment files, and what a segment's first record holds.

use std::sync::Arc;

use bytes::Bytes;

use crate::record::{u32_at, u64_at};
use crate::{File, LogId};

const FORMAT: u32 = 1;

/// `SEQ-FIRST.log`, both as 16 hexadecimal digits.
pub(crate) fn name(seq: u64, first: u64) -> String {
    format!("{seq:016x}-{first:016x}.log")
}

/// The number of a segment file, from its name.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let (seq, first) = name.strip_suffix(".log")?.split_once('-')?;
    if seq.len() != 16 || first.len() != 16 {
        return None;
    }
    u64::from_str_radix(first, 16).ok()?;
    u64::from_str_radix(seq, 16).ok()
}

/// A segment as the index knows it.
pub(crate) struct Segment {
    pub seq: u64,
    pub name: String,
    pub file: Arc<dyn File>,
    /// Length of the file.
    pub len: u64,
    /// Index of the first live entry in it, if `offsets` holds any.
    pub first: u64,
    /// Where its live entries begin, one after another.
    pub offsets: Vec<u32>,
    /// Where the last record ends.
    pub end: u64,
}

impl Segment {
    pub fn epoch(&self) -> u32 {
        epoch(self.seq)
    }

    /// One past the last live entry.
    pub fn next(&self) -> u64 {
        self.first + self.offsets.len() as u64
    }
}

/// The number that marks a segment's records as its own.
pub(crate) fn epoch(seq: u64) -> u32 {
    seq as u32
}

/// What all records before a segment add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub owner: u64,
    pub vote: Option<Bytes>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    pub committed: Option<LogId>,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.owner.to_le_bytes());
        for log_id in [self.purged, self.last, self.committed] {
            bytes.push(u8::from(log_id.is_some()));
            let log_id = log_id.unwrap_or_default();
            bytes.extend_from_slice(&log_id.term.to_le_bytes());
            bytes.extend_from_slice(&log_id.index.to_le_bytes());
        }
        bytes.push(u8::from(self.vote.is_some()));
        bytes.extend_from_slice(self.vote.as_deref().unwrap_or_default());
        bytes
    }

    /// Reads it back; `Err` says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        const FIXED: usize = 4 + 8 + 3 * 17 + 1;
        let format = bytes.get(..4).map_or(0, |bytes| u32_at(bytes, 0));
        if format != FORMAT {
            return Err(format!("written in format {format}, this version reads format {FORMAT}"));
        }
        if bytes.len() < FIXED {
            return Err(format!("segment header of {} bytes is too short", bytes.len()));
        }
        let log_id = |at: usize| {
            (bytes[at] == 1).then(|| LogId { term: u64_at(bytes, at + 1), index: u64_at(bytes, at + 9) })
        };
        let [purged, last, committed] = [12, 29, 46].map(log_id);
        if [purged, last, committed].iter().flatten().any(|log_id| log_id.index == u64::MAX) {
            return Err("segment header with an index that cannot be".to_owned());
        }
        if last.map(|last| last.index) < purged.map(|purged| purged.index) {
            return Err("segment header whose last entry comes before the last purged one".to_owned());
        }
        Ok(Self {
            owner: u64_at(bytes, 4),
            purged,
            last,
            committed,
            vote: (bytes[63] == 1).then(|| Bytes::copy_from_slice(&bytes[FIXED..])),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        assert_eq!(parse_name(&name(7, 0x1234)), Some(7));
        assert_eq!(parse_name("spare-1"), None);
        assert_eq!(parse_name("0000000000000000-0000000000000000.wal"), None);
    }

    #[test]
    fn headers_read_back() {
        let header = Header {
            owner: 5,
            vote: Some(Bytes::from_static(b"vote")),
            purged: Some(LogId { term: 1, index: 2 }),
            last: Some(LogId { term: 1, index: 2 }),
            committed: Some(LogId { term: 3, index: 4 }),
        };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        assert_eq!(Header::decode(&Header::default().encode()), Ok(Header::default()));
        assert!(Header::decode(&[2, 0, 0, 0]).is_err_and(|error| error.contains("format 2")));
    }
}
