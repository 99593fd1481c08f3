//! Bringing the parts up and down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, SnapshotPolicy};
use raftlog::{Log, Observer, RealDisk};
use tokio::sync::oneshot;

use super::apply::Applier;
use super::log_store::LogStore;
use super::machine::Machine;
use super::network::Peers;
use super::requests::{self, Requests};
use super::state_machine::StateMachine;
use super::status::Shared;
use super::types::Node;
use crate::metrics::METRICS;

use super::{ApplySink, Inner, RaftConfig, fatal};

/// How often the raft core is asked whether it still runs.
const PULSE: Duration = Duration::from_millis(500);
/// Log entries kept however low the setting: openraft must never find the log purged near what it applies.
const KEPT_MIN: u64 = 10_000;

/// The term of the entries that found a cluster: etcd counts elections from the next one, openraft from 1.
const FOUNDING_TERM: u64 = 1;

pub(crate) type Stop = oneshot::Sender<oneshot::Sender<()>>;

/// Starts everything; returns once the raft thread runs.
pub(crate) fn start(
    config: RaftConfig,
    machine: impl Machine,
    sink: impl ApplySink,
    status: Arc<Shared>,
    requests: Arc<Requests>,
) -> anyhow::Result<Stop> {
    let disk = Arc::new(RealDisk::open(&config.wal_dir)?);
    let options =
        raftlog::Options { owner: config.member_id, fsync: config.fsync, ..raftlog::Options::default() };
    let log = Log::open(disk, options, Arc::new(Meter))?;
    let (applier, thread) = Applier::start(machine, sink, status.clone(), &log)?;
    let (stop, stopped) = oneshot::channel();
    let (ready, started) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("raft".into()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return report(&ready, Err(error.into())),
        };
        let member = Member { config, log: log.clone(), status, requests };
        let done = runtime.block_on(async {
            match member.up(applier).await {
                Ok(raft) => {
                    report(&ready, Ok(()));
                    member.run(raft, stopped).await
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
    started.recv()??;
    Ok(stop)
}

fn report(ready: &std::sync::mpsc::Sender<anyhow::Result<()>>, result: anyhow::Result<()>) {
    ready.send(result).expect("start waits for the first report");
}

/// Counts what the log's flush thread does.
struct Meter;

impl Observer for Meter {
    fn flushed(&self, bytes: usize, sync: Duration) {
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
}

impl Member {
    async fn up(&self, applier: Applier) -> anyhow::Result<Inner> {
        let config = &self.config;
        let store = LogStore::new(self.log.clone(), self.status.clone());
        let machine = StateMachine::new(applier, config.snapshot_count.saturating_mul(5));
        let raft = Inner::new(config.member_id, Arc::new(settings(config)?), Peers, store, machine).await?;
        if !raft.is_initialized().await? {
            let nodes = config.initial_members.iter();
            let members: BTreeMap<u64, Node> = nodes
                .map(|node| (node.id, Node { name: node.name.clone(), peer_urls: node.peer_urls.clone() }))
                .collect();
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
        let proposer = tokio::spawn(requests::propose_all(self.requests.clone(), raft.clone()));
        let reader = tokio::spawn(requests::read_all(self.requests.clone(), raft.clone()));
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
        let mut pulse = tokio::time::interval(PULSE);
        loop {
            {
                let role = roles.borrow_and_update();
                let learner = !role.membership_config.voter_ids().any(|id| id == self.config.member_id);
                let term = FOUNDING_TERM + role.vote.leader_id.term;
                self.status.set_role(role.current_leader.unwrap_or(0), term, learner);
            }
            if let Err(error) = &metrics.borrow_watched().running_state {
                return format!("raft: {error}");
            }
            tokio::select! {
                changed = roles.changed() => if changed.is_err() {
                    return "raft: its core has ended".into();
                },
                _ = pulse.tick() => {}
            }
        }
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
        enable_pre_vote: Some(true),
        // A leader that restarts must be elected: its state may lack what it had acknowledged.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    Ok(settings.validate()?)
}
