//! A data directory as etcd's `etcdutl snapshot restore` leaves it: a database, and a log that nothing but the members
//! of the new cluster stands in.
//!
//! ```text
//!   member/
//!     snap/db                     the image, without a digest; members and log position are the new cluster's
//!     snap/<term>-<index>.snap    Raft's snapshot: the members
//!     wal/0000…-0000….wal         whose log it is, one entry a member, committed in term 1
//! ```
//!
//! etcd starts on what [`Restored::write`] made, and [`Restored::read`] reads what etcd's tools made. A directory that a
//! member has run on has more entries than that: it is refused, as what they say is not all in the database.

mod members;
mod raft;
mod rewritten;
#[cfg(test)]
mod tests;
mod wal;

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use prost::Message;
use rustix::fs::{Advice, fadvise};

use crate::Error;
use crate::bbolt::{self, Database, Plan};
use crate::schema::{Malformed, Member, Meta};
use rewritten::Rewritten;
use wal::Kind;

pub use wal::{FIRST, PREALLOCATED};

/// The term of the entries.
pub const TERM: u64 = 1;

/// Bytes after which the kernel is told to write them to the disk.
const WRITE_BACK: u64 = 32 << 20;

/// What a log of so few entries can have at most: it is read as a whole.
const LOG_MAX: u64 = 8 << 20;

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The id of the cluster.
    pub cluster_id: u64,
    /// The id of the member whose directory it is.
    pub member_id: u64,
    /// All members, each with a vote, ascending by id.
    pub members: Vec<Member>,
}

/// By how much a restore raises the revision, marking all before as compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bumped {
    /// The newest revision in the image.
    pub latest: i64,
    /// What it was raised to.
    pub raised: i64,
}

/// Why a directory is not read.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A member has run on it.
    #[error("a member has run on it: {0}")]
    Used(String),
    /// It cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log is damaged.
    #[error("{path}, at byte {offset}: {problem}", path = path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        offset: usize,
        /// What is wrong with it.
        problem: Malformed,
    },
    /// The database cannot be read.
    #[error(transparent)]
    Database(#[from] Error),
}

impl Restored {
    /// The last entry of the log, one for each member.
    pub fn last_index(&self) -> u64 {
        self.members.len() as u64
    }

