//! A member's data directory out of a snapshot, ours or etcd's.
//!
//! ```text
//!   snapshot ─► checked as a whole ─► database ─► log of the members ─► in its place
//!                                     └─ <data-dir>/member.restoring ─┘   one rename
//! ```
//!
//! The directory is etcd's own ([`snapshot::directory`]): etcd starts on it, and
//! a member of ours takes it over when it starts (`process::adoption`).
//!
//! Each member of a new cluster restores the same file under its own name and
//! comes to the same ids, members and log; started, they elect a leader at
//! once. The order of the checks, and the texts of what they refuse, are those
//! of etcd 3.7 (`etcdutl/snapshot`).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use snapshot::bbolt::Database;
use snapshot::directory::{Bumped, Restored};
use snapshot::file::{DIGEST_LEN, Digest, Hasher, has_digest};
use snapshot::schema::{Member, auth_enabled};
use tracing::{info, warn};

use crate::config::parse_initial_cluster;
use crate::config::url::Url;
use crate::datadir::{Founding, Identity, Restoring, is_free, make};
use crate::process::bootstrap;

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
    /// Writes the database.
    Write,
}

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// Bytes of that which are done.
    pub done: u64,
    /// Bytes there are.
    pub total: u64,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The member and its cluster.
    pub identity: Identity,
    /// How the revision was raised, if it was.
    pub bumped: Option<Bumped>,
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
    /// The file is no image of bbolt, or cannot be written anew.
    #[error(transparent)]
    Image(#[from] snapshot::Error),
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
    let image = Database::open(&restore.snapshot).map_err(snapshot::Error::from)?;
    let with_auth = auth_enabled(&image).map_err(snapshot::Error::from)?;
    let restoring = Restoring::begin(data_dir, &wal_dir).map_err(Error::Directory)?;
    make(restoring.wal()).map_err(Error::Directory)?;
    let bump = Some(restore.bump_revision).filter(|bump| *bump > 0 && restore.mark_compacted);
    let restored = restored(&founding);
    let bumped = restored.write(&image, bump, &restoring.snap(), restoring.wal(), &mut |done, total| {
        progress(Progress { phase: Phase::Write, done, total });
    })?;
    restoring.complete().map_err(Error::Directory)?;
    if let Some(Bumped { latest, raised }) = bumped {
        info!(
            "latest-revision" = latest,
            "bump-amount" = restore.bump_revision,
            "new-latest-revision" = raised,
            "raised the latest revision, and marked it compacted"
        );
    }
    if with_auth {
        warn!("the snapshot is of a cluster with authentication: no member of this release starts on it");
    }
    let Identity { cluster_id, member_id } = founding.identity;
    info!(
        "cluster-id" = format!("{cluster_id:x}"),
        "local-member-id" = format!("{member_id:x}"),
        "wrote database and log"
    );
    log("restored snapshot");
    Ok(Done { identity: founding.identity, bumped })
}

/// Who the member is, by etcd's rules for the first start of a new cluster.
fn founding(restore: &Restore) -> Result<Founding, String> {
    let advertised = restore.advertise_peer_urls.split(',').map(Url::parse);
    let mut advertised = advertised.collect::<Result<Vec<_>, _>>()?;
    advertised.sort();
    let members = parse_initial_cluster(&restore.initial_cluster)?;
    bootstrap::new_cluster(&members, &restore.name, &restore.token, &advertised)
}

