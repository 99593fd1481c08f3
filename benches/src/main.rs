//! `side-by-side`: our member, or a cluster of ours, and etcd's under the same load, in turns.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use benches::backup::{Side as Tools, backup};
use benches::cases::{Case, Data, load};
use benches::cluster::{failover, join, soak};
use benches::load::connect;
use benches::process::{Usage, reset_peak, usage};
use benches::report::{Outcome, Turn, table};
use clap::Parser;
use tests::{Cluster, Program, Shape};
use tonic::transport::Channel;

/// Measures our member beside etcd's. Programs: `ETCD_BIN` and `REAL_ETCD_BIN`.
#[derive(Debug, Parser)]
struct Args {
    /// Turns of each case on each member.
    #[arg(long, default_value_t = 3)]
    pairs: usize,
    /// Multiplies the requests of a turn.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Keys loaded for the reading cases.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Bytes of each loaded value.
    #[arg(long, default_value_t = 1024)]
    value: usize,
    /// Only cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Members of each side.
    #[arg(long, default_value_t = 1)]
    members: usize,
    /// Instead of the cases: kills the leader so often, and measures the time to the next write.
    #[arg(long)]
    failover: Option<usize>,
    /// Instead of the cases: one more member joins the loaded data while so many clients put.
    #[arg(long)]
    join: Option<usize>,
    /// Instead of the cases: saves and restores the loaded data while so many clients put. Tools: `ETCDCTL_BIN`,
    /// `ETCDUTL_BIN`, `OFFICIAL_ETCDCTL_BIN`, `OFFICIAL_ETCDUTL_BIN`.
    #[arg(long)]
    backup: Option<usize>,
    /// Instead of the cases: 100 clients of our cluster put for so many minutes while its log is purged every 50,000
    /// entries; members that end are counted, and what is missing afterwards is an error.
    #[arg(long)]
    soak: Option<u64>,
    /// Where the SVG goes.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// Whom a case's clients are connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    All,
    Leader,
    Followers,
}

const CASES: [Case; 13] = [
    Case::Put(1),
    Case::Put(100),
    Case::Put(1000),
    Case::Txn,
    Case::KeepAlive,
    Case::WatchLatency,
    Case::WatchFanOut,
    Case::Range { serializable: false },
    Case::Range { serializable: true },
    Case::Count,
    Case::List,
    Case::ListAll,
    Case::StreamAll,
];

/// What more than one member is measured by.
const CLUSTER_CASES: [(Case, Via, &str); 8] = [
    (Case::Put(1), Via::Leader, "put, 1 client, leader"),
    (Case::Put(1), Via::Followers, "put, 1 client, follower"),
    (Case::Put(100), Via::All, "put, 100 clients"),
    (Case::Put(1000), Via::All, "put, 1,000 clients"),
    (Case::Txn, Via::All, "txn"),
    (Case::Range { serializable: false }, Via::Leader, "range, linearizable, leader"),
    (Case::Range { serializable: false }, Via::Followers, "range, linearizable, followers"),
    (Case::Range { serializable: true }, Via::Followers, "range, serializable, followers"),
];

/// Connections of a side, shared among its members.
const CONNECTIONS: usize = 50;

/// Running members with connections to them.
struct Side {
    cluster: Cluster,
    /// Each member's connections.
    channels: Vec<Vec<Channel>>,
}

impl Side {
    async fn start(program: Program, members: usize) -> Result<Self> {
        let cluster = Cluster::start(shape(program, members)).await?;
        let mut channels = Vec::with_capacity(members);
        for url in cluster.endpoints() {
            channels.push(connect(&url, CONNECTIONS.div_ceil(members)).await?);
        }
        Ok(Self { cluster, channels })
    }

    /// Connections in turn to each of the members that are asked for.
    async fn channels(&mut self, via: Via) -> Result<Vec<Channel>> {
        let leader = self.cluster.leader().await?;
        let members = match via {
            Via::All => self.cluster.others(&[]),
            Via::Leader => vec![leader],
            Via::Followers => self.cluster.others(&[leader]),
        };
        ensure!(!members.is_empty(), "a single member has no followers");
        let each = (0..CONNECTIONS).flat_map(|at| members.iter().map(move |&member| (member, at)));
        Ok(each.filter_map(|(member, at)| self.channels[member].get(at).cloned()).collect())
    }

