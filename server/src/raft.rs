//! Consensus: every openraft type of the project stays in here.
//!
//! ```text
//!   propose ─► queue ─► proposer ─► openraft ─► raftlog (fsync on its thread)
//!                                      │ committed
//!   read_index ─► queue ─► one round   ▼
//!                             apply thread ─► state ─► sink ─► applied ─► replies
//! ```
//!
//! Threads: `raft` (a runtime of its own, so that nothing delays a heartbeat),
//! `log-flush` and `log-spare` of the log, and `apply`.
//!
//! Invariants
//!  1. A reply is sent after readers see the entry and watchers were told of it.
//!  2. The log is purged only below what the state on disk covers.
//!  3. A fault anywhere ends the process with one line; nothing goes on half alive.
//!  4. Indexes in this interface begin at 1.

mod apply;
mod apply_timing;
mod codec;
mod divergence;
mod first_election;
mod forward;
#[cfg(test)]
mod fuzz;
mod incoming;
mod log_store;
mod lookout;
mod machine;
mod membership;
mod network;
mod peers;
mod pulse;
mod receive_state;
mod requests;
pub mod restored;
mod send_state;
mod start;
mod state_machine;
mod status;
#[cfg(test)]
mod tests;
mod to_leader;
mod types;
mod wire;

use std::fmt::Display;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::peer::Method;
use state::{Block, LeaseChange, LogId, Reply};
use tokio::sync::{oneshot, watch};

use crate::error::Unavailable;
use crate::peer::dial::Dialer;
#[cfg(feature = "simulation")]
pub(crate) use machine::Checkpointer;
pub(crate) use machine::{Machine, Persistent};
use peers::Peers;
use receive_state::ReceiveState;
use requests::Requests;
use status::Shared;

pub use divergence::Divergence;
pub use peers::{CLUSTER_HEADER, FROM_HEADER, MESSAGE_BYTES_MAX, TO_HEADER};
pub use status::Status;

/// After this time the answer of another member is not waited for any more.
const CALL_TIME_MAX: Duration = Duration::from_secs(7);

type Inner = openraft::Raft<types::TypeConfig, state_machine::StateMachine>;

/// Settings of a member's consensus.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// This member's id.
    pub member_id: u64,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// The cluster's id: members of others are not answered.
    pub cluster_id: u64,
    /// The cluster a new member founds; without effect once the log holds a membership. Empty: the member waits
    /// until the leader of a running cluster sends it the log.
    pub initial_members: Vec<state::Node>,
    /// True: the cluster consists of this member alone from here on, whatever the log says.
    pub force_new_cluster: bool,
    /// Whether a member asks for votes before it makes the others vote.
    pub pre_vote: bool,
    /// Whether a member that starts may stand for election before a whole timeout is over.
    pub advance_first_election: bool,
    /// How peers are reached.
    pub dialer: Dialer,
    /// Where the members of a running cluster were found, for a member that has no log yet: id and peer URLs.
    pub known_peers: Vec<(u64, Vec<String>)>,
    /// Folder for the state that a leader sends.
    pub receive_dir: PathBuf,
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u64,
    /// Milliseconds without a leader after which a member campaigns.
    pub election_ms: u64,
    /// Folder of the log.
    pub wal_dir: PathBuf,
    /// False: never sync the log. Survives a killed process, not a power cut.
    pub fsync: bool,
    /// What takes longer to apply is said to be slow; zero: nothing is.
    pub slow_apply: Duration,
    /// Entries between two looks at how much of the log can go.
    pub snapshot_count: u64,
    /// Entries kept in the log for members that fell behind.
    pub catchup_entries: u64,
}

/// A change of who belongs to the cluster. What may be changed when is for the caller to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new member. One that is no learner votes as soon as it has caught up; until then it does not count for a
    /// quorum, so that adding a member that never starts stops nobody.
    Add(state::Node),
    /// A member goes for good.
    Remove(u64),
    /// Other peer URLs.
    Update {
        /// Whose.
        id: u64,
        /// All of them.
        peer_urls: Vec<String>,
    },
    /// A learner gets a vote.
    Promote(u64),
}

/// What this member knows of its way to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// The other member.
    pub id: u64,
    /// Since when every probe was answered; `None`: the last one was not.
    pub active_since: Option<std::time::Instant>,
    /// On the leader: the last entry the other has in its log.
    pub matched: Option<u64>,
}

/// Where the effects of applied entries go besides the state: watchers and the lessor.
pub trait ApplySink: Send + 'static {
    /// Called on the apply thread, in order, after readers see the entries and before their proposers get replies.
    /// Must not block. Called as well for what a start replays from the log.
    fn applied(&mut self, blocks: Vec<Block>, lease_changes: Vec<LeaseChange>, applied: LogId);

    /// The state was replaced by a newer one of another member: what was told so far holds no more.
    fn replaced(&mut self, applied: LogId);
}

/// A handle to this member's consensus; clones are handles to the same.
#[derive(Clone)]
pub struct Raft {
    shared: Arc<Handle>,
}

struct Handle {
    core: Inner,
    peers: Peers,
    receive: Arc<ReceiveState>,
    status: Arc<Shared>,
    requests: Arc<Requests>,
    /// Within which an election that can succeed does.
    election_time: Duration,
    /// Asks the raft thread to stop; it sends on the inner channel when it has.
    stop: Mutex<Option<oneshot::Sender<oneshot::Sender<()>>>>,
}

