//! A data directory that is being filled.
//!
//! Everything is made under another name inside the data directory, which may
//! be a file system of its own, and gets its name by a rename at the end.
//!
//! ```text
//!   a restore         member.restoring ─► member
//!   taking one over   member ─► member.taken-over,  member.restoring ─► member,  the first removed
//! ```
//!
//! A restore that was killed leaves what no member starts on and what the next
//! restore clears away. A member that was killed while it took one over goes on
//! at its next start.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::{Founding, IDENTITY_FILE, lock, make, sync_name, to_text, write};

const MEMBER: &str = "member";
const RESTORING: &str = "member.restoring";
/// What a restore left, once a member has its own.
const TAKEN: &str = "member.taken-over";

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

/// What is being filled. Dropped before it is complete, it is removed.
#[derive(Debug)]
pub struct Restoring {
    data_dir: PathBuf,
    member: PathBuf,
    wal: PathBuf,
    /// Whether the directory of the log was made for this, and not below the member's.
    wal_made: bool,
    /// Whether the data directory was made for this.
    made: bool,
    complete: bool,
    /// Keeps other restores and members away.
    _lock: File,
}

impl Restoring {
    /// Begins to fill a data directory, and makes it where it is missing.
    ///
    /// # Errors
    /// When the disk refuses, or another restore is at it.
    pub fn begin(data_dir: &Path, wal_dir: &Path) -> anyhow::Result<Self> {
        let made = !data_dir.exists();
        make(data_dir)?;
        let member = data_dir.join(RESTORING);
        make(&member)?;
        let lock = lock(&member)?;
        let (wal, wal_made) = match wal_dir.strip_prefix(data_dir.join(MEMBER)) {
            Ok(inside) => (member.join(inside), false),
            Err(_) => (wal_dir.to_owned(), !wal_dir.exists()),
        };
        let data_dir = data_dir.to_owned();
        let restoring = Self { data_dir, member, wal, wal_made, made, complete: false, _lock: lock };
        restoring.clear().with_context(|| format!("clear {}", restoring.member.display()))?;
        make(&restoring.snap())?;
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

    /// Where the state goes; nothing is there yet.
    pub fn snap(&self) -> PathBuf {
        self.member.join("snap")
    }

    /// Where the Raft log goes. To be written last: outside of the member's directory it is in its place at once.
    pub fn wal(&self) -> &Path {
        &self.wal
    }

    /// Makes it the member's directory, durably: from here on it can start.
    ///
    /// # Errors
    /// When the disk refuses; then nothing has changed.
    pub fn complete(mut self) -> anyhow::Result<()> {
        self.sync()?;
        self.rename()
    }

    /// Makes it the directory of this member in place of the one there is, durably. A kill on the way leaves what
    /// [`settle`] brings to its end.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn replace(mut self, founding: &Founding) -> anyhow::Result<()> {
        write(&self.member, IDENTITY_FILE, &to_text(founding)?)?;
        self.sync()?;
        let (member, taken) = (self.data_dir.join(MEMBER), self.data_dir.join(TAKEN));
        fs::rename(&member, &taken).with_context(|| format!("rename to {}", taken.display()))?;
        // From here on it is the member's, whatever its name.
        self.complete = true;
        self.rename()
    }

    fn sync(&self) -> anyhow::Result<()> {
        for dir in [&self.snap(), &self.member, &self.wal] {
            sync_name(&dir.join("any")).with_context(|| format!("sync {}", dir.display()))?;
        }
        sync_name(&self.wal).with_context(|| format!("sync the directory of {}", self.wal.display()))
    }

    fn rename(&mut self) -> anyhow::Result<()> {
        let member = self.data_dir.join(MEMBER);
        fs::rename(&self.member, &member).with_context(|| format!("rename to {}", member.display()))?;
        self.complete = true;
        sync_name(&member).with_context(|| format!("sync {}", self.data_dir.display()))
    }
}

/// Brings to its end what [`Restoring::replace`] began: afterwards the member has one directory. Does nothing where
/// nothing was begun.
///
/// # Errors
/// When the disk refuses.
pub fn settle(data_dir: &Path) -> anyhow::Result<()> {
    let (member, restoring, taken) = (data_dir.join(MEMBER), data_dir.join(RESTORING), data_dir.join(TAKEN));
    if !taken.exists() {
        return Ok(());
    }
    if !member.exists() {
        fs::rename(&restoring, &member).with_context(|| format!("rename to {}", member.display()))?;
        sync_name(&member).with_context(|| format!("sync {}", data_dir.display()))?;
    }
    fs::remove_dir_all(&taken).with_context(|| format!("remove {}", taken.display()))
}

impl Drop for Restoring {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        let mut left = vec![fs::remove_dir_all(&self.member)];
        if self.wal_made {
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
