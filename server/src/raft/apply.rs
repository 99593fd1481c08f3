//! The `apply` thread: the one place where committed entries become state.
//!
//! What has queued up is applied as one group. Its order of events is fixed:
//! readers see the group, watchers are told, `applied` moves, the proposers get
//! their replies. A storage stall holds up this thread and nothing else.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use mutants::Mutant;
use openraft::storage::ApplyResponder;
use raftlog::Log;
use state::{Fault, LogId};
use tokio::sync::{mpsc, oneshot};

use super::apply_timing::Timing;
use super::codec;
use super::machine::Machine;
use super::peers::Peers;
use super::status::Shared;
use super::types::TypeConfig;
use super::{ApplySink, fatal};
use crate::metrics::METRICS;
use crate::threads::{self, Running};

/// Entries of one group: bounds the memory of a batch, not its speed.
const GROUP_ENTRIES_MAX: usize = 4096;
/// Jobs that may wait. When full, openraft's worker waits; it applies nothing while a group takes long anyway.
const JOBS_MAX: usize = 256;
/// Bytes of log read at once in a replay.
const REPLAY_BYTES: usize = 8 << 20;

/// Entries with whom to tell the results.
pub(crate) type Batch = Vec<(state::Entry, Option<Waiter>)>;

/// Who waits for an entry to be applied.
pub(crate) enum Waiter {
    /// Whoever proposed it to openraft here.
    Here(ApplyResponder<TypeConfig>),
    /// Whoever sent it to the leader from here, under this number.
    Forwarded(u64),
}

enum Job {
    Apply(Batch),
    /// Where the state stands.
    Position(oneshot::Sender<Position>),
    /// Has the state on disk cover at least all but so many of the applied entries.
    Persist {
        behind_max: u64,
        done: oneshot::Sender<Position>,
    },
    /// Has the files of another member's state become this one's.
    Install {
        files: PathBuf,
        done: oneshot::Sender<Position>,
    },
}

/// An applied entry, and the membership as of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Position {
    pub applied: LogId,
    pub membership: Option<(LogId, Bytes)>,
}

/// The way to the thread.
#[derive(Clone)]
pub(crate) struct Applier {
    jobs: mpsc::Sender<Job>,
}

impl Applier {
    /// Replays what the log knows to be committed, then starts the thread.
    pub fn start(
        mut machine: impl Machine,
        mut sink: impl ApplySink,
        status: Arc<Shared>,
        peers: Peers,
        log: &Log,
        timing: Timing,
    ) -> anyhow::Result<(Self, Thread)> {
        replay(&mut machine, &mut sink, log)?;
        status.set_committed(machine.applied().index);
        status.set_applied(machine.applied().index);
        let (jobs, inbox) = mpsc::channel(JOBS_MAX);
        let mut worker = Worker { machine, sink, status, peers, inbox, timing };
        let running = threads::start("apply", async move {
            let _guard = AbortOnPanic;
            worker.tell_members();
            worker.run().await;
            worker.status.stop();
            worker.machine.flush()
        })?;
        Ok((Self { jobs }, Thread { running }))
    }

    pub async fn apply(&self, batch: Batch) -> io::Result<()> {
        self.jobs.send(Job::Apply(batch)).await.map_err(|_| gone())
    }

    pub async fn position(&self) -> io::Result<Position> {
        let (sender, receiver) = oneshot::channel();
        self.jobs.send(Job::Position(sender)).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())
    }

    pub async fn persist(&self, behind_max: u64) -> io::Result<Position> {
        let (done, receiver) = oneshot::channel();
        self.jobs.send(Job::Persist { behind_max, done }).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())
    }

    pub async fn install(&self, files: PathBuf) -> io::Result<Position> {
        let (done, receiver) = oneshot::channel();
        self.jobs.send(Job::Install { files, done }).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())
    }
}

/// The running thread; it ends once every [`Applier`] is gone.
pub(crate) struct Thread {
    running: Running<Result<LogId, Fault>>,
}

impl Thread {
    /// Waits until everything queued is applied and on disk.
    pub fn join(self) -> Result<(), Fault> {
        match self.running.join() {
            Ok(result) => result.map(|_| ()),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// As [`Thread::join`], on the runtime that does the work.
    #[cfg(feature = "simulation")]
    pub async fn ended(self) -> anyhow::Result<()> {
        self.running.ended().await??;
        Ok(())
    }
}

fn gone() -> io::Error {
    io::Error::other("the apply thread has ended")
}

/// State that a panic has left half changed must not be served.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            fatal(&"the apply thread panicked");
        }
    }
}

fn replay(machine: &mut impl Machine, sink: &mut impl ApplySink, log: &Log) -> anyhow::Result<()> {
    let begin = log.state().purged.map_or(0, |purged| purged.index + 1);
    // In the log's numbering, where the state's index n is n - 1.
    let mut next = machine.applied().index;
    anyhow::ensure!(
        next >= begin,
        "the state ends at entry {next}, but the raft log begins only after entry {begin}: the state directory was \
         replaced or lost"
    );
    // Nor may a lost log pass for a new one: with it went the vote. A member that has just been sent its state has
    // none but a vote.
    anyhow::ensure!(
        next == 0 || log.state().last.is_some() || log.vote().is_some(),
        "the state ends at entry {next}, but the raft log is empty: it was removed or lost"
    );
    let end = log.committed().map_or(0, |committed| committed.index + 1);
    if next < end {
        tracing::info!(from = next + 1, to = end, "replaying the raft log");
    }
    while next < end {
        let entries = log.read(next..end, REPLAY_BYTES)?;
        anyhow::ensure!(
            entries.first().is_some_and(|first| first.log_id.index == next),
            "the raft log has no entry {}",
            next + 1
        );
        let mut batch = Vec::with_capacity(entries.len());
        for entry in entries {
            batch.push(codec::state_entry(codec::decode_entry(entry)?));
        }
        next += batch.len() as u64;
        let applied = machine.apply(batch)?;
        sink.applied(applied.blocks, applied.lease_changes, machine.applied());
    }
    if mutants::on(Mutant::ApplyTwice) {
        let again = log.read(begin.max(end.saturating_sub(10))..end, REPLAY_BYTES)?;
        let again = again.into_iter().map(|entry| Ok(codec::state_entry(codec::decode_entry(entry)?)));
        machine.apply(again.collect::<io::Result<_>>()?)?;
    }
    Ok(())
}