    /// Fills the directories `snap` and `wal`, which must be there and empty. When it returns, the files are on disk.
    ///
    /// `bump` raises the newest revision by so much and marks all before as compacted. `progress` hears how many
    /// bytes of how many are written. Memory: as [`Plan::write`].
    ///
    /// # Errors
    /// [`Error::Image`] and [`Error::Row`] when the image cannot be read, [`Error::Bump`] and [`Error::Unwritable`]
    /// when the rows cannot be, [`Error::Io`] when the disk refuses.
    pub fn write(
        &self,
        image: &Database,
        bump: Option<u64>,
        snap: &Path,
        wal: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Option<Bumped>, Error> {
        let rows = Rewritten::new(image, self, bump);
        let path = snap.join("db");
        let io = |error| Error::io(&path, error);
        let mut file = BufWriter::with_capacity(1 << 20, create(&path, 0o600).map_err(io)?);
        let (mut end, mut begun, of) = (0, 0, image.image_len());
        Plan::write_at_once(&rows, &mut |at, piece| {
            if at != end {
                file.seek(SeekFrom::Start(at)).map_err(io)?;
            }
            file.write_all(piece).map_err(io)?;
            end = at + piece.len() as u64;
            if end >= begun + WRITE_BACK {
                // Of no effect but on time: the kernel begins to write what the sync at the end waits for.
                fadvise(file.get_ref(), begun, NonZeroU64::new(end - begun), Advice::DontNeed).ok();
                begun = end;
                progress(end.min(of), of);
            }
            Ok(())
        })?;
        let file = file.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(io)?;
        progress(of, of);
        write(
            &snap.join(format!("{TERM:016x}-{:016x}.snap", self.last_index())),
            &self.snapshot(),
            0,
            0o666,
        )?;
        write(&wal.join(FIRST), &self.log(), PREALLOCATED, 0o600)?;
        Ok(rows.bumped())
    }

    fn conf_state(&self) -> raft::ConfState {
        raft::ConfState { voters: self.members.iter().map(|member| member.id).collect() }
    }

    fn snapshot(&self) -> Vec<u8> {
        let metadata = raft::SnapshotMetadata {
            conf_state: Some(self.conf_state()),
            index: Some(self.last_index()),
            term: Some(TERM),
        };
        let snapshot =
            raft::Snapshot { data: Some(members::to_json(&self.members)), metadata: Some(metadata) };
        let data = snapshot.encode_to_vec();
        raft::SnapshotFile { crc: Some(crc32c::crc32c(&data)), data: Some(data) }.encode_to_vec()
    }

    fn log(&self) -> Vec<u8> {
        let mut log = wal::Writer::default();
        let metadata = raft::Metadata { node_id: Some(self.member_id), cluster_id: Some(self.cluster_id) };
        let snapshot = |index, term, conf_state| {
            raft::WalSnapshot { index: Some(index), term: Some(term), conf_state }.encode_to_vec()
        };
        log.put(Kind::Crc, None);
        log.put(Kind::Metadata, Some(metadata.encode_to_vec()));
        log.put(Kind::Snapshot, Some(snapshot(0, 0, None)));
        for (index, member) in (1..).zip(&self.members) {
            let change = raft::ConfChange {
                kind: Some(raft::CHANGE_ADD_NODE),
                node_id: Some(member.id),
                context: Some(member.to_json().into_bytes()),
            };
            let entry = raft::Entry {
                kind: Some(raft::ENTRY_CONF_CHANGE),
                term: Some(TERM),
                index: Some(index),
                data: Some(change.encode_to_vec()),
            };
            log.put(Kind::Entry, Some(entry.encode_to_vec()));
        }
        let vote = self.members.first().map_or(0, |member| member.id);
        let state = raft::HardState { term: Some(TERM), vote: Some(vote), commit: Some(self.last_index()) };
        log.put(Kind::State, Some(state.encode_to_vec()));
        log.put(Kind::Snapshot, Some(snapshot(self.last_index(), TERM, Some(self.conf_state()))));
        log.finish()
    }

    /// Reads whose directory it is, from its log and its database.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn read(db: &Path, wal: &Path) -> Result<Self, Refusal> {
        let path = only_file(wal)?;
        let io = |source| Refusal::Io { path: path.clone(), source };
        let mut bytes = Vec::new();
        File::open(&path).map_err(io)?.take(LOG_MAX).read_to_end(&mut bytes).map_err(io)?;
        let mut log = wal::Reader::new(&bytes);
        let mut seen = Seen::default();
        loop {
            let offset = log.at();
            let damaged = |problem| Refusal::Log { path: path.clone(), offset, problem };
            let Some((kind, data)) = log.next().map_err(damaged)? else { break };
            seen.take(kind, &data).map_err(|wrong| match wrong {
                Wrong::Used(why) => Refusal::Used(why),
                Wrong::Malformed(problem) => damaged(problem),
            })?;
        }
        let restored = seen.restored().ok_or_else(|| {
            Refusal::Used(format!("the log {} does not end with a snapshot of its members", path.display()))
        })?;
        let meta = Meta::read(&Database::open(db).map_err(Error::from)?)?;
        match meta.consistent_index {
            Some(applied) if applied > restored.last_index() => Err(Refusal::Used(format!(
                "its database holds entries up to {applied}, its log up to {}",
                restored.last_index()
            ))),
            _ => Ok(restored),
        }
    }
}

