//! The cluster under test: real processes, ours or etcd's, each in its own
//! network namespace.
//!
//! Members have numbers, and a number stays with its address whatever becomes
//! of the member. Where namespaces are not allowed, members are on the loopback
//! interface behind proxies, and [`Cluster::network`] says why.
//!
//! Whoever stops a member here answers for it: one that ended by itself is
//! found when it is next looked at, and kept in [`Cluster::deaths`].

mod members;
mod site;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::future::join_all;
use proto::etcdserverpb::{CompactionRequest, StatusResponse};
use rand::rngs::StdRng;
use tests::{Client, Member, Program, Way, eventually};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::disk::{Disk, Loss, Lost, Names};
use crate::history::End;
use crate::net::{CLIENTS, Counts, Link, Namespaces};

use site::Site;

/// How long a member that can answer takes to, at most.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How long a cluster with a quorum may be without a leader, on a machine that has other things to do, too.
const ELECTION_MAX: Duration = Duration::from_secs(20);

/// What a cluster is started as.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The server to run.
    pub program: Program,
    /// How many members: 1, 3 or 5 as a rule.
    pub members: usize,
    /// Where the network's chances come from.
    pub seed: u64,
    /// Flags of every member.
    pub args: Vec<String>,
    /// Environment variables of every member.
    pub env: Vec<(String, String)>,
    /// `--heartbeat-interval`.
    pub heartbeat_ms: u64,
    /// `--election-timeout`.
    pub election_ms: u64,
    /// Whether members are on the loopback interface although namespaces are allowed.
    pub loopback: bool,
    /// Whether each member has a disk that forgets, and when it does not.
    pub disks: Option<Names>,
    /// Whether each member has a clock of its own.
    pub clocks: bool,
}

impl Shape {
    /// So many members of this program, with etcd's own defaults.
    pub fn new(program: Program, members: usize) -> Shape {
        Shape {
            program,
            members,
            seed: 0,
            args: Vec::new(),
            env: Vec::new(),
            heartbeat_ms: 100,
            election_ms: 1000,
            loopback: false,
            disks: None,
            clocks: false,
        }
    }
}

/// Some members, running or not.
pub struct Cluster {
    inner: tests::Cluster,
    site: Arc<Site>,
    network: String,
    program: Program,
    /// Whether each member is meant to run.
    wanted: Vec<bool>,
    /// Whether each member is one of the cluster.
    belongs: Vec<bool>,
    deaths: Vec<String>,
    compactions: Vec<(Instant, i64)>,
    leaps: Vec<(Instant, Instant, Duration)>,
}

impl Cluster {
    /// Starts all members and waits until they serve and follow one leader.
    pub async fn start(shape: Shape) -> Result<Cluster> {
        let (namespaces, network) = match shape.loopback {
            true => (None, "loopback with proxies, as was asked for".to_owned()),
            false => match Namespaces::new(shape.seed) {
                Ok(namespaces) => (Some(namespaces), "a network namespace for each member".to_owned()),
                Err(why) => {
                    (None, format!("loopback with proxies, as namespaces are not to be had: {why:#}"))
                }
            },
        };
        if namespaces.is_none() {
            tests::skipped("network namespaces", &network);
        }
        let site = Arc::new(Site::new(namespaces, shape.disks, shape.clocks, shape.env));
        let mut inner = tests::Shape::new(shape.program.clone(), shape.members).beside_others();
        inner.args = shape.args;
        inner.heartbeat_ms = shape.heartbeat_ms;
        inner.election_ms = shape.election_ms;
        inner.network = site.namespaces.is_none();
        inner.places = Some(Arc::clone(&site) as Arc<dyn tests::Places>);
        let mut inner = tests::Cluster::prepare(inner).await?;
        inner.keep_quiet();
        let (wanted, belongs) = (vec![true; inner.len()], vec![true; inner.len()]);
        let mut cluster = Cluster {
            inner,
            site,
            network,
            program: shape.program,
            wanted,
            belongs,
            deaths: Vec::new(),
            compactions: Vec::new(),
            leaps: Vec::new(),
        };
        for at in cluster.all() {
            cluster.inner[at].spawn()?;
        }
        for at in cluster.all() {
            // Also one that has ended by now, which says why.
            cluster.inner[at].ready().await?;
        }
        cluster.inner.ready().await?;
        Ok(cluster)
    }

