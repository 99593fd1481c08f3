//! Bringing the parts up and down.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, EntryPayload, SnapshotPolicy};
use raftlog::{Log, Observer, RealDisk};
use tokio::sync::oneshot;

use super::apply::Applier;
use super::apply_timing::Timing;
use super::codec;
use super::log_store::LogStore;
use super::machine::Machine;
use super::network::Network;
use super::peers::Peers;
use super::requests::{self, Requests};
use super::send_state::SendState;
use super::state_machine::StateMachine;
use super::status::Shared;
use super::to_leader::ToLeader;
use super::types::{Entry, Membership, Node, new_log_id};
use crate::metrics::METRICS;

use super::{ApplySink, Inner, RaftConfig, fatal};

/// Log entries kept however low the setting: openraft must never find the log purged near what it applies.
const KEPT_MIN: u64 = if cfg!(feature = "simulation") { 100 } else { 10_000 };

type Stop = oneshot::Sender<oneshot::Sender<()>>;

/// What runs.
pub(crate) struct Started {
    pub core: Inner,
    pub peers: Peers,
    pub stop: Stop,
}

/// How the log of a member is kept; a new one begins at a segment that nobody can guess.
pub(super) fn log_options(owner: u64) -> raftlog::Options {
    raftlog::Options { owner, first_segment: rand::random_range(1..1 << 31), ..raftlog::Options::default() }
}

/// Starts everything; returns once the raft thread runs.
pub(crate) fn start(
    config: RaftConfig,
    machine: impl Machine,
    sink: impl ApplySink,
    status: Arc<Shared>,
    requests: Arc<Requests>,
) -> anyhow::Result<Started> {
    let disk = Arc::new(RealDisk::open(&config.wal_dir)?);
    let options = raftlog::Options { fsync: config.fsync, ..log_options(config.member_id) };
    let log = Log::open(disk, options, Arc::new(Meter(status.clone())))?;
    if config.force_new_cluster {
        force_new_cluster(&config, &log)?;
    }
    let send_state = SendState::new(machine.checkpointer(), config.receive_dir.with_file_name("send"))?;
    let (stop, stopped) = oneshot::channel();
    let (ready, started) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("raft".into()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return report(&ready, Err(error.into())),
        };
        let peers = {
            let _runtime = runtime.enter();
            Peers::new(config.cluster_id, config.member_id, config.dialer.clone())
        };
        for (id, urls) in &config.known_peers {
            peers.set(*id, urls);
        }
        let (applier, thread) = match Applier::start(
            machine,
            sink,
            status.clone(),
            peers.clone(),
            &log,
            Timing::new(config.slow_apply),
        ) {
            Ok(started) => started,
            Err(error) => return report(&ready, Err(error)),
        };
        let member =
            Member { config, log: log.clone(), status, requests, peers, send_state: Arc::new(send_state) };
        let done = runtime.block_on(async {
            match member.up(applier).await {
                Ok(core) => {
                    report(&ready, Ok((core.clone(), member.peers.clone())));
                    member.run(core, stopped).await
                }
                Err(error) => {
                    report(&ready, Err(error));
                    None
                }
            }
        });
        // With the runtime go openraft's tasks, and with them the last ways to the apply thread: it ends
        // after what is queued.
        drop(runtime);
        if let Err(fault) = thread.join() {
            fatal(&fault);
        }
        if let Err(error) = log.close() {
            fatal(&error);
        }
        if let Some(done) = done {
            done.send(()).ok();
        }
    })?;
    let (core, peers) = started.recv()??;
    Ok(Started { core, peers, stop })
}