    fn pids(&self) -> Result<Vec<u32>> {
        let pid = |at: usize| self.cluster[at].pid().context("a member has ended");
        (0..self.cluster.len()).map(|at| Ok(pid(at)?.as_raw_nonzero().get() as u32)).collect()
    }

    /// What all members use together.
    fn usage(&self) -> Result<Usage> {
        self.pids()?.into_iter().map(usage).sum()
    }

    async fn turn(&mut self, (case, via): (Case, Via), data: Data, scale: f64) -> Result<Turn> {
        let channels = self.channels(via).await?;
        for pid in self.pids()? {
            reset_peak(pid)?;
        }
        let before = self.usage()?;
        let seen = case.run(&channels, data, scale).await?;
        Ok(Turn { seen, before, after: self.usage()? })
    }
}

/// Members as they are measured: with etcd's default timeouts.
fn shape(program: Program, members: usize) -> Shape {
    let mut shape = Shape::new(program, members).beside_others().arg("--quota-backend-bytes=8589934592");
    (shape.heartbeat_ms, shape.election_ms) = (100, 1000);
    shape
}

/// The time without a leader, on both sides in turns.
async fn failovers(etcd: Program, members: usize, rounds: usize) -> Result<()> {
    ensure!(members >= 3, "--failover needs --members 3 or more");
    let mut ours = Cluster::start(shape(Program::ours(), members)).await?;
    let mut etcd = Cluster::start(shape(etcd, members)).await?;
    let (mut our_times, mut etcd_times) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        our_times.push(failover(&mut ours).await.context("ours")?.as_secs_f64());
        etcd_times.push(failover(&mut etcd).await.context("etcd")?.as_secs_f64());
    }
    for (name, mut times) in [("ours", our_times), ("etcd", etcd_times)] {
        times.sort_by(f64::total_cmp);
        let (first, last) = (times.first().context("a round")?, times.last().context("a round")?);
        let median = times[times.len() / 2];
        println!(
            "{name}: {rounds} leaders killed; first write after {median:.2} s (median), {first:.2} to {last:.2} s"
        );
    }
    ours.finish().await?;
    etcd.finish().await
}

/// What a new member costs, on one side after the other.
async fn joins(etcd: Program, members: usize, data: Data, clients: usize) -> Result<()> {
    for (name, program) in [("ours", Program::ours()), ("etcd", etcd)] {
        let mut cluster = Cluster::start(shape(program.clone(), members)).await?;
        let join = join(&mut cluster, data, clients).await.context(name)?;
        println!(
            "{name}: a member joins {members} with {} keys of {} B under {clients} clients and serves after {:.2} s; \
             put p99 {:.1} ms before, {:.1} ms meanwhile, {:.1} ms at the worst",
            data.keys,
            data.value,
            join.serves.as_secs_f64(),
            join.before_us / 1e3,
            join.meanwhile_us / 1e3,
            join.worst_us / 1e3,
        );
        // etcd needs longer than a client waits to hash so much.
        if program.is_ours() {
            cluster.finish().await?;
        }
    }
    Ok(())
}

/// What a backup costs, on one side after the other.
async fn backups(etcd: Program, data: Data, clients: usize, pairs: usize) -> Result<()> {
    let official =
        |name: &str| std::env::var_os(name).map(PathBuf::from).with_context(|| format!("no {name}"));
    let ours = Tools { server: Program::ours(), etcdctl: Program::etcdctl(), etcdutl: Program::etcdutl() };
    let etcd = Tools {
        server: etcd,
        etcdctl: official("OFFICIAL_ETCDCTL_BIN")?,
        etcdutl: official("OFFICIAL_ETCDUTL_BIN")?,
    };
    for _ in 0..pairs {
        for (name, side) in [("ours", &ours), ("etcd", &etcd)] {
            let seen = backup(side, data, clients).await.context(name)?;
            println!(
                "{name}: {} MiB saved in {:.2} s (tool {} MiB, server {} MiB more, {:.2} s CPU with the puts); put p99 \
                 {:.1} ms before, {:.1} ms meanwhile, {:.1} ms at the worst; restored in {:.2} s (tool {} MiB), serves \
                 {:.2} s after its start",
                seen.file >> 20,
                seen.save.took.as_secs_f64(),
                seen.save.rss_peak >> 20,
                seen.server_grew >> 20,
                seen.server_cpu_s,
                seen.before_us / 1e3,
                seen.meanwhile_us / 1e3,
                seen.worst_us / 1e3,
                seen.restore.took.as_secs_f64(),
                seen.restore.rss_peak >> 20,
                seen.serves.as_secs_f64(),
            );
        }
    }
    Ok(())
}

