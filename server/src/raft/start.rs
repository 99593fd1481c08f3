//! Bringing the parts up and down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, EntryPayload, Instant as _, SnapshotPolicy};
use raftlog::{Log, Observer, RealDisk};
use tokio::sync::oneshot;

use super::apply::Applier;
use super::codec;
use super::log_store::LogStore;
use super::machine::Machine;
use super::membership;
use super::network::Network;
use super::peers::Peers;
use super::requests::{self, Requests};
use super::send_state::SendState;
use super::state_machine::StateMachine;
use super::status::Shared;
use super::types::{Entry, Membership, Node, new_log_id};
use crate::metrics::METRICS;

use super::{ApplySink, Inner, RaftConfig, fatal};

/// How often, at least, the raft core is asked whether it still runs.
const PULSE_MAX: Duration = Duration::from_millis(500);
/// Log entries kept however low the setting: openraft must never find the log purged near what it applies.
const KEPT_MIN: u64 = 10_000;

type Stop = oneshot::Sender<oneshot::Sender<()>>;

/// What runs.
pub(crate) struct Started {
    pub core: Inner,
    pub peers: Peers,
    pub stop: Stop,
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
    let options =
        raftlog::Options { owner: config.member_id, fsync: config.fsync, ..raftlog::Options::default() };
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
        let (applier, thread) = match Applier::start(machine, sink, status.clone(), peers.clone(), &log) {
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

struct Member {
    config: RaftConfig,
    log: Log,
    status: Arc<Shared>,
    requests: Arc<Requests>,
    peers: Peers,
    send_state: Arc<SendState>,
}

impl Member {
    async fn up(&self, applier: Applier) -> anyhow::Result<Inner> {
        let config = &self.config;
        let store = LogStore::new(self.log.clone(), self.status.clone());
        let machine = StateMachine::new(config.member_id, applier, config.snapshot_count.saturating_mul(5));
        let network = Network::new(self.peers.clone(), Arc::clone(&self.send_state), self.status.clone());
        let raft = Inner::new(config.member_id, Arc::new(settings(config)?), network, store, machine).await?;
        if !config.initial_members.is_empty() && !raft.is_initialized().await? {
            let nodes = config.initial_members.iter();
            let node = |node: &state::Node| Node {
                name: node.name.clone(),
                peer_urls: node.peer_urls.clone(),
                learner: node.learner,
            };
            let members: BTreeMap<u64, Node> = nodes.map(|member| (member.id, node(member))).collect();
            match raft.initialize(members).await {
                // Another member may have been faster.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if raft.voter_ids().eq([config.member_id]) {
            // Nobody else can lead: no reason to wait for a timeout.
            raft.trigger().elect(false).await?;
        }
        Ok(raft)
    }

    /// Runs until told to stop, or until every handle is gone; gives back whom to tell when all is down.
    async fn run(
        self,
        raft: Inner,
        stopped: oneshot::Receiver<oneshot::Sender<()>>,
    ) -> Option<oneshot::Sender<()>> {
        let way = requests::Way {
            raft: raft.clone(),
            peers: self.peers.clone(),
            status: self.status.clone(),
            member_id: self.config.member_id,
        };
        let proposer = tokio::spawn(requests::propose_all(self.requests.clone(), way.clone()));
        let reader = tokio::spawn(requests::read_all(self.requests.clone(), way));
        tokio::spawn(self.peers.clone().probe_all());
        let done = tokio::select! {
            done = stopped => done.ok(),
            fault = self.look_after(&raft) => fatal(&fault),
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

    /// Publishes roles as they change; resolves to why openraft has ended.
    async fn look_after(&self, raft: &Inner) -> String {
        let (mut roles, metrics) = (raft.server_metrics(), raft.metrics());
        let mut pulse = tokio::time::interval(PULSE_MAX.min(self.election_time() / 4));
        let mut stepping_down = None;
        let mut giving_votes: Option<tokio::task::JoinHandle<()>> = None;
        loop {
            let leads = {
                let role = roles.borrow_and_update();
                let leader = role.current_leader.filter(|leader| self.can_lead(*leader, raft)).unwrap_or(0);
                let own = role.membership_config.membership().get_node(&self.config.member_id);
                self.status.set_role(leader, role.vote.leader_id.term, own.is_some_and(|node| node.learner));
                leader == self.config.member_id
            };
            if self.status.fingerprints.diverged() {
                raft.runtime_config().elect(false);
            }
            if let Err(error) = &metrics.borrow_watched().running_state {
                return format!("raft: {error}");
            }
            self.look_after_disk(raft, &mut stepping_down).await;
            self.send_state.prune();
            if leads && giving_votes.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                giving_votes = Some(tokio::spawn(membership::give_votes(raft.clone())));
            }
            tokio::select! {
                changed = roles.changed() => if changed.is_err() {
                    return "raft: its core has ended".into();
                },
                _ = pulse.tick() => {}
            }
        }
    }

    /// A leader whose disk hangs has another one lead, and says so; it asks again until one does.
    async fn look_after_disk(&self, raft: &Inner, asked: &mut Option<Instant>) {
        if !self.status.disk_hangs() {
            if asked.take().is_some() {
                tracing::info!("the disk of the raft log answers again");
            }
            return;
        }
        if asked.is_some_and(|at| at.elapsed() < self.election_time()) {
            return;
        }
        let again = asked.replace(Instant::now()).is_some();
        let heir = membership::heir(raft, &self.peers);
        if !again {
            tracing::error!(
                wal_dir = %self.config.wal_dir.display(),
                heir = heir.map(|id| format!("{id:x}")),
                "the disk of the raft log hangs: this member leads and serves no more until it answers"
            );
        }
        if let Some(heir) = heir
            && let Err(error) = raft.trigger().transfer_leader(heir).await
        {
            tracing::debug!(%error, "the leadership is not handed over");
        }
    }

    fn election_time(&self) -> Duration {
        Duration::from_millis(self.config.election_ms.max(10))
    }

    /// A leader that has heard of no quorum, or was not heard of, for too long leads no more, whatever the votes say.
    fn can_lead(&self, leader: u64, raft: &Inner) -> bool {
        if self.status.disk_hangs() {
            return false;
        }
        if leader != self.config.member_id {
            return self.status.heard_within(2 * self.election_time());
        }
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let alone = metrics.membership_config.voter_ids().eq([leader]);
        let acked = metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < self.election_time());
        alone || acked
    }
}

/// etcd's two timings in openraft's terms, and its defaults where they are unsafe or small.
fn settings(config: &RaftConfig) -> anyhow::Result<Config> {
    // A follower campaigns after max + random(min, max); etcd's election timeout is the least it waits.
    let min = (config.election_ms * 2 / 5).max(config.heartbeat_ms * 2).max(2);
    let max = (config.election_ms * 3 / 5).max(min + config.heartbeat_ms).max(min + 1);
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
        // A leader that restarts must be elected: its state may lack what it had acknowledged.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    Ok(settings.validate()?)
}
