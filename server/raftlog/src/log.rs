//! The log itself: what its owner calls.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::index::{Index, Piece, next_of};
use crate::queue::{Op, Queue};
use crate::recovery::{self, Recovered};
use crate::segment::{self, Segment};
use crate::spare::{self, Spares, Task};
use crate::types::{Done, Observer, Options};
use crate::writer::{Current, Housekeeper, Writer};
use crate::{Disk, Entry, Error, File, LogId};

/// A handle to the log; clones are handles to the same one.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

/// The ends of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// Everything up to here was purged.
    pub purged: Option<LogId>,
    /// The last entry, or the last purged one if the log is empty.
    pub last: Option<LogId>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    index: Arc<Mutex<Index>>,
    queue: Arc<Queue>,
    /// Writes when told to, if the log has no threads.
    manual: Option<Manual>,
    threads: Mutex<Option<Threads>>,
}

struct Manual {
    writer: Mutex<Writer>,
    observer: Arc<dyn Observer>,
}

struct Threads {
    flush: JoinHandle<Result<(), Error>>,
    spare: JoinHandle<()>,
}

impl Log {
    /// Opens the log in the folder of `disk`, or makes a new one, and starts its threads.
    pub fn open(disk: Arc<dyn Disk>, options: Options, observer: Arc<dyn Observer>) -> Result<Self, Error> {
        let path = disk.path("");
        let (tasks, inbox) = mpsc::channel();
        let mut writer = open_writer(disk.clone(), options, observer, Housekeeper::Thread(tasks))?;
        let queue = Arc::new(Queue::default());
        let (index, spares) = (writer.index.clone(), writer.spares.clone());
        let spawn = |error| Error::io("start a thread for", &path, error);
        let spare = thread::Builder::new()
            .name("log-spare".into())
            .spawn(move || spares.run_all(&inbox))
            .map_err(spawn)?;
        let ops = queue.clone();
        let flush = thread::Builder::new()
            .name("log-flush".into())
            .spawn(move || {
                let mut batch = Vec::new();
                while ops.drain_wait(&mut batch) {
                    writer.flush(&mut batch);
                }
                writer.finish()
            })
            .map_err(spawn)?;
        let threads = Mutex::new(Some(Threads { flush, spare }));
        Ok(Self { shared: Arc::new(Shared { disk, index, queue, manual: None, threads }) })
    }

    /// The same without threads: nothing is written before [`Log::run_pending`]. For deterministic tests.
    pub fn open_manual(
        disk: Arc<dyn Disk>,
        options: Options,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        let writer = open_writer(disk.clone(), options, observer.clone(), Housekeeper::Inline)?;
        let index = writer.index.clone();
        let (manual, threads) = (Some(Manual { writer: Mutex::new(writer), observer }), Mutex::new(None));
        Ok(Self { shared: Arc::new(Shared { disk, index, queue: Arc::default(), manual, threads }) })
    }

    /// Writes what is queued, on the caller's thread; only of a log without threads.
    pub fn run_pending(&self) {
        if let Some(Manual { writer, .. }) = &self.shared.manual {
            let mut batch = Vec::new();
            self.shared.queue.drain(&mut batch);
            writer.lock().flush(&mut batch);
        }
    }

    /// Where the log begins and ends.
    pub fn state(&self) -> State {
        let index = self.shared.index.lock();
        State { purged: index.purged, last: index.last }
    }

    /// The last vote saved.
    pub fn vote(&self) -> Option<Bytes> {
        self.shared.index.lock().vote.clone()
    }

    /// The last committed id its owner told of, as far as the log knows it.
    pub fn committed(&self) -> Option<LogId> {
        self.shared.index.lock().committed
    }

    /// Adds entries, which must follow on. Readers see them on return; `done` is called once they are durable.
    pub fn append(&self, entries: Vec<Entry>, done: Done) -> Result<(), Error> {
        let mut index = self.usable()?;
        index.append(&entries)?;
        // Queued under the lock, so that the flush thread sees operations in the order readers do.
        let result = self.shared.queue.push(Op::Append { entries, done });
        drop(index);
        self.queued(result)
    }

    /// Saves the owner's vote, opaque to the log.
    pub fn save_vote(&self, vote: Bytes, done: Done) -> Result<(), Error> {
        let mut index = self.usable()?;
        index.vote = Some(vote.clone());
        let result = self.shared.queue.push(Op::Vote { vote, done });
        drop(index);
        self.queued(result)
    }

    /// Drops every entry after the id, or all entries.
    pub fn truncate_after(&self, after: Option<LogId>, done: Done) -> Result<(), Error> {
        let mut index = self.usable()?;
        let after = index.truncate(after);
        let result = self.shared.queue.push(Op::Truncate { after, done });
        drop(index);
        self.queued(result)
    }

    /// Drops every entry up to the id, which may lie beyond the end. Files go once that is durable.
    pub fn purge(&self, upto: LogId) -> Result<(), Error> {
        let mut index = self.usable()?;
        if next_of(index.purged) > upto.index {
            return Ok(());
        }
        index.purge(upto);
        let result = self.shared.queue.push(Op::Purge { upto });
        drop(index);
        self.queued(result)
    }

    /// Remembers that the id is committed; written along with whatever is written next.
    pub fn hint_committed(&self, committed: Option<LogId>) {
        let mut index = self.shared.index.lock();
        index.committed = index.committed.max(committed);
    }

