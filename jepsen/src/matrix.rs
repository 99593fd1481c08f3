//! Many runs: workloads × nemeses.
//!
//! Each cell is a process of its own, so that one that is killed, aborts or
//! hangs is a line in the table, and the others are run. What is done is in
//! `matrix.md` after every cell, and in the cells' directories: a matrix that
//! was ended itself can be resumed.

mod process;
#[cfg(test)]
mod tests;

pub use process::UNFIT;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use futures::StreamExt;

use crate::report::summary::Results;
use crate::run::{Settings, Unfit, version};
use crate::{nemesis, say, workload};

/// The nemeses of the full matrix: of a group, the one that does all of it.
const FULL: [&str; 19] = [
    "none",
    "kill",
    "pause",
    "partition",
    "slow",
    "lossy",
    "clock-wall",
    "member",
    "transfer",
    "compact",
    "snapshot",
    "disk-full",
    "disk-hang",
    "disk-fail",
    "unsynced",
    "unsynced-all",
    "corrupt-log",
    "corrupt-data",
    "mix",
];
/// How long a cell of the short matrix is at work; with start, end and checks it takes half as long again.
const SHORT_SECONDS: u64 = 15;
/// Every workload, and every nemesis with a workload that is likely to show its harm.
const SHORT: [(&str, &str); 28] = [
    ("register", "kill"),
    ("register", "pause-leader"),
    ("register", "partition"),
    ("register", "transfer"),
    ("register", "mix"),
    ("set", "kill-all"),
    ("set", "unsynced-all"),
    ("set", "disk-full"),
    ("set", "member"),
    ("append", "kill"),
    ("append", "partition"),
    ("append", "lossy"),
    ("txn", "pause"),
    ("txn", "unsynced"),
    ("txn", "snapshot"),
    ("txn", "disk-hang"),
    ("lease", "kill-leader"),
    ("lease", "transfer"),
    ("lease", "clock-wall"),
    ("lock", "pause-leader"),
    ("lock", "partition-leader"),
    ("watch", "kill"),
    ("watch", "pause"),
    ("watch", "snapshot"),
    ("watch", "slow"),
    ("kubernetes", "compact"),
    ("kubernetes", "disk-fail"),
    ("kubernetes", "mix"),
];

/// Which runs.
#[derive(Debug, Clone)]
pub struct Matrix {
    cells: Vec<(String, String)>,
    /// How long each is at work.
    pub seconds: u64,
}

/// What came of a cell: nothing where it could not be run.
struct Cell {
    settings: Settings,
    seed: u64,
    results: Result<Results>,
}

impl Cell {
    /// Where the nemesis does not fit, the table says so, and nothing is wrong.
    fn is_well(&self) -> bool {
        match &self.results {
            Ok(results) => results.anomalies.is_empty(),
            Err(error) => error.is::<Unfit>(),
        }
    }
}

impl Matrix {
    /// Every workload under every group of nemeses.
    pub fn full(seconds: u64) -> Matrix {
        let cells = workload::NAMES
            .iter()
            .flat_map(|workload| FULL.iter().map(|nemesis| ((*workload).to_owned(), (*nemesis).to_owned())));
        Matrix { cells: cells.collect(), seconds }
    }

    /// A selection that is over within 15 minutes.
    pub fn short() -> Matrix {
        let cells = SHORT.iter().map(|(workload, nemesis)| ((*workload).to_owned(), (*nemesis).to_owned()));
        Matrix { cells: cells.collect(), seconds: SHORT_SECONDS }
    }

    /// Keeps only some workloads, and only some nemeses or all of these instead; none given means no choice.
    ///
    /// # Errors
    /// When there is no such name.
    pub fn choose(&mut self, workloads: &[String], nemeses: &[String]) -> Result<()> {
        for name in workloads {
            ensure!(workload::by_name(name).is_some(), "no such workload: {name}");
        }
        for name in nemeses {
            ensure!(nemesis::by_name(name).is_some(), "no such nemesis: {name}");
        }
        self.cells.retain(|(workload, _)| workloads.is_empty() || workloads.contains(workload));
        if !nemeses.is_empty() {
            let mut named: Vec<String> = self.cells.drain(..).map(|(workload, _)| workload).collect();
            named.dedup();
            self.cells = named
                .iter()
                .flat_map(|workload| nemeses.iter().map(|nemesis| (workload.clone(), nemesis.clone())))
                .collect();
        }
        Ok(())
    }