struct Worker<M, S> {
    machine: M,
    sink: S,
    status: Arc<Shared>,
    peers: Peers,
    inbox: mpsc::Receiver<Job>,
    timing: Timing,
}

impl<M: Machine, S: ApplySink> Worker<M, S> {
    async fn run(&mut self) {
        while let Some(job) = self.inbox.recv().await {
            threads::turn().await;
            let mut next = Some(job);
            while let Some(job) = next.take() {
                match job {
                    Job::Apply(batch) => next = self.gather(batch),
                    Job::Position(done) => answer(done, self.position()),
                    Job::Persist { behind_max, done } => {
                        if let Err(fault) = self.persist(behind_max, done) {
                            fatal(&fault);
                        }
                    }
                    Job::Install { files, done } => {
                        METRICS.server.snapshot_apply_in_progress.set(1);
                        if let Err(fault) = self.machine.install(&files) {
                            fatal(&fault);
                        }
                        let position = self.position();
                        self.sink.replaced(position.applied);
                        self.status.fingerprints.replaced();
                        self.status.forwarded.skipped();
                        self.status.set_committed(position.applied.index);
                        self.status.set_applied(position.applied.index);
                        self.tell_members();
                        METRICS.server.snapshot_apply_in_progress.set(0);
                        answer(done, position);
                    }
                }
            }
        }
    }

    /// Applies the batch together with those that wait behind it; gives back the first job that is another.
    fn gather(&mut self, batch: Batch) -> Option<Job> {
        let (mut entries, mut waiters): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let mut other = None;
        while entries.len() < GROUP_ENTRIES_MAX {
            match self.inbox.try_recv() {
                Ok(Job::Apply(more)) => {
                    for (entry, waiter) in more {
                        entries.push(entry);
                        waiters.push(waiter);
                    }
                }
                Ok(job) => {
                    other = Some(job);
                    break;
                }
                Err(_) => break,
            }
        }
        let ids: Vec<LogId> = entries.iter().map(|entry| entry.log_id).collect();
        let membership =
            entries.iter().any(|entry| matches!(entry.body, state::EntryBody::Membership { .. }));
        let began = Instant::now();
        let applied = match self.machine.apply(entries) {
            Ok(applied) => applied,
            Err(fault) => fatal(&fault),
        };
        self.timing.took(&applied.replies, began.elapsed());
        let last = self.machine.applied();
        self.status.fingerprints.applied(&applied.fingerprints);
        self.sink.applied(applied.blocks, applied.lease_changes, last);
        self.status.set_applied(last.index);
        if membership {
            self.tell_members();
        }
        let mut term = 0;
        for ((log_id, waiter), reply) in ids.into_iter().zip(waiters).zip(applied.replies) {
            if log_id.term != term {
                term = log_id.term;
                self.status.forwarded.term_begins(term);
            }
            match waiter {
                Some(Waiter::Here(responder)) => responder.send(reply),
                Some(Waiter::Forwarded(number)) => self.status.forwarded.applied(number, log_id, reply),
                None => {}
            }
        }
        other
    }

    /// Peers are where the membership says.
    fn tell_members(&self) {
        let Some((_, opaque)) = self.machine.membership() else { return };
        match codec::decode_membership(&opaque) {
            Ok(membership) => {
                let nodes = membership.nodes().map(|(id, node)| (*id, node.peer_urls.as_slice()));
                self.peers.set_all(nodes);
            }
            Err(error) => fatal(&error),
        }
    }

    fn position(&self) -> Position {
        Position { applied: self.machine.applied(), membership: self.machine.membership() }
    }

    /// The state on disk follows by itself, as RocksDB writes what fills its memory; only what lags far is pushed,
    /// on a thread of its own: commands do not wait for it.
    fn persist(&mut self, behind_max: u64, done: oneshot::Sender<Position>) -> Result<(), Fault> {
        let persisted = self.machine.persisted()?;
        let position = self.position();
        let far = persisted.index == 0 || position.applied.index - persisted.index > behind_max;
        // The membership known is the current one: it has to be the persisted one as well.
        let changed = position.membership.as_ref().is_some_and(|(at, _)| at.index > persisted.index);
        if !far && !changed {
            answer(done, Position { applied: persisted, ..position });
            return Ok(());
        }
        let flush = self.machine.flusher();
        let flush = move || {
            let _seconds = METRICS.storage.snap_save_seconds.start_timer();
            flush()
        };
        let flushed = threads::aside("state-flush", move || match flush() {
            // More may have been applied meanwhile; the membership is known only as of before.
            Ok(persisted) => {
                let applied = persisted.min(position.applied);
                if position.membership.as_ref().is_some_and(|(at, _)| *at > applied) {
                    fatal(&"a flush of the state did not reach the membership");
                }
                answer(done, Position { applied, ..position });
            }
            Err(fault) => fatal(&fault),
        });
        if let Err(error) = flushed {
            fatal(&error);
        }
        Ok(())
    }
}

/// Whoever asked may have stopped waiting.
fn answer<T>(done: oneshot::Sender<T>, value: T) {
    done.send(value).ok();
}
