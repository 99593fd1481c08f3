//! The glue with a state machine in memory: openraft's own storage suite, restarts, kills.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Buf;
use futures::Stream;
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, StorageError};
use parking_lot::Mutex;
use raftlog::{Log, NoObserver, Options, RealDisk};
use state::{Applied, Checkpoint, Entry, EntryBody, Fault, Response};
use tempfile::TempDir;

use super::apply::Applier;
use super::apply_timing::Timing;
use super::log_store::LogStore;
use super::machine::Checkpointer;
use super::send_state::SendState;
use super::state_machine::{SnapshotBuilder, StateFiles, StateMachine};
use super::types::TypeConfig;
use super::*;

/// What the machine keeps: in memory, and as of its last flush.
#[derive(Default)]
struct Disk {
    written: Content,
    persisted: Content,
    /// The process is gone: nothing becomes durable any more.
    dead: bool,
}

#[derive(Clone, Default)]
struct Content {
    applied: LogId,
    membership: Option<(LogId, Bytes)>,
    commands: Vec<Bytes>,
}

#[derive(Clone, Default)]
struct Memory {
    disk: Arc<Mutex<Disk>>,
}

impl Memory {
    /// The machine as a new process finds it after a crash.
    fn crashed(&self) -> Self {
        let persisted = self.disk.lock().persisted.clone();
        Self { disk: Arc::new(Mutex::new(Disk { written: persisted.clone(), persisted, dead: false })) }
    }

    fn commands(&self) -> Vec<Bytes> {
        self.disk.lock().written.commands.clone()
    }
}

impl Machine for Memory {
    fn apply(&mut self, entries: Vec<Entry>) -> Result<Applied, Fault> {
        let content = &mut self.disk.lock().written;
        let mut applied = Applied::default();
        for entry in entries {
            match entry.body {
                EntryBody::Blank => {}
                EntryBody::Command(command) => content.commands.push(command),
                EntryBody::Membership { opaque, .. } => content.membership = Some((entry.log_id, opaque)),
            }
            content.applied = entry.log_id;
            let revision = content.commands.len() as i64;
            applied.replies.push(Reply { revision, result: Ok(Response::Done) });
        }
        Ok(applied)
    }

    fn applied(&self) -> LogId {
        self.disk.lock().written.applied
    }

    fn membership(&self) -> Option<(LogId, Bytes)> {
        self.disk.lock().written.membership.clone()
    }

    fn persisted(&self) -> Result<LogId, Fault> {
        Ok(self.disk.lock().persisted.applied)
    }

    fn flush(&mut self) -> Result<LogId, Fault> {
        let mut disk = self.disk.lock();
        if !disk.dead {
            disk.persisted = disk.written.clone();
        }
        // To a dead process it does not matter what it hears.
        Ok(disk.written.applied)
    }

    fn flusher(&self) -> Box<dyn FnOnce() -> Result<LogId, Fault> + Send> {
        let mut beside = self.clone();
        Box::new(move || beside.flush())
    }

    fn checkpointer(&self) -> Checkpointer {
        let disk = self.disk.clone();
        Box::new(move |dir| {
            let Content { applied, membership, commands } = disk.lock().written.clone();
            let mut file = [applied.term, applied.index].map(u64::to_be_bytes).concat();
            let (at, opaque) = membership.clone().unwrap_or_default();
            file.extend([at.term, at.index].map(u64::to_be_bytes).concat());
            for part in std::iter::once(&opaque).chain(&commands) {
                file.extend((part.len() as u64).to_be_bytes());
                file.extend(part);
            }
            let io = |source| Fault::Io { path: dir.to_owned(), source };
            std::fs::create_dir(dir).and_then(|()| std::fs::write(dir.join("content"), file)).map_err(io)?;
            Ok(Checkpoint { applied, membership, fingerprint: state::Fingerprint::default() })
        })
    }

    fn install(&mut self, files: &Path) -> Result<(), Fault> {
        let io = |source| Fault::Io { path: files.to_owned(), source };
        let mut file = Bytes::from(std::fs::read(files.join("content")).map_err(io)?);
        let mut log_id = || LogId { term: file.get_u64(), index: file.get_u64() };
        let (applied, at) = (log_id(), log_id());
        let mut parts = std::iter::from_fn(|| {
            (!file.is_empty()).then(|| {
                let len = file.get_u64() as usize;
                file.split_to(len)
            })
        });
        let opaque = parts.next().expect("the membership, if only an empty one");
        let membership = (!opaque.is_empty()).then_some((at, opaque));
        let commands = parts.collect();
        let mut disk = self.disk.lock();
        disk.written = Content { applied, membership, commands };
        disk.persisted = disk.written.clone();
        std::fs::remove_dir_all(files).map_err(io)
    }
}

/// Remembers how far it was told.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<LogId>>);