/// As [`start`], on the current runtime, over the disk of a simulation.
#[cfg(feature = "simulation")]
pub(crate) async fn start_simulated(
    config: RaftConfig,
    (disk, options): (Arc<dyn raftlog::Disk>, raftlog::Options),
    machine: impl Machine,
    sink: impl ApplySink,
    status: Arc<Shared>,
    requests: Arc<Requests>,
) -> anyhow::Result<(Started, Log)> {
    let bell = Bell { meter: Meter(status.clone()), rung: Arc::default() };
    let rung = Arc::clone(&bell.rung);
    let log = Log::open_manual(disk, options, Arc::new(bell))?;
    tokio::spawn(flush_all(log.clone(), status.clone(), rung));
    let send_state = SendState::new(machine.checkpointer(), config.receive_dir.with_file_name("send"))?;
    let peers = Peers::new(config.cluster_id, config.member_id, config.dialer.clone());
    for (id, urls) in &config.known_peers {
        peers.set(*id, urls);
    }
    let timing = Timing::new(config.slow_apply);
    let (applier, thread) = Applier::start(machine, sink, status.clone(), peers.clone(), &log, timing)?;
    let (stop, stopped) = oneshot::channel();
    let member = Member {
        config,
        log: log.clone(),
        status,
        requests,
        peers: peers.clone(),
        send_state: Arc::new(send_state),
    };
    let core = member.up(applier).await?;
    let (running, its_log) = (core.clone(), log.clone());
    tokio::spawn(async move {
        let done = member.run(running, stopped).await;
        if let Err(error) = thread.ended().await {
            fatal(&error);
        }
        if let Err(error) = its_log.close() {
            fatal(&error);
        }
        if let Some(done) = done {
            done.send(()).ok();
        }
    });
    Ok((Started { core, peers, stop }, log))
}

/// Does what the thread `log-flush` does, as slowly as the simulation's disk is.
#[cfg(feature = "simulation")]
async fn flush_all(log: Log, status: Arc<Shared>, rung: Arc<tokio::sync::Notify>) {
    loop {
        rung.notified().await;
        status.set_flushing(true);
        crate::simulation::wait(crate::simulation::Work::Disk).await;
        log.run_pending();
        status.set_flushing(false);
    }
}

/// Rings when something waits to be written.
#[cfg(feature = "simulation")]
struct Bell {
    meter: Meter,
    rung: Arc<tokio::sync::Notify>,
}

#[cfg(feature = "simulation")]
impl Observer for Bell {
    fn queued(&self) {
        self.rung.notify_one();
    }

    fn flushing(&self) {
        self.meter.flushing();
    }

    fn flushed(&self, bytes: usize, sync: Duration) {
        self.meter.flushed(bytes, sync);
    }
}

/// Puts at the end of the log that this member is the whole cluster, and takes all that stands before it for
/// committed: of the others, who could say otherwise, none is left.
fn force_new_cluster(config: &RaftConfig, log: &Log) -> anyhow::Result<()> {
    // A member that was never one begins as a new cluster anyway.
    let Some(last) = log.state().last else { return Ok(()) };
    let node = Node { name: config.name.clone(), peer_urls: config.peer_urls.clone(), learner: false };
    let id = config.member_id;
    let alone = Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, node)]))?;
    let entry =
        Entry { log_id: new_log_id(last.term, last.index + 1), payload: EntryPayload::Membership(alone) };
    let entry = codec::encode_entry(entry);
    let at = entry.log_id;
    let (sender, written) = std::sync::mpsc::channel();
    log.append(vec![entry], Box::new(move |result| drop(sender.send(result))))?;
    written.recv()??;
    log.hint_committed(Some(at));
    tracing::warn!(
        cluster_id = format!("{:x}", config.cluster_id),
        local_member_id = format!("{id:x}"),
        log_index = at.index + 1,
        "forced a new cluster: all other members are removed"
    );
    Ok(())
}

type Up = anyhow::Result<(Inner, Peers)>;

fn report(ready: &std::sync::mpsc::Sender<Up>, result: Up) {
    ready.send(result).expect("start waits for the first report");
}

/// Watches what the log's flush thread does.
struct Meter(Arc<Shared>);

impl Observer for Meter {
    fn flushing(&self) {
        self.0.set_flushing(true);
    }

    fn flushed(&self, bytes: usize, sync: Duration) {
        self.0.set_flushing(false);
        let storage = &METRICS.storage;
        storage.wal_write_bytes.add(bytes as i64);
        storage.wal_fsync_seconds.observe(sync.as_secs_f64());
    }
}

