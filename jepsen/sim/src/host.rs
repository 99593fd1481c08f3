//! One member's machine: a runtime with a clock of its own, a disk for the log, a folder for the state.
//!
//! Dropping the runtime is the death of the process: no task runs on, nothing is
//! flushed. What the next process finds is what the disk of the log kept and
//! what RocksDB had written to its files by then.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raftlog::fake::{End, FakeDisk, Fault};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use server::node::Settings;
use server::peer::dial::Dialer;
use server::raft::RaftConfig;
use server::simulation::{self, Member, Parts, Witness, Work};
use server::watch;
use state::{Block, Entry, EntryBody, Fingerprint, LogId, Reply};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::disk::Unsynced;
use crate::interpose;
use crate::mutant::Mutant;
use crate::net::{Id, Net};
use crate::oracle::Oracle;
use crate::time::Nanos;

/// The cluster's id.
const CLUSTER: u64 = 0xc1;
/// etcd's default timings, in milliseconds.
const HEARTBEAT_MS: u64 = 100;
pub const ELECTION_MS: u64 = 1_000;

/// How long a host's work waits, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slowness {
    /// A group commit takes at least this …
    pub disk_min: Nanos,
    /// … and at most this.
    pub disk_max: Nanos,
    /// A thread gets its turn after at most this.
    pub turn_max: Nanos,
}

thread_local! {
    static SLOWNESS: Cell<Slowness> = const { Cell::new(Slowness { disk_min: 0, disk_max: 0, turn_max: 0 }) };
}

/// Lets the work of hosts wait, as chance decides.
pub fn install_delays(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    simulation::set_delays(Box::new(move |work| {
        let Slowness { disk_min, disk_max, turn_max } = SLOWNESS.get();
        let nanos = match work {
            Work::Disk => random.random_range(disk_min..=disk_max),
            // Mostly a thread runs at once.
            Work::Thread if random.random_bool(0.8) => 0,
            Work::Thread => random.random_range(0..=turn_max),
        };
        Duration::from_nanos(nanos)
    }));
}

/// What all hosts share.
#[derive(Clone)]
pub struct Common {
    /// What connects them.
    pub net: Net,
    /// Who sees all they do.
    pub oracle: Arc<Mutex<Oracle>>,
    /// The rule that is broken, if one is.
    pub mutant: Option<Mutant>,
    /// Entries between two looks at how much of the log can go.
    pub snapshot_count: u64,
    /// Whether remaining times of leases go into the log.
    pub lease_checkpoint: bool,
    /// Whether a member asks for votes before it makes the others vote.
    pub pre_vote: bool,
}

/// How a host died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The process was killed.
    Kill,
    /// The machine lost its power.
    PowerCut,
}

/// One member's machine.
pub struct Host {
    /// Its number, which is its member id.
    pub id: Id,
    /// How fast its clock goes.
    pub rate: f64,
    /// How slow it is.
    pub slowness: Slowness,
    /// It does nothing until then.
    pub paused_until: Nanos,
    /// When it boots again; `None`: not by itself.
    pub boots_at: Option<Nanos>,
    /// The disk of its log will die in the middle of an operation, or has.
    pub armed: bool,
    dir: PathBuf,
    run: u32,
    disk: FakeDisk,
    local: Nanos,
    stepped: Nanos,
    process: Option<Process>,
}

/// A running process.
struct Process {
    runtime: Runtime,
    origin: tokio::time::Instant,
    began: Nanos,
    member: Arc<Mutex<Option<Member>>>,
    failed: Arc<Mutex<Option<String>>>,
    stopped: Option<oneshot::Receiver<()>>,
}

impl Host {
    /// A machine with empty disks.
    pub fn new(id: Id, dir: &Path, seed: u64, now: Nanos) -> std::io::Result<Self> {
        let dir = dir.join(format!("m{id}"));
        fs::create_dir_all(dir.join("0"))?;
        Ok(Self {
            id,
            rate: 1.0,
            slowness: Slowness::default(),
            paused_until: 0,
            boots_at: Some(now),
            armed: false,
            dir,
            run: 0,
            disk: FakeDisk::new(seed),
            local: now,
            stepped: now,
            process: None,
        })
    }

    /// Whether its process runs, be it paused.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// The member, once it has started; none while it is down or stands still.
    pub fn member(&self, now: Nanos) -> Option<Member> {
        let process = self.process.as_ref().filter(|_| self.paused_until <= now)?;
        process.member.lock().clone()
    }

    /// The member, whether it stands still or not.
    pub fn member_anyway(&self) -> Option<Member> {
        self.process.as_ref()?.member.lock().clone()
    }

