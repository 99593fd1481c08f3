//! A cluster of members that know each other.
//!
//! Members have numbers, from 0 in the order they were made; a number stays
//! with its name, ports and directory whatever the member's ID becomes. At most
//! [`AT_ONCE`] clusters that wait for their turn run at a time in one test process.

use std::fmt::Debug;
use std::future::Future;
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use proto::etcdserverpb::{self as pb, MemberAddRequest};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::{Authority, Client, Member, Network, Options, Program};

/// Clusters are heavy: with more of them on two cores, elections are late because the processor is.
pub const AT_ONCE: usize = 1;
/// A working cluster needs a second for anything; a broken one has no need of more than this.
const PATIENCE: Duration = Duration::from_secs(60);

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// What a cluster is started as.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The server to run.
    pub program: Program,
    /// How many members it begins with.
    pub members: usize,
    /// Flags of every member.
    pub args: Vec<String>,
    /// Mutual TLS between members and with clients.
    pub tls: bool,
    /// A [`Network`] between the members.
    pub network: bool,
    /// `--heartbeat-interval`.
    pub heartbeat_ms: u64,
    /// `--election-timeout`.
    pub election_ms: u64,
    /// Whether it waits until no other that does so runs in this process.
    pub waits: bool,
    /// Where members are, when not all on the loopback interface.
    pub places: Option<Arc<dyn Places>>,
}

/// Where the members of a cluster are.
pub trait Places: Debug + Send + Sync {
    /// Makes the place of the member of this number and says in its options how it starts there.
    fn place(&self, at: usize, options: &mut Options) -> Result<()>;
}

impl Shape {
    /// So many members with quick elections, over plain connections.
    pub fn new(program: Program, members: usize) -> Shape {
        Shape {
            program,
            members,
            args: Vec::new(),
            tls: false,
            network: false,
            heartbeat_ms: 50,
            election_ms: 500,
            waits: true,
            places: None,
        }
    }

    /// Adds a flag of every member.
    #[must_use]
    pub fn arg(mut self, flag: impl Into<String>) -> Shape {
        self.args.push(flag.into());
        self
    }

    /// Beside others.
    #[must_use]
    pub fn beside_others(mut self) -> Shape {
        self.waits = false;
        self
    }

    /// With mutual TLS everywhere.
    #[must_use]
    pub fn with_tls(mut self) -> Shape {
        self.tls = true;
        self
    }

    /// With a network that can fail.
    #[must_use]
    pub fn with_network(mut self) -> Shape {
        self.network = true;
        self
    }
}

/// Some members, running or not.
pub struct Cluster {
    shape: Shape,
    members: Vec<Member>,
    clients: Vec<Client>,
    network: Option<Network>,
    authority: Option<Authority>,
    dir: TempDir,
    finished: bool,
    _turn: Option<SemaphorePermit<'static>>,
}

impl Cluster {
    /// Starts all members and waits until they serve and follow one leader.
    pub async fn start(shape: Shape) -> Result<Cluster> {
        let mut cluster = Cluster::prepare(shape).await?;
        for member in &mut cluster.members {
            member.spawn()?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Members that know each other, none of them started.
    pub async fn prepare(shape: Shape) -> Result<Cluster> {
        let turn = match shape.waits {
            true => Some(TURNS.acquire().await.expect("nobody closes it")),
            false => None,
        };
        let dir = tempfile::Builder::new().prefix("quorate-").tempdir()?;
        let authority = if shape.tls { Some(Authority::new(dir.path())?) } else { None };
        let network = shape.network.then(Network::new);
        let mut cluster = Cluster {
            members: Vec::new(),
            clients: Vec::new(),
            network,
            authority,
            dir,
            finished: false,
            _turn: turn,
            shape,
        };
        for _ in 0..cluster.shape.members {
            cluster.grow().await?;
        }
        let all = cluster.initial_cluster(cluster.members.iter().map(Member::peer_url));
        for member in &mut cluster.members {
            member.options_mut().initial_cluster = Some(all.clone());
        }
        Ok(cluster)
    }

    /// Waits until every member that was started serves, and all follow one leader.
    pub async fn ready(&mut self) -> Result<usize> {
        for member in &mut self.members {
            if member.runs() {
                member.ready().await?;
            }
        }
        self.leader().await
    }

    /// How many members there are, running or not.
    #[expect(clippy::len_without_is_empty, reason = "a cluster of none is none")]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// The numbers of all members but these.
    pub fn others(&self, but: &[usize]) -> Vec<usize> {
        (0..self.len()).filter(|at| !but.contains(at)).collect()
    }

    /// A client of one member that connects when needed; all users share its connection.
    pub fn client(&self, at: usize) -> Client {
        self.clients[at].clone()
    }

    /// The clients of all members.
    pub fn clients(&self) -> Vec<Client> {
        self.clients.clone()
    }

    /// The client URLs of all members.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::client_url).collect()
    }

    /// The network between the members.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("the shape asked for a network")
    }

