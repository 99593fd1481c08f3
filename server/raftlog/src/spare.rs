//! Files kept ready: the next segment, zeroed before it is needed, and purged ones to use again.
//!
//! A write into a zeroed file needs no allocation and so no commit of the file
//! system's journal; that is most of what makes a small sync fast.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;

use parking_lot::Mutex;

use crate::segment::Segment;
use crate::{Disk, Error, File, Options};

const ZEROING: &str = "zeroing.tmp";
const PREFIX: &str = "spare-";
const SPARES_MAX: usize = 2;
/// How a file is zeroed. What is written at once becomes one piece of Linux's page cache, and the whole piece is
/// accounted as written with each of its bytes: pages, then, and not the mebibyte that is synced at once.
const PAGE: usize = 4096;
const SYNC_EVERY: u64 = 1 << 20;

/// A whole file of zeros or of old records.
pub(crate) struct Spare {
    pub name: String,
    pub file: Arc<dyn File>,
    pub len: u64,
}

pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    fsync: bool,
    segment_bytes: u64,
    ready: Mutex<Ready>,
    retiring: Mutex<Retiring>,
}

/// Segments on their way out, oldest first. One that cannot be removed holds up the later ones:
/// what stays must be a suffix of the log.
#[derive(Default)]
struct Retiring {
    segments: VecDeque<Segment>,
    /// A removal is not durable yet.
    sync_due: bool,
}

#[derive(Default)]
struct Ready {
    spares: Vec<Spare>,
    serial: u64,
}

pub(crate) enum Task {
    /// Have a file of at least this length.
    Prepare(u64),
    /// These hold nothing that is needed; oldest first.
    Retire(Vec<Segment>),
}

impl Spares {
    /// Adopts whole spares an earlier run has left; `names` is what the folder holds. A log that begins anew
    /// removes them: what they hold could be of a segment number that comes again.
    pub fn open(
        disk: Arc<dyn Disk>,
        names: &[String],
        options: &Options,
        adopt: bool,
    ) -> Result<Self, Error> {
        let mut ready = Ready::default();
        for name in names {
            let serial = name.strip_prefix(PREFIX).and_then(|serial| u64::from_str_radix(serial, 16).ok());
            if name == ZEROING || (serial.is_some() && !adopt) {
                disk.remove(name).map_err(|error| Error::io("remove", &disk.path(name), error))?;
                continue;
            }
            let Some(serial) = serial else {
                continue;
            };
            let file = disk.open(name).map_err(|error| Error::io("open", &disk.path(name), error))?;
            let len = file.len().map_err(|error| Error::io("open", &disk.path(name), error))?;
            ready.serial = ready.serial.max(serial + 1);
            ready.spares.push(Spare { name: name.clone(), file, len });
        }
        ready.spares.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            disk,
            fsync: options.fsync,
            segment_bytes: options.segment_bytes,
            ready: Mutex::new(ready),
            retiring: Mutex::default(),
        })
    }

    /// A spare of at least this length, if one is ready.
    pub fn take(&self, len: u64) -> Option<Spare> {
        let mut ready = self.ready.lock();
        let at = ready.spares.iter().position(|spare| spare.len >= len)?;
        Some(ready.spares.remove(at))
    }

    /// Does a task. A failure leaves files behind that are in nobody's way, and is told; if the disk is
    /// full, the rotation that needs the file is what fails.
    pub fn run(&self, task: Task) {
        let result = match task {
            Task::Prepare(len) => self.prepare(len),
            Task::Retire(segments) => self.retire(segments),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "cannot prepare the raft log's next file");
        }
    }

    /// Runs tasks until the sender is gone.
    pub fn run_all(&self, tasks: &mpsc::Receiver<Task>) {
        while let Ok(task) = tasks.recv() {
            self.run(task);
        }
    }

    fn prepare(&self, len: u64) -> Result<(), Error> {
        if self.ready.lock().spares.iter().any(|spare| spare.len >= len) {
            return Ok(());
        }
        let path = self.disk.path(ZEROING);
        let io = |action| move |error| Error::io(action, &self.disk.path(ZEROING), error);
        if self.disk.list().map_err(io("list the folder of"))?.iter().any(|name| name == ZEROING) {
            self.disk.remove(ZEROING).map_err(io("remove"))?;
        }
        let file = self.disk.create(ZEROING).map_err(io("create"))?;
        if let Err(error) = zero(&*file, len, self.fsync) {
            // Gives the space back, should that be what is missing.
            if let Err(error) = self.disk.remove(ZEROING) {
                tracing::warn!(%error, path = %path.display(), "cannot remove a file");
            }
            return Err(Error::io("zero", &path, error));
        }
        let name = self.next_name();
        self.disk.rename(ZEROING, &name).map_err(io("rename"))?;
        self.disk.sync_dir().map_err(io("sync the folder of"))?;
        self.ready.lock().spares.push(Spare { name, file, len });
        Ok(())
    }

    fn retire(&self, segments: Vec<Segment>) -> Result<(), Error> {
        let mut retiring = self.retiring.lock();
        retiring.segments.extend(segments);
        loop {
            if retiring.sync_due {
                let folder = self.disk.path("");
                self.disk.sync_dir().map_err(|error| Error::io("sync the folder", &folder, error))?;
                retiring.sync_due = false;
            }
            let Some(segment) = retiring.segments.front() else {
                return Ok(());
            };
            let path = self.disk.path(&segment.name);
            if segment.len >= self.segment_bytes && self.ready.lock().spares.len() < SPARES_MAX {
                let name = self.next_name();
                self.disk.rename(&segment.name, &name).map_err(|error| Error::io("rename", &path, error))?;
                let (file, len) = (segment.file.clone(), segment.len);
                self.ready.lock().spares.push(Spare { name, file, len });
            } else {
                self.disk.remove(&segment.name).map_err(|error| Error::io("remove", &path, error))?;
            }
            retiring.segments.pop_front();
            retiring.sync_due = true;
        }
    }

    fn next_name(&self) -> String {
        let mut ready = self.ready.lock();
        ready.serial += 1;
        format!("{PREFIX}{:016x}", ready.serial)
    }
}

/// Fills the file with zeros, in pieces, so that the log's own syncs do not wait behind one big one.
pub(crate) fn zero(file: &dyn File, len: u64, fsync: bool) -> std::io::Result<()> {
    file.allocate(len)?;
    let zeros = [0; PAGE];
    for at in (0..len).step_by(PAGE) {
        let count = (len - at).min(PAGE as u64);
        file.write_at(&zeros[..count as usize], at)?;
        let end = at + count;
        if fsync && (end.is_multiple_of(SYNC_EVERY) || end == len) {
            file.sync()?;
        }
    }
    Ok(())
}