pub(super) struct Member {
    pub(super) config: RaftConfig,
    log: Log,
    pub(super) status: Arc<Shared>,
    requests: Arc<Requests>,
    pub(super) peers: Peers,
    pub(super) send_state: Arc<SendState>,
}

impl Member {
    async fn up(&self, applier: Applier) -> anyhow::Result<Inner> {
        let config = &self.config;
        let store = LogStore::new(self.log.clone(), self.status.clone());
        let behind_max = config.snapshot_count.saturating_mul(5);
        let machine = StateMachine::new(config.member_id, applier, behind_max, Arc::clone(&self.send_state));
        let network = Network::new(self.peers.clone(), Arc::clone(&self.send_state), self.status.clone());
        let raft = Inner::new(config.member_id, Arc::new(settings(config)?), network, store, machine).await?;
        if !config.initial_members.is_empty() && !raft.is_initialized().await? {
            let members = config.initial_members.iter().cloned();
            let members: BTreeMap<u64, Node> = members.map(|member| (member.id, member.into())).collect();
            match raft.initialize(members).await {
                // Another member may have been faster.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.is_alone(&raft).await {
            // Nobody else can lead: no reason to wait for a timeout.
            raft.trigger().elect(false).await?;
        }
        Ok(raft)
    }

    /// Whether this member is the only voter. The core is asked: what it publishes lags behind.
    async fn is_alone(&self, raft: &Inner) -> bool {
        let id = self.config.member_id;
        let alone =
            raft.with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([id])).await;
        // A core that has ended is found elsewhere.
        alone.unwrap_or(false)
    }

    /// Runs until told to stop, or until every handle is gone; gives back whom to tell when all is down.
    async fn run(
        self,
        raft: Inner,
        stopped: oneshot::Receiver<oneshot::Sender<()>>,
    ) -> Option<oneshot::Sender<()>> {
        let way = requests::Way {
            raft: raft.clone(),
            to_leader: Arc::new(ToLeader::new(self.peers.clone(), self.status.clone())),
            status: self.status.clone(),
            member_id: self.config.member_id,
        };
        let proposer = tokio::spawn(requests::propose_all(self.requests.clone(), way.clone()));
        let reader = tokio::spawn(requests::read_all(self.requests.clone(), way));
        tokio::spawn(self.peers.clone().probe_all());
        let first_election = async {
            if !self.is_alone(&raft).await {
                self.first_election(&raft).await;
            }
            std::future::pending::<Infallible>().await
        };
        let done = tokio::select! {
            done = stopped => done.ok(),
            fault = self.look_after(&raft) => fatal(&fault),
            never = first_election => match never {},
        };
        self.requests.close();
        for task in [proposer, reader] {
            if let Err(error) = task.await {
                fatal(&error);
            }
        }
        if let Err(error) = raft.shutdown().await {
            fatal(&error);
        }
        done
    }
}

/// etcd's two timings in openraft's terms, and its defaults where they are unsafe or small.
fn settings(config: &RaftConfig) -> anyhow::Result<Config> {
    // A follower campaigns after max + random(min, max): between nine tenths of etcd's election timeout and all of it.
    let min = (config.election_ms * 2 / 5).max(config.heartbeat_ms * 2).max(2);
    let max = (config.election_ms / 2).max(min + config.heartbeat_ms).max(min + 1);
    let settings = Config {
        cluster_name: "etcd".into(),
        heartbeat_interval: config.heartbeat_ms.max(1),
        election_timeout_min: min,
        election_timeout_max: max,
        max_payload_entries: 4096,
        max_append_entries: Some(4096),
        api_batch_capacity: 4096,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_count.max(1)),
        max_in_snapshot_log_to_keep: config.catchup_entries.max(KEPT_MIN),
        purge_batch_size: (config.snapshot_count / 2).max(1),
        replication_lag_threshold: config.snapshot_count.saturating_add(config.catchup_entries).max(KEPT_MIN),
        install_snapshot_timeout: 60_000,
        enable_pre_vote: Some(config.pre_vote),
        // Without, `first_election` turns it on when the time has come.
        enable_elect: config.advance_first_election,
        // A leader that restarts must be elected: its state may lack what it had acknowledged.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    Ok(settings.validate()?)
}
