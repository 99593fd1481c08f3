//! Where every entry is: recent ones in a ring, older ones by file and offset.
//!
//! Callers change what is visible (`append`, `truncate`, `purge`) at once; the
//! flush thread follows with what is on disk (`place` and its siblings), in the
//! same order. An entry stays in the ring until it has a place on disk.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::record::{HEADER_BYTES, Head, Kind};
use crate::segment::Segment;
use crate::{Entry, Error, File, LogId};

/// Bytes read from a file at once.
const READ_BYTES: u64 = 4 << 20;

pub(crate) struct Index {
    /// Oldest first; the last one is being written.
    pub segments: VecDeque<Segment>,
    /// One past the last entry that has a place on disk.
    placed: u64,
    ring: VecDeque<Entry>,
    ring_bytes: usize,
    ring_bytes_max: usize,
    /// Truncations that callers have seen and the flush thread has not.
    truncations_pending: usize,
    /// Index of the first entry there ever was.
    pub begin: u64,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    pub vote: Option<Bytes>,
    pub committed: Option<LogId>,
    /// Why nothing is written any more.
    pub failed: Option<Error>,
}

/// The part of a read that is on disk: entries of one segment that stand close together.
pub(crate) struct DiskRun {
    file: Arc<dyn File>,
    path: PathBuf,
    epoch: u32,
    first: u64,
    offsets: Vec<u32>,
    end: u64,
}

/// The next piece of a read.
pub(crate) enum Piece {
    Memory(Vec<Entry>),
    Disk(DiskRun),
}

pub(crate) fn next_of(log_id: Option<LogId>) -> u64 {
    log_id.map_or(0, |log_id| log_id.index + 1)
}

/// After which entry a truncation really cuts: not one beyond the end, and none of those that were purged.
pub(crate) fn cut_after(after: Option<LogId>, purged: Option<LogId>, last: Option<LogId>) -> Option<LogId> {
    match next_of(after) {
        next if next > next_of(last) => last,
        next if next < next_of(purged) => purged,
        _ => after,
    }
}

impl Index {
    pub fn new(ring_bytes_max: usize) -> Self {
        Self {
            segments: VecDeque::new(),
            placed: 0,
            ring: VecDeque::new(),
            ring_bytes: 0,
            ring_bytes_max,
            truncations_pending: 0,
            begin: 0,
            purged: None,
            last: None,
            vote: None,
            committed: None,
            failed: None,
        }
    }

    pub fn append(&mut self, entries: &[Entry]) -> Result<(), Error> {
        // An empty log begins where its first entry stands.
        let begins = self.last.is_none().then(|| entries.first().map_or(0, |entry| entry.log_id.index));
        for (entry, expected) in entries.iter().zip(begins.unwrap_or(next_of(self.last))..) {
            if entry.log_id.index != expected {
                return Err(Error::Gap { expected, found: entry.log_id.index });
            }
            if entry.payload.len() > u32::MAX as usize / 4 {
                return Err(Error::TooLarge { bytes: entry.payload.len() });
            }
        }
        self.begin = begins.unwrap_or(self.begin);
        for entry in entries {
            self.ring_bytes += entry.weight();
            self.ring.push_back(entry.clone());
            self.last = Some(entry.log_id);
        }
        Ok(())
    }

    /// Gives the id that is last then.
    pub fn truncate(&mut self, after: Option<LogId>) -> Option<LogId> {
        let after = cut_after(after, self.purged, self.last);
        let keep = next_of(after);
        while self.ring.back().is_some_and(|entry| entry.log_id.index >= keep) {
            self.ring_bytes -= self.ring.pop_back().map_or(0, |entry| entry.weight());
        }
        self.last = after;
        self.truncations_pending += 1;
        after
    }

