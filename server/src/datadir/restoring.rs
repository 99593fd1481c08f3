//! A data directory that is being filled by a restore.
//!
//! Everything is made under another name inside the data directory, which may
//! be a file system of its own, and gets its name by one rename at the end. A
//! restore that was killed leaves what no member starts on and what the next
//! restore clears away.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::{Founding, IDENTITY_FILE, lock, make, sync_name, to_text, write};

const RESTORING: &str = "member.restoring";

/// Refuses a directory whose restore has not finished.
pub(super) fn refuse(data_dir: &Path) -> anyhow::Result<()> {
    let unfinished = data_dir.join(RESTORING);
    if unfinished.exists() {
        bail!("{} is of a restore that has not finished: restore the snapshot again", unfinished.display());
    }
    Ok(())
}

/// Whether a restore may fill the directory: it is missing, or empty but for what a killed restore left there.
///
/// # Errors
/// When it cannot be read.
pub fn is_free(data_dir: &Path) -> io::Result<bool> {
    match fs::read_dir(data_dir) {
        Ok(entries) => {
            for entry in entries {
                if entry?.file_name() != RESTORING {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// What a restore fills. Dropped before it is complete, it is removed.
#[derive(Debug)]
pub struct Restoring {
    data_dir: PathBuf,
    member: PathBuf,
    wal: PathBuf,
    /// Whether the log is not below the member's directory.
    wal_outside: bool,
    /// Whether the data directory was made for this.
    made: bool,
    complete: bool,
    /// Keeps other restores and members away.
    _lock: File,
}

impl Restoring {
    /// Begins to fill a directory that [`is_free`], and makes it where it is missing.
    ///
    /// # Errors
    /// When the disk refuses, or another restore is at it.
    pub fn begin(data_dir: &Path, wal_dir: &Path) -> anyhow::Result<Self> {
        let made = !data_dir.exists();
        make(data_dir)?;
        let member = data_dir.join(RESTORING);
        make(&member)?;
        let lock = lock(&member)?;
        let (wal, wal_outside) = match wal_dir.strip_prefix(data_dir.join("member")) {
            Ok(inside) => (member.join(inside), false),
            Err(_) => (wal_dir.to_owned(), true),
        };
        let data_dir = data_dir.to_owned();
        let restoring = Self { data_dir, member, wal, wal_outside, made, complete: false, _lock: lock };
        restoring.clear().with_context(|| format!("clear {}", restoring.member.display()))?;
        make(&restoring.member.join("snap"))?;
        Ok(restoring)
    }

    /// Removes what a killed restore left.
    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.member)? {
            let entry = entry?;
            match entry.file_name() {
                name if name == "lock" => {}
                _ if entry.file_type()?.is_dir() => fs::remove_dir_all(entry.path())?,
                _ => fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    }

    /// Where the storage engine's files go; nothing is there yet.
    pub fn state(&self) -> PathBuf {
        self.member.join("snap").join("db")
    }

    /// Where the Raft log goes. To be written last: outside of the member's directory it is in its place at once.
    pub fn wal(&self) -> &Path {
        &self.wal
    }

    /// Makes it the directory of this member, durably: from here on it can start.
    ///
    /// # Errors
    /// When the disk refuses; then nothing has changed.
    pub fn complete(mut self, founding: &Founding) -> anyhow::Result<()> {
        write(&self.member, IDENTITY_FILE, &to_text(founding)?)?;
        for dir in [&self.member.join("snap"), &self.member, &self.wal] {
            sync_name(&dir.join("any")).with_context(|| format!("sync {}", dir.display()))?;
        }
        sync_name(&self.wal).with_context(|| format!("sync the directory of {}", self.wal.display()))?;
        let member = self.data_dir.join("member");
        fs::rename(&self.member, &member).with_context(|| format!("rename to {}", member.display()))?;
        self.complete = true;
        sync_name(&member).with_context(|| format!("sync {}", self.data_dir.display()))
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        let mut left = vec![fs::remove_dir_all(&self.member)];
        if self.wal_outside {
            left.push(fs::remove_dir_all(&self.wal));
        }
        if self.made {
            left.push(fs::remove_dir(&self.data_dir));
        }
        for error in left.into_iter().filter_map(Result::err) {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(data_dir = %self.data_dir.display(), %error, "what the restore left could not be removed");
            }
        }
    }
}
