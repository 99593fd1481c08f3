//! A member inside a simulation of its cluster.
//!
//! It consists of the parts that [`crate::process`] puts together, without the
//! ports for clients: log, consensus, state, watches, leases, and what answers
//! peers. What is not real is below and around them: the log's disk, the
//! connections to peers, and the runtime's clock. All of its work is done by
//! the tasks of the current runtime, so that dropping that runtime is a crash.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use state::{Applied, Block, Fault, LeaseChange, LogId, Reader, Reply, State};

use crate::lessor::Lessor;
use crate::node::{Node, Settings, Sink};
pub use crate::peer::dial::Wire;
use crate::peer::service::PeerService;
use crate::raft::{ApplySink, Checkpointer, Machine, Persistent, Raft, RaftConfig};
use crate::watch::{self, Hub};

/// How long, in real time, a compaction may take.
const COMPACTION_MAX: Duration = Duration::from_secs(60);

/// What has to wait for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A group commit of the log.
    Disk,
    /// What a thread of its own does otherwise.
    Thread,
}

/// Says how long a piece of work waits.
pub type Delays = Box<dyn FnMut(Work) -> Duration>;

/// A connection under way.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>> + Send>>;

/// The network that a member sees.
pub trait Network: Send + Sync {
    /// Connects to an address.
    fn connect(&self, address: String) -> Connecting;
}

/// Is told what a member applies.
pub trait Witness: Send + 'static {
    /// The state was opened, and stands here.
    fn opened(&mut self, applied: LogId);
    /// These entries were applied, and readers see them.
    fn applied(
        &mut self,
        entries: &[state::Entry],
        replies: &[Reply],
        fingerprints: &[(u64, state::Fingerprint)],
    );
    /// The state was replaced by another member's.
    fn installed(&mut self, applied: LogId);
    /// These entries are about to be applied.
    fn applying(&mut self, _entries: &mut [state::Entry]) {}
    /// What was applied is about to be told to watchers.
    fn telling(&mut self, _blocks: &mut [Block]) {}
}

/// What a member is made of.
pub struct Parts<W> {
    /// Its consensus.
    pub raft: RaftConfig,
    /// Its services.
    pub settings: Settings,
    /// Where its state is.
    pub state: state::Options,
    /// The disk of its log.
    pub disk: Arc<dyn raftlog::Disk>,
    /// How it uses that disk.
    pub log: raftlog::Options,
    /// How watches work.
    pub watches: watch::Options,
    /// Who is told what it applies.
    pub witness: W,
}

/// A member that runs.
#[derive(Clone)]
pub struct Member {
    /// As its services see it.
    pub node: Node,
    /// Its log, to be looked at.
    pub log: raftlog::Log,
}

thread_local! {
    static DELAYS: RefCell<Option<Delays>> = const { RefCell::new(None) };
    static ENDED: RefCell<Option<String>> = const { RefCell::new(None) };
    static VOTES_LOST: Cell<bool> = const { Cell::new(false) };
}

/// From now on members on this thread lose their votes when they die: a rule broken on purpose.
pub fn set_votes_lost(lost: bool) {
    VOTES_LOST.set(lost);
}

/// Whether votes are not to be saved.
pub fn votes_are_lost() -> bool {
    VOTES_LOST.get()
}

/// From now on members on this thread work as slowly as this says.
pub fn set_delays(delays: Delays) {
    DELAYS.set(Some(delays));
}

/// Waits as long as a piece of work has to.
pub async fn wait(work: Work) {
    let delay = DELAYS.with_borrow_mut(|delays| delays.as_mut().map(|delays| delays(work)));
    match delay {
        Some(delay) if !delay.is_zero() => tokio::time::sleep(delay).await,
        _ => {}
    }
}