    pub fn purge(&mut self, upto: LogId) {
        while self.ring.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            self.ring_bytes -= self.ring.pop_front().map_or(0, |entry| entry.weight());
        }
        self.purged = self.purged.max(Some(upto));
        if next_of(self.last) <= upto.index {
            self.last = Some(upto);
        }
    }

    /// An entry stands at the offset of the newest segment.
    pub fn place(&mut self, index: u64, offset: u32) {
        let segment = self.segments.back_mut().expect("a log has a segment");
        if segment.offsets.is_empty() {
            segment.first = index;
        }
        debug_assert_eq!(segment.next(), index);
        segment.offsets.push(offset);
        self.placed = index + 1;
    }

    /// The truncation is on disk.
    pub fn placed_truncation(&mut self, keep: u64) {
        self.forget_places(keep);
        self.truncations_pending = self.truncations_pending.saturating_sub(1);
    }

    /// The purge is on disk. Gives back the segments nothing needs any more, oldest first.
    pub fn placed_purge(&mut self, upto: u64) -> Vec<Segment> {
        self.placed_purge_keeping(upto);
        let mut unneeded = Vec::new();
        while self.segments.len() > 1 {
            let oldest = &self.segments[0];
            if !oldest.offsets.is_empty() && oldest.next() > upto + 1 {
                break;
            }
            unneeded.extend(self.segments.pop_front());
        }
        unneeded
    }

    /// The purge is on disk, its files stay for now.
    pub fn placed_purge_keeping(&mut self, upto: u64) {
        if self.placed <= upto {
            self.forget_places(0);
            self.placed = upto + 1;
        }
    }

    fn forget_places(&mut self, keep: u64) {
        for segment in self.segments.iter_mut().rev() {
            if segment.offsets.is_empty() {
                continue;
            }
            let left = keep.saturating_sub(segment.first) as usize;
            if left >= segment.offsets.len() {
                break;
            }
            segment.offsets.truncate(left);
        }
        self.placed = self.placed.min(keep);
    }

    /// Lets go of what the ring may not hold any longer.
    pub fn shrink_ring(&mut self) {
        if self.truncations_pending > 0 {
            // A place may still be that of an entry that was replaced.
            return;
        }
        while self.ring_bytes > self.ring_bytes_max
            && self.ring.front().is_some_and(|entry| entry.log_id.index < self.placed)
        {
            self.ring_bytes -= self.ring.pop_front().map_or(0, |entry| entry.weight());
        }
    }

    /// Index of the first entry, or of the next one if there is none.
    pub fn first(&self) -> u64 {
        self.begin.max(next_of(self.purged))
    }

    /// What lies from `start` on, below `end` and within about `bytes_max`; `None`: nothing.
    pub fn piece(
        &self,
        start: u64,
        end: u64,
        bytes_max: usize,
        path: impl Fn(&str) -> PathBuf,
    ) -> Option<Piece> {
        let end = end.min(next_of(self.last));
        if start >= end || start < self.first() {
            return None;
        }
        if let Some(front) = self.ring.front().filter(|front| front.log_id.index <= start) {
            let skip = (start - front.log_id.index) as usize;
            let mut bytes = 0;
            let within = self.ring.iter().skip(skip).take((end - start) as usize).take_while(|entry| {
                let first = bytes == 0;
                bytes += entry.weight();
                first || bytes <= bytes_max
            });
            return Some(Piece::Memory(within.cloned().collect()));
        }
        // From the ring's first entry on, the disk may still hold entries that were replaced.
        let end = self.ring.front().map_or(end, |front| end.min(front.log_id.index));
        let at =
            self.segments.partition_point(|segment| segment.offsets.is_empty() || segment.next() <= start);
        // Empty segments may stand between filled ones, where the search can go wrong.
        let holds = |segment: &&Segment| segment.first <= start && start < segment.next();
        let segment = self.segments.get(at).filter(holds).or_else(|| self.segments.iter().find(holds))?;
        let from = (start - segment.first) as usize;
        let upto = segment.offsets.len().min((end - segment.first) as usize);
        let bytes_max = READ_BYTES.min(bytes_max as u64);
        let offsets = &segment.offsets[from..upto];
        let count = offsets.partition_point(|offset| u64::from(offset - offsets[0]) <= bytes_max).max(1);
        let end = segment.offsets.get(from + count).map_or(segment.end, |offset| u64::from(*offset));
        Some(Piece::Disk(DiskRun {
            file: segment.file.clone(),
            path: path(&segment.name),
            epoch: segment.epoch(),
            first: start,
            offsets: offsets[..count].to_vec(),
            end,
        }))
    }
}

impl DiskRun {
    pub fn read(&self) -> Result<Vec<Entry>, Error> {
        let start = u64::from(self.offsets[0]);
        let mut bytes = vec![0; (self.end - start) as usize];
        self.file.read_at(&mut bytes, start).map_err(|error| Error::io("read", &self.path, error))?;
        let bytes = Bytes::from(bytes);
        let damaged = |offset: u32| {
            Error::damaged(&self.path, u64::from(offset), "the entry does not match its checksum")
        };
        let mut entries = Vec::with_capacity(self.offsets.len());
        for (offset, index) in self.offsets.iter().zip(self.first..) {
            let at = (u64::from(*offset) - start) as usize;
            let head = bytes
                .get(at..at + HEADER_BYTES)
                .and_then(|head| Head::parse(head.try_into().ok()?, self.epoch))
                .ok_or_else(|| damaged(*offset))?;
            let record = bytes.get(at..at + head.size() as usize).ok_or_else(|| damaged(*offset))?;
            if !head.matches(record) || head.kind != Kind::Entry || head.log_id.index != index {
                return Err(damaged(*offset));
            }
            let payload = at + HEADER_BYTES;
            entries.push(Entry {
                log_id: head.log_id,
                tag: head.tag,
                payload: bytes.slice(payload..payload + head.len as usize),
            });
        }
        Ok(entries)
    }
}
