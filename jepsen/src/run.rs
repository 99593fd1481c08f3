//! One run: a workload under a nemesis on a cluster.
//!
//! Clients are at work for the run's whole time, the nemesis until a little
//! before its end. Then everything is healed, every member is read and hashed,
//! and observers are waited for, so that the history is complete. What kept
//! a run from that is an anomaly as well: a cluster that has a quorum again has
//! to serve again.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use mutants::{Mutant, VARIABLE};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tests::Program;
use tokio::time::{sleep_until, timeout};

use crate::check::Check;
use crate::cluster::{Cluster, Shape};
use crate::driver::{Driver, Load, split};
use crate::history::{Compaction, End, History, Leap, Run};
use crate::nemesis::{self, Pace, Work};
use crate::report::summary;
use crate::stopwatch::{Stopwatch, nanos};
use crate::workload;

/// How long a cluster may take to be whole again, once it is healed.
const HEAL_TIME_MAX: Duration = Duration::from_secs(120);
/// Quiet time before the clients' end, in which the cluster has to serve again.
const RECOVERY: Duration = Duration::from_secs(3);
/// The name under which a run itself finds anomalies.
pub const CHECKER: &str = "run";

/// What is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// One of [`workload::NAMES`].
    pub workload: String,
    /// A name that [`nemesis::by_name`] knows.
    pub nemesis: String,
    /// Everything random comes from it.
    pub seed: u64,
    /// How long clients are at work.
    pub time: Duration,
    /// How many members.
    pub members: usize,
    /// The server.
    pub program: Program,
    /// How clients work.
    pub load: Load,
    /// More flags of every member.
    pub flags: Vec<String>,
    /// Whether members are on the loopback interface although namespaces are allowed.
    pub loopback: bool,
    /// The rule that members break; the program must be made for it.
    pub mutant: Option<Mutant>,
    /// Whether the program could break rules, and is to break none.
    pub control: bool,
}

/// The nemesis cannot do its harm to this cluster on this machine, for this reason.
#[derive(Debug)]
pub struct Unfit(pub String);

impl Unfit {
    /// How it is told.
    pub const PREFIX: &str = "the nemesis does not fit: ";
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Unfit::PREFIX, self.0)
    }
}

impl std::error::Error for Unfit {}

/// What came of it.
#[derive(Debug)]
pub struct Ran {
    /// All that was asked and heard.
    pub history: History,
    /// What the run itself found wrong.
    pub check: Check,
    /// What the nemesis could not do, and what the network was, for people.
    pub notes: Vec<String>,
}

impl Settings {
    /// The command that does the same again.
    pub fn command(&self) -> String {
        format!("jepsen {}", self.args().join(" "))
    }

    /// The arguments of that command.
    pub fn args(&self) -> Vec<String> {
        let program = if self.program.is_ours() { "--program" } else { "--real-etcd" };
        let mut args = vec!["run".to_owned()];
        let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
        option("--workload", self.workload.clone());
        option("--nemesis", self.nemesis.clone());
        option("--seed", self.seed.to_string());
        option("--seconds", self.time.as_secs().to_string());
        option("--members", self.members.to_string());
        option("--clients", self.load.clients.to_string());
        option("--rate", self.load.rate.to_string());
        option("--patience", self.load.patience.as_secs_f64().to_string());
        option(program, self.program.path().display().to_string());
        if let Some(mutant) = self.mutant {
            option("--mutant", mutant.name().to_owned());
        }
        args.extend(self.loopback.then(|| "--loopback".to_owned()));
        args.extend(self.flags.iter().map(|flag| format!("--flag={flag}")));
        args
    }

    /// # Errors
    /// When the program is not made to break rules.
    pub fn ensure_armed(&self) -> Result<()> {
        let said = said(&self.program)?;
        ensure!(
            said.contains(mutants::MARK),
            "{} breaks no rules: it was built without the feature `mutants` (jepsen/README.md says how)",
            self.program.path().display()
        );
        Ok(())
    }

    /// The mutant as results tell of it; a control is one that breaks nothing.
    pub fn told_mutant(&self) -> Option<summary::Mutant> {
        let none = self.control.then(summary::Mutant::none);
        self.mutant.map(summary::Mutant::from).or(none)
    }

