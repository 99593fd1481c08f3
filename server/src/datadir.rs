//! The data directory: whose it is, what is in it, and that one process has it.
//!
//! ```text
//!   <data-dir>/                 0700
//!     member/
//!       lock                    held while the process lives
//!       quorate-format          format, cluster id, member id, and the members it began with
//!       removed                 once the member was removed from its cluster
//!       wal/                    the Raft log (or --wal-dir, with a lock of its own)
//!       snap/db/                the storage engine's files
//!     member.restoring/         of a restore that has not finished: nothing starts on it
//!     member.taken-over/        what a restore left, until the member that took it over has removed it
//! ```
//!
//! The ids are kept because `--initial-*` holds for the first start alone:
//! whatever the flags say later, the member stays who it is. The members are
//! kept for a member that ends between its first start and its first log entry.

mod restoring;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use snapshot::directory::is_database;
use tracing::warn;

use crate::peer::http::Member;

pub use restoring::{Restoring, is_free, settle};

/// The format this release writes, and the newest it reads.
const FORMAT: u32 = 1;

const IDENTITY_FILE: &str = "quorate-format";
const REMOVED_FILE: &str = "removed";

/// Who the member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The member's id.
    pub member_id: u64,
}

/// What the member began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// Who it is.
    pub identity: Identity,
    /// The members that founded the cluster; empty when this one joined it.
    pub founders: Vec<Member>,
    /// The others, as a member found them that joined.
    pub peers: Vec<Member>,
}

impl Founding {
    /// The founders, as the state keeps members.
    pub fn nodes(&self) -> Vec<state::Node> {
        let nodes = self.founders.iter().map(|member| state::Node {
            id: member.id,
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            learner: false,
        });
        nodes.collect()
    }
}

/// An opened and locked data directory.
#[derive(Debug)]
pub struct DataDir {
    member: PathBuf,
    wal: PathBuf,
    founding: Option<Founding>,
    /// Closing them gives the directories free.
    _locks: Vec<File>,
}

impl DataDir {
    /// Opens the directory for this process alone, making what is missing.
    pub fn open(data_dir: &Path, wal_dir: &Path) -> anyhow::Result<DataDir> {
        let member = data_dir.join("member");
        restoring::refuse(data_dir)?;
        refuse_etcds(&member, wal_dir)?;
        for dir in [data_dir, &member, &member.join("snap")] {
            make(dir)?;
        }
        let mut locks = vec![lock(&member)?];
        make(wal_dir)?;
        if !wal_dir.starts_with(&member) {
            locks.push(lock(wal_dir)?);
        }
        if member.join(REMOVED_FILE).exists() {
            bail!(
                "{} belongs to a member that has been permanently removed from its cluster: to join again, remove the directory and add a new member",
                data_dir.display()
            );
        }
        let founding = read_founding(&member)?;
        let snap = member.join("snap");
        if founding.is_none() && (holds_files(&snap.join("db"))? || snap.join("db.current").exists()) {
            bail!(
                "{} holds data, but no file {IDENTITY_FILE} that says of which format: it is not a data directory of this server",
                member.display()
            );
        }
        Ok(DataDir { member, wal: wal_dir.to_owned(), founding, _locks: locks })
    }

    /// Where the Raft log is.
    pub fn wal(&self) -> &Path {
        &self.wal
    }

    /// Where the storage engine's files are.
    pub fn state(&self) -> PathBuf {
        self.member.join("snap").join("db")
    }

    /// What the member began with, once it has.
    pub fn founding(&self) -> Option<&Founding> {
        self.founding.as_ref()
    }

    /// Records what the member begins with, durably: before anything else is written.
    pub fn found(&mut self, founding: Founding) -> anyhow::Result<()> {
        write(&self.member, IDENTITY_FILE, &to_text(&founding)?)?;
        self.founding = Some(founding);
        Ok(())
    }

    /// Records that the member was removed from its cluster: it will not start on this directory again.
    pub fn remove(&self) -> anyhow::Result<()> {
        write(&self.member, REMOVED_FILE, "")
    }
}

/// Writes a file of a member's directory, durably and in one step.
fn write(member: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = member.join(name);
    let unfinished = path.with_extension("new");
    let written = || -> io::Result<()> {
        let mut file = File::create(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(member)?.sync_all()
    };
    written().with_context(|| format!("write {}", path.display()))
}

fn to_text(founding: &Founding) -> anyhow::Result<String> {
    let Identity { cluster_id, member_id } = founding.identity;
    let mut text = format!("format {FORMAT}\ncluster {cluster_id:x}\nmember {member_id:x}\n");
    for (name, members) in [("founders", &founding.founders), ("peers", &founding.peers)] {
        let members = serde_json::to_string(members).context("list of members")?;
        text += &format!("{name} {members}\n");
    }
    Ok(text)
}

/// Makes a directory, where it is missing, and its name durable, whoever made it: what is acknowledged
/// is in it.
pub(crate) fn make(dir: &Path) -> anyhow::Result<()> {
    let mut made = vec![dir];
    match fs::metadata(dir) {
        Ok(metadata) => {
            ensure!(metadata.is_dir(), "{} is not a directory", dir.display());
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                warn!(
                    dir = %dir.display(),
                    permission = %format!("{mode:o}"),
                    "check file permission: a directory with data is open to others; 700 is recommended"
                );
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            made.extend(dir.ancestors().skip(1).take_while(|above| !above.exists()));
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .with_context(|| format!("create directory {}", dir.display()))?;
        }
        Err(error) => return Err(error).with_context(|| format!("directory {}", dir.display())),
    }
    for dir in made {
        sync_name(dir).with_context(|| format!("sync the directory of {}", dir.display()))?;
    }
    Ok(())
}

fn sync_name(dir: &Path) -> io::Result<()> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match File::open(parent) {
        // Whoever made a directory where this process may not look answers for it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        parent => parent?.sync_all(),
    }
}