/// Ends a member that can go on no more, as a process would end: its task unwinds, and [`ended`] says why.
pub fn end_member(what: &dyn Display) -> ! {
    ENDED.with_borrow_mut(|ended| ended.get_or_insert_with(|| what.to_string()).clone());
    std::panic::resume_unwind(Box::new("the member has ended"))
}

/// Why a member on this thread has ended since this was last asked.
pub fn ended() -> Option<String> {
    ENDED.take()
}

/// Starts a member on the current runtime.
///
/// # Errors
/// When what is on its disks does not fit together.
pub async fn start<W: Witness>(parts: Parts<W>) -> anyhow::Result<Member> {
    let (state, reader) = State::open(parts.state)?;
    let lessor = Lessor::new(reader.leases());
    let views = reader.clone();
    let hub = Hub::start(Arc::new(move || views.view()), parts.watches)?;
    let witness = Arc::new(parking_lot::Mutex::new(parts.witness));
    witness.lock().opened(state.applied());
    let sink =
        Telling { sink: Sink::new(hub.clone(), lessor.clone(), reader.clone()), witness: witness.clone() };
    let machine =
        Witnessed { machine: Persistent::new(state, reader.clone()), reader: reader.clone(), witness };
    machine.await_compaction();
    let started = Raft::start_simulated(parts.raft, (parts.disk, parts.log), machine, sink).await?;
    let (raft, log) = started;
    Ok(Member { node: Node::new(raft, reader, hub, lessor, parts.settings), log })
}

/// Answers a peer on one connection.
pub async fn serve(node: &Node, stream: Box<dyn Wire>) {
    crate::peer::listen::serve_connection(stream, PeerService::new(node.clone())).await;
}

type Shared<W> = Arc<parking_lot::Mutex<W>>;

/// The real state machine, and somebody who looks on.
struct Witnessed<W> {
    machine: Persistent,
    reader: Reader,
    witness: Shared<W>,
}

impl<W> Witnessed<W> {
    /// Deleting what was compacted is the work of a real thread, which nobody else may notice: it is waited for.
    fn await_compaction(&self) {
        let compacted = self.reader.view().compacted();
        if !self.reader.wait_compacted(compacted, COMPACTION_MAX) {
            end_member(&"a compaction does not end");
        }
    }
}

impl<W: Witness> Machine for Witnessed<W> {
    fn apply(&mut self, mut entries: Vec<state::Entry>) -> Result<Applied, Fault> {
        let seen = entries.clone();
        self.witness.lock().applying(&mut entries);
        let applied = self.machine.apply(entries)?;
        self.await_compaction();
        self.witness.lock().applied(&seen, &applied.replies, &applied.fingerprints);
        Ok(applied)
    }

    fn applied(&self) -> LogId {
        self.machine.applied()
    }

    fn membership(&self) -> Option<(LogId, Bytes)> {
        self.machine.membership()
    }

    fn persisted(&self) -> Result<LogId, Fault> {
        self.machine.persisted()
    }

    fn flush(&mut self) -> Result<LogId, Fault> {
        self.machine.flush()
    }

    fn flusher(&self) -> Box<dyn FnOnce() -> Result<LogId, Fault> + Send> {
        self.machine.flusher()
    }

    fn checkpointer(&self) -> Checkpointer {
        self.machine.checkpointer()
    }

    fn install(&mut self, files: &Path) -> Result<(), Fault> {
        self.machine.install(files)?;
        self.await_compaction();
        self.witness.lock().installed(self.machine.applied());
        Ok(())
    }
}

/// The real sink, behind the same.
struct Telling<W> {
    sink: Sink,
    witness: Shared<W>,
}

impl<W: Witness> ApplySink for Telling<W> {
    fn applied(&mut self, mut blocks: Vec<Block>, lease_changes: Vec<LeaseChange>, applied: LogId) {
        self.witness.lock().telling(&mut blocks);
        self.sink.applied(blocks, lease_changes, applied);
    }

    fn replaced(&mut self, applied: LogId) {
        self.sink.replaced(applied);
    }
}
