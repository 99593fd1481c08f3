//! Turns queued operations into records: one write and one sync for all that queued up.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mutants::Mutant;
use parking_lot::Mutex;

use crate::index::{Index, next_of};
use crate::queue::Op;
use crate::record::{self, Head, Kind};
use crate::segment::{self, Header, Segment};
use crate::spare::{Spares, Task};
use crate::types::{Done, Observer, Options};
use crate::{Disk, Error, File, LogId};

/// Bytes encoded before they are handed to the disk; a larger group is written in several pieces.
const BUFFER_BYTES: usize = 4 << 20;

/// Where tasks for the spare files go: to their thread, or, without threads, done on the spot.
pub(crate) enum Housekeeper {
    Thread(mpsc::Sender<Task>),
    Inline,
}

pub(crate) struct Writer {
    pub disk: Arc<dyn Disk>,
    pub options: Options,
    pub index: Arc<Mutex<Index>>,
    pub spares: Arc<Spares>,
    pub housekeeper: Housekeeper,
    pub observer: Arc<dyn Observer>,
    pub current: Current,
    /// What all records so far add up to.
    pub folded: Header,
    pub buffer: Vec<u8>,
    pub changes: Vec<Change>,
    pub failed: Option<Error>,
}

/// The segment being written.
pub(crate) struct Current {
    pub seq: u64,
    pub name: String,
    pub file: Arc<dyn File>,
    pub len: u64,
    /// Where the buffer's first byte goes.
    pub written: u64,
    pub synced: u64,
    /// Checksum of the last record.
    pub crc: u32,
}

/// What the index learns once a group is durable, in order.
pub(crate) enum Change {
    Entry { index: u64, offset: u32 },
    Truncated { keep: u64 },
    Purged { upto: u64 },
    End { seq: u64, end: u64 },
    NewSegment(Segment),
}

impl Writer {
    /// Writes all operations, makes them durable and calls back, in order.
    pub fn flush(&mut self, ops: &mut Vec<Op>) {
        let mut waiting: Vec<Done> = Vec::with_capacity(ops.len());
        let mut result = self.failed.clone().map_or(Ok(()), Err);
        if result.is_ok() && !ops.is_empty() {
            result = self.write_all(ops, &mut waiting);
        }
        for op in ops.drain(..) {
            match op {
                Op::Append { done, .. } | Op::Vote { done, .. } | Op::Truncate { done, .. } => {
                    waiting.push(done)
                }
                Op::Purge { .. } => {}
            }
        }
        if let Err(error) = &result
            && self.failed.is_none()
        {
            self.failed = Some(error.clone());
            self.index.lock().failed = Some(error.clone());
        }
        for done in waiting {
            done(result.clone());
        }
    }

    fn write_all(&mut self, ops: &mut Vec<Op>, waiting: &mut Vec<Done>) -> Result<(), Error> {
        self.observer.flushing();
        self.changes.clear();
        let hint = self.index.lock().committed;
        let mut bytes = 0;
        for op in ops.drain(..) {
            match op {
                Op::Append { entries, done } => {
                    waiting.push(done);
                    for entry in entries {
                        bytes += entry.payload.len();
                        let offset = self.record(Kind::Entry, entry.tag, entry.log_id, &entry.payload)?;
                        self.folded.last = Some(entry.log_id);
                        self.changes.push(Change::Entry { index: entry.log_id.index, offset });
                    }
                }
                Op::Vote { vote, done } => {
                    waiting.push(done);
                    self.record(Kind::Vote, 0, LogId::default(), &vote)?;
                    self.folded.vote = Some(vote);
                }
                Op::Truncate { after, done } => {
                    waiting.push(done);
                    self.record(Kind::Truncate, u8::from(after.is_some()), after.unwrap_or_default(), &[])?;
                    self.folded.last = after;
                    self.changes.push(Change::Truncated { keep: next_of(after) });
                }
                Op::Purge { upto } => {
                    self.record(Kind::Purged, 0, upto, &[])?;
                    self.folded.purge(upto);
                    self.changes.push(Change::Purged { upto: upto.index });
                }
            }
        }
        if hint > self.folded.committed {
            self.committed(hint)?;
        }
        self.write_buffer()?;
        let sync = self.sync()?;
        self.observer.flushed(bytes, sync);
        self.publish();
        Ok(())
    }