impl Raft {
    /// Opens the log, replays what the state lacks of it, and starts the threads. A member that is the only voter
    /// leads by the time this returns or within milliseconds.
    ///
    /// # Errors
    /// When the log cannot be opened or does not fit the state.
    pub fn start(
        config: RaftConfig,
        state: state::State,
        reader: state::Reader,
        sink: impl ApplySink,
    ) -> anyhow::Result<Self> {
        Self::start_machine(config, Persistent::new(state, reader), sink)
    }

    fn start_machine(
        config: RaftConfig,
        machine: impl Machine,
        sink: impl ApplySink,
    ) -> anyhow::Result<Self> {
        let status = Arc::new(Shared::new(config.member_id));
        let requests = Arc::new(Requests::default());
        let election_time = Duration::from_millis(config.election_ms);
        let receive = Arc::new(ReceiveState::new(config.receive_dir.clone()));
        let start::Started { core, peers, stop } =
            start::start(config, machine, sink, status.clone(), requests.clone())?;
        let stop = Mutex::new(Some(stop));
        let shared = Handle { core, peers, receive, status, requests, election_time, stop };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// As [`Raft::start`], on the current runtime: gives the log as well, to be looked at.
    #[cfg(feature = "simulation")]
    pub(crate) async fn start_simulated(
        config: RaftConfig,
        disk: (Arc<dyn raftlog::Disk>, raftlog::Options),
        machine: impl Machine,
        sink: impl ApplySink,
    ) -> anyhow::Result<(Self, raftlog::Log)> {
        let status = Arc::new(Shared::new(config.member_id));
        let requests = Arc::new(Requests::default());
        let election_time = Duration::from_millis(config.election_ms);
        let receive = Arc::new(ReceiveState::new(config.receive_dir.clone()));
        let started =
            start::start_simulated(config, disk, machine, sink, status.clone(), requests.clone()).await?;
        let (start::Started { core, peers, stop }, log) = started;
        let stop = Mutex::new(Some(stop));
        let shared = Handle { core, peers, receive, status, requests, election_time, stop };
        Ok((Self { shared: Arc::new(shared) }, log))
    }

    /// The term of the member's vote, and whether it leads in that term, as openraft sees it.
    #[cfg(feature = "simulation")]
    pub fn role(&self) -> (u64, bool) {
        use openraft::async_runtime::WatchReceiver;
        let metrics = self.shared.core.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.current_term, metrics.state == openraft::ServerState::Leader)
    }

    /// Proposes an encoded command; resolves to its reply once it is applied here. It is queued at once, also if the
    /// future is never polled; dropping the future does not take it back.
    pub fn propose(&self, command: Bytes) -> impl Future<Output = Result<Reply, Unavailable>> + Send + use<> {
        self.shared.requests.propose(command)
    }

    /// An index such that a read that waits for it sees everything acknowledged before this call.
    pub fn read_index(&self) -> impl Future<Output = Result<u64, Unavailable>> + Send + use<> {
        self.shared.requests.read_index()
    }

    /// Changes to true once a peer says that this member was removed from the cluster.
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.shared.peers.removed()
    }

    /// Tells once this member is found to have applied something else than its leader.
    pub fn divergence(&self) -> watch::Receiver<Option<Divergence>> {
        self.shared.status.fingerprints.divergence()
    }

    /// Whether the log's disk has not answered for seconds.
    pub fn disk_hangs(&self) -> bool {
        self.shared.status.disk_hangs()
    }

    /// Where consensus runs; what is spawned there must never block.
    pub fn runtime(&self) -> tokio::runtime::Handle {
        self.shared.peers.runtime()
    }

    /// What this member knows now; costs next to nothing.
    pub fn status(&self) -> Status {
        self.shared.status.status()
    }

    /// Tells of every change of leader, term and role. The indexes in it are those of that moment.
    pub fn status_watch(&self) -> watch::Receiver<Status> {
        self.shared.status.watch()
    }

    /// Resolves once readers see the entry at the index.
    pub fn wait_applied(&self, index: u64) -> impl Future<Output = Result<(), Unavailable>> + Send + use<> {
        let status = self.shared.status.clone();
        async move { status.wait_applied(index).await }
    }

    /// Asks another member what only it can answer: a request of a service and its answer, both encoded.
    ///
    /// # Errors
    /// The other member's refusal, or that it cannot be reached.
    pub async fn call(&self, member: u64, method: Method, body: Bytes) -> Result<Bytes, tonic::Status> {
        self.shared.peers.call(member, method, body, CALL_TIME_MAX).await
    }

    /// Refuses what comes from here on, lets what is under way be applied, and brings state and log to disk.
    pub fn shutdown(self) -> impl Future<Output = ()> + Send {
        let stop = self.shared.stop.lock().take();
        async move {
            self.shared.requests.close();
            let (done, stopped) = oneshot::channel();
            if let Some(stop) = stop
                && stop.send(done).is_ok()
            {
                // The thread ends by sending; if it ended otherwise, it has said why.
                stopped.await.ok();
            }
        }
    }
}

/// Ends the process: what a member in this state says cannot be trusted any more.
fn fatal(what: &dyn Display) -> ! {
    tracing::error!(error = %what, "the member stops");
    #[cfg(feature = "simulation")]
    crate::simulation::end_member(what);
    #[cfg(not(feature = "simulation"))]
    std::process::abort()
}
