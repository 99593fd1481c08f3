//! Log entries in, replies and events out.
//!
//! ```text
//!   entry ─► alarms let it pass? ─► put, delete, txn, lease … ─► reply
//!                                       │ stages rows
//!               every so many entries:  ▼
//!                             Mvcc::commit ─► one batch with the id of the last entry in it,
//!                                           and the fingerprint of all of them
//! ```
//!
//! Invariants
//!  1. What a refused command staged is nothing: all checks come before the first write.
//!  2. An entry at or below `applied` has been applied: it is skipped, whoever sends it again.
//!  3. Nothing here depends on how entries are grouped into calls or batches.

use bytes::Bytes;
use mutants::Mutant;
use prost::Message;
use proto::command::{Command, command::Op};
use proto::etcdserverpb as pb;

use crate::error::Stop;
use crate::fingerprint::Digest;
use crate::home::Home;
use crate::lease::{self, LeaseChange};
use crate::mvcc::Mvcc;
use crate::reader::{self, Reader, Source};
use crate::storage::Storage;
use crate::{Block, Entry, EntryBody, Fault, Fingerprint, LogId, Options, Refusal, Reply, Response};
use crate::{alarm, members, txn};

/// A batch is written at the latest after this many entries …
const ENTRIES_MAX: usize = 2048;
/// … or this many bytes of commands.
const BYTES_MAX: usize = 4 << 20;
/// How many entries lie between those that every member tells its fingerprint of.
pub const FINGERPRINT_INTERVAL: u64 = 1024;

/// The state machine's one writer.
pub struct State {
    pub(crate) home: Home,
    pub(crate) reader: Reader,
    pub(crate) storage: Storage,
    mvcc: Mvcc,
    leases: lease::Table,
    alarms: alarm::Table,
    members: members::Table,
    /// The last entry applied; the last one committed may lag behind within a call.
    pub(crate) applied: LogId,
    /// The hash of everything up to that entry.
    pub(crate) fingerprint: Fingerprint,
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
    /// The fingerprint as of some entries, ascending by index: the last one, and all whose index is a multiple of
    /// [`FINGERPRINT_INTERVAL`], so that members that group entries differently have some in common.
    pub fingerprints: Vec<(u64, Fingerprint)>,
}

impl State {
    /// Opens the state in `options.dir`, or creates an empty one.
    ///
    /// # Errors
    /// When the directory cannot be read, or holds something else.
    pub fn open(options: Options) -> Result<(Self, Reader), Fault> {
        let home = Home::new(options);
        let storage = home.open()?;
        let state = Self::load(home, storage)?;
        let reader = state.reader.clone();
        Ok((state, reader))
    }

    /// The state in a database.
    pub(crate) fn load(home: Home, storage: Storage) -> Result<Self, Fault> {
        let (mut mvcc, views) = Mvcc::open(&storage, home.options())?;
        let leases = lease::Table::load(&storage)?;
        let alarms = alarm::Table::load(&storage)?;
        let mut members = members::Table::load(&storage)?;
        // Not so where a tool changed it, or an older release wrote the rows.
        if let Some(version) = members.version_to_follow() {
            members.set_storage_version(mvcc.batch(), version);
        }
        let (applied, fingerprint) = (mvcc.applied(), mvcc.fingerprint());
        let reader = Reader::new(Source {
            storage: storage.clone(),
            views,
            leases: leases.clone(),
            alarms: alarms.published(),
            cluster: members.published(),
        });
        Ok(Self { home, reader, storage, mvcc, leases, alarms, members, applied, fingerprint })
    }

    /// Applies entries, which must come in log order. When it returns, readers see all of them.
    ///
    /// # Errors
    /// A fault leaves the state in memory undefined: the process must end, and replay the log when it starts again.
    pub fn apply(&mut self, entries: Vec<Entry>) -> Result<Applied, Fault> {
        let mut done = Applied { replies: Vec::with_capacity(entries.len()), ..Applied::default() };
        let (mut staged, mut bytes) = (0, 0);
        for Entry { log_id, body } in entries {
            if log_id.index <= self.applied.index && !mutants::on(Mutant::ApplyTwice) {
                done.replies.push(Reply { revision: self.mvcc.revision(), result: Ok(Response::Done) });
                continue;
            }
            staged += 1;
            bytes += if let EntryBody::Command(command) = &body { command.len() } else { 0 };
            let digest = Digest::of(log_id, &body);
            if mutants::on(Mutant::RepeatCommand) && self.mvcc.revision() % 32 == 0 {
                self.entry(log_id, body.clone(), &mut done.lease_changes).ok();
                done.blocks.extend(self.mvcc.seal());
            }
            let result = match self.entry(log_id, body, &mut done.lease_changes) {
                Ok(response) => Ok(response),
                Err(Stop::Refused(refusal)) => Err(refusal),
                Err(Stop::Failed(fault)) => return Err(fault),
            };
            done.blocks.extend(self.mvcc.seal());
            let reply = Reply { revision: self.mvcc.revision(), result };
            self.applied = log_id;
            self.fingerprint = self.fingerprint.with(digest, &reply);
            if log_id.index.is_multiple_of(FINGERPRINT_INTERVAL) {
                done.fingerprints.push((log_id.index, self.fingerprint));
            }
            done.replies.push(reply);
            if staged >= ENTRIES_MAX || bytes >= BYTES_MAX {
                self.mvcc.commit(self.applied, self.fingerprint)?;
                (staged, bytes) = (0, 0);
            }
        }
        if staged > 0 {
            self.mvcc.commit(self.applied, self.fingerprint)?;
        }
        // Also when nothing was new: where this member stands is worth telling.
        if done.fingerprints.last().is_none_or(|(index, _)| *index != self.applied.index) {
            done.fingerprints.push((self.applied.index, self.fingerprint));
        }
        Ok(done)
    }

    /// The last entry applied.
    pub fn applied(&self) -> LogId {
        self.applied
    }

    /// The hash of everything applied, for comparing with other members that have applied as much.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
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
        reader::flush(&self.storage, self.mvcc.applied())
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
            Op::Downgrade(downgrade) => {
                self.members.set_downgrade(mvcc.batch(), downgrade.target_version);
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
        self.mvcc.commit(self.applied, self.fingerprint)?;
        for key in lease::attached(&self.storage, id)? {
            if mutants::on(Mutant::LeaseLeavesKeys) {
                break;
            }
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
