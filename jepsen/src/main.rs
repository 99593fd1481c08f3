//! `jepsen`: runs workloads under nemeses, checks what clients saw, keeps the evidence.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use jepsen::cell::{recheck, run_cell};
use jepsen::driver::Load;
use jepsen::matrix::{Matrix, UNFIT, Way};
use jepsen::run::{Settings, Unfit};
use jepsen::trials::{self, Trials};
use jepsen::{nemesis, report, say, workload};
use tests::Program;
use tokio::signal::unix::{SignalKind, signal};

/// Tries clusters under faults, and checks what clients saw.
///
/// Exits with 1 where anomalies were found, with 2 where nothing could be said, and with 3 where that is because the
/// nemesis does not fit the machine, the program or the number of members.
#[derive(Debug, Parser)]
#[command(name = "jepsen", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One workload under one nemesis.
    Run(RunArgs),
    /// Checks the history of an earlier run again.
    Check {
        /// The run's directory.
        dir: PathBuf,
    },
    /// Many workloads under many nemeses, each in a process of its own.
    Matrix(MatrixArgs),
    /// Servers that break a rule on purpose, until checkers notice; the program must be made for it.
    Mutants(MutantsArgs),
    /// Puts tables of all results below a directory into a page, between its marks.
    Page {
        /// A Markdown file with the marks `<!-- results: begin -->` and `<!-- results: end -->`, for mutants
        /// `<!-- mutants: begin -->` and `<!-- mutants: end -->`.
        page: PathBuf,
        /// Where matrices and runs left their results.
        results: PathBuf,
    },
    /// The names of workloads and nemeses.
    List,
}

#[derive(Debug, Args)]
struct Common {
    /// Our server.
    #[arg(long, value_name = "PATH", required_unless_present = "real_etcd", conflicts_with = "real_etcd")]
    program: Option<PathBuf>,
    /// etcd's own server.
    #[arg(long, value_name = "PATH")]
    real_etcd: Option<PathBuf>,
    /// Members of the cluster.
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// Clients, each with one request under way.
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// Requests in a second, of all clients together.
    #[arg(long, default_value_t = 250.0)]
    rate: f64,
    /// How long a client waits for an answer, in seconds.
    #[arg(long, default_value_t = 3.0)]
    patience: f64,
    /// Everything random comes from it; chosen at random without.
    #[arg(long)]
    seed: Option<u64>,
    /// One more flag of every member; can be repeated.
    #[arg(long = "flag", value_name = "FLAG", allow_hyphen_values = true)]
    flags: Vec<String>,
    /// Members on the loopback interface, although namespaces are allowed.
    #[arg(long)]
    loopback: bool,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// What clients do.
    #[arg(long)]
    workload: String,
    /// What is done to the cluster: a name, or several joined by `+`.
    #[arg(long, default_value = "none")]
    nemesis: String,
    /// How long clients are at work.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the evidence goes; named after the run without.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The rule that members break; the program must be made for it.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct MatrixArgs {
    /// Workloads, separated by commas; all without.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Nemeses, separated by commas; the groups without.
    #[arg(long, value_delimiter = ',')]
    nemeses: Vec<String>,
    /// How long each cell is at work.
    #[arg(long, default_value_t = 180)]
    seconds: u64,
    /// A selection that is over within 15 minutes; `--seconds` does not count then.
    #[arg(long)]
    short: bool,
    /// Keeps the histories of all cells, not only of those with anomalies.
    #[arg(long)]
    histories: bool,
    /// How many cells are run at once.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Does not run again what the directory has results of: same settings but for the seed, same version of the server.
    #[arg(long)]
    resume: bool,
    /// Where the evidence of every cell goes.
    #[arg(long, default_value = "jepsen-matrix")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct MutantsArgs {
    /// Some of them; all without.
    names: Vec<String>,
    /// How long clients are at work in each run.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How often each is tried until it is caught; 0 for the control alone.
    #[arg(long, default_value_t = 5)]
    attempts: u32,
    /// Leaves out the runs without a mutant, which must be clean.
    #[arg(long)]
    no_control: bool,
    /// Where the evidence of every run goes.
    #[arg(long, default_value = "jepsen-mutants")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().command.run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("jepsen: {error:#}");
            ExitCode::from(if error.is::<Unfit>() { UNFIT } else { 2 })
        }
    }
}