    /// Writes the last hint, so that a clean restart knows all there is to replay.
    pub fn finish(&mut self) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let hint = self.index.lock().committed;
        if hint > self.folded.committed {
            self.committed(hint)?;
            self.write_buffer()?;
            self.sync()?;
        }
        Ok(())
    }

    fn committed(&mut self, hint: Option<LogId>) -> Result<(), Error> {
        self.record(Kind::Committed, 0, hint.unwrap_or_default(), &[])?;
        self.folded.committed = hint;
        Ok(())
    }

    /// Encodes a record, in a new segment if this one is full, and says where it stands.
    fn record(&mut self, kind: Kind, tag: u8, log_id: LogId, payload: &[u8]) -> Result<u32, Error> {
        let size = record::size(payload.len());
        if self.current.written + self.buffer.len() as u64 + size > self.current.len {
            self.rotate(size)?;
        }
        let offset = self.current.written + self.buffer.len() as u64;
        self.encode(kind, tag, log_id, payload);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_buffer()?;
        }
        Ok(offset as u32)
    }

    fn encode(&mut self, kind: Kind, tag: u8, log_id: LogId, payload: &[u8]) {
        let head = Head {
            len: payload.len() as u32,
            crc: 0,
            prev: self.current.crc,
            epoch: segment::epoch(self.current.seq),
            kind,
            tag,
            synced: self.current.synced as u32,
            log_id,
        };
        self.current.crc = record::encode(&mut self.buffer, head, payload);
    }

    fn write_buffer(&mut self) -> Result<(), Error> {
        let current = &mut self.current;
        if !self.buffer.is_empty() {
            current
                .file
                .write_at(&self.buffer, current.written)
                .map_err(|error| Error::io("write", &self.disk.path(&current.name), error))?;
            current.written += self.buffer.len() as u64;
            self.buffer.clear();
            // One huge group must not keep its memory for ever.
            self.buffer.shrink_to(BUFFER_BYTES);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<Duration, Error> {
        self.changes.push(Change::End { seq: self.current.seq, end: self.current.written });
        if !self.options.fsync {
            return Ok(Duration::ZERO);
        }
        let begin = Instant::now();
        if mutants::on(Mutant::SkipFsync) {
            return Ok(Duration::ZERO);
        }
        if mutants::on(Mutant::AcknowledgeBeforeFsync)
            && !mutants::sometimes(Mutant::AcknowledgeBeforeFsync, 100)
        {
            return Ok(Duration::ZERO);
        }
        self.current
            .file
            .sync()
            .map_err(|error| Error::io("sync", &self.disk.path(&self.current.name), error))?;
        self.current.synced = self.current.written;
        Ok(begin.elapsed())
    }

    /// Goes on in a new segment that has room for at least this many bytes. The old one is durable before the
    /// new one has its name: damage in any segment but the last is never a torn tail.
    pub fn rotate(&mut self, room: u64) -> Result<(), Error> {
        self.write_buffer()?;
        self.sync()?;
        let header = self.folded.encode();
        let wanted = (self.current.len * 4)
            .max(self.options.first_segment_bytes)
            .min(self.options.segment_bytes)
            .max(record::size(header.len()) + room);
        self.activate(self.current.seq + 1, self.current.crc, wanted, &header)?;
        self.house(Task::Prepare((wanted * 4).min(self.options.segment_bytes)));
        Ok(())
    }

    fn activate(&mut self, seq: u64, crc: u32, len: u64, header: &[u8]) -> Result<(), Error> {
        let name = segment::name(seq, next_of(self.folded.last));
        let path = self.disk.path(&name);
        let (file, len) = match self.spares.take(len) {
            Some(spare) => {
                self.disk.rename(&spare.name, &name).map_err(|error| Error::io("create", &path, error))?;
                (spare.file, spare.len)
            }
            None => {
                let file = self.disk.create(&name).map_err(|error| Error::io("create", &path, error))?;
                file.allocate(len).map_err(|error| Error::io("allocate", &path, error))?;
                (file, len)
            }
        };
        if self.options.fsync {
            // The length of a new file must be durable before its records are.
            file.sync().map_err(|error| Error::io("sync", &path, error))?;
            self.disk.sync_dir().map_err(|error| Error::io("sync the folder of", &path, error))?;
        }
        self.changes.push(Change::NewSegment(Segment {
            seq,
            name: name.clone(),
            file: file.clone(),
            len,
            first: 0,
            offsets: Vec::new(),
            end: 0,
        }));
        self.current = Current { seq, name, file, len, written: 0, synced: 0, crc };
        self.encode(Kind::Header, 0, LogId::default(), header);
        Ok(())
    }

    /// Makes the log ready for records after it was opened: a new file gets its header, a torn tail is left behind.
    pub fn begin(&mut self, fresh: bool, torn: bool) -> Result<(), Error> {
        if fresh {
            let header = self.folded.encode();
            self.encode(Kind::Header, 0, LogId::default(), &header);
        } else if torn {
            self.rotate(0)?;
        } else {
            return Ok(());
        }
        self.write_buffer()?;
        self.sync()?;
        self.publish();
        self.house(Task::Prepare((self.current.len * 4).min(self.options.segment_bytes)));
        Ok(())
    }

    /// Lets readers find what is durable now.
    pub fn publish(&mut self) {
        let mut unneeded = Vec::new();
        let mut index = self.index.lock();
        for change in self.changes.drain(..) {
            match change {
                Change::Entry { index: entry, offset } => index.place(entry, offset),
                Change::Truncated { keep } => index.placed_truncation(keep),
                Change::Purged { upto } => unneeded.append(&mut index.placed_purge(upto)),
                Change::NewSegment(segment) => index.segments.push_back(segment),
                Change::End { seq, end } => {
                    if let Some(segment) = index.segments.iter_mut().rev().find(|segment| segment.seq == seq)
                    {
                        segment.end = end;
                    }
                }
            }
        }
        index.shrink_ring();
        drop(index);
        if !unneeded.is_empty() {
            self.house(Task::Retire(unneeded));
        }
    }

    pub fn house(&self, task: Task) {
        match &self.housekeeper {
            Housekeeper::Inline => self.spares.run(task),
            Housekeeper::Thread(tasks) => {
                if tasks.send(task).is_err() {
                    tracing::warn!("the raft log's spare files are not looked after any more");
                }
            }
        }
    }
}

impl Header {
    pub fn purge(&mut self, upto: LogId) {
        if next_of(self.purged) > upto.index {
            return;
        }
        self.purged = Some(upto);
        if next_of(self.last) <= upto.index {
            self.last = Some(upto);
        }
    }

    pub fn set_vote(&mut self, vote: &[u8]) {
        self.vote = Some(Bytes::copy_from_slice(vote));
    }
}
