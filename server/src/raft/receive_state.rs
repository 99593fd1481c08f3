//! Receives the whole state from a leader.
//!
//! ```text
//!   <dir>/<name>/000012.sst        there, and on disk
//!   <dir>/<name>/000013.sst.part   on its way: gone on with, or begun anew after a crash
//! ```
//!
//! Nothing of it counts before all is there, and then it becomes the state in one step.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use proto::peer as pb;
use tonic::Status;

use crate::metrics::METRICS;

const PART: &str = "part";

/// What is received, one transfer at a time.
pub(crate) struct ReceiveState {
    dir: PathBuf,
    current: Mutex<Option<Receiving>>,
}

struct Receiving {
    manifest: pb::StateManifest,
    dir: PathBuf,
    /// Files that are complete.
    files: usize,
    /// Bytes of the one after them.
    offset: u64,
    open: Option<fs::File>,
}

impl ReceiveState {
    /// Files go to folders below `dir`, on the file system of the state.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, current: Mutex::default() }
    }

    /// A transfer begins, or goes on: says what of it is there.
    ///
    /// # Errors
    /// When the disk refuses, or the names are not those of files.
    pub fn offer(&self, manifest: pb::StateManifest) -> Result<pb::StateProgress, Status> {
        let mut current = self.current.lock();
        let receiving = match current.take() {
            Some(receiving) if receiving.manifest == manifest => receiving,
            _ => self.begin(manifest).map_err(failed)?,
        };
        Ok(current.insert(receiving).progress())
    }

    fn begin(&self, manifest: pb::StateManifest) -> io::Result<Receiving> {
        let plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains('/');
        if !plain(&manifest.name) || !manifest.files.iter().all(|file| plain(&file.name)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file name in it is none"));
        }
        let dir = self.dir.join(&manifest.name);
        // What is left of another transfer is of no use.
        match fs::read_dir(&self.dir) {
            Ok(entries) => {
                for entry in entries {
                    let path = entry?.path();
                    if path != dir {
                        fs::remove_dir_all(path)?;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::create_dir_all(&dir)?;
        let there = |file: &pb::StateFile| {
            fs::metadata(dir.join(&file.name)).is_ok_and(|found| found.len() == file.size)
        };
        let files = manifest.files.iter().take_while(|file| there(file)).count();
        Ok(Receiving { manifest, dir, files, offset: 0, open: None })
    }

    /// Takes bytes, which must be those that come next.
    ///
    /// # Errors
    /// When they are others, or damaged, or the disk refuses.
    pub fn chunk(&self, chunk: &pb::StateChunk) -> Result<(), Status> {
        let mut current = self.current.lock();
        match &mut *current {
            Some(receiving) if receiving.manifest.name == chunk.name => receiving.take(chunk),
            _ => Err(Status::aborted("another transfer has begun")),
        }
    }

    /// Where the transfer stands.
    pub fn progress(&self) -> pb::StateProgress {
        self.current.lock().as_ref().map(Receiving::progress).unwrap_or_default()
    }

    /// All files of a transfer are there: their folder, which belongs to the caller from now on.
    ///
    /// # Errors
    /// When something is missing, or the disk refuses.
    pub fn finish(&self, name: &str) -> Result<PathBuf, Status> {
        let mut current = self.current.lock();
        let receiving = match current.take() {
            Some(receiving) if receiving.manifest.name == name => receiving,
            other => {
                *current = other;
                return Err(Status::aborted("no such transfer"));
            }
        };
        if receiving.files < receiving.manifest.files.len() {
            let missing = receiving.manifest.files[receiving.files].name.clone();
            *current = Some(receiving);
            return Err(Status::aborted(format!("file {missing} is not complete")));
        }
        sync_dir(&receiving.dir).and_then(|()| sync_dir(&self.dir)).map_err(failed)?;
        Ok(receiving.dir)
    }
}

impl Receiving {
    fn progress(&self) -> pb::StateProgress {
        pb::StateProgress { files: self.files as u64, bytes: self.offset }
    }

    fn take(&mut self, chunk: &pb::StateChunk) -> Result<(), Status> {
        let expected = (self.files as u64, self.offset);
        if (chunk.file, chunk.offset) != expected {
            return Err(Status::aborted(format!(
                "{expected:?} comes next, not {:?}",
                (chunk.file, chunk.offset)
            )));
        }
        let Some(file) = self.manifest.files.get(self.files).cloned() else {
            return Err(Status::aborted("there is no such file"));
        };
        if crc32c::crc32c(&chunk.data) != chunk.crc || self.offset + chunk.data.len() as u64 > file.size {
            return Err(Status::data_loss(format!("damaged bytes of {} at {}", file.name, self.offset)));
        }
        self.write(&file, &chunk.data).map_err(failed)
    }

    fn write(&mut self, file: &pb::StateFile, data: &[u8]) -> io::Result<()> {
        let path = self.dir.join(&file.name);
        let part = self.dir.join(format!("{}.{PART}", file.name));
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(fs::File::create(&part)?),
        };
        open.write_all(data)?;
        self.offset += data.len() as u64;
        if self.offset == file.size {
            let syncing = METRICS.storage.snap_db_fsync_seconds.start_timer();
            open.sync_all()?;
            syncing.observe_duration();
            self.open = None;
            fs::rename(part, path)?;
            self.files += 1;
            self.offset = 0;
        }
        Ok(())
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

fn failed(error: io::Error) -> Status {
    Status::internal(format!("receiving a state: {error}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn manifest(files: &[(&str, &str)]) -> pb::StateManifest {
        let files = files
            .iter()
            .map(|(name, content)| pb::StateFile { name: (*name).to_owned(), size: content.len() as u64 });
        pb::StateManifest { name: "one".to_owned(), files: files.collect() }
    }

    fn chunk(file: u64, offset: u64, data: &'static str) -> pb::StateChunk {
        let data = Bytes::from_static(data.as_bytes());
        pb::StateChunk { name: "one".to_owned(), file, offset, crc: crc32c::crc32c(&data), data }
    }

    #[test]
    fn goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().expect("a folder");
        let manifest = manifest(&[("a", "12345"), ("b", ""), ("c", "678")]);
        let receive = ReceiveState::new(dir.path().join("receive"));
        assert_eq!(receive.offer(manifest.clone()).expect("new"), pb::StateProgress::default());
        receive.chunk(&chunk(0, 0, "123")).expect("next");
        let again = receive.offer(manifest.clone()).expect("the same");
        assert_eq!((again.files, again.bytes), (0, 3));
        receive.chunk(&chunk(0, 0, "123")).expect_err("was there");
        receive.chunk(&chunk(0, 3, "456")).expect_err("too long");
        let damaged = pb::StateChunk { crc: 1, ..chunk(0, 3, "45") };
        receive.chunk(&damaged).expect_err("damaged");
        receive.chunk(&chunk(0, 3, "45")).expect("next");
        receive.finish("one").expect_err("not complete");
        receive.chunk(&chunk(1, 0, "")).expect("an empty file");
        receive.chunk(&chunk(2, 0, "6")).expect("next");

        // A new process finds the files that were complete.
        let receive = ReceiveState::new(dir.path().join("receive"));
        let progress = receive.offer(manifest).expect("the same");
        assert_eq!((progress.files, progress.bytes), (2, 0));
        receive.chunk(&chunk(2, 0, "678")).expect("next");
        let files = receive.finish("one").expect("complete");
        assert_eq!(fs::read(files.join("a")).expect("there"), b"12345");
        assert_eq!(fs::read(files.join("c")).expect("there"), b"678");
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let receive = ReceiveState::new(dir.path().join("receive"));
        receive.offer(manifest(&[("../a", "")])).expect_err("not a name");
        receive.offer(manifest(&[("..", "")])).expect_err("not a name");
    }
}
