//! A snapshot file that a command reads: that it is there, and that nobody writes to it meanwhile.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use manners::failure::Failure;
use manners::go;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Pause between two attempts to get a lock.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The one argument of a command.
///
/// # Errors
/// With etcd's text where there is none, or more than one.
pub fn only<'a>(words: &'a [OsString], command: &str) -> Result<&'a Path, Failure> {
    match words {
        [file] => Ok(Path::new(file)),
        _ => Err(Failure::args(format!("{command} requires exactly one argument"))),
    }
}

/// Whether there is such a file; etcd 3.7: `validateFilePath`.
///
/// # Errors
/// With Go's text where there is none.
pub fn must_exist(path: &Path) -> Result<(), Failure> {
    let error = |text: &str| Failure::general(format!("stat {}: {text}", path.display()));
    match fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(problem) => Err(error(&go::io_error(&problem))),
    }
}

/// A file that is held for reading: an etcd that has it open, or that wants to, is waited for, or waits.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    /// Closing it gives the lock up.
    _file: File,
}

impl Held {
    /// Opens a file, and waits so long for one that is being written to.
    ///
    /// # Errors
    /// Where it cannot be opened, or is still not free.
    pub fn open(path: &Path, timeout: Option<Duration>) -> Result<Self, Failure> {
        let shown = path.display();
        let file = File::open(path)
            .map_err(|error| Failure::general(format!("open {shown}: {}", go::io_error(&error))))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(Failure::general(format!("{shown} is a directory, not a snapshot file")));
        }
        let start = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockShared) {
                Err(Errno::WOULDBLOCK) => {}
                // A file system without locks has no etcd on it that counts on them.
                _ => return Ok(Self { path: path.to_owned(), _file: file }),
            }
            if timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
                return Err(Failure::general(format!("{shown} is in use by another process: timeout")));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_to_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        fs::write(&path, "x").unwrap();
        let writer = File::open(&path).unwrap();
        flock(&writer, FlockOperation::LockExclusive).unwrap();
        let failure = Held::open(&path, Some(Duration::ZERO)).unwrap_err();
        assert!(failure.message.unwrap().ends_with("is in use by another process: timeout"));
        let waiting = thread::spawn(move || Held::open(&path, None).map(|held| held.path().to_owned()));
        drop(writer);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn what_is_no_file_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none");
        let message = |result: Result<(), Failure>| result.unwrap_err().message.unwrap();
        assert_eq!(
            message(must_exist(&missing)),
            format!("stat {}: no such file or directory", missing.display())
        );
        let opened = |path: &Path| message(Held::open(path, None).map(|_| ()));
        assert!(opened(&missing).ends_with("no such file or directory"));
        assert!(opened(dir.path()).ends_with("is a directory, not a snapshot file"));
    }
}