    /// Has the host's process do something beside the rest.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(process) = &self.process {
            process.runtime.spawn(work);
        }
    }

    /// Starts the process: as a founder with these others, or into a cluster that has them.
    pub fn boot(&mut self, common: &Common, founders: &[Id], others: &[Id]) -> anyhow::Result<()> {
        self.boots_at = None;
        self.armed = false;
        common.net.power(self.id);
        interpose::set_now(self.local);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let origin = runtime.block_on(async { tokio::time::Instant::now() });
        let parts = self.parts(common, founders, others);
        let member = Arc::new(Mutex::new(None));
        let failed = Arc::new(Mutex::new(None));
        let (id, net, slot, fault) = (self.id, common.net.clone(), member.clone(), failed.clone());
        runtime.spawn(async move {
            let member = match simulation::start(parts).await {
                Ok(member) => member,
                Err(error) => return *fault.lock() = Some(format!("{error:#}")),
            };
            let (stop, stopping) = tokio::sync::watch::channel(false);
            member.node.start_background(&stopping);
            *slot.lock() = Some(member.clone());
            net.listen(id);
            loop {
                let stream = net.accept(id).await;
                let node = member.node.clone();
                tokio::spawn(async move { simulation::serve(&node, stream).await });
                // Kept for as long as the member runs.
                let _ = &stop;
            }
        });
        self.process = Some(Process { runtime, origin, began: self.local, member, failed, stopped: None });
        Ok(())
    }

    fn parts(&self, common: &Common, founders: &[Id], others: &[Id]) -> Parts<Eye> {
        let node = |id: &Id| state::Node {
            id: *id,
            name: format!("m{id}"),
            peer_urls: vec![url(*id)],
            learner: false,
        };
        let dir = self.dir.join(self.run.to_string());
        let mut state = state::Options::new(dir.join("db"));
        // RocksDB writes to disk when told to, and at no other time: its own threads are not simulated.
        state.memory_budget = 1 << 30;
        state.rocksdb_compaction = false;
        state.compaction_sleep = Duration::ZERO;
        let raft = RaftConfig {
            member_id: self.id,
            name: format!("m{}", self.id),
            peer_urls: vec![url(self.id)],
            cluster_id: CLUSTER,
            initial_members: founders.iter().map(node).collect(),
            force_new_cluster: false,
            pre_vote: common.pre_vote,
            dialer: Dialer::over(common.net.of(self.id)),
            known_peers: others.iter().map(|id| (*id, vec![url(*id)])).collect(),
            receive_dir: dir.join("receive"),
            heartbeat_ms: HEARTBEAT_MS,
            election_ms: ELECTION_MS,
            wal_dir: dir.join("wal"),
            fsync: true,
            advance_first_election: true,
            slow_apply: Duration::ZERO,
            snapshot_count: common.snapshot_count,
            catchup_entries: 0,
        };
        let settings = Settings {
            cluster_id: CLUSTER,
            member_id: self.id,
            request_bytes_max: 1 << 20,
            txn_ops_max: 128,
            election_timeout: Duration::from_millis(ELECTION_MS),
            quota_bytes: -1,
            lease_checkpoint: common.lease_checkpoint,
            slow_request: Duration::ZERO,
            strict_reconfig: false,
            learners_max: 1,
        };
        // Small, so that files are changed and read back often.
        let log = raftlog::Options {
            owner: self.id,
            segment_bytes: 64 << 10,
            first_segment_bytes: 16 << 10,
            ring_bytes: 16 << 10,
            ..raftlog::Options::default()
        };
        let disk: Arc<dyn raftlog::Disk> = match common.mutant {
            Some(Mutant::FsyncSkipped) => Arc::new(Unsynced(self.disk.clone())),
            _ => Arc::new(self.disk.clone()),
        };
        let witness = Eye {
            id: self.id,
            oracle: common.oracle.clone(),
            mutant: common.mutant,
            told: 0,
            restarted: false,
        };
        let watches =
            watch::Options { queue_bytes_max: 4 << 10, inbox_bytes_max: 8 << 10, ..Default::default() };
        Parts { raft, settings, state, disk, log, watches, witness }
    }

    /// Lets the process run until this moment of the world; says why it has ended, if it has.
    pub fn step(&mut self, now: Nanos) -> Option<String> {
        if now < self.paused_until {
            return None;
        }
        let passed = ((now - self.stepped) as f64 * self.rate) as Nanos;
        let paused = self.paused_until > self.stepped;
        self.stepped = now;
        interpose::set_now(self.local);
        self.local += passed;
        let process = self.process.as_mut()?;
        SLOWNESS.set(self.slowness);
        let until = process.origin + Duration::from_nanos(self.local - process.began);
        process.runtime.block_on(async {
            if paused {
                // All at once, as for a process that was stopped.
                let gap = until.saturating_duration_since(tokio::time::Instant::now());
                interpose::set_now(self.local);
                tokio::time::advance(gap.saturating_sub(Duration::from_millis(1))).await;
            }
            tokio::time::sleep_until(until).await;
        });
        simulation::ended().or_else(|| process.failed.lock().take())
    }

    /// Ends the process at once; it boots again when told to.
    pub fn crash(&mut self, common: &Common, death: Death) -> anyhow::Result<()> {
        let Some(process) = self.process.take() else { return Ok(()) };
        match death {
            Death::Kill => common.net.close(self.id),
            Death::PowerCut => common.net.silence(self.id),
        }
        let (old, new) = (self.dir.join(self.run.to_string()), self.dir.join((self.run + 1).to_string()));
        copy_state(&old, &new)?;
        self.run += 1;
        interpose::set_now(self.local);
        drop(process.runtime);
        drop(process.member);
        // What the dropped tasks say to each other is of no interest.
        simulation::ended();
        self.disk = self.disk.restart(match death {
            Death::Kill => End::Kill,
            Death::PowerCut => End::PowerCut,
        });
        self.paused_until = 0;
        fs::remove_dir_all(old)?;
        Ok(())
    }

    /// Lets the disk of the log die in the middle of one of the next operations.
    pub fn arm(&mut self, after: u64) {
        if self.is_up() {
            self.disk.arm(after, Fault::Death);
            self.armed = true;
        }
    }

    /// Asks the process to end in good order.
    pub fn stop(&mut self) {
        let Some(member) = self.member_anyway() else { return };
        let Some(process) = &mut self.process else { return };
        let (done, stopped) = oneshot::channel();
        process.stopped = Some(stopped);
        process.runtime.spawn(async move {
            member.node.raft().clone().shutdown().await;
            done.send(()).ok();
        });
    }

    /// Whether the process has ended in good order.
    pub fn has_stopped(&mut self) -> bool {
        let stopped = self.process.as_mut().and_then(|process| process.stopped.as_mut());
        stopped.is_some_and(|stopped| stopped.try_recv().is_ok())
    }
}