impl ApplySink for Sink {
    fn applied(&mut self, _: Vec<Block>, _: Vec<LeaseChange>, applied: LogId) {
        let mut last = self.0.lock();
        assert!(*last < applied, "told out of order");
        *last = applied;
    }

    fn replaced(&mut self, applied: LogId) {
        *self.0.lock() = applied;
    }
}

struct Builder;

/// The suite hands what one machine built to another: here it becomes the files that a leader would have sent.
struct Suited {
    machine: StateMachine,
    received: PathBuf,
}

impl RaftStateMachine<TypeConfig> for Suited {
    type SnapshotData = StateFiles;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<types::LogId>, types::StoredMembership)> {
        self.machine.applied_state().await
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        self.machine.apply(entries).await
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        self.machine.try_create_snapshot_builder(force).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.machine.try_create_snapshot_builder(true).await.expect("always")
    }

    async fn install_snapshot(&mut self, meta: &types::SnapshotMeta, _: StateFiles) -> io::Result<()> {
        let at = |log_id: &Option<types::LogId>| log_id.as_ref().map(types::state_log_id).unwrap_or_default();
        let membership = &meta.last_membership;
        let content = Content {
            applied: at(&meta.last_log_id),
            membership: membership
                .log_id()
                .is_some()
                .then(|| (at(membership.log_id()), codec::encode_membership(membership.membership()))),
            commands: Vec::new(),
        };
        let memory = Memory::default();
        memory.disk.lock().written = content;
        memory.checkpointer()(&self.received).map_err(io::Error::other)?;
        self.machine.install_snapshot(meta, StateFiles::Received(self.received.clone())).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<Snapshot<types::Term, u64, types::Node, StateFiles>>> {
        self.machine.get_current_snapshot().await
    }
}

impl StoreBuilder<TypeConfig, LogStore, Suited, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Suited), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = Arc::new(RealDisk::open(dir.path()).expect("a folder"));
        let options = Options { ring_bytes: 256, fsync: false, ..Options::default() };
        let log = Log::open(disk, options, Arc::new(NoObserver)).expect("a log");
        let status = Arc::new(Shared::new(0));
        let peers = Peers::new(9, 7, Dialer::default());
        let memory = Memory::default();
        let send_state = SendState::new(memory.checkpointer(), dir.path().join("send")).expect("a folder");
        let timing = Timing::new(Duration::ZERO);
        let (applier, _thread) =
            Applier::start(memory, Quiet, status.clone(), peers, &log, timing).expect("an apply thread");
        let machine = StateMachine::new(7, applier, 0, Arc::new(send_state));
        let received = dir.path().join("received");
        Ok((dir, LogStore::new(log, status), Suited { machine, received }))
    }
}

/// The suite applies what it likes, in any order.
struct Quiet;

impl ApplySink for Quiet {
    fn applied(&mut self, _: Vec<Block>, _: Vec<LeaseChange>, _: LogId) {}