    /// The entries of the range that the log holds, in order, at least one if there is one,
    /// and no more than about `bytes_max` bytes. Recent ones come from memory.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut start = range.start;
        while bytes < bytes_max {
            let piece = {
                let index = self.shared.index.lock();
                if entries.is_empty() {
                    start = start.max(index.first());
                }
                index.piece(start, range.end, bytes_max - bytes, |name| self.shared.disk.path(name))
            };
            let mut found = match piece {
                None => break,
                Some(Piece::Memory(found)) => found,
                Some(Piece::Disk(run)) => match run.read() {
                    Ok(found) => found,
                    // The file may have been recycled under the reader; then the entries were purged.
                    Err(_) if next_of(self.state().purged) > start => break,
                    Err(error) => return Err(error),
                },
            };
            debug_assert!(!found.is_empty());
            bytes += found.iter().map(Entry::weight).sum::<usize>();
            start += found.len() as u64;
            if entries.is_empty() {
                entries = found;
            } else {
                entries.append(&mut found);
            }
        }
        Ok(entries)
    }

    /// Stops accepting, writes what is queued and the last hint, and ends the threads.
    pub fn close(&self) -> Result<(), Error> {
        self.shared.close()
    }

    /// The segment being written and how far it was, for tests that damage what stands before.
    #[cfg(test)]
    pub(crate) fn written(&self) -> (u64, u64) {
        let writer = self.shared.manual.as_ref().expect("a log without threads").writer.lock();
        (writer.current.seq, writer.current.written)
    }

    /// Where the records of each segment end.
    #[cfg(test)]
    pub(crate) fn ends(&self) -> Vec<(u64, u64)> {
        self.shared.index.lock().segments.iter().map(|segment| (segment.seq, segment.end)).collect()
    }

    fn queued(&self, result: Result<(), Op>) -> Result<(), Error> {
        if let Some(Manual { observer, .. }) = &self.shared.manual {
            observer.queued();
        }
        result.map_err(|_| Error::Closed)
    }

    fn usable(&self) -> Result<parking_lot::MutexGuard<'_, Index>, Error> {
        let index = self.shared.index.lock();
        match &index.failed {
            Some(error) => Err(error.clone()),
            None => Ok(index),
        }
    }
}

impl Shared {
    fn close(&self) -> Result<(), Error> {
        self.queue.close();
        if let Some(Manual { writer, .. }) = &self.manual {
            let mut batch = Vec::new();
            self.queue.drain(&mut batch);
            let mut writer = writer.lock();
            writer.flush(&mut batch);
            return writer.finish();
        }
        let Some(threads) = self.threads.lock().take() else {
            return Ok(());
        };
        // The flush thread owns the sender the other one listens to.
        let result = threads.flush.join().unwrap_or(Err(Error::Closed));
        if threads.spare.join().is_err() {
            tracing::warn!("the thread for the raft log's spare files panicked");
        }
        result
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.manual.is_none()
            && let Err(error) = self.close()
        {
            tracing::warn!(%error, "cannot close the raft log");
        }
    }
}

fn open_writer(
    disk: Arc<dyn Disk>,
    mut options: Options,
    observer: Arc<dyn Observer>,
    housekeeper: Housekeeper,
) -> Result<Writer, Error> {
    options.segment_bytes = options.segment_bytes.min(1 << 30);
    options.first_segment_bytes = options.first_segment_bytes.min(options.segment_bytes);
    let folder: PathBuf = disk.path("");
    let names = disk.list().map_err(|error| Error::io("list", &folder, error))?;
    let recovered = recovery::recover(&*disk, &names, options.owner, options.ring_bytes, options.fsync)?;
    let Recovered { mut index, folded, crc, clean_tail } = recovered;
    let fresh = index.segments.is_empty();
    let spares = Spares::open(disk.clone(), &names, &options, !fresh)?;
    let unneeded = folded.purged.map(|purged| index.placed_purge(purged.index)).unwrap_or_default();
    let current = match index.segments.back() {
        Some(last) => Current {
            seq: last.seq,
            name: last.name.clone(),
            file: last.file.clone(),
            len: last.len,
            written: last.end,
            synced: if options.fsync { last.end } else { 0 },
            crc,
        },
        None => {
            let (segment, current) = first_segment(&disk, &options)?;
            index.segments.push_back(segment);
            current
        }
    };
    let mut writer = Writer {
        disk,
        options,
        index: Arc::new(Mutex::new(index)),
        spares: Arc::new(spares),
        housekeeper,
        observer,
        current,
        folded,
        buffer: Vec::new(),
        changes: Vec::new(),
        failed: None,
    };
    writer.begin(fresh, !clean_tail)?;
    if !unneeded.is_empty() {
        writer.house(Task::Retire(unneeded));
    }
    Ok(writer)
}

/// The first segment of a new log: small, so that zeroing it takes no time.
fn first_segment(disk: &Arc<dyn Disk>, options: &Options) -> Result<(Segment, Current), Error> {
    let seq = options.first_segment;
    let (name, len) = (segment::name(seq, 0), options.first_segment_bytes.max(4096));
    let path = disk.path(&name);
    let file: Arc<dyn File> = disk.create(&name).map_err(|error| Error::io("create", &path, error))?;
    spare::zero(&*file, len, options.fsync).map_err(|error| Error::io("zero", &path, error))?;
    if options.fsync {
        disk.sync_dir().map_err(|error| Error::io("sync the folder of", &path, error))?;
    }
    let segment =
        Segment { seq, name: name.clone(), file: file.clone(), len, first: 0, offsets: Vec::new(), end: 0 };
    Ok((segment, Current { seq, name, file, len, written: 0, synced: 0, crc: 0 }))
}