    /// Runs all cells and prints the table; the flag tells whether all was well.
    ///
    /// # Errors
    /// When not even the settings of a cell are right, or the table cannot be written.
    pub async fn run(
        &self,
        seed: u64,
        settings: impl Fn(&str, &str, u64) -> Result<Settings>,
        way: &Way,
    ) -> Result<bool> {
        let began = Instant::now();
        std::fs::create_dir_all(&way.out).with_context(|| format!("cannot make {}", way.out.display()))?;
        // Each cell has a seed of its own, so that it can be run again alone.
        let of = |(at, (workload, nemesis)): (usize, &(String, String))| {
            Ok((at, settings(workload, nemesis, seed + at as u64)?))
        };
        let all = self.cells.iter().enumerate().map(of).collect::<Result<Vec<_>>>()?;
        let count = all.len();
        let runs = all.into_iter().map(|(at, settings)| async move {
            let cell = way.run(settings, &format!("{}/{count}", at + 1)).await?;
            Ok::<_, anyhow::Error>((at, cell))
        });
        let mut runs = futures::stream::iter(runs).buffer_unordered(way.jobs.max(1));
        let mut cells = Vec::new();
        while let Some(cell) = runs.next().await {
            cells.push(cell?);
            cells.sort_by_key(|(at, _)| *at);
            std::fs::write(way.out.join("matrix.md"), format!("{}\n", table(&cells)))?;
        }
        say(format!("{}\n{count} cells in {} s", table(&cells), began.elapsed().as_secs()));
        Ok(cells.iter().all(|(_, cell)| cell.is_well()))
    }
}

/// How cells are run.
#[derive(Debug, Clone)]
pub struct Way {
    /// The program that runs one: this one.
    pub jepsen: PathBuf,
    /// Below which each has a directory.
    pub out: PathBuf,
    /// How many are run at once.
    pub jobs: usize,
    /// Whether one whose directory has its results is not run again.
    pub resume: bool,
    /// Whether histories without anomalies are kept: they are long.
    pub histories: bool,
}

impl Way {
    /// Runs a cell, or finds what came of it before.
    async fn run(&self, settings: Settings, place: &str) -> Result<Cell> {
        let Settings { workload, nemesis, .. } = &settings;
        let dir = self.out.join(format!("{workload}-{nemesis}"));
        if let Some(results) = self.resume.then(|| earlier(&dir, &settings)).flatten() {
            say(format!("{place} there since earlier: {}\n  {}", results.run.command, verdict(&results)));
            return Ok(Cell { seed: results.run.seed, settings, results: Ok(results) });
        }
        say(format!("{place} seed {}: {}", settings.seed, settings.command()));
        let results = process::run(&self.jepsen, &settings, &dir).await;
        match &results {
            Ok(results) => {
                say(format!("{place} {}", verdict(results)));
                if !self.histories && results.anomalies.is_empty() {
                    forget_history(&dir)?;
                }
            }
            Err(error) => say(format!("{place} not run: {error:#}")),
        }
        Ok(Cell { seed: settings.seed, settings, results })
    }
}

/// What is left in a directory of the same command, whatever its seed, on the same version of the program.
fn earlier(dir: &Path, settings: &Settings) -> Option<Results> {
    let text = std::fs::read_to_string(dir.join("results.json")).ok()?;
    // Half of one is what a process that was killed left.
    let results: Results = serde_json::from_str(&text).ok()?;
    let same = Settings { seed: results.run.seed, ..settings.clone() }.command() == results.run.command;
    (same && version(&settings.program).ok()? == results.run.program).then_some(results)
}

fn forget_history(dir: &Path) -> Result<()> {
    for name in ["history.json", "history.edn"] {
        let path = dir.join(name);
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn verdict(results: &Results) -> String {
    match results.anomalies.len() {
        0 => "no anomalies".to_owned(),
        count => {
            let mut names: Vec<&str> = results.anomalies.iter().map(|found| found.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            format!("{count} anomalies: {}", names.join(", "))
        }
    }
}

fn table(cells: &[(usize, Cell)]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header([
        "workload",
        "nemesis",
        "seed",
        "done",
        "refused",
        "unknown",
        "events",
        "faults",
        "unavailable s",
        "anomalies",
    ]);
    for (_, cell) in cells {
        let Settings { workload, nemesis, .. } = &cell.settings;
        let mut row = vec![workload.clone(), nemesis.clone(), cell.seed.to_string()];
        match &cell.results {
            Ok(results) => {
                let operations = &results.operations;
                row.extend([operations.done, operations.refused, operations.unknown].map(|n| n.to_string()));
                row.push(results.events.to_string());
                row.push(results.faults.values().sum::<usize>().to_string());
                row.push(results.unavailable.total.to_string());
                row.push(verdict(results));
            }
            Err(error) => {
                row.extend(["", "", "", "", "", ""].map(str::to_owned));
                row.push(format!("not run: {error:#}"));
            }
        }
        table.add_row(row);
    }
    table
}