    /// What the network is, for the report.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// The server that runs.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// How many members there are, running or not.
    #[expect(clippy::len_without_is_empty, reason = "a cluster of none is none")]
    pub fn len(&self) -> usize {
        self.all().len()
    }

    /// The numbers of all members, without those that were removed.
    pub fn all(&self) -> Vec<usize> {
        (0..self.inner.len()).filter(|&at| self.belongs[at]).collect()
    }

    /// The numbers of the members that run and are not paused.
    pub fn awake(&mut self) -> Vec<usize> {
        let all = self.all();
        all.into_iter().filter(|&at| self.inner[at].runs() && !self.inner[at].is_paused()).collect()
    }

    /// The members that are down, or are paused.
    pub fn asleep(&mut self) -> Vec<usize> {
        let awake = self.awake();
        self.all().into_iter().filter(|at| !awake.contains(at)).collect()
    }

    /// The most members that may be gone while the others are a quorum.
    pub fn minority(&self) -> usize {
        (self.len() - 1) / 2
    }

    /// The client URLs of all members.
    pub fn endpoints(&self) -> Vec<String> {
        self.inner.endpoints()
    }

    /// A client of one member that connects when needed; all users share its connection.
    pub fn client(&self, at: usize) -> Client {
        self.inner.client(at)
    }

    /// The process, its directory and its flags.
    pub fn member(&self, at: usize) -> &Member {
        &self.inner[at]
    }

    /// Its flags can be changed before it is started again.
    pub fn member_mut(&mut self, at: usize) -> &mut Member {
        &mut self.inner[at]
    }

    /// Where a member's data is.
    pub fn data_dir(&self, at: usize) -> PathBuf {
        self.inner[at].data_dir()
    }

    /// The last lines a member printed.
    pub fn log_tail(&self, at: usize) -> String {
        self.inner[at].log_tail()
    }

