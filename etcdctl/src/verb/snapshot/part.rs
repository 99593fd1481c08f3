//! A file that is there whole or not at all.
//!
//! What comes goes to `FILE.part`, which only its owner can read. When all is there and on
//! disk, it gets its name; until then, whatever happens but a kill or a power cut, it goes.
//! Two that save to one file do not meet: the part is locked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::go;

/// The file under its provisional name.
#[derive(Debug)]
pub struct Part {
    file: File,
    path: PathBuf,
    named: bool,
}

impl Part {
    /// Makes the file empty beside where it is to be.
    ///
    /// # Errors
    /// In etcd's words.
    pub fn create(target: &Path) -> Result<Self, String> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let shown = path.display().to_string();
        let failed =
            |error: &io::Error| format!("could not open {shown} (open {shown}: {})", go::io_error(error));
        loop {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = file.map_err(|error| failed(&error))?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                return Err(format!("could not open {shown}: another process is saving to it"));
            }
            // Who had the lock until now may have given the file its name, or removed it.
            if !is_at(&file, &path).map_err(|error| failed(&error))? {
                continue;
            }
            let emptied =
                file.set_len(0).and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o600)));
            emptied.map_err(|error| failed(&error))?;
            return Ok(Self { file, path, named: false });
        }
    }

    /// The provisional name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds what comes next.
    ///
    /// # Errors
    /// In etcd's words.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| format!("write {}: {}", self.path.display(), go::io_error(&error)))
    }

    /// Makes the content durable and gives the file its name, durably as well.
    ///
    /// # Errors
    /// In etcd's words. The file has its name only where this says that its directory could not be synced.
    pub fn finish(mut self, target: &Path) -> Result<(), String> {
        self.file.sync_all().map_err(|error| {
            format!("could not fsync snapshot: sync {}: {}", self.path.display(), go::io_error(&error))
        })?;
        fs::rename(&self.path, target).map_err(|error| {
            let (from, to, error) = (self.path.display(), target.display(), go::io_error(&error));
            format!("could not rename {from} to {to} (rename {from} {to}: {error})")
        })?;
        self.named = true;
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| {
            let (target, directory) = (target.display(), directory.display());
            format!(
                "saved {target}, but could not fsync its directory: sync {directory}: {}",
                go::io_error(&error)
            )
        })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.named {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            crate::log::warn("Failed to cleanup .part file", "error", go::io_error(&error));
        }
    }
}

/// Whether this is the file of that name.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((held.dev(), held.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn it_is_there_whole_and_private_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.db");
        fs::write(dir.path().join("a.db.part"), "left by one that was killed").unwrap();
        let mut part = Part::create(&target).unwrap();
        part.write(b"abc").unwrap();
        assert_eq!(names(dir.path()), ["a.db.part"]);
        part.finish(&target).unwrap();
        assert_eq!(names(dir.path()), ["a.db"]);
        assert_eq!(fs::read(&target).unwrap(), b"abc");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);

        let mut part = Part::create(&target).unwrap();
        part.write(b"x").unwrap();
        drop(part);
        assert_eq!(names(dir.path()), ["a.db"]);
        assert_eq!(fs::read(&target).unwrap(), b"abc");
    }

    #[test]
    fn two_do_not_save_to_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.db");
        let first = Part::create(&target).unwrap();
        let refused = Part::create(&target).unwrap_err();
        assert!(refused.ends_with("another process is saving to it"), "{refused}");
        drop(first);
        drop(Part::create(&target).unwrap());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_place_that_does_not_exist_is_told_in_etcds_words() {
        let refused = Part::create(Path::new("/nonexistent/x")).unwrap_err();
        let text = "could not open /nonexistent/x.part (open /nonexistent/x.part: no such file or directory)";
        assert_eq!(refused, text);
    }
}
