//! `side-by-side`: our member and etcd's under the same load, in turns.

use std::path::PathBuf;

use anyhow::{Context, Result};
use benches::cases::{Case, Data, load};
use benches::load::connect;
use benches::process::{reset_peak, usage};
use benches::report::{Outcome, Turn, table};
use clap::Parser;
use tests::{Member, Options, Program};
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
    /// Where the SVG goes.
    #[arg(long)]
    plot: Option<PathBuf>,
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

/// A running member with connections to it.
struct Side {
    member: Member,
    channels: Vec<Channel>,
}

impl Side {
    async fn start(program: Program) -> Result<Self> {
        let options = Options::new(program).arg("--quota-backend-bytes=8589934592");
        let member = Member::start_with(options).await?;
        let channels = connect(&member.client_url(), 50).await?;
        Ok(Self { member, channels })
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.member.pid().context("the member has ended")?.as_raw_nonzero().get() as u32)
    }

    async fn turn(&self, case: Case, data: Data, scale: f64) -> Result<Turn> {
        let pid = self.pid()?;
        reset_peak(pid)?;
        let before = usage(pid)?;
        let seen = case.run(&self.channels, data, scale).await?;
        Ok(Turn { seen, before, after: usage(pid)? })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let etcd = Program::etcd().context("REAL_ETCD_BIN names no etcd to compare with")?;
    let (mut ours, mut etcd) = (Side::start(Program::ours()).await?, Side::start(etcd).await?);
    let data = Data { keys: args.keys, value: args.value };
    for (name, side) in [("ours", &ours), ("etcd", &etcd)] {
        let idle = usage(side.pid()?)?;
        let start = std::time::Instant::now();
        load(&side.channels, data).await?;
        let loaded = usage(side.pid()?)?;
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
    for case in CASES {
        if args.only.as_ref().is_some_and(|only| !case.name().contains(only.as_str())) {
            continue;
        }
        let mut pairs = Vec::new();
        for _ in 0..args.pairs {
            let ours =
                ours.turn(case, data, args.scale).await.with_context(|| format!("ours: {}", case.name()))?;
            let etcd =
                etcd.turn(case, data, args.scale).await.with_context(|| format!("etcd: {}", case.name()))?;
            pairs.push((ours, etcd));
        }
        eprintln!("{} done", case.name());
        outcomes.push(Outcome { case: case.name(), pairs });
    }
    println!("\n{}", table(&outcomes));
    for (name, side) in [("ours", &mut ours), ("etcd", &mut etcd)] {
        side.member.kill().await?;
        let start = std::time::Instant::now();
        side.member.start_again().await?;
        println!("{name}: serves {:.2} s after a start that follows kill -9", start.elapsed().as_secs_f64());
    }
    if let Some(path) = args.plot {
        std::fs::write(&path, benches::plot::ratios(&outcomes))
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}