    fn replaced(&mut self, _: LogId) {}
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

#[test]
fn openrafts_storage_suite_passes() {
    // It sleeps a second after each of its cases; nothing in it depends on the clock.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(Suite::test_all(Builder)).expect("the suite passes");
}

fn config(dir: &Path) -> RaftConfig {
    let member = state::Node {
        id: 7,
        name: "m1".into(),
        peer_urls: vec!["http://localhost:2380".into()],
        learner: false,
    };
    RaftConfig {
        member_id: 7,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        cluster_id: 9,
        initial_members: vec![member],
        force_new_cluster: false,
        pre_vote: true,
        advance_first_election: true,
        dialer: Dialer::default(),
        known_peers: Vec::new(),
        receive_dir: dir.join("receive"),
        heartbeat_ms: 100,
        election_ms: 1000,
        wal_dir: dir.join("wal"),
        fsync: true,
        slow_apply: Duration::ZERO,
        snapshot_count: 100,
        catchup_entries: 100,
    }
}

fn start(dir: &Path, machine: &Memory) -> Raft {
    Raft::start_machine(config(dir), machine.clone(), Sink::default()).expect("starts")
}

/// Proposes once there is a leader.
async fn led(raft: &Raft) {
    let mut changes = raft.status_watch();
    changes.wait_for(|status| status.leader == 7).await.expect("the member runs");
}

async fn propose(raft: &Raft, range: std::ops::Range<u32>) {
    let proposals: Vec<_> = range.map(|n| raft.propose(Bytes::from(n.to_be_bytes().to_vec()))).collect();
    for proposal in proposals {
        proposal.await.expect("committed");
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<Bytes> {
    range.map(|n| Bytes::from(n.to_be_bytes().to_vec())).collect()
}

#[test]
fn a_single_member_leads_at_once_and_survives_restarts() {
    let dir = tempfile::tempdir().expect("a folder");
    let machine = Memory::default();
    block_on(async {
        let raft = start(dir.path(), &machine);
        led(&raft).await;
        propose(&raft, 0..500).await;
        let status = raft.status();
        assert_eq!((status.member_id, status.leader, status.is_learner), (7, 7, false));
        assert!(status.term >= 1 && status.committed >= status.applied);

        let index = raft.read_index().await.expect("leads");
        raft.wait_applied(index).await.expect("applied");
        assert!(raft.status().applied >= index);
        assert_eq!(machine.commands(), numbers(0..500));
        raft.clone().shutdown().await;
        assert_eq!(raft.propose(Bytes::new()).await.err(), Some(Unavailable::Stopped));

        let term = status.term;
        let raft = start(dir.path(), &machine);
        led(&raft).await;
        assert!(raft.status().term > term);
        propose(&raft, 500..600).await;
        assert_eq!(machine.commands(), numbers(0..600));
        raft.shutdown().await;
    });
}

/// Handing over to one that cannot lead comes to nothing, and the leader goes on.
#[test]
fn a_leader_does_not_hand_over_to_one_without_a_vote() {
    let dir = tempfile::tempdir().expect("a folder");
    block_on(async {
        let raft = start(dir.path(), &Memory::default());
        led(&raft).await;
        // To clients it is a voter. It gets its vote once it has caught up, and it never starts.
        let added = state::Node {
            id: 8,
            name: "m2".into(),
            peer_urls: vec!["http://localhost:1".into()],
            learner: false,
        };
        raft.change(Change::Add(added)).await.expect("a quorum of one");
        assert_eq!(raft.transfer_leader(8).await, Err(Unavailable::TimedOut));
        assert_eq!(raft.transfer_leader(7).await, Ok(()));
        propose(&raft, 0..1).await;
        raft.shutdown().await;
    });
}

/// What was acknowledged is in the log; a state that lost its memory gets it from there.
#[test]
fn a_killed_member_replays_what_its_state_lacks() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut machine = Memory::default();
    block_on(async {
        for round in 0..5 {
            let raft = start(dir.path(), &machine);
            led(&raft).await;
            let index = raft.read_index().await.expect("leads");
            raft.wait_applied(index).await.expect("applied");
            assert_eq!(machine.commands(), numbers(0..round * 300), "round {round}");
            propose(&raft, round * 300..round * 300 + 300).await;
            machine.disk.lock().dead = true;
            raft.shutdown().await;
            machine = machine.crashed();
        }
    });
    let persisted = machine.disk.lock().persisted.applied;
    assert!(persisted.index > 0, "snapshots have persisted something on the way");
}

/// The log stays as long as the settings say, however much is written, and a restart needs only what is left.
#[test]
fn the_log_is_purged_below_what_is_persisted() {
    let dir = tempfile::tempdir().expect("a folder");
    let machine = Memory::default();
    let unsynced = RaftConfig { fsync: false, ..config(dir.path()) };
    block_on(async {
        let raft = Raft::start_machine(unsynced.clone(), machine.clone(), Sink::default()).expect("starts");
        led(&raft).await;
        for round in 0..30 {
            propose(&raft, round * 1000..(round + 1) * 1000).await;
        }
        raft.shutdown().await;
    });
    let disk = Arc::new(RealDisk::open(&unsynced.wal_dir).expect("a folder"));
    let log =
        Log::open(disk, Options { owner: 7, ..Options::default() }, Arc::new(NoObserver)).expect("a log");
    let purged = log.state().purged.expect("something was purged").index;
    assert!((10_000..20_100).contains(&purged), "purged up to {purged} of 30,000");
    log.close().expect("closes");
    block_on(async {
        let raft = start(dir.path(), &machine.crashed());
        led(&raft).await;
        propose(&raft, 0..10).await;
        raft.shutdown().await;
    });
}

#[test]
fn a_lost_log_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let machine = Memory::default();
    block_on(async {
        let raft = start(dir.path(), &machine);
        led(&raft).await;
        propose(&raft, 0..1).await;
        raft.shutdown().await;
    });
    std::fs::remove_dir_all(dir.path().join("wal")).expect("removed");
    let refused = Raft::start_machine(config(dir.path()), machine, Sink::default());
    let error = refused.err().expect("refused").to_string();
    assert!(error.contains("raft log is empty"), "{error}");
}

#[test]
fn a_state_that_lost_more_than_the_log_holds_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = Arc::new(RealDisk::open(&dir.path().join("wal")).expect("a folder"));
    let log =
        Log::open(disk, Options { owner: 7, ..Options::default() }, Arc::new(NoObserver)).expect("a log");
    log.purge(raftlog::LogId { term: 1, index: 5 }).expect("accepted");
    log.close().expect("closes");
    let refused = Raft::start_machine(config(dir.path()), Memory::default(), Sink::default());
    let error = refused.err().expect("refused").to_string();
    assert!(error.contains("raft log begins"), "{error}");
}