/// Whether a cluster survives long writing.
async fn soaks(members: usize, minutes: u64) -> Result<()> {
    let shape = shape(Program::ours(), members)
        .arg("--snapshot-count=50000")
        .arg("--auto-compaction-mode=revision")
        .arg("--auto-compaction-retention=10000");
    let mut cluster = Cluster::start(shape).await?;
    let seen = soak(&mut cluster, 100, std::time::Duration::from_secs(60 * minutes)).await?;
    println!(
        "{members} members, {minutes} minutes: {} puts of 1 KiB acknowledged, {} not, {} members ended; nothing is lost",
        seen.acknowledged, seen.failed, seen.ended
    );
    cluster.finish().await
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(minutes) = args.soak {
        return soaks(args.members, minutes).await;
    }
    let etcd = Program::etcd().context("REAL_ETCD_BIN names no etcd to compare with")?;
    let data = Data { keys: args.keys, value: args.value };
    if let Some(rounds) = args.failover {
        return failovers(etcd, args.members, rounds).await;
    }
    if let Some(clients) = args.join {
        return joins(etcd, args.members, data, clients).await;
    }
    if let Some(clients) = args.backup {
        return backups(etcd, data, clients, args.pairs).await;
    }
    let mut ours = Side::start(Program::ours(), args.members).await?;
    let mut etcd = Side::start(etcd, args.members).await?;
    for (name, side) in [("ours", &mut ours), ("etcd", &mut etcd)] {
        let idle = side.usage()?;
        let channels = side.channels(Via::Leader).await?;
        let start = std::time::Instant::now();
        load(&channels, data).await?;
        let loaded = side.usage()?;
        println!(
            "{name}: idle {} MiB; {} keys of {} B loaded in {:.1} s with {:.1} s CPU, then {} MiB",
            idle.rss >> 20,
            data.keys,
            data.value,
            start.elapsed().as_secs_f64(),
            loaded.cpu_s - idle.cpu_s,
            loaded.rss >> 20,
        );
    }
    let mut outcomes = Vec::new();
    let cases: Vec<(Case, Via, &str)> = if args.members == 1 {
        CASES.iter().map(|case| (*case, Via::All, case.name())).collect()
    } else {
        CLUSTER_CASES.to_vec()
    };
    for (case, via, name) in cases {
        if args.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let case = (case, via);
        let mut pairs = Vec::new();
        for _ in 0..args.pairs {
            let ours = ours.turn(case, data, args.scale).await.with_context(|| format!("ours: {name}"))?;
            let etcd = etcd.turn(case, data, args.scale).await.with_context(|| format!("etcd: {name}"))?;
            pairs.push((ours, etcd));
        }
        eprintln!("{name} done");
        outcomes.push(Outcome { case: name, pairs });
    }
    println!("\n{}", table(&outcomes));
    for (name, side) in [("ours", &mut ours), ("etcd", &mut etcd)] {
        for at in 0..side.cluster.len() {
            side.cluster[at].kill().await?;
        }
        let start = std::time::Instant::now();
        for at in 0..side.cluster.len() {
            side.cluster[at].spawn()?;
        }
        side.cluster.ready().await?;
        println!("{name}: serves {:.2} s after a start that follows kill -9", start.elapsed().as_secs_f64());
    }
    if let Some(path) = args.plot {
        std::fs::write(&path, benches::plot::ratios(&outcomes))
            .with_context(|| path.display().to_string())?;
    }
    // Also a check that the load left the same on all members.
    ours.cluster.finish().await?;
    etcd.cluster.finish().await
}
