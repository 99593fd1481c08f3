//! Whole clusters on one thread: faults, clocks and chance follow from a seed.
//!
//! ```text
//!   seed ─► plan ─► world ─┬─► hosts: the real members, each on a runtime with a clock of its own
//!                          ├─► net, disk: not real                        │ applied, logs, roles
//!                          ├─► clients, watchers ─► answers ─► oracle ◄───┘
//!                          └─► faults, then none
//! ```
//!
//! Each seed runs in a process of its own: then nothing that one leaves behind
//! reaches the next, and a member that aborts ends only its own run.

mod client;
mod disk;
mod host;
mod interpose;
mod model;
mod mutant;
mod net;
mod oracle;
mod plan;
mod time;
mod watcher;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use parking_lot::Mutex;

use mutant::Mutant;
use plan::{Plan, Wanted};
use time::SECOND;
use world::World;

/// How long a seed may take.
const REAL_MAX: Duration = Duration::from_secs(1_800);

/// Simulates clusters, one a seed.
#[derive(Debug, Parser)]
struct Options {
    /// The seeds, as in 1..1000 (without the last), or one.
    #[arg(long, default_value = "1..101", value_parser = seeds)]
    seeds: Range<u64>,
    /// How many members found the cluster: 1, 3 or 5; 0: as the seed says.
    #[arg(long, default_value_t = 0)]
    members: u64,
    /// Simulated seconds with faults.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many run at once; 0: one a core.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Ends after so many real seconds, even if seeds are left; 0: does not.
    #[arg(long, default_value_t = 0)]
    budget: u64,
    /// Breaks a rule, to see whether that is noticed.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Runs every seed twice, which must be the same.
    #[arg(long)]
    twice: bool,
    /// Says all that happens, of one seed.
    #[arg(long)]
    trace: bool,
    /// Goes on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Runs one seed in this process.
    #[arg(long, hide = true)]
    here: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => number(text).map(|seed| seed..seed + 1),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if options.here { run_here(&options) } else { run_all(&options) }
}