impl Command {
    /// Whether all was well.
    async fn run(self) -> Result<bool> {
        match self {
            Command::Run(args) => args.run().await,
            Command::Check { dir } => {
                let results = recheck(&dir)?;
                println!("{results}");
                Ok(results.anomalies.is_empty())
            }
            Command::Matrix(args) => args.run().await,
            Command::Mutants(args) => args.run().await,
            Command::Page { page, results } => {
                report::page::update(&page, &results)?;
                Ok(true)
            }
            Command::List => {
                println!("workloads:");
                for name in workload::NAMES {
                    let about = workload::by_name(name).map_or("", |workload| workload.about());
                    println!("  {name:20} {about}");
                }
                println!("nemeses:");
                for (name, about, _) in nemesis::NAMES {
                    println!("  {name:20} {about}");
                }
                println!("  {:20} any of several, such as kill+partition", "a+b");
                println!("mutants:");
                for mutant in mutants::ALL {
                    println!("  {:24} {}", mutant.name(), mutant.about());
                }
                Ok(true)
            }
        }
    }
}

impl Common {
    fn settings(&self, workload: &str, nemesis: &str, seed: u64, seconds: u64) -> Result<Settings> {
        ensure!(self.rate > 0.0 && self.clients > 0 && self.members > 0, "there is nothing to run");
        ensure!(self.patience > 0.0, "clients have to wait for answers");
        let path = |path: &Path| {
            std::fs::canonicalize(path).with_context(|| format!("no server at {}", path.display()))
        };
        let program = match (&self.program, &self.real_etcd) {
            (Some(ours), _) => Program::at(path(ours)?, true),
            (None, Some(etcd)) => Program::at(path(etcd)?, false),
            (None, None) => anyhow::bail!("no server to run"),
        };
        Ok(Settings {
            workload: workload.to_owned(),
            nemesis: nemesis.to_owned(),
            seed,
            time: Duration::from_secs(seconds),
            members: self.members,
            program,
            load: Load {
                clients: self.clients,
                rate: self.rate,
                patience: Duration::from_secs_f64(self.patience),
            },
            flags: self.flags.clone(),
            loopback: self.loopback,
            mutant: None,
            control: false,
        })
    }

    /// A seed that is easy to copy, where none was given.
    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| rand::random_range(0..1_000_000))
    }
}

impl RunArgs {
    async fn run(self) -> Result<bool> {
        let seed = self.common.seed();
        let mutant = self.mutant.as_deref().map(trials::named).transpose()?;
        let plain = self.common.settings(&self.workload, &self.nemesis, seed, self.seconds)?;
        let settings = Settings { mutant, ..plain };
        let name = format!("jepsen-{}-{}-{seed}", self.workload, self.nemesis);
        let out = self.out.unwrap_or_else(|| name.into());
        say(format!("seed {seed}: {}", settings.command()));
        let results = run_cell(&settings, &out).await?;
        say(format!("{results}\n{}", out.display()));
        Ok(results.anomalies.is_empty())
    }
}

impl MatrixArgs {
    async fn run(self) -> Result<bool> {
        let seed = self.common.seed();
        let mut matrix = match self.short {
            true => Matrix::short(),
            false => Matrix::full(self.seconds),
        };
        matrix.choose(&self.workloads, &self.nemeses)?;
        let (common, seconds) = (&self.common, matrix.seconds);
        let settings =
            |workload: &str, nemesis: &str, seed| common.settings(workload, nemesis, seed, seconds);
        let way = Way {
            jepsen: std::env::current_exe().context("where this program is")?,
            out: self.out.clone(),
            jobs: self.jobs,
            resume: self.resume,
            histories: self.histories,
        };
        tokio::select! {
            well = matrix.run(seed, settings, &way) => well,
            signal = signalled() => {
                anyhow::bail!("ended by {}; --resume goes on from here", signal?);
            }
        }
    }
}

impl MutantsArgs {
    async fn run(self) -> Result<bool> {
        let trials = Trials::of(&self.names, self.attempts, !self.no_control)?;
        let (common, seconds) = (&self.common, self.seconds);
        let settings =
            |workload: &str, nemesis: &str, seed| common.settings(workload, nemesis, seed, seconds);
        trials.run(common.seed(), settings, &self.out).await
    }
}

/// Waits for a signal that ends this process, so that it does not go without a word.
async fn signalled() -> Result<&'static str> {
    let (mut interrupt, mut terminate, mut hangup) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    })
}
