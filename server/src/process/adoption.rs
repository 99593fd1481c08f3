//! A member's first start on a directory that a restore left, ours or etcd's.
//!
//! ```text
//!   member/snap/db  ─► state ─┐
//!   member/wal/*.wal ─► log  ─┴─► member.restoring ─► member
//! ```
//!
//! The database is read once, row by row; whatever cannot be right ends it, and
//! the directory stays as it was. A kill at any moment costs the time: the next
//! start begins anew, or ends what was all but done.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use snapshot::bbolt::Database;
use snapshot::directory::{FIRST, Refusal, Restored, is_database};
use snapshot::schema::auth_enabled;
use state::snapshot::{Restore, Step};
use tracing::{info, warn};

use crate::config::Config;
use crate::datadir::{Founding, Identity, Restoring, settle};
use crate::peer::http::Member;
use crate::raft::restored;

/// Parts of the database between two lines of the log.
const LINES: u64 = 10;

/// Makes the directory of a member out of what a restore left there. Does nothing where a member has its own.
///
/// # Errors
/// When another process has the directory, it is one that etcd has run on, it is damaged, or the disk refuses.
pub fn adopt(config: &Config) -> anyhow::Result<()> {
    let memory = usize::try_from(config.flags.memory_budget).unwrap_or(usize::MAX);
    take_over(&config.data_dir, &config.wal_dir, memory)
}

fn take_over(data_dir: &Path, wal_dir: &Path, memory: usize) -> anyhow::Result<()> {
    // Outside of the member's directory both logs are in one place, where ours must not find etcd's.
    let outside = !wal_dir.starts_with(data_dir.join("member"));
    let aside = wal_dir.join("restored");
    settle(data_dir)?;
    let db = data_dir.join("member").join("snap").join("db");
    let what = || format!("take over {}", data_dir.display());
    if !is_database(&db).with_context(what)? {
        return if outside { remove(&aside) } else { Ok(()) };
    }
    let log = if outside && aside.join(FIRST).exists() { &aside } else { wal_dir };
    let restored = match Restored::read(&db, log) {
        Err(Refusal::Used(why)) => bail!(
            "{} is a data directory of etcd, and {why}: take a snapshot of that member with `etcdctl snapshot save` and restore it into an empty directory",
            db.ancestors().nth(2).unwrap_or(data_dir).display()
        ),
        restored => restored.with_context(what)?,
    };
    let _held = hold(&db).with_context(what)?;
    info!(path = %db.display(), "taking over the directory that a restore left");
    let image = Database::open(&db)?;
    ensure!(
        !auth_enabled(&image)?,
        "{} is of a cluster with authentication, which this release does not enforce: turn it off there before the snapshot is taken, with `etcdctl auth disable`",
        db.display()
    );
    let restoring = Restoring::begin(data_dir, wal_dir)?;
    let founding = founding(restored);
    let nodes = founding.nodes();
    let applied = restored::begin(nodes.len());
    let order = Restore { applied, membership: restored::membership(&nodes)?, nodes: nodes.clone() };
    let (mut told, part) = (0, (image.image_len() / LINES).max(1));
    let mut progress = |step: Step| {
        if step.bytes / part > told {
            told = step.bytes / part;
            info!(records = step.records, bytes = step.bytes, of = image.image_len(), "taking over");
        }
    };
    let mut options = state::Options::new(restoring.snap().join("db"));
    options.memory_budget = memory;
    let state = state::snapshot::restore(options, &image, &order, &mut progress)
        .with_context(|| format!("take over {}", db.display()))?;
    if state.astray > 0 {
        warn!(keys = state.astray, "keys are attached to leases that the snapshot does not have");
    }
    if outside && *log != *aside {
        fs::create_dir_all(&aside)?;
        fs::rename(wal_dir.join(FIRST), aside.join(FIRST)).context("move the log aside")?;
    }
    restored::create_log(restoring.wal(), founding.identity.member_id, applied, &nodes)?;
    restoring.replace(&founding)?;
    if outside {
        remove(&aside)?;
    }
    settle(data_dir)?;
    info!(
        revision = state.revision,
        "compact-revision" = state.compacted,
        records = state.taken.records,
        "took over the directory"
    );
    Ok(())
}