/// Takes the lock in `dir`. The kernel gives it back when the process ends, however it ends.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).with_context(|| format!("read {}", path.display()))?;
            bail!("{} is in use by another process (pid {})", dir.display(), holder.trim());
        }
        Err(error) => return Err(error).with_context(|| format!("lock {}", path.display())),
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

fn read_founding(member: &Path) -> anyhow::Result<Option<Founding>> {
    let path = member.join(IDENTITY_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .with_context(|| format!("{}: no line {name:?}", path.display()))
    };
    let format: u32 = field("format")?.parse().with_context(|| format!("{}: format", path.display()))?;
    ensure!(
        format <= FORMAT,
        "{} was written by a newer release: its format is {format}, this one reads up to {FORMAT}",
        member.display()
    );
    let id = |name: &str| {
        u64::from_str_radix(field(name)?, 16).with_context(|| format!("{}: {name}", path.display()))
    };
    let identity = Identity { cluster_id: id("cluster")?, member_id: id("member")? };
    // A directory of the first release, which ran clusters of one, has no such lists.
    let members = |name: &str| -> anyhow::Result<Vec<Member>> {
        let Ok(list) = field(name) else { return Ok(Vec::new()) };
        serde_json::from_str(list).with_context(|| format!("{}: {name}", path.display()))
    };
    Ok(Some(Founding { identity, founders: members("founders")?, peers: members("peers")? }))
}

fn holds_files(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Refuses a directory that etcd has written.
fn refuse_etcds(member: &Path, wal_dir: &Path) -> anyhow::Result<()> {
    let has_wal = || -> io::Result<bool> {
        match fs::read_dir(wal_dir) {
            Ok(entries) => {
                for entry in entries {
                    if entry?.path().extension().is_some_and(|extension| extension == "wal") {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    };
    if is_database(&member.join("snap").join("db")).with_context(|| format!("read {}", member.display()))?
        || has_wal().with_context(|| format!("read {}", wal_dir.display()))?
    {
        bail!(
            "{} is a data directory of etcd, which this server cannot read: take a snapshot of that member with `etcdctl snapshot save` and restore it into an empty directory",
            member.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> anyhow::Result<DataDir> {
        DataDir::open(dir, &dir.join("member").join("wal"))
    }

    #[test]
    fn a_second_process_is_refused_and_the_directory_is_private() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        let first = open(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let refusal = open(&dir).unwrap_err().to_string();
        assert!(
            refusal.contains(&format!("in use by another process (pid {})", std::process::id())),
            "{refusal}"
        );
        drop(first);
        open(&dir).unwrap();
    }

    #[test]
    fn a_log_elsewhere_has_a_lock_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let wal = root.path().join("wal");
        let _first = DataDir::open(&root.path().join("a"), &wal).unwrap();
        assert!(DataDir::open(&root.path().join("b"), &wal).unwrap_err().to_string().contains("in use"));
    }

    #[test]
    fn the_member_stays_who_it_is() {
        let root = tempfile::tempdir().unwrap();
        let identity = Identity { cluster_id: 0x48276a8f75b6a87, member_id: u64::MAX };
        let member = |id| Member {
            id,
            name: "with space".to_owned(),
            peer_urls: vec!["http://a:1".to_owned()],
            ..Member::default()
        };
        let founding =
            Founding { identity, founders: vec![member(u64::MAX)], peers: vec![member(2), member(3)] };
        let mut dir = open(root.path()).unwrap();
        assert_eq!(dir.founding(), None);
        dir.found(founding.clone()).unwrap();
        drop(dir);
        assert_eq!(open(root.path()).unwrap().founding(), Some(&founding));
        fs::write(root.path().join("member/quorate-format"), "format 1\ncluster 1\nmember 2\n").unwrap();
        let old = open(root.path()).unwrap();
        assert_eq!(old.founding().unwrap().identity, Identity { cluster_id: 1, member_id: 2 });
    }

    #[test]
    fn a_removed_member_does_not_come_back() {
        let root = tempfile::tempdir().unwrap();
        let dir = open(root.path()).unwrap();
        dir.remove().unwrap();
        drop(dir);
        assert!(open(root.path()).unwrap_err().to_string().contains("permanently removed"));
    }

    #[test]
    fn newer_formats_and_foreign_files_are_refused() {
        let root = tempfile::tempdir().unwrap();
        drop(open(root.path()).unwrap());
        fs::write(root.path().join("member/quorate-format"), "format 2\ncluster 1\nmember 1\n").unwrap();
        assert!(open(root.path()).unwrap_err().to_string().contains("newer release"));

        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("member/snap/db")).unwrap();
        fs::write(root.path().join("member/snap/db/CURRENT"), "x").unwrap();
        assert!(open(root.path()).unwrap_err().to_string().contains("not a data directory of this server"));
    }

    #[test]
    fn etcds_own_directory_is_named_as_such() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("member/snap")).unwrap();
        let mut page = [0_u8; 64];
        page[16..20].copy_from_slice(&0xED0C_DAED_u32.to_le_bytes());
        fs::write(root.path().join("member/snap/db"), page).unwrap();
        assert!(open(root.path()).unwrap_err().to_string().contains("snapshot save"));

        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("member/wal")).unwrap();
        fs::write(root.path().join("member/wal/0000000000000000-0000000000000000.wal"), "x").unwrap();
        assert!(open(root.path()).unwrap_err().to_string().contains("data directory of etcd"));
    }
}