/// Where a member's peers reach it.
pub fn url(id: Id) -> String {
    format!("http://m{id}:2380")
}

/// Copies what is on the disk of a state that is open: files that never change are linked.
fn copy_state(from: &Path, to: &Path) -> std::io::Result<()> {
    loop {
        let before = listing(from)?;
        let copied = before.iter().try_for_each(|(file, _)| {
            let target = to.join(file);
            fs::create_dir_all(target.parent().expect("it is below `to`"))?;
            match file.extension().is_some_and(|extension| extension == "sst") {
                true => fs::hard_link(from.join(file), target),
                false => fs::copy(from.join(file), target).map(drop),
            }
        });
        // RocksDB's own threads may have changed something meanwhile.
        if copied.is_ok() && listing(from)? == before {
            fs::create_dir_all(to)?;
            return Ok(());
        }
        fs::remove_dir_all(to)?;
    }
}

fn listing(dir: &Path) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(dir.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name();
            let path = folder.join(&name);
            match entry.metadata() {
                // Checkpoints for others do not outlive a process, nor do locks and RocksDB's messages.
                Ok(data) if data.is_dir() && name != "send" => folders.push(path),
                Ok(data)
                    if data.is_file() && name != "LOCK" && !name.to_string_lossy().starts_with("LOG") =>
                {
                    found.push((path, data.len()));
                }
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Tells the oracle what a member does.
struct Eye {
    id: Id,
    oracle: Arc<Mutex<Oracle>>,
    mutant: Option<Mutant>,
    told: u64,
    /// It has not applied anything since it was opened with something in it.
    restarted: bool,
}

impl Witness for Eye {
    fn opened(&mut self, applied: LogId) {
        self.restarted = applied.index > 0;
        self.oracle.lock().opened(self.id, applied);
    }

    fn applied(&mut self, entries: &[Entry], replies: &[Reply], fingerprints: &[(u64, Fingerprint)]) {
        self.oracle.lock().applied(self.id, entries, replies, fingerprints);
    }

    fn installed(&mut self, applied: LogId) {
        self.oracle.lock().installed(self.id, applied);
    }

    fn applying(&mut self, entries: &mut [Entry]) {
        if self.mutant == Some(Mutant::CommandSkipped)
            && let Some(entry) = entries.iter_mut().find(|entry| matches!(entry.body, EntryBody::Command(_)))
            && std::mem::take(&mut self.restarted)
        {
            entry.body = EntryBody::Blank;
        }
    }

    fn telling(&mut self, blocks: &mut [Block]) {
        let before = self.told;
        self.told += blocks.len() as u64;
        if self.mutant == Some(Mutant::EventLost)
            && before / 300 != self.told / 300
            && let Some(block) = blocks.last_mut()
        {
            block.events.clear();
        }
    }
}