    /// Runs it. Members' logs are kept below `logs` where something went wrong.
    ///
    /// # Errors
    /// When it could not begin: nothing is said about the program then.
    pub async fn run(&self, logs: &Path) -> Result<Ran> {
        let workload = workload::by_name(&self.workload).context("no such workload")?;
        let mut nemesis = nemesis::by_name(&self.nemesis).context("no such nemesis")?;
        if self.mutant.is_some() {
            self.ensure_armed()?;
        }
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut shape = self.shape(&mut rng);
        nemesis.prepare(&mut shape);
        let mut cluster = Cluster::start(shape).await.context("the cluster does not start")?;
        if let Some(why) = nemesis.unfit(&cluster) {
            bail!(Unfit(why));
        }
        let clock = Stopwatch::start();
        let endpoints = Arc::from(cluster.endpoints());
        let mut driver = Driver::start(&*workload, self.load.clone(), endpoints, clock, split(&mut rng));
        let ends = clock.began() + self.time;
        let quiet = ends - RECOVERY.min(self.time / 4);
        let pace = Pace::default();
        let mut chance = split(&mut rng);
        let work = match self.nemesis.as_str() {
            "none" => Work::default(),
            _ => nemesis::run(&mut *nemesis, &mut cluster, &mut chance, &pace, clock.began(), quiet).await,
        };
        sleep_until(ends.into()).await;
        driver.stop().await;

        let mut check = Check::new(CHECKER);
        let healed = timeout(HEAL_TIME_MAX, heal(&mut cluster, &mut driver, &*workload)).await;
        let healed = healed.unwrap_or_else(|_| Err(anyhow!("not whole again in {HEAL_TIME_MAX:?}")));
        let ends = healed.unwrap_or_else(|error| {
            check.add("not-healed", Vec::new(), || format!("{error:#}"));
            Vec::new()
        });
        let last = ends.first().map_or(0, |end| end.revision);
        let (operations, watches, complete) = driver.end(last).await;
        if !complete {
            let why = format!("an observer was not told of all events up to revision {last}");
            check.add("observer-starved", Vec::new(), || why);
        }
        for death in cluster.deaths() {
            check.add("member-died", Vec::new(), || death.clone());
        }
        let since = |at: Instant| nanos(at.saturating_duration_since(clock.began()));
        let compacted = cluster.compactions().iter();
        let compactions =
            compacted.map(|&(at, revision)| Compaction { asked: since(at), revision }).collect();
        let leapt = |&(began, ended, most): &(Instant, Instant, Duration)| Leap {
            began: since(began),
            ended: since(ended),
            most: nanos(most),
        };
        let leaps = cluster.leaps().iter().map(leapt).collect();
        let (run, faults) = (self.described()?, work.faults);
        let history = History { run, operations, watches, faults, compactions, leaps, ends };
        let mut notes = vec![format!("network: {}", cluster.network())];
        notes.extend(work.failures.into_iter().map(|failure| format!("nemesis: {failure}")));
        cluster.keep_logs(logs)?;
        Ok(Ran { history, check, notes })
    }

    fn shape(&self, rng: &mut StdRng) -> Shape {
        let mut shape = Shape::new(self.program.clone(), self.members);
        shape.seed = rand::RngExt::random(rng);
        shape.loopback = self.loopback;
        // Watchers that ask for progress get it often enough to check it.
        shape.args.push("--watch-progress-notify-interval=1s".to_owned());
        shape.args.extend(self.flags.iter().cloned());
        shape.env.extend(self.mutant.map(|mutant| (VARIABLE.to_owned(), mutant.name().to_owned())));
        shape
    }

    fn described(&self) -> Result<Run> {
        Ok(Run {
            seed: self.seed,
            command: self.command(),
            workload: self.workload.clone(),
            nemesis: self.nemesis.clone(),
            program: version(&self.program)?,
            members: self.members,
            duration: nanos(self.time),
        })
    }
}

async fn heal(
    cluster: &mut Cluster,
    driver: &mut Driver,
    workload: &dyn workload::Workload,
) -> Result<Vec<End>> {
    cluster.heal_all().await?;
    driver.finish(&workload.finish()).await;
    cluster.finish().await
}

/// What a program says of its version.
fn said(program: &Program) -> Result<String> {
    let path = program.path();
    let said = Command::new(path).arg("--version").output();
    let said = said.with_context(|| format!("asking {} for its version", path.display()))?;
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// `quorate` or `etcd`, and its version.
///
/// # Errors
/// When the program cannot be asked.
pub fn version(program: &Program) -> Result<String> {
    let said = said(program)?;
    let (name, line) = match program.is_ours() {
        true => ("quorate", "Quorate Version: "),
        false => ("etcd", "etcd Version: "),
    };
    let version = said.lines().find_map(|text| text.strip_prefix(line)).unwrap_or("of no version");
    Ok(format!("{name} {version}"))
}
