//! The way into the state for everybody who does not write.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use proto::etcdserverpb as pb;

use crate::hash::{self, HashKv};
use crate::lease::{self, Lease};
use crate::mvcc::{self, View, Views};
use crate::snapshot::Image;
use crate::storage::{Column, Storage};
use crate::{Checkpoint, Fault, LogId, Refusal, alarm, auth, members};

/// How often, and after which pause, a flush is looked after: ten seconds in all.
const FLUSH_ATTEMPTS_MAX: u32 = 10_000;
const FLUSH_RETRY: Duration = Duration::from_millis(1);
/// How long one waits for a compaction before looking again whose it is.
const WAIT_STEP: Duration = Duration::from_millis(200);

/// The way in for everybody who does not write; clones are cheap.
///
/// The key space is read through a [`View`], at one revision. The small tables beside it
/// show the last command applied, which may be one that a view does not show yet.
/// When the state of another member is installed, all of it shows that one; a view shows what it showed.
#[derive(Clone)]
pub struct Reader {
    source: Arc<ArcSwap<Source>>,
}

/// What readers share with the writer of one database.
pub(crate) struct Source {
    pub storage: Storage,
    pub views: Views,
    pub leases: lease::Table,
    pub alarms: alarm::Published,
    pub cluster: members::Published,
}

/// How much room the state takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// On disk, with what is deleted but not rewritten yet; or in memory on its way there.
    pub total: i64,
    /// Of what is still needed.
    pub in_use: i64,
}

impl Reader {
    pub(crate) fn new(source: Source) -> Self {
        Self { source: Arc::new(ArcSwap::from_pointee(source)) }
    }

    /// From here on this reader and its clones show what the other one shows.
    pub(crate) fn follow(&self, other: &Self) {
        self.source.store(other.source.load_full());
    }

    /// The newest state of the key space.
    pub fn view(&self) -> View {
        self.source.load().views.view()
    }

    /// All leases, by id.
    pub fn leases(&self) -> Vec<Lease> {
        self.source.load().leases.list()
    }

    /// One lease.
    pub fn lease(&self, id: i64) -> Option<Lease> {
        self.source.load().leases.lookup(id)
    }