/// The log's first file, if it has no other.
fn only_file(wal: &Path) -> Result<PathBuf, Refusal> {
    let io = |source| Refusal::Io { path: wal.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(wal).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            files.push(path);
        }
    }
    match &files[..] {
        [only] if only.ends_with(FIRST) => Ok(only.clone()),
        [] => Err(Refusal::Used(format!("there is no log in {}", wal.display()))),
        _ => Err(Refusal::Used("its log has more than the first file".into())),
    }
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Writes a small file, durably, with zeros up to `len`.
fn write(path: &Path, bytes: &[u8], len: u64, mode: u32) -> Result<(), Error> {
    let written = || -> io::Result<()> {
        let mut file = create(path, mode)?;
        file.write_all(bytes)?;
        file.set_len(len.max(bytes.len() as u64))?;
        file.sync_all()
    };
    written().map_err(|error| Error::io(path, error))
}

/// Why a record is not one of a restore's.
enum Wrong {
    Used(String),
    Malformed(Malformed),
}

/// What the records of a log said so far.
#[derive(Debug, Default)]
struct Seen {
    owner: Option<raft::Metadata>,
    members: Vec<Member>,
    ids: HashSet<u64>,
    committed: u64,
    snapshot: u64,
}

impl Seen {
    fn take(&mut self, kind: Kind, data: &[u8]) -> Result<(), Wrong> {
        match kind {
            Kind::Crc => {}
            Kind::Metadata => self.owner = Some(decode("etcdserverpb.Metadata", data)?),
            Kind::Entry => self.entry(&decode("raftpb.Entry", data)?)?,
            Kind::State => {
                self.committed =
                    decode::<raft::HardState>("raftpb.HardState", data)?.commit.unwrap_or_default();
            }
            Kind::Snapshot => {
                self.snapshot =
                    decode::<raft::WalSnapshot>("walpb.Snapshot", data)?.index.unwrap_or_default();
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &raft::Entry) -> Result<(), Wrong> {
        let index = entry.index.unwrap_or_default();
        let expected = self.members.len() as u64 + 1;
        if entry.kind != Some(raft::ENTRY_CONF_CHANGE) || entry.term != Some(TERM) || index != expected {
            let term = entry.term.unwrap_or_default();
            return Err(Wrong::Used(format!(
                "its log has an entry {index} of term {term} that adds no founder"
            )));
        }
        let change: raft::ConfChange =
            decode("raftpb.ConfChange", entry.data.as_deref().unwrap_or_default())?;
        let member =
            Member::from_json(change.context.as_deref().unwrap_or_default()).map_err(Wrong::Malformed)?;
        let adds = change.kind.unwrap_or_default() == raft::CHANGE_ADD_NODE;
        if !adds || change.node_id != Some(member.id) || member.is_learner || !self.ids.insert(member.id) {
            return Err(Wrong::Used(format!("entry {index} of its log adds no founder")));
        }
        self.members.push(member);
        Ok(())
    }

    /// What it is, if it is all there.
    fn restored(self) -> Option<Restored> {
        let owner = self.owner?;
        let (member_id, cluster_id) = (owner.node_id?, owner.cluster_id?);
        let all = self.members.len() as u64;
        if !self.ids.contains(&member_id) || self.committed != all || self.snapshot != all {
            return None;
        }
        let mut members = self.members;
        members.sort_by_key(|member| member.id);
        Some(Restored { cluster_id, member_id, members })
    }
}

fn decode<M: Message + Default>(message: &'static str, data: &[u8]) -> Result<M, Wrong> {
    M::decode(data)
        .map_err(|error| Wrong::Malformed(Malformed::Protobuf { message, detail: error.to_string() }))
}

/// Whether a file is a database of etcd's, by what its first page says; one that is too short is taken for one.
///
/// # Errors
/// When it cannot be read.
pub fn is_database(path: &Path) -> io::Result<bool> {
    match File::open(path) {
        Ok(mut file) if file.metadata()?.is_file() => {
            let mut page = [0; 20];
            Ok(file.read_exact(&mut page).is_err() || page[16..] == bbolt::MAGIC.to_le_bytes())
        }
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
