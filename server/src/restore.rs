//! A member's data directory out of a snapshot, ours or etcd's.
//!
//! ```text
//!   snapshot ─► checked as a whole ─► state ─► log ─► who the member is ─► in its place
//!                                     └── <data-dir>/member.restoring ──┘   one rename
//! ```
//!
//! Each member of a new cluster restores the same file under its own name and
//! comes to the same ids, members and log; started, they elect a leader at
//! once. The order of the checks, and the texts of what they refuse, are those
//! of etcd 3.7 (`etcdutl/snapshot`).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use snapshot::bbolt::{self, Database};
use snapshot::file::{DIGEST_LEN, Digest, Hasher, has_digest};
use state::snapshot::{ImportError, Restored, Step};
use tracing::{info, warn};

use crate::config::parse_initial_cluster;
use crate::config::url::Url;
use crate::datadir::{Founding, Identity, Restoring, is_free};
use crate::process::bootstrap;
use crate::raft::restored;

/// Bytes read at once.
const READ: usize = 1 << 20;

/// What to restore, for whom, and to where.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The snapshot file.
    pub snapshot: PathBuf,
    /// The member's name.
    pub name: String,
    /// All members and their peer URLs: `name=url,name=url`.
    pub initial_cluster: String,
    /// The token of the new cluster: another one makes other ids.
    pub token: String,
    /// The member's peer URLs, with commas between them.
    pub advertise_peer_urls: String,
    /// The data directory, which must be missing or empty.
    pub data_dir: PathBuf,
    /// The directory of the Raft log, which must be missing; `member/wal` in the data directory if none is given.
    pub wal_dir: Option<PathBuf>,
    /// Takes a file without a digest, or with another one: such as the file of a data directory.
    pub skip_hash_check: bool,
    /// By how much the revision grows; 0 for not at all. Counts only together with `mark_compacted`.
    pub bump_revision: u64,
    /// Whether all revisions before the one it grows to count as compacted.
    pub mark_compacted: bool,
}

/// What a restore does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reads the file and computes its digest.
    Check,
    /// Takes its rows over.
    Rows,
}

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// Bytes of that which are done.
    pub done: u64,
    /// Bytes there are. Those of the rows are somewhat fewer than the file has, which stands here for them.
    pub total: u64,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The member and its cluster.
    pub identity: Identity,
    /// What the state holds.
    pub state: Restored,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Name, URLs and members do not fit together. etcd's text.
    #[error("{0}")]
    Members(String),
    /// There is something in the data directory, or it cannot be read.
    #[error("data-dir {0:?} not empty or could not be read")]
    DataDir(PathBuf),
    /// The directory of the log is there already.
    #[error("wal-dir {0:?} exists")]
    WalDir(PathBuf),
    /// The snapshot cannot be opened or read.
    #[error("{doing} {path}: {reason}", path = path.display())]
    Read {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said, in Go's words.
        reason: String,
    },
    /// The file ends without a digest.
    #[error("snapshot missing hash but --skip-hash-check=false")]
    DigestMissing,
    /// The file is not the one the digest is of.
    #[error("expected sha256 {}, got {}", in_gos_words(expected), in_gos_words(got))]
    DigestMismatch {
        /// What stands at its end.
        expected: [u8; DIGEST_LEN],
        /// What the rest of it gives.
        got: [u8; DIGEST_LEN],
    },
    /// The file is no image of bbolt.
    #[error(transparent)]
    Image(#[from] bbolt::Error),
    /// What is in it cannot become a state.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The directory cannot be made.
    #[error("{0:#}")]
    Directory(anyhow::Error),
}