    /// Copies what all starts of all members have printed, also of those that were removed since.
    pub fn keep_logs(&self, dir: &Path) -> Result<()> {
        for at in 0..self.inner.len() {
            let to = dir.join(format!("m{at}"));
            std::fs::create_dir_all(&to)?;
            for entry in std::fs::read_dir(self.inner[at].dir())? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with("log.") {
                    std::fs::copy(entry.path(), to.join(entry.file_name()))?;
                }
            }
        }
        Ok(())
    }

    /// Members that ended although nobody ended them, each with its last lines.
    pub fn deaths(&self) -> &[String] {
        &self.deaths
    }

    /// Has old revisions forgotten, by way of one member. Also one that is not answered may be done.
    pub async fn compact(&mut self, via: usize, revision: i64, physical: bool) -> Result<()> {
        self.compactions.push((Instant::now(), revision));
        self.client(via).kv.compact(CompactionRequest { revision, physical }).await?;
        Ok(())
    }

    /// Takes note that monotonic clocks leapt since then, by no more than this.
    pub fn note_leap(&mut self, began: Instant, most: Duration) {
        self.leaps.push((began, Instant::now(), most));
    }

    /// All that was noted: from when until when, and how far.
    pub fn leaps(&self) -> &[(Instant, Instant, Duration)] {
        &self.leaps
    }

    /// All that [`Cluster::compact`] was told: when, and up to which revision.
    pub fn compactions(&self) -> &[(Instant, i64)] {
        &self.compactions
    }

    /// What the members that answer say of themselves.
    pub async fn statuses(&self) -> Vec<(usize, StatusResponse)> {
        let asked = self.all().into_iter().map(|at| async move {
            let status = timeout(ANSWER_MAX, self.client(at).status()).await.ok()?.ok()?;
            Some((at, status))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Who says of itself that it leads, in the latest term; nobody may.
    pub async fn leader(&self) -> Option<usize> {
        let statuses = self.statuses().await;
        let leads = |status: &StatusResponse| {
            status.leader != 0
                && status.header.as_ref().is_some_and(|header| header.member_id == status.leader)
        };
        let leaders = statuses.iter().filter(|(_, status)| leads(status));
        leaders.max_by_key(|(_, status)| status.raft_term).map(|(at, _)| *at)
    }

    /// As [`Cluster::leader`], after the time that electing one may take.
    pub async fn some_leader(&self) -> Result<usize> {
        let elected = timeout(ELECTION_MAX, async {
            loop {
                if let Some(leader) = self.leader().await {
                    return leader;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        elected.await.map_err(|_| anyhow!("nobody leads in {ELECTION_MAX:?}"))
    }

    /// Ends a member's process at once. One that is down stays so.
    pub async fn kill(&mut self, at: usize) -> Result<()> {
        self.notice_death(at);
        self.wanted[at] = false;
        match self.inner[at].runs() {
            true => self.inner[at].kill().await,
            false => Ok(()),
        }
    }

    /// Starts a member that is down, and waits until it serves as far as its peers let it.
    pub async fn start_again(&mut self, at: usize) -> Result<()> {
        self.spawn(at)?;
        self.inner[at].ready().await
    }

    /// As [`Cluster::start_again`], for some at once: they may need each other.
    pub async fn start_all_again(&mut self, some: &[usize]) -> Result<()> {
        for &at in some {
            self.spawn(at)?;
        }
        for &at in some {
            self.inner[at].ready().await?;
        }
        Ok(())
    }

    fn spawn(&mut self, at: usize) -> Result<()> {
        self.notice_death(at);
        self.wanted[at] = true;
        if self.inner[at].runs() {
            return Ok(());
        }
        if let Some(clock) = &mut self.site.homes()[at].clock {
            clock.reset()?;
        }
        self.inner[at].spawn()
    }

    /// Starts a member that may refuse to; gives the last line it said if so.
    pub async fn try_start(&mut self, at: usize, limit: Duration) -> Result<Option<String>> {
        self.spawn(at)?;
        self.wanted[at] = false;
        match timeout(limit, self.inner[at].ready()).await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(_)) => Ok(Some(self.log_tail(at).lines().last().unwrap_or_default().to_owned())),
            Err(_) => Ok(Some(format!("not ready in {limit:?}"))),
        }
    }

    /// From here on the member may end by itself.
    pub fn may_die(&mut self, at: usize) {
        self.notice_death(at);
        self.wanted[at] = false;
    }

    fn notice_death(&mut self, at: usize) {
        if self.wanted[at] && !self.inner[at].runs() {
            self.deaths.push(format!("member {at} ended by itself:\n{}", self.inner[at].log_tail()));
            self.wanted[at] = false;
        }
    }

    /// The machines of some members stop: their processes, and what their disks were not told to keep.
    pub async fn crash(&mut self, some: &[usize], loss: Loss, rng: &mut StdRng) -> Result<Vec<Lost>> {
        for &at in some {
            self.kill(at).await?;
        }
        let crash = |&at: &usize| self.with_disk(at, |disk| disk.crash(loss, rng))?;
        some.iter().map(crash).collect()
    }

    /// Whether members have disks that forget, fill and hang.
    pub fn has_disks(&self) -> bool {
        self.site.homes().iter().all(|home| home.disk.is_some())
    }

    /// Why they have none.
    pub fn why_no_disks(&self) -> &str {
        self.site.why_no_disks()
    }

    /// Does something with a member's disk.
    pub fn with_disk<T>(&self, at: usize, with: impl FnOnce(&mut Disk) -> T) -> Result<T> {
        let mut homes = self.site.homes();
        Ok(with(homes[at].disk.as_mut().context("the cluster has no disks of its own")?))
    }

    /// Whether members have clocks of their own.
    pub fn has_clocks(&self) -> bool {
        self.site.homes().iter().all(|home| home.clock.is_some())
    }

    /// Why they have none.
    pub fn why_no_clocks(&self) -> &str {
        self.site.why_no_clocks()
    }

    pub(crate) fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site)
    }

    /// Does something with a member's clock.
    pub fn with_clock<T>(&self, at: usize, with: impl FnOnce(&mut Clock) -> T) -> Result<T> {
        let mut homes = self.site.homes();
        Ok(with(homes[at].clock.as_mut().context("the cluster has no clocks of its own")?))
    }

    /// Stops a member's process where it is, and waits until all its threads have.
    pub async fn pause(&mut self, at: usize) -> Result<()> {
        if !self.inner[at].runs() {
            return Ok(());
        }
        self.inner[at].pause()?;
        eventually("a process stops", || async {
            ensure!(self.inner[at].is_paused());
            Ok(())
        })
        .await
    }

    /// Lets a paused member go on.
    pub fn resume(&mut self, at: usize) -> Result<()> {
        match self.inner[at].runs() {
            true => self.inner[at].resume(),
            false => Ok(()),
        }
    }

    /// Whether single packets can be lost, or only whole ways be cut and slow.
    pub fn has_packets(&self) -> bool {
        self.site.namespaces.is_some()
    }

    /// Sets the way from one member to another.
    pub fn set_link(&self, from: usize, to: usize, link: Link) -> Result<()> {
        match &self.site.namespaces {
            Some(namespaces) => namespaces.switch().set(from, to, link),
            None if from == CLIENTS || to == CLIENTS => bail!("no proxy is between clients and members"),
            None => {
                ensure!(link.is_of_bytes(), "a proxy does not do {link:?}");
                self.inner.network().set(from, to, Way { cut: link.cut, delay: link.delay });
            }
        }
        Ok(())
    }

    /// What happened to packets on the way from one to another; nothing is known of proxies.
    pub fn link_counts(&self, from: usize, to: usize) -> Option<Counts> {
        Some(self.site.namespaces.as_ref()?.switch().counts(from, to))
    }

    /// All ways let everything through.
    pub fn heal_network(&self) {
        match &self.site.namespaces {
            Some(namespaces) => namespaces.switch().heal(),
            None => self.inner.network().heal(),
        }
    }

    /// Takes back every fault, starts whoever is down and waits until all follow one leader.
    pub async fn heal_all(&mut self) -> Result<()> {
        self.heal_network();
        self.heal_homes()?;
        for at in self.all() {
            self.resume(at)?;
        }
        let all = self.all();
        self.start_all_again(&all).await?;
        self.inner.leader_among(&all).await.context("after everything was healed")?;
        Ok(())
    }

    /// All disks work, and the time of day is everywhere the same.
    pub fn heal_homes(&self) -> Result<()> {
        for home in self.site.homes().iter_mut() {
            if let Some(disk) = &home.disk {
                disk.heal();
            }
            if let Some(clock) = &mut home.clock {
                clock.set_wall(0)?;
            }
        }
        Ok(())
    }

    /// Heals everything and asks each member for the hash of one revision.
    ///
    /// Whether they are the same is for the checker to say.
    pub async fn finish(&mut self) -> Result<Vec<End>> {
        self.heal_all().await?;
        let mut revision = 0;
        for at in self.all() {
            // From a linearizable read on, a member has all that was acknowledged.
            let client = self.client(at);
            let read = || async { Ok(client.count("\u{1}").await?) };
            eventually("a linearizable read of each member", read).await?;
            let now = client.hash_kv(0).await?.header.unwrap_or_default().revision;
            revision = revision.max(now);
        }
        let mut ends = Vec::new();
        for at in self.all() {
            let client = self.client(at);
            let hash = eventually("each member has the last revision", || async {
                Ok(client.hash_kv(revision).await?)
            });
            let hash = hash.await?;
            ends.push(End { member: at, revision, hash: hash.hash, compacted: hash.compact_revision });
        }
        Ok(ends)
    }
}
