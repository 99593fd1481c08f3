//! A disk that forgets what was not synced, fills up, hangs and fails.
//!
//! ```text
//!   member ─► kernel ─ FUSE ─► this process ─► tree     names, and which of them are synced
//!                                          └─► content  files' bytes as they are, in a directory,
//!                                                       and in memory those they had when last synced
//! ```
//!
//! A killed process loses nothing it wrote: the kernel still has it. Losing it
//! takes a machine that stops, and [`Disk::crash`] is that: what no `fsync`
//! confirmed is gone, or a part of it, sector by sector. Nobody may be using
//! the disk then; the members on it are killed first.
//!
//! Reads through `mmap` are as good as others, and `O_DIRECT` is taken as it
//! comes. Writes through `mmap` reach the disk when the kernel sends them.

mod content;
mod fuse;
mod switches;
mod tree;

use std::fmt::{Debug, Formatter};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result, ensure};
use fuser::{BackgroundSession, Config, MountOption};
use rand::rngs::StdRng;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use switches::Switches;
use tree::Tree;

const SOURCE: &str = "quorate-disk-";

/// When a new name, or a removed one, is sure to be there after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Once its directory was synced: all that POSIX promises.
    Posix,
    /// Once anything was synced after it, as with the journal of ext4.
    Journal,
}

/// What a crash leaves of that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    All,
    /// The first changes of names, and any sectors of 512 bytes, as chance has it.
    Torn,
}

/// What a crash took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Files that are shorter or otherwise not as they were.
    pub files: usize,
    /// Changes of names, such as a creation or a rename.
    pub names: usize,
}

/// A mounted disk; unmounted when it goes.
pub struct Disk {
    dir: TempDir,
    mounted: Option<Mounted>,
}

/// From one crash to the next.
struct Mounted {
    shared: Arc<Shared>,
    session: BackgroundSession,
}

/// What the file system's thread and the disk's owner share.
struct Shared {
    /// Taken away at a crash: whoever still comes finds a dead disk.
    tree: Mutex<Option<Tree>>,
    switches: Switches,
}

impl Shared {
    fn tree(&self) -> MutexGuard<'_, Option<Tree>> {
        self.tree.lock().expect("no panic holds it")
    }
}

impl Disk {
    /// Mounts an empty one. Fails where FUSE is not to be had.
    pub fn mount(names: Names) -> Result<Disk> {
        unmount_stale();
        ensure!(Path::new("/dev/fuse").exists(), "there is no /dev/fuse");
        let dir = tempfile::Builder::new().prefix("quorate-disk-").tempdir()?;
        std::fs::create_dir(dir.path().join("store"))?;
        std::fs::create_dir(dir.path().join("mnt"))?;
        let tree = Tree::new(dir.path().join("store"), names);
        let mut disk = Disk { dir, mounted: None };
        disk.mounted = Some(disk.attach(tree)?);
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// The machine stops and starts again: what was not synced is lost, and open files with it.
    pub fn crash(&mut self, loss: Loss, rng: &mut StdRng) -> Result<Lost> {
        let mounted = self.mounted.take().context("the disk could not be mounted after an earlier crash")?;
        let tree = mounted.shared.tree().take();
        mounted.shared.switches.clear();
        self.detach(mounted);
        let mut tree = tree.context("only a crash takes the tree")?;
        let lost = tree.crash(loss, rng)?;
        self.mounted = Some(self.attach(tree)?);
        Ok(lost)
    }

    /// While it is full, nothing grows and nothing new is made.
    pub fn set_full(&self, full: bool) {
        self.switches().set_full(full);
    }

    /// While it hangs, no write and no sync is answered. Reads are, as from the kernel's cache.
    ///
    /// A process that waits for the disk can neither be paused nor killed until the end of it.
    pub fn set_hanging(&self, hanging: bool) {
        self.switches().set_hanging(hanging);
    }

    /// While it fails, writes and syncs end with an I/O error.
    pub fn set_failing(&self, failing: bool) {
        self.switches().set_failing(failing);
    }

    /// How many requests wait for the end of a hang.
    pub fn waiting(&self) -> usize {
        self.switches().waiting()
    }

    /// How many requests a full or a failing disk refused.
    pub fn refused(&self) -> u64 {
        self.switches().refused()
    }

    /// It is neither full nor hanging nor failing.
    pub fn heal(&self) {
        self.switches().clear();
    }

    fn switches(&self) -> &Switches {
        let mounted = self.mounted.as_ref().expect("a disk that cannot be mounted again is given up");
        &mounted.shared.switches
    }

    fn attach(&self, tree: Tree) -> Result<Mounted> {
        let shared = Arc::new(Shared { tree: Mutex::new(Some(tree)), switches: Switches::default() });
        let mut config = Config::default();
        let source = format!("{SOURCE}{}", std::process::id());
        config.mount_options = vec![MountOption::FSName(source), MountOption::NoAtime];
        let filesystem = fuse::Served::new(Arc::clone(&shared));
        let session =
            fuser::spawn_mount(filesystem, self.path(), &config).context("FUSE cannot be mounted")?;
        Ok(Mounted { shared, session })
    }

    /// Its thread ends once nobody has a file open.
    fn detach(&self, mounted: Mounted) {
        // It fails where it is no longer mounted.
        unmount(self.path(), UnmountFlags::DETACH).ok();
        drop(mounted.session);
    }
}

impl Debug for Disk {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "the disk at {}", self.path().display())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(mounted) = self.mounted.take() {
            mounted.shared.tree().take();
            mounted.shared.switches.clear();
            self.detach(mounted);
        }
    }
}

/// Unmounts the disks of processes that are no more.
fn unmount_stale() {
    let Ok(mounts) = std::fs::read_to_string("/proc/mounts") else { return };
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(source), Some(path)) = (words.next(), words.next()) else { continue };
        let Some(process) = source.strip_prefix(SOURCE) else { continue };
        if !Path::new("/proc").join(process).exists() {
            // Another process may be unmounting it too.
            unmount(path, UnmountFlags::DETACH).ok();
        }
    }
}