/// Restores a snapshot to a data directory. When it returns, all is on disk; when it fails, nothing is there.
///
/// # Errors
/// When parameters do not fit together, the directory is not free, the file is damaged, or the disk refuses.
pub fn restore(restore: &Restore, progress: &mut dyn FnMut(Progress)) -> Result<Done, Error> {
    let founding = founding(restore).map_err(Error::Members)?;
    let data_dir = &restore.data_dir;
    if !matches!(is_free(data_dir), Ok(true)) {
        return Err(Error::DataDir(data_dir.clone()));
    }
    let wal_dir = restore.wal_dir.clone().unwrap_or_else(|| data_dir.join("member").join("wal"));
    if wal_dir.exists() {
        return Err(Error::WalDir(wal_dir));
    }
    let log = |message: &str| {
        info!(
            path = %restore.snapshot.display(),
            "wal-dir" = %wal_dir.display(),
            "data-dir" = %data_dir.display(),
            "snap-dir" = %data_dir.join("member").join("snap").display(),
            "{message}"
        );
    };
    log("restoring snapshot");
    check_digest(&restore.snapshot, restore.skip_hash_check, progress)?;
    let image = Database::open(&restore.snapshot)?;
    let restoring = Restoring::begin(data_dir, &wal_dir).map_err(Error::Directory)?;
    let state = import(restore, &founding, &image, restoring.state(), progress)?;
    let nodes = nodes(&founding);
    let Identity { cluster_id, member_id } = founding.identity;
    restored::create_log(restoring.wal(), member_id, restored::begin(nodes.len()), &nodes)
        .map_err(Error::Directory)?;
    restoring.complete(&founding).map_err(Error::Directory)?;
    if let Some((latest, raised)) = state.bumped {
        info!(
            "latest-revision" = latest,
            "bump-amount" = restore.bump_revision,
            "new-latest-revision" = raised,
            "raised the latest revision, and marked it compacted"
        );
    }
    if state.astray > 0 {
        warn!(keys = state.astray, "keys are attached to leases that the snapshot does not have");
    }
    if state.auth_enabled {
        warn!("the snapshot is of a cluster with authentication: no member of this release starts on it");
    }
    info!(
        "cluster-id" = format!("{cluster_id:x}"),
        "local-member-id" = format!("{member_id:x}"),
        revision = state.revision,
        "compact-revision" = state.compacted,
        records = state.taken.records,
        "restored the state"
    );
    log("restored snapshot");
    Ok(Done { identity: founding.identity, state })
}

/// Who the member is, by etcd's rules for the first start of a new cluster.
fn founding(restore: &Restore) -> Result<Founding, String> {
    let advertised = restore.advertise_peer_urls.split(',').map(Url::parse);
    let mut advertised = advertised.collect::<Result<Vec<_>, _>>()?;
    advertised.sort();
    let members = parse_initial_cluster(&restore.initial_cluster)?;
    bootstrap::new_cluster(&members, &restore.name, &restore.token, &advertised)
}

fn nodes(founding: &Founding) -> Vec<state::Node> {
    let nodes = founding.founders.iter().map(|member| state::Node {
        id: member.id,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        learner: false,
    });
    nodes.collect()
}

fn import(
    restore: &Restore,
    founding: &Founding,
    image: &Database,
    state: PathBuf,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored, Error> {
    let nodes = nodes(founding);
    let membership = restored::membership(&nodes).map_err(Error::Directory)?;
    let bump = Some(restore.bump_revision).filter(|bump| *bump > 0 && restore.mark_compacted);
    let restore = state::snapshot::Restore { applied: restored::begin(nodes.len()), membership, nodes, bump };
    let total = image.image_len();
    let mut rows = |step: Step| {
        progress(Progress { phase: Phase::Rows, done: step.bytes.min(total), total });
    };
    let restored = state::snapshot::restore(state::Options::new(state), image, &restore, &mut rows)?;
    progress(Progress { phase: Phase::Rows, done: total, total });
    Ok(restored)
}

/// Reads the whole file and compares its digest with the one at its end.
fn check_digest(path: &Path, skip: bool, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
    let failed =
        |doing| move |error: io::Error| Error::Read { doing, path: path.into(), reason: reason(&error) };
    let mut file = File::open(path).map_err(failed("open"))?;
    let len = file.metadata().map_err(failed("stat"))?.len();
    file.seek(SeekFrom::End(-(DIGEST_LEN as i64))).map_err(failed("seek"))?;
    let mut expected = [0; DIGEST_LEN];
    file.read_exact(&mut expected).map_err(failed("read"))?;
    if skip {
        return Ok(());
    }
    if !has_digest(len) {
        return Err(Error::DigestMissing);
    }
    file.rewind().map_err(failed("seek"))?;
    let total = len - DIGEST_LEN as u64;
    let (mut image, mut done, mut hash) = (file.take(total), 0, Hasher::default());
    let mut buffer = vec![0; READ];
    loop {
        let read = match image.read(&mut buffer) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(failed("read"))?,
        };
        hash.update(&buffer[..read]);
        done += read as u64;
        progress(Progress { phase: Phase::Check, done, total });
    }
    let Digest(got) = hash.finish();
    if expected != got { Err(Error::DigestMismatch { expected, got }) } else { Ok(()) }
}

/// What the system said, as Go says it.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::InvalidInput => "invalid argument".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

fn in_gos_words(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", bytes.join(" "))
}
