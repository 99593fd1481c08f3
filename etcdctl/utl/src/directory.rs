//! A member's data directory while no member runs on it.
//!
//! Whoever opens it here holds the member's own lock: a member that is started meanwhile is refused,
//! one that runs is waited for.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use manners::go;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use server::datadir::DataDir;
use state::{Options, Reader, State};

use crate::file::PAUSE;

/// A data directory that is held, and the state in it.
pub struct Directory {
    /// Reads the state, and has its files rewritten.
    pub reader: Reader,
    state: State,
    // Last, so that the lock outlives the state.
    data: DataDir,
}

impl Directory {
    /// Opens a directory that has a member's state in it; waits so long for one that is in use.
    ///
    /// `command` is what a directory of etcd's is refused for.
    ///
    /// # Errors
    /// A sentence: why it cannot be opened.
    pub fn open(dir: &Path, timeout: Option<Duration>, command: &str) -> Result<Self, String> {
        let member = dir.join("member");
        let db = member.join("snap").join("db");
        match fs::metadata(&db) {
            Ok(metadata) if metadata.is_file() => {
                return Err(format!(
                    "{} is a data directory of etcd, or one that no member has started on since it was restored: it takes etcd's own etcdutl to {command} it",
                    dir.display()
                ));
            }
            Ok(_) => {}
            // A state that came from another member has a name of its own, which this file gives.
            Err(_) if db.with_extension("current").exists() => {}
            Err(error) => return Err(format!("stat {}: {}", db.display(), go::io_error(&error))),
        }
        wait_until_free(&member.join("lock"), timeout)
            .map_err(|error| format!("lock {}: {}", member.display(), go::io_error(&error)))?;
        // No log is read or written: its place is not looked at, and not made where it is elsewhere.
        let data = DataDir::open(dir, &member).map_err(|error| format!("{error:#}"))?;
        let (state, reader) = State::open(Options::new(data.state())).map_err(|error| error.to_string())?;
        Ok(Self { reader, state, data })
    }

    /// Closes the state, then the directory.
    pub fn close(self) {
        drop((self.reader, self.state));
        drop(self.data);
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("data", &self.data).finish_non_exhaustive()
    }
}

/// Waits so long until nobody holds a lock. Whoever takes it next is told to others by the lock itself.
fn wait_until_free(lock: &Path, timeout: Option<Duration>) -> io::Result<()> {
    let file = match File::open(lock) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let start = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
        if timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            // Opening it tells who holds it.
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}
