//! A directory of snapshots of one cluster, of which the newest are kept.
//!
//! A snapshot's name is `etcd-snapshot-<cluster id>-<time>.db`, so that names sort as times do.
//! Nothing else in the directory is ever touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::log;

/// The snapshots of one cluster in one directory.
#[derive(Debug)]
pub struct Shelf {
    directory: PathBuf,
    cluster_id: u64,
}

impl Shelf {
    /// The shelf of a cluster in a directory.
    pub fn new(directory: &Path, cluster_id: u64) -> Self {
        Self { directory: directory.to_owned(), cluster_id }
    }

    /// Where a snapshot of this time goes.
    pub fn place(&self, time: SystemTime) -> PathBuf {
        let time: String = log::timestamp(time, true).chars().filter(|c| !matches!(c, '-' | ':')).collect();
        self.directory.join(format!("{}{time}.db", self.prefix()))
    }

    /// Removes the oldest snapshots but this many, and gives what was removed, oldest first.
    ///
    /// # Errors
    /// When the directory cannot be read, or a snapshot not be removed; those before it are gone then.
    pub fn keep(&self, count: usize) -> io::Result<Vec<PathBuf>> {
        let mut snapshots = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| self.is_snapshot(name)) && entry.file_type()?.is_file() {
                snapshots.push(entry.path());
            }
        }
        snapshots.sort();
        snapshots.truncate(snapshots.len().saturating_sub(count));
        for path in &snapshots {
            fs::remove_file(path)?;
        }
        Ok(snapshots)
    }

    fn prefix(&self) -> String {
        format!("etcd-snapshot-{:x}-", self.cluster_id)
    }

    /// Whether it is a name that [`place`](Self::place) gives.
    fn is_snapshot(&self, name: &str) -> bool {
        const TIME: &[u8] = b"00000000T000000.000000Z";
        let prefix = self.prefix();
        let time = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".db"));
        time.is_some_and(|time| {
            let fits =
                |(byte, form): (u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == *form };
            time.len() == TIME.len() && time.bytes().zip(TIME).all(fits)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_oldest_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path(), 0xabc);
        let at = |micros: u64| {
            shelf.place(UNIX_EPOCH + Duration::from_secs(1_795_247_995) + Duration::from_micros(micros))
        };
        assert_eq!(at(7), dir.path().join("etcd-snapshot-abc-20261121T075955.000007Z.db"));
        // Made out of order: the name counts, not the time of the file.
        for micros in [3, 1, 4, 2] {
            fs::write(at(micros), "x").unwrap();
        }
        let others = [
            "etcd-snapshot-abcd-20261121T075955.000001Z.db",
            "etcd-snapshot-abc-20261121T075955.000001Z.db.part",
            "etcd-snapshot-abc-20261121T075955.00000xZ.db",
            "etcd-snapshot-abc-.db",
            "before-the-upgrade.db",
        ];
        for other in others {
            fs::write(dir.path().join(other), "x").unwrap();
        }
        fs::create_dir(at(0)).unwrap();
        std::os::unix::fs::symlink(dir.path().join("before-the-upgrade.db"), at(9)).unwrap();
        assert!(shelf.keep(4).unwrap().is_empty());
        assert_eq!(shelf.keep(2).unwrap(), [at(1), at(2)]);
        assert!(shelf.keep(2).unwrap().is_empty());
        for path in others.map(|name| dir.path().join(name)).into_iter().chain([at(0), at(3), at(4), at(9)]) {
            assert!(path.exists(), "{}", path.display());
        }
    }
}
