//! Log entries in, replies and events out.
//!
//! ```text
//!   entry ─► alarms let it pass? ─► put, delete, txn, lease … ─► reply
//!                                       │ stages rows
//!               every so many entries:  ▼
//!                             Mvcc::commit ─► one batch with the id of the last entry in it
//! ```
//!
//! Invariants
//!  1. What a refused command staged is nothing: all checks come before the first write.
//!  2. An entry at or below `applied` has been applied: it is skipped, whoever sends it again.
//!  3. Nothing here depends on how entries are grouped into calls or batches.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use proto::command::{Command, command::Op};
use proto::etcdserverpb as pb;

use crate::error::Stop;
use crate::hash::{self, HashKv};
use crate::lease::{self, Lease, LeaseChange};
use crate::mvcc::{self, Mvcc, View, Views};
use crate::storage::{Column, Storage};
use crate::{Block, Entry, EntryBody, Fault, LogId, Options, Refusal, Reply, Response, alarm, members, txn};

/// A batch is written at the latest after this many entries …
const ENTRIES_MAX: usize = 2048;
/// … or this many bytes of commands.
const BYTES_MAX: usize = 4 << 20;
/// How often, and after which pause, a flush is looked after: ten seconds in all.
const FLUSH_ATTEMPTS_MAX: u32 = 10_000;
const FLUSH_RETRY: Duration = Duration::from_millis(1);

/// The state machine's one writer.
pub struct State {
    storage: Storage,
    mvcc: Mvcc,
    leases: lease::Table,
    alarms: alarm::Table,
    members: members::Table,
    /// The last entry applied; the last one committed may lag behind within a call.
    applied: LogId,
}

/// What a call of [`State::apply`] did.
#[derive(Debug, Default)]
pub struct Applied {
    /// One for each entry, in order. An entry that had been applied before gets [`Response::Done`].
    pub replies: Vec<Reply>,
    /// The changes of the key space, in the order of their revisions.
    pub blocks: Vec<Block>,
    /// The changes of leases, in order.
    pub lease_changes: Vec<LeaseChange>,
}

/// Flushes until the entry is on disk, and gives the last one that is.
fn flush(storage: &Storage, applied: LogId) -> Result<LogId, Fault> {
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

impl State {
    /// Opens the state in `options.dir`, or creates an empty one.
    ///
    /// # Errors
    /// When the directory cannot be read, or holds something else.
    pub fn open(options: Options) -> Result<(Self, Reader), Fault> {
        let storage = Storage::open(&options)?;
        let (mvcc, views) = Mvcc::open(&storage, &options)?;
        let leases = lease::Table::load(&storage)?;
        let alarms = alarm::Table::load(&storage)?;
        let members = members::Table::load(&storage)?;
        let applied = mvcc.applied();
        let reader = Reader {
            storage: storage.clone(),
            views,
            leases: leases.clone(),
            alarms: alarms.published(),
            cluster: members.published(),
        };
        Ok((Self { storage, mvcc, leases, alarms, members, applied }, reader))
    }

    /// Applies entries, which must come in log order. When it returns, readers see all of them.
    ///
    /// # Errors
    /// A fault leaves the state in memory undefined: the process must end, and replay the log when it starts again.
    pub fn apply(&mut self, entries: Vec<Entry>) -> Result<Applied, Fault> {
        let mut done = Applied { replies: Vec::with_capacity(entries.len()), ..Applied::default() };
        let (mut staged, mut bytes) = (0, 0);
        for Entry { log_id, body } in entries {
            if log_id.index <= self.applied.index {
                done.replies.push(Reply { revision: self.mvcc.revision(), result: Ok(Response::Done) });
                continue;
            }
            staged += 1;
            bytes += if let EntryBody::Command(command) = &body { command.len() } else { 0 };
            let result = match self.entry(log_id, body, &mut done.lease_changes) {
                Ok(response) => Ok(response),
                Err(Stop::Refused(refusal)) => Err(refusal),
                Err(Stop::Failed(fault)) => return Err(fault),
            };
            done.blocks.extend(self.mvcc.seal());
            done.replies.push(Reply { revision: self.mvcc.revision(), result });
            self.applied = log_id;
            if staged >= ENTRIES_MAX || bytes >= BYTES_MAX {
                self.mvcc.commit(self.applied)?;
                (staged, bytes) = (0, 0);
            }
        }
        if staged > 0 {
            self.mvcc.commit(self.applied)?;
        }
        Ok(done)
    }

    /// The last entry applied.
    pub fn applied(&self) -> LogId {
        self.applied
    }

    /// The last membership entry applied: where it stands in the log, and the consensus library's own form.
    pub fn membership(&self) -> Option<(LogId, Bytes)> {
        self.members.membership()
    }

    /// Brings everything applied to disk; gives the last entry that would survive a crash.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn flush(&self) -> Result<LogId, Fault> {
        flush(&self.storage, self.mvcc.applied())
    }

    fn entry(
        &mut self,
        log_id: LogId,
        body: EntryBody,
        changes: &mut Vec<LeaseChange>,
    ) -> Result<Response, Stop> {
        match body {
            EntryBody::Blank => Ok(Response::Done),
            EntryBody::Membership { opaque, nodes } => {
                self.members.set(self.mvcc.batch(), log_id, opaque, nodes);
                Ok(Response::Done)
            }
            EntryBody::Command(command) => {
                let unknown = |detail| Fault::Corrupt { what: "log entry", detail };
                let command = Command::decode(command)
                    .map_err(|e| unknown(format!("entry {} does not decode: {e}", log_id.index)))?;
                let op = command.op.ok_or_else(|| {
                    unknown(format!("entry {} holds a command of a newer version", log_id.index))
                })?;
                self.alarms.check(&op)?;
                self.command(op, changes)
            }
        }
    }

    fn command(&mut self, op: Op, changes: &mut Vec<LeaseChange>) -> Result<Response, Stop> {
        let mvcc = &mut self.mvcc;
        Ok(match op {
            Op::Put(request) => Response::Put(txn::put(mvcc, &self.leases, request)?),
            Op::DeleteRange(request) => Response::DeleteRange(txn::delete_range(mvcc, request)?),
            Op::Txn(request) => Response::Txn(txn::txn(mvcc, &self.leases, request)?),
            Op::Compaction(request) => {
                mvcc.compact(request.revision)?;
                Response::Compaction
            }
            Op::LeaseGrant(pb::LeaseGrantRequest { id, ttl }) => {
                self.leases.grant(mvcc.batch(), id, ttl)?;
                changes.push(LeaseChange::Granted { id, ttl });
                Response::LeaseGrant(pb::LeaseGrantResponse { id, ttl, ..Default::default() })
            }
            Op::LeaseRevoke(request) => {
                self.revoke(request.id)?;
                changes.push(LeaseChange::Revoked { id: request.id });
                Response::LeaseRevoke
            }
            Op::LeaseCheckpoint(request) => {
                for pb::LeaseCheckpoint { id, remaining_ttl: remaining } in request.checkpoints {
                    if self.leases.checkpoint(mvcc.batch(), id, remaining) {
                        changes.push(LeaseChange::Checkpointed { id, remaining });
                    }
                }
                Response::Done
            }
            Op::Alarm(request) => Response::Alarm(self.alarms.apply(mvcc.batch(), &request)),
            Op::MemberAttributes(attributes) => {
                self.members.set_attributes(mvcc.batch(), attributes);
                Response::Done
            }
            Op::ClusterVersion(version) => {
                self.members.set_version(mvcc.batch(), version.version);
                Response::Done
            }
        })
    }

    /// Takes a lease back: its keys go, in order and in one revision, and the lease with them.
    fn revoke(&mut self, id: i64) -> Result<(), Stop> {
        if !self.leases.contains(id) {
            return Err(Refusal::LeaseNotFound.into());
        }
        // Keys that commands before this one attached or detached may still be staged.
        self.mvcc.commit(self.applied)?;
        for key in lease::attached(&self.storage, id)? {
            txn::delete(&mut self.mvcc, key)?;
        }
        self.leases.remove(self.mvcc.batch(), id);
        Ok(())
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("applied", &self.applied).finish_non_exhaustive()
    }
}