/// Keeps etcd away from its database, and stays away if it is there.
fn hold(db: &Path) -> anyhow::Result<File> {
    let file = File::open(db)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| anyhow::anyhow!("{} is in use by another process: {error}", db.display()))?;
    Ok(file)
}

/// Removes the log that was moved aside, if there is one.
fn remove(aside: &Path) -> anyhow::Result<()> {
    for removed in [fs::remove_file(aside.join(FIRST)), fs::remove_dir(aside)] {
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.with_context(|| format!("remove {}", aside.display()))?,
        }
    }
    Ok(())
}

fn founding(restored: Restored) -> Founding {
    let founders = restored.members.into_iter().map(|member| Member {
        id: member.id,
        name: member.name,
        peer_urls: member.peer_urls,
        ..Member::default()
    });
    let identity = Identity { cluster_id: restored.cluster_id, member_id: restored.member_id };
    Founding { identity, founders: founders.collect(), peers: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use snapshot::bbolt::{Plan, Source, Unwritable, Visitor};
    use snapshot::schema::{Bucket, KeyValue, RevisionKey};

    use super::*;
    use crate::datadir::DataDir;

    const MEMORY: usize = 64 << 20;

    /// Ten buckets, a key at revision 5, and users if there are to be any.
    struct Rows {
        auth: bool,
    }

    impl Source for Rows {
        type Error = Unwritable;

        fn visit(&self, visitor: &mut dyn Visitor<Unwritable>) -> Result<(), Unwritable> {
            for bucket in Bucket::ALL {
                visitor.bucket(bucket.name().as_bytes())?;
                if bucket == Bucket::Auth && self.auth {
                    visitor.row(snapshot::schema::AUTH_ENABLED.as_bytes(), &[1])?;
                }
                if bucket == Bucket::Key {
                    let (key, create_revision) = ("k".into(), 5);
                    let kv =
                        KeyValue { key, create_revision, mod_revision: 5, version: 1, ..KeyValue::default() };
                    let at = RevisionKey { main: 5, sub: 0, tombstone: false };
                    visitor.row(at.to_bytes().as_ref(), &kv.to_bytes())?;
                }
            }
            Ok(())
        }
    }

    /// What a restore leaves.
    struct Left {
        root: tempfile::TempDir,
        data: PathBuf,
        wal: PathBuf,
        restored: Restored,
    }

    fn left(outside: bool, rows: &Rows) -> Left {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        let (snap, inside) = (data.join("member/snap"), data.join("member/wal"));
        let wal = if outside { root.path().join("wal") } else { inside };
        fs::create_dir_all(&snap).unwrap();
        fs::create_dir_all(&wal).unwrap();
        let file = root.path().join("file");
        let mut bytes = Vec::new();
        let plan = Plan::of(rows).unwrap();
        plan.write(rows, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        fs::write(&file, bytes).unwrap();
        let member = |id, name: &str| snapshot::schema::Member {
            id,
            name: name.into(),
            peer_urls: vec![format!("http://{name}:2380")],
            ..Default::default()
        };
        let restored =
            Restored { cluster_id: 0xc1, member_id: 9, members: vec![member(4, "a"), member(9, "b")] };
        restored.write(&Database::open(&file).unwrap(), None, &snap, &wal, &mut |_, _| {}).unwrap();
        Left { root, data, wal, restored }
    }

    impl Left {
        fn take_over(&self) -> anyhow::Result<()> {
            take_over(&self.data, &self.wal, MEMORY)
        }

        /// It is a member's own now, whole, and nothing else is left.
        fn check(&self) {
            let opened = DataDir::open(&self.data, &self.wal).unwrap();
            assert_eq!(*opened.founding().unwrap(), founding(self.restored.clone()));
            let (state, reader) = state::State::open(state::Options::new(opened.state())).unwrap();
            assert_eq!(state.applied(), restored::begin(2));
            assert_eq!((reader.view().revision(), reader.members().len()), (5, 2));
            let names = |dir: &Path| -> Vec<String> {
                let names = fs::read_dir(dir).unwrap();
                names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
            };
            assert_eq!(names(&self.data), ["member"]);
            let log = names(&self.wal);
            assert!(log.iter().any(|name| name.ends_with(".log")), "{log:?}");
            assert!(!log.iter().any(|name| name.ends_with(".wal") || name == "restored"), "{log:?}");
        }
    }

    #[test]
    fn what_a_restore_left_becomes_a_members_own() {
        for outside in [false, true] {
            let left = left(outside, &Rows { auth: false });
            left.take_over().unwrap();
            left.check();
            // The next start finds nothing to do.
            left.take_over().unwrap();
            left.check();
        }
    }

    /// The states of the disk that a kill can leave, from the first on.
    #[test]
    fn a_kill_costs_no_more_than_the_time() {
        for outside in [false, true] {
            let killed: [&dyn Fn(&Left); 5] = [
                // While rows were taken over.
                &|left| {
                    fs::create_dir_all(left.data.join("member.restoring/snap/db")).unwrap();
                    fs::write(left.data.join("member.restoring/snap/db/CURRENT"), "half").unwrap();
                },
                // Before the old log was moved.
                &|left| {
                    if outside {
                        fs::create_dir(left.wal.join("restored")).unwrap();
                    }
                },
                // Behind that, with the new log there.
                &|left| {
                    if outside {
                        fs::create_dir(left.wal.join("restored")).unwrap();
                        fs::rename(left.wal.join(FIRST), left.wal.join("restored").join(FIRST)).unwrap();
                        let nodes = founding(left.restored.clone()).nodes();
                        restored::create_log(&left.wal, 9, restored::begin(2), &nodes).unwrap();
                    }
                },
                // Between the two renames.
                &|left| {
                    let copy = left.root.path().join("copy");
                    assert!(
                        std::process::Command::new("cp")
                            .arg("-r")
                            .args([left.data.join("member"), copy.clone()])
                            .status()
                            .unwrap()
                            .success()
                    );
                    left.take_over().unwrap();
                    fs::rename(left.data.join("member"), left.data.join("member.restoring")).unwrap();
                    fs::rename(copy, left.data.join("member.taken-over")).unwrap();
                },
                // Behind them.
                &|left| {
                    left.take_over().unwrap();
                    fs::create_dir_all(left.data.join("member.taken-over/snap")).unwrap();
                    if outside {
                        fs::create_dir(left.wal.join("restored")).unwrap();
                        fs::write(left.wal.join("restored").join(FIRST), "").unwrap();
                    }
                },
            ];
            for kill in killed {
                let left = left(outside, &Rows { auth: false });
                kill(&left);
                left.take_over().unwrap();
                left.check();
            }
        }
    }

    #[test]
    fn what_is_refused_stays_as_it_was() {
        let with_auth = left(false, &Rows { auth: true });
        let refusal = with_auth.take_over().unwrap_err().to_string();
        assert!(refusal.contains("auth disable"), "{refusal}");
        let used = left(false, &Rows { auth: false });
        fs::write(used.wal.join("0000000000000001-0000000000000003.wal"), "").unwrap();
        let refusal = used.take_over().unwrap_err().to_string();
        assert!(refusal.contains("take a snapshot of that member"), "{refusal}");
        let held = left(false, &Rows { auth: false });
        let _theirs = hold(&held.data.join("member/snap/db")).unwrap();
        let refusal = format!("{:#}", held.take_over().unwrap_err());
        assert!(refusal.contains("in use by another process"), "{refusal}");
        for left in [with_auth, used, held] {
            assert!(left.data.join("member/snap/db").is_file());
            assert_eq!(fs::read_dir(&left.data).unwrap().count(), 1);
        }
    }
}