/// Runs one seed in this process, and prints what came of it as words a parent understands.
fn run_here(options: &Options) -> anyhow::Result<ExitCode> {
    if options.trace {
        let level = tracing_subscriber::EnvFilter::try_from_default_env();
        let level = level
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("sim=debug,server=info,openraft=warn"));
        tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).with_ansi(false).init();
    }
    let seed = options.seeds.start;
    let members = match options.members {
        0 => [3, 3, 3, 5, 1][(seed % 5) as usize],
        members => members,
    };
    let wanted = Wanted { seed, members, faulty: options.seconds * SECOND, mutant: options.mutant };
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }?;
    world::heed_panics();
    // A thread that has never asked for anything random: what it is given from the beginning follows from the seed.
    let simulation =
        thread::Builder::new().name("simulation".into()).stack_size(64 << 20).spawn(move || {
            interpose::set_seed(seed);
            interpose::set_now(0);
            World::new(Plan::new(wanted), dir.path())?.run()
        })?;
    let began = Instant::now();
    while !simulation.is_finished() {
        anyhow::ensure!(began.elapsed() < REAL_MAX, "not done in {} real seconds", REAL_MAX.as_secs());
        thread::sleep(Duration::from_millis(2));
    }
    match simulation.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the simulation itself panicked"))) {
        Ok(report) => {
            let cpu = interpose::cpu_nanos();
            println!(
                "simulated={} cpu={cpu} answers={} events={} entries={} elections={} installs={} recovery={} hash={:016x}",
                report.simulated,
                report.answers,
                report.events,
                report.entries,
                report.elections,
                report.installs,
                report.recovery,
                report.hash
            );
            for (fault, count) in report.faults {
                println!("fault:{fault:?}={count}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            println!("failed={error:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What came of one process.
struct Run {
    seed: u64,
    failed: Option<String>,
    numbers: BTreeMap<String, u64>,
    hash: String,
}

fn run_all(options: &Options) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let jobs = if options.jobs == 0 { cores } else { options.jobs };
    let next = AtomicU64::new(options.seeds.start);
    let runs = Mutex::new(Vec::new());
    let out_of_time = || options.budget != 0 && began.elapsed().as_secs() >= options.budget;
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= options.seeds.end || out_of_time() {
                        return;
                    }
                    let mut run = run_seed(options, seed);
                    if options.twice && run.failed.is_none() {
                        let again = run_seed(options, seed);
                        if again.hash != run.hash {
                            run.failed = Some(format!("two runs differ: {} and {}", run.hash, again.hash));
                        }
                    }
                    if let Some(failed) = &run.failed {
                        println!("seed {seed}: {failed}\n  again: {}", again(options, seed));
                        if !options.keep_going {
                            next.store(u64::MAX / 2, Ordering::Relaxed);
                        }
                    }
                    runs.lock().push(run);
                }
            });
        }
    });
    let runs = runs.into_inner();
    summarize(&runs, began);
    Ok(if runs.iter().any(|run| run.failed.is_some()) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The command line that repeats a seed.
fn again(options: &Options, seed: u64) -> String {
    let mutant = options.mutant.and_then(|mutant| clap::ValueEnum::to_possible_value(&mutant));
    let mutant = mutant.map_or(String::new(), |mutant| format!(" --mutant {}", mutant.get_name()));
    format!(
        "cargo run -p sim --features simulation --profile simulation -- --seeds {seed} --members {} --seconds {}{mutant} --trace",
        options.members, options.seconds
    )
}

fn run_seed(options: &Options, seed: u64) -> Run {
    let mut run = Run { seed, failed: None, numbers: BTreeMap::new(), hash: String::new() };
    match spawn(options, seed) {
        Ok((success, output)) => {
            for word in output.lines().flat_map(|line| match line.starts_with("failed=") {
                true => vec![line],
                false => line.split(' ').collect(),
            }) {
                match word.split_once('=') {
                    Some(("failed", why)) => run.failed = Some(why.to_owned()),
                    Some(("hash", hash)) => run.hash = hash.to_owned(),
                    Some((name, number)) => {
                        run.numbers.insert(name.to_owned(), number.parse().unwrap_or(0));
                    }
                    None => {}
                }
            }
            if !success && run.failed.is_none() {
                run.failed = Some(format!("the process ends without a word: {output}"));
            }
        }
        Err(error) => run.failed = Some(format!("{error:#}")),
    }
    run
}

fn spawn(options: &Options, seed: u64) -> anyhow::Result<(bool, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--here").args(["--seeds", &seed.to_string()]);
    command.args(["--members", &options.members.to_string(), "--seconds", &options.seconds.to_string()]);
    if let Some(mutant) = options.mutant.and_then(|mutant| clap::ValueEnum::to_possible_value(&mutant)) {
        command.args(["--mutant", mutant.get_name()]);
    }
    if options.trace {
        command.arg("--trace").stderr(Stdio::inherit());
    } else {
        command.stderr(Stdio::piped());
    }
    let output = command.stdout(Stdio::piped()).spawn()?.wait_with_output().context("a seed's process")?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() && !text.contains("failed=") {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = errors.lines().rev().take(3).collect();
        text = format!("failed=the process ends, {}: {}", output.status, last.join(" | "));
    }
    Ok((output.status.success(), text))
}

fn summarize(runs: &[Run], began: Instant) {
    let sum = |name: &str| runs.iter().filter_map(|run| run.numbers.get(name)).sum::<u64>();
    let hours = sum("simulated") as f64 / SECOND as f64 / 3600.0;
    let cpu = sum("cpu") as f64 / SECOND as f64;
    let failed: Vec<u64> = runs.iter().filter(|run| run.failed.is_some()).map(|run| run.seed).collect();
    println!("seeds                {}", runs.len());
    println!("failed               {} {failed:?}", failed.len());
    println!("simulated hours      {hours:.2}");
    println!("CPU seconds          {cpu:.1}");
    println!("hours per CPU hour   {:.0}", hours * 3600.0 / cpu.max(0.001));
    println!("real seconds         {:.0}", began.elapsed().as_secs_f64());
    println!("answers to clients   {}", sum("answers"));
    println!("changes watched      {}", sum("events"));
    println!("entries decided      {}", sum("entries"));
    println!("elections won        {}", sum("elections"));
    println!("states installed     {}", sum("installs"));
    let slowest = runs.iter().filter_map(|run| run.numbers.get("recovery")).max().copied().unwrap_or(0);
    println!("slowest recovery     {:.1} s", slowest as f64 / SECOND as f64);
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in runs.iter().flat_map(|run| &run.numbers) {
        if let Some(fault) = name.strip_prefix("fault:") {
            *faults.entry(fault).or_default() += count;
        }
    }
    println!("faults               {}", faults.values().sum::<u64>());
    for (fault, count) in faults {
        println!("  {fault:<18} {count}");
    }
}