/// The way in for everybody who does not write; clones are cheap.
///
/// The key space is read through a [`View`], at one revision. The small tables beside it
/// show the last command applied, which may be one that a view does not show yet.
#[derive(Clone)]
pub struct Reader {
    storage: Storage,
    views: Views,
    leases: lease::Table,
    alarms: alarm::Published,
    cluster: members::Published,
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
    /// The newest state of the key space.
    pub fn view(&self) -> View {
        self.views.view()
    }

    /// All leases, by id.
    pub fn leases(&self) -> Vec<Lease> {
        self.leases.list()
    }

    /// One lease.
    pub fn lease(&self, id: i64) -> Option<Lease> {
        self.leases.lookup(id)
    }

    /// The keys attached to a lease, in order.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn lease_keys(&self, id: i64) -> Result<Vec<Bytes>, Fault> {
        lease::attached(&self.storage, id)
    }

    /// The alarms that are active.
    pub fn alarms(&self) -> Vec<pb::AlarmMember> {
        self.alarms.load().to_vec()
    }

    /// The members of the cluster, by id.
    pub fn members(&self) -> Vec<pb::Member> {
        self.cluster.load().members.values().cloned().collect()
    }

    /// The version all members speak, once it has been agreed on.
    pub fn cluster_version(&self) -> Option<String> {
        self.cluster.load().version.clone()
    }

    /// How much room the state takes.
    ///
    /// # Errors
    /// When RocksDB does not say.
    pub fn sizes(&self) -> Result<Sizes, Fault> {
        let mut in_use = self.views.bytes_in_use();
        for row in self.storage.scan(Column::Meta, b"", None) {
            let (key, value) = row?;
            in_use += (key.len() + value.len()) as i64;
        }
        let on_disk = i64::try_from(self.storage.size_on_disk()?).unwrap_or(i64::MAX);
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
        let compaction = hash::Compaction {
            scheduled: self.view().compacted(),
            finished: self.views.compaction_finished(),
        };
        hash::all(&self.storage, &self.cluster.load(), compaction)
    }

    /// The revision up to which superseded records have been deleted, -1 before the first compaction.
    pub fn compaction_finished(&self) -> i64 {
        self.views.compaction_finished()
    }

    /// Blocks until the records superseded at `revision` are deleted; false when the time ran out first.
    pub fn wait_compacted(&self, revision: i64, timeout: Duration) -> bool {
        self.views.wait_compacted(revision, timeout)
    }

    /// The last entry that would survive a crash.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn persisted_applied(&self) -> Result<LogId, Fault> {
        mvcc::persisted_applied(&self.storage)
    }

    /// Brings everything applied by now to disk, beside the commands; gives the last entry that would survive a crash.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn flush(&self) -> Result<LogId, Fault> {
        flush(&self.storage, self.view().applied())
    }

    /// Has RocksDB rewrite its files without what has been deleted. Blocks the caller alone.
    pub fn rocksdb_compaction(&self) {
        self.storage.rocksdb_compaction();
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}