    /// Who signs the members' certificates.
    pub fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("the shape asked for TLS")
    }

    /// A directory that goes with the cluster.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The ID of a running member.
    pub async fn id(&self, at: usize) -> Result<u64> {
        let status = eventually("a member tells its ID", || async { Ok(self.clients[at].status().await?) });
        Ok(status.await?.header.unwrap_or_default().member_id)
    }

    /// Who leads, once all members that run, and are not paused, agree on one of them.
    pub async fn leader(&mut self) -> Result<usize> {
        let running: Vec<usize> =
            (0..self.len()).filter(|&at| self.members[at].runs() && !self.members[at].is_paused()).collect();
        self.leader_among(&running).await
    }

    /// Who leads, once all of these agree on one of them.
    pub async fn leader_among(&self, some: &[usize]) -> Result<usize> {
        eventually("members agree on a leader", || async move {
            let mut seen = Vec::new();
            for &at in some {
                let status = timeout(Duration::from_secs(1), self.clients[at].status())
                    .await
                    .with_context(|| format!("member {at} does not answer"))??;
                seen.push((at, status.header.unwrap_or_default().member_id, status.leader, status.raft_term));
            }
            let (_, _, leader, term) = *seen.first().context("somebody is asked")?;
            ensure!(seen.iter().all(|s| s.2 == leader && s.3 == term), "no agreement: {seen:x?}");
            let found = seen.iter().find(|s| s.1 == leader);
            Ok(found.with_context(|| format!("the leader is not among them: {seen:x?}"))?.0)
        })
        .await
    }

    /// Whoever uses it looks at the members' logs itself: none are printed when it goes.
    pub fn keep_quiet(&mut self) {
        self.finished = true;
    }

    /// One more member with ports and a directory, which nobody knows yet; gives its number.
    pub async fn grow(&mut self) -> Result<usize> {
        let at = self.len();
        let mut options = Options::new(self.shape.program.clone());
        options.name = format!("m{at}");
        options.args = vec![
            format!("--heartbeat-interval={}", self.shape.heartbeat_ms),
            format!("--election-timeout={}", self.shape.election_ms),
        ];
        options.args.extend(self.shape.args.iter().cloned());
        if let Some(authority) = &self.authority {
            let certificate = authority.issue(&format!("m{at}"))?;
            options.tls = Some(certificate.clone());
            options.peer_tls = Some(certificate);
        }
        if let Some(places) = &self.shape.places {
            places.place(at, &mut options)?;
        }
        let mut member = Member::prepare(options)?;
        if let Some(network) = &self.network {
            let port = network.attach(member.process(), member.peer_port()).await?;
            let scheme = if self.shape.tls { "https" } else { "http" };
            member.options_mut().peer_url = Some(format!("{scheme}://127.0.0.1:{port}"));
        }
        self.clients.push(Client::lazy(&member.client_url(), member.options_mut().tls.as_ref())?);
        self.members.push(member);
        Ok(at)
    }

    /// Makes a member one of the cluster, by way of another, and prepares its first start; gives its ID.
    ///
    /// A cluster that has not run for long refuses at first, so this tries again.
    pub async fn add(&mut self, at: usize, learner: bool, via: usize) -> Result<u64> {
        let request = MemberAddRequest { peer_ur_ls: vec![self.members[at].peer_url()], is_learner: learner };
        let added = eventually("a member is added", || async {
            match self.clients[via].cluster.clone().member_add(request.clone()).await {
                Ok(added) => Ok(Ok(added.into_inner())),
                Err(status) if status.code() == tonic::Code::Unavailable => Err(status.into()),
                Err(status) => Ok(Err(status)),
            }
        })
        .await??;
        let urls = added.members.iter().flat_map(|member| member.peer_ur_ls.clone());
        let cluster = self.initial_cluster(urls);
        let options = self.members[at].options_mut();
        options.initial_cluster = Some(cluster);
        options.args.retain(|flag| !flag.starts_with("--initial-cluster-state"));
        options.args.push("--initial-cluster-state=existing".to_owned());
        Ok(added.member.context("the answer tells the new member")?.id)
    }

    /// Removes a member by way of another, trying again where the cluster is not yet sure of its quorum.
    pub async fn remove(&self, id: u64, via: usize) -> Result<pb::MemberRemoveResponse> {
        eventually("a member is removed", || async {
            let request = pb::MemberRemoveRequest { id };
            Ok(self.clients[via].cluster.clone().member_remove(request).await?.into_inner())
        })
        .await
    }

    /// Ends a test that went well: all members that run and vote have the same data and know the same members.
    pub async fn finish(mut self) -> Result<()> {
        let mut running = Vec::new();
        for at in 0..self.len() {
            if self.members[at].runs() {
                running.push(at);
            }
        }
        let mut voters = Vec::new();
        for at in running {
            let status = eventually("a member answers", || async { Ok(self.clients[at].status().await?) });
            if !status.await?.is_learner {
                voters.push(at);
            }
        }
        let mut seen = Vec::new();
        let mut revision = 0;
        for at in voters {
            // A linearizable read: from here on the member has all that was acknowledged.
            let read = || async { Ok(self.clients[at].count("\u{1}").await?) };
            eventually("a linearizable read", read).await?;
            if revision == 0 {
                revision = self.clients[at].hash_kv(0).await?.header.unwrap_or_default().revision;
            }
            let hash = self.clients[at].hash_kv(revision).await?;
            let members = eventually("members", || async { Ok(self.clients[at].members(true).await?) });
            seen.push((at, hash.hash, hash.compact_revision, hash.hash_revision, members.await?.members));
        }
        for pair in seen.windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            ensure!(
                (a.1, a.2, a.3) == (b.1, b.2, b.3),
                "hash, compacted and hashed revision of member {}: {:?}, of member {}: {:?}",
                a.0,
                (a.1, a.2, a.3),
                b.0,
                (b.1, b.2, b.3)
            );
            ensure!(a.4 == b.4, "members as {} knows them: {:?}; as {}: {:?}", a.0, a.4, b.0, b.4);
        }
        self.finished = true;
        Ok(())
    }

    /// `name=url` of each URL.
    fn initial_cluster(&self, urls: impl Iterator<Item = String>) -> String {
        let name = |url: &str| {
            let member = self.members.iter().find(|member| member.peer_url() == url);
            member.map_or("unknown", Member::name).to_owned()
        };
        urls.map(|url| format!("{}={url}", name(&url))).collect::<Vec<_>>().join(",")
    }
}

impl Index<usize> for Cluster {
    type Output = Member;

    fn index(&self, at: usize) -> &Member {
        &self.members[at]
    }
}

impl IndexMut<usize> for Cluster {
    fn index_mut(&mut self, at: usize) -> &mut Member {
        &mut self.members[at]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A panic prints them anyway, as each member goes.
        if !self.finished && !std::thread::panicking() {
            for member in &self.members {
                eprintln!("--- last lines of {} ---\n{}", member.name(), member.log_tail());
            }
        }
    }
}

/// Tries until it works, for as long as anything may take; the last error tells why it did not.
pub async fn eventually<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        let result = match timeout(Duration::from_secs(15), attempt()).await {
            Ok(result) => result,
            Err(_) => Err(anyhow!("no answer in 15 s")),
        };
        match result {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("not in {PATIENCE:?}: {what}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
