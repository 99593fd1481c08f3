//! Where the state lives on disk, and how the state of another member takes its place.
//!
//! ```text
//!   db            the first one
//!   db.<n>        one that was received; the highest number is the newest
//!   db.current    the name of the one that counts; missing: db
//! ```
//!
//! What is received becomes `db.<n>` and is opened there. Only when that has
//! worked does `db.current` name it, by one rename: a crash before leaves the
//! old state, a crash behind it the new one. No directory is renamed or removed
//! while its database is open, and no number is given twice while one is in the way.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::storage::{Memory, Storage};
use crate::{Fault, Options};

/// The directories of one state.
#[derive(Clone)]
pub(crate) struct Home {
    options: Options,
    memory: Memory,
}

impl Home {
    pub(crate) fn new(options: Options) -> Self {
        let memory = Memory::new(options.memory_budget, options.rocksdb_compaction);
        Self { options, memory }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Opens the state that counts, or creates an empty one, and removes what an install left behind.
    pub(crate) fn open(&self) -> Result<Storage, Fault> {
        let pointer = self.beside(".current");
        let named = match fs::read_to_string(&pointer) {
            Ok(name) => Some(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(Fault::Io { path: pointer, source }),
        };
        let Some(name) = named else {
            let storage = Storage::open(&self.options.dir, true, &self.memory)?;
            // The log forgets what is in the state, so the state's directory must outlive a power cut.
            sync(self.parent())?;
            self.clean(None)?;
            return Ok(storage);
        };
        let number = name.trim_end().strip_prefix(&self.name()).and_then(number);
        let Some(number) = number.filter(|number| self.numbered(*number).is_dir()) else {
            return Err(Fault::Format {
                path: pointer,
                detail: format!("it names {:?}, but there is no such directory of a state", name.trim_end()),
            });
        };
        let storage = Storage::open(&self.numbered(number), false, &self.memory)?;
        // Only now: should this one not open, the others may be all there is.
        self.clean(Some(number))?;
        Ok(storage)
    }

    /// Creates an empty state where there is none.
    pub(crate) fn create(&self) -> Result<Storage, Fault> {
        fs::create_dir(&self.options.dir)
            .map_err(|source| Fault::Io { path: self.options.dir.clone(), source })?;
        Storage::open(&self.options.dir, true, &self.memory)
    }

    /// Moves the files of a state in beside the one that counts. They are gone from `files` then.
    pub(crate) fn receive(&self, files: &Path) -> Result<PathBuf, Fault> {
        let number = self.others()?.into_iter().flatten().max().unwrap_or(0) + 1;
        let dir = self.numbered(number);
        sync(files)?;
        fs::rename(files, &dir).map_err(|source| Fault::Io { path: files.to_owned(), source })?;
        sync(self.parent())?;
        Ok(dir)
    }

    /// Opens what was received; it does not count yet.
    pub(crate) fn open_received(&self, dir: &Path) -> Result<Storage, Fault> {
        Storage::open(dir, false, &self.memory)
    }

    /// From here on, durably, what was received is the state.
    pub(crate) fn choose(&self, dir: &Path) -> Result<(), Fault> {
        let (pointer, unfinished) = (self.beside(".current"), self.beside(".current.new"));
        let name = dir.file_name().unwrap_or_default();
        let write = || -> io::Result<()> {
            let mut file = File::create(&unfinished)?;
            file.write_all(name.as_encoded_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&unfinished, &pointer)
        };
        write().map_err(|source| Fault::Io { path: pointer.clone(), source })?;
        sync(self.parent())
    }

    /// Removes all directories but the one that counts.
    fn clean(&self, current: Option<u64>) -> Result<(), Fault> {
        for other in self.others()? {
            if other != current {
                let dir = other.map_or_else(|| self.options.dir.clone(), |number| self.numbered(number));
                remove(&dir);
            }
        }
        Ok(())
    }

    /// The directories there are: `None` is the first one, the others have a number.
    fn others(&self) -> Result<Vec<Option<u64>>, Fault> {
        let parent = self.parent();
        let list = || -> io::Result<Vec<Option<u64>>> {
            let mut found = Vec::new();
            for entry in fs::read_dir(parent)? {
                let entry = entry?;
                let name = entry.file_name();
                let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(&self.name())) else {
                    continue;
                };
                let known = rest.is_empty() || number(rest).is_some();
                if known && entry.file_type()?.is_dir() {
                    found.push(number(rest));
                }
            }
            Ok(found)
        };
        match list() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            found => found.map_err(|source| Fault::Io { path: parent.to_owned(), source }),
        }
    }

    fn name(&self) -> String {
        self.options.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn parent(&self) -> &Path {
        let parent = self.options.dir.parent();
        parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn numbered(&self, number: u64) -> PathBuf {
        self.beside(&format!(".{number}"))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.options.dir.with_file_name(self.name() + suffix)
    }
}

/// Removes a directory that does not count any more. Where it stays it costs room, until the next open.
pub(crate) fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "a directory that is not needed could not be removed");
        }
        _ => {}
    }
}

fn number(suffix: &str) -> Option<u64> {
    suffix.strip_prefix('.').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

fn sync(dir: &Path) -> Result<(), Fault> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| Fault::Io { path: dir.to_owned(), source })
}