    /// The keys attached to a lease, in order.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn lease_keys(&self, id: i64) -> Result<Vec<Bytes>, Fault> {
        lease::attached(&self.source.load_full().storage, id)
    }

    /// The alarms that are active.
    pub fn alarms(&self) -> Vec<pb::AlarmMember> {
        self.source.load().alarms.load().to_vec()
    }

    /// The members of the cluster, by id.
    pub fn members(&self) -> Vec<pb::Member> {
        self.source.load().cluster.load().members.values().cloned().collect()
    }

    /// Whether a member of this id was removed from the cluster: it is none any more, and no other gets its id.
    pub fn removed(&self, id: u64) -> bool {
        self.source.load().cluster.load().removed.contains(&id)
    }

    /// The version all members speak, once it has been agreed on.
    pub fn cluster_version(&self) -> Option<String> {
        self.source.load().cluster.load().version.clone()
    }

    /// The version of etcd that could read a snapshot of this state: the cluster's, once that is agreed on; none
    /// in a state that is new.
    pub fn storage_version(&self) -> Option<String> {
        self.source.load().cluster.load().storage_version.clone()
    }

    /// Whether the cluster is to be able to go down to an older version, and to which.
    pub fn downgrade(&self) -> pb::DowngradeInfo {
        self.source.load().cluster.load().downgrade.clone().unwrap_or_default()
    }

    /// How much room the state takes.
    ///
    /// # Errors
    /// When RocksDB does not say.
    pub fn sizes(&self) -> Result<Sizes, Fault> {
        let source = self.source.load_full();
        let mut in_use = source.views.bytes_in_use();
        for row in source.storage.scan(Column::Meta, b"", None) {
            let (key, value) = row?;
            in_use += (key.len() + value.len()) as i64;
        }
        let on_disk = i64::try_from(source.storage.size_on_disk()?).unwrap_or(i64::MAX);
        Ok(Sizes { total: on_disk.max(in_use), in_use })
    }

    /// etcd's HashKV at a revision; 0 means the current one. Reads every record up to it.
    ///
    /// # Errors
    /// When the disk refuses. A revision that is compacted or in the future is refused.
    pub fn hash_kv(&self, revision: i64) -> Result<Result<HashKv, Refusal>, Fault> {
        hash::kv(&self.view(), revision)
    }

    /// etcd's Hash: of everything there is.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn hash(&self) -> Result<u32, Fault> {
        hash::all(&self.source.load_full().storage)
    }

    /// Freezes the state as of now and hands it to `take` as the buckets of etcd. Commands go on meanwhile. `wanted`
    /// is asked now and then while it is read.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn image<R>(
        &self,
        wanted: &dyn Fn() -> bool,
        take: impl FnOnce(&Image<'_>) -> R,
    ) -> Result<R, Fault> {
        let source = self.source.load_full();
        Ok(take(&Image::of(&source.storage, wanted)?))
    }

    /// Whether users have to authenticate.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn auth_enabled(&self) -> Result<bool, Fault> {
        auth::is_enabled(&self.source.load_full().storage)
    }

    /// The revision up to which superseded records have been deleted, -1 before the first compaction.
    pub fn compaction_finished(&self) -> i64 {
        self.source.load().views.compaction_finished()
    }

    /// Blocks until the records superseded at `revision` are deleted; false when the time ran out first.
    pub fn wait_compacted(&self, revision: i64, timeout: Duration) -> bool {
        let mut left = timeout;
        loop {
            // In steps: a state that is replaced meanwhile does not go on compacting.
            let step = left.min(WAIT_STEP);
            let done = self.source.load_full().views.wait_compacted(revision, step);
            left -= step;
            if done || left.is_zero() {
                return done;
            }
        }
    }

    /// The last entry that would survive a crash.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn persisted_applied(&self) -> Result<LogId, Fault> {
        mvcc::persisted_applied(&self.source.load().storage)
    }

    /// Brings everything applied by now to disk, beside the commands; gives the last entry that would survive a crash.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn flush(&self) -> Result<LogId, Fault> {
        let source = self.source.load_full();
        flush(&source.storage, source.views.view().applied())
    }

    /// Collects the files of the state in `dir`, which must not exist and be on the same file system, and says what is
    /// in them: all that was applied by now, and perhaps more. Commands go on meanwhile; it costs a flush.
    ///
    /// # Errors
    /// When the disk refuses. What was collected by then may remain.
    pub fn checkpoint(&self, dir: &Path) -> Result<Checkpoint, Fault> {
        let source = self.source.load_full();
        // Its own flush may return early, as any other.
        flush(&source.storage, source.views.view().applied())?;
        Checkpoint::take(&source.storage, dir)
    }

    /// Has RocksDB rewrite its files without what has been deleted. Blocks the caller alone.
    pub fn rocksdb_compaction(&self) {
        self.source.load_full().storage.rocksdb_compaction();
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// Flushes until the entry is on disk, and gives the last one that is.
pub(crate) fn flush(storage: &Storage, applied: LogId) -> Result<LogId, Fault> {
    // While RocksDB flushes on its own account, its flush may return too early: 11.8 pairs what it
    // waits for by the order of a hash map (`AtomicFlushMemTables`). What is on disk tells.
    let mut attempts_left = FLUSH_ATTEMPTS_MAX;
    loop {
        storage.flush()?;
        let persisted = mvcc::persisted_applied(storage)?;
        attempts_left -= 1;
        if persisted >= applied || attempts_left == 0 {
            return Ok(persisted);
        }
        std::thread::sleep(FLUSH_RETRY);
    }
}