fn restored(founding: &Founding) -> Restored {
    let Identity { cluster_id, member_id } = founding.identity;
    let member = |member: &crate::peer::http::Member| Member {
        id: member.id,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        ..Member::default()
    };
    let mut members: Vec<Member> = founding.founders.iter().map(member).collect();
    members.sort_by_key(|member| member.id);
    Restored { cluster_id, member_id, members }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use snapshot::bbolt::{Plan, Source, Unwritable, Visitor};
    use snapshot::file::Writer;
    use snapshot::schema::{KeyValue, RevisionKey};

    use super::*;
    use crate::config::ids;
    use crate::datadir::DataDir;

    /// Ten buckets, and one key at revision 5.
    struct Smallest;

    impl Source for Smallest {
        type Error = Unwritable;

        fn visit(&self, visitor: &mut dyn Visitor<Unwritable>) -> Result<(), Unwritable> {
            for bucket in snapshot::schema::Bucket::ALL {
                visitor.bucket(bucket.name().as_bytes())?;
                if bucket == snapshot::schema::Bucket::Key {
                    let kv = KeyValue {
                        key: "k".into(),
                        create_revision: 5,
                        mod_revision: 5,
                        version: 1,
                        ..KeyValue::default()
                    };
                    let at = RevisionKey { main: 5, sub: 0, tombstone: false };
                    visitor.row(at.to_bytes().as_ref(), &kv.to_bytes())?;
                }
            }
            Ok(())
        }
    }

    fn file(path: &Path) {
        let mut writer = Writer::new(Vec::new());
        let plan = Plan::of(&Smallest).expect("a plan");
        plan.write(&Smallest, &mut |piece| {
            writer.write(piece).expect("memory");
            Ok(())
        })
        .expect("memory");
        fs::write(path, writer.finish().expect("memory").0).expect("written");
    }

    fn parameters(dir: &Path) -> Restore {
        file(&dir.join("file"));
        Restore {
            snapshot: dir.join("file"),
            name: "b".into(),
            initial_cluster: "a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3".into(),
            token: "token".into(),
            advertise_peer_urls: "http://127.0.0.1:2".into(),
            data_dir: dir.join("data"),
            wal_dir: None,
            skip_hash_check: false,
            bump_revision: 0,
            mark_compacted: false,
        }
    }

    fn quiet(parameters: &Restore) -> Result<Done, Error> {
        restore(parameters, &mut |_| {})
    }

    #[test]
    fn the_directory_is_a_members_own() {
        let dir = tempfile::tempdir().unwrap();
        for wal in [None, Some(dir.path().join("wal"))] {
            let parameters = Restore { wal_dir: wal.clone(), ..parameters(dir.path()) };
            let mut seen = Vec::new();
            let done = restore(&parameters, &mut |progress| seen.push(progress)).unwrap();
            assert_eq!(
                done.identity.member_id,
                ids::member_id(&["http://127.0.0.1:2".to_owned()], "token", None)
            );
            assert_eq!(done.bumped, None);
            assert!(
                seen.windows(2).all(|pair| pair[0].done <= pair[1].done || pair[0].phase != pair[1].phase)
            );
            assert!(seen.iter().any(|p| p.phase == Phase::Check && p.done == p.total));
            assert!(seen.last().is_some_and(|p| p.phase == Phase::Write && p.done == p.total));
            let wal = wal.unwrap_or_else(|| parameters.data_dir.join("member").join("wal"));
            let db = parameters.data_dir.join("member").join("snap").join("db");
            let left = Restored::read(&db, &wal).unwrap();
            assert_eq!(
                (left.cluster_id, left.member_id),
                (done.identity.cluster_id, done.identity.member_id)
            );
            let names: Vec<_> = left.members.iter().map(|member| &member.name[..]).collect();
            assert!(left.members.is_sorted_by_key(|member| member.id));
            assert!(["a", "b", "c"].iter().all(|name| names.contains(name)), "{names:?}");
            fs::remove_dir_all(&parameters.data_dir).unwrap();
        }
    }

    #[test]
    fn refusals_are_etcds_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let good = parameters(dir.path());
        let full = dir.path().join("full");
        fs::create_dir_all(full.join("member")).unwrap();
        let (cut, other, small) =
            (dir.path().join("cut"), dir.path().join("other"), dir.path().join("small"));
        let bytes = fs::read(&good.snapshot).unwrap();
        fs::write(&cut, &bytes[..bytes.len() - 32]).unwrap();
        let mut damaged = bytes.clone();
        damaged[5000] ^= 1;
        fs::write(&other, damaged).unwrap();
        fs::write(&small, "short").unwrap();
        let missing = dir.path().join("missing");
        let cases: [(Restore, &str); 11] = [
            (
                Restore { advertise_peer_urls: "x".into(), name: "d".into(), ..good.clone() },
                "URL scheme must be http, https, unix, or unixs: x",
            ),
            (
                Restore { initial_cluster: "a=x".into(), ..good.clone() },
                "URL scheme must be http, https, unix, or unixs: x",
            ),
            (
                Restore { name: "d".into(), data_dir: full.clone(), ..good.clone() },
                "couldn't find local name \"d\" in the initial cluster configuration",
            ),
            (
                Restore { advertise_peer_urls: "http://127.0.0.1:9".into(), ..good.clone() },
                "--initial-cluster has b=http://127.0.0.1:2 but missing from --initial-advertise-peer-urls=http://127.0.0.1:9",
            ),
            (
                Restore { initial_cluster: good.initial_cluster.replace(":3", ":2"), ..good.clone() },
                "has duplicate url",
            ),
            (
                Restore { data_dir: full.clone(), snapshot: missing.clone(), ..good.clone() },
                "not empty or could not be read",
            ),
            (Restore { wal_dir: Some(full.clone()), snapshot: missing.clone(), ..good.clone() }, "exists"),
            (Restore { snapshot: missing, ..good.clone() }, "missing: no such file or directory"),
            (Restore { snapshot: small, ..good.clone() }, "invalid argument"),
            (
                Restore { snapshot: cut.clone(), ..good.clone() },
                "snapshot missing hash but --skip-hash-check=false",
            ),
            (Restore { snapshot: other, ..good.clone() }, "expected sha256 ["),
        ];
        for (parameters, expected) in cases {
            let refusal = quiet(&parameters).unwrap_err().to_string();
            assert!(refusal.contains(expected), "{refusal} is not {expected}");
            assert!(!good.data_dir.exists(), "{expected}");
        }
        // No image at all, and yet no digest is asked for.
        let parameters = Restore { snapshot: full.join("none"), skip_hash_check: true, ..good.clone() };
        fs::write(&parameters.snapshot, [0; 8192]).unwrap();
        assert!(matches!(quiet(&parameters), Err(Error::Image(_))));
        assert!(!good.data_dir.exists());
        quiet(&Restore { snapshot: cut, skip_hash_check: true, ..good }).unwrap();
    }

    /// Killed at any moment a restore leaves nothing that a member would start on, not even as a new one.
    #[test]
    fn an_unfinished_restore_is_refused_and_cleared_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let parameters = parameters(dir.path());
        let wal = parameters.data_dir.join("member").join("wal");
        let restoring = Restoring::begin(&parameters.data_dir, &wal).unwrap();
        fs::write(restoring.snap().join("db"), "half").unwrap();
        let refusal = DataDir::open(&parameters.data_dir, &wal).unwrap_err().to_string();
        assert!(refusal.contains("has not finished"), "{refusal}");
        // Another one at the same time.
        assert!(quiet(&parameters).unwrap_err().to_string().contains("in use by another process"));
        // As a kill leaves it: nobody clears up, and the lock is free.
        let copy = dir.path().join("copy");
        fs::create_dir_all(copy.join("member.restoring/snap")).unwrap();
        fs::write(copy.join("member.restoring/snap/db"), "half").unwrap();
        let later = Restore { data_dir: copy.clone(), ..parameters.clone() };
        quiet(&later).unwrap();
        assert!(copy.join("member/snap/db").is_file());
        // One that fails clears up itself.
        drop(restoring);
        assert!(!parameters.data_dir.exists());
        quiet(&parameters).unwrap();
    }
}
