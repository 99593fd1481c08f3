//! Many runs, one after the other: workloads × nemeses.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use crate::cell::run_cell;
use crate::report::summary::Results;
use crate::run::{Settings, Unfit};
use crate::{nemesis, workload};

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
    workload: String,
    nemesis: String,
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
    /// Histories of cells without anomalies are kept only on request: they are long.
    ///
    /// # Errors
    /// When not even the settings of a cell are right, or the table cannot be written.
    pub async fn run(
        &self,
        seed: u64,
        settings: impl Fn(&str, &str, u64) -> Result<Settings>,
        out: &Path,
        histories: bool,
    ) -> Result<bool> {
        let began = Instant::now();
        let mut cells = Vec::new();
        for (at, (workload, nemesis)) in self.cells.iter().enumerate() {
            // Each cell has a seed of its own, so that it can be run again alone.
            let seed = seed + at as u64;
            let settings = settings(workload, nemesis, seed)?;
            println!("{}/{} seed {seed}: {}", at + 1, self.cells.len(), settings.command());
            let dir = out.join(format!("{workload}-{nemesis}"));
            let results = run_cell(&settings, &dir).await;
            match &results {
                Ok(results) => {
                    println!("  {}", verdict(results));
                    if !histories && results.anomalies.is_empty() {
                        forget_history(&dir)?;
                    }
                }
                Err(error) => println!("  not run: {error:#}"),
            }
            let (workload, nemesis) = (workload.clone(), nemesis.clone());
            cells.push(Cell { workload, nemesis, seed, results });
        }
        let table = table(&cells);
        println!("{table}\n{} cells in {} s", cells.len(), began.elapsed().as_secs());
        std::fs::write(out.join("matrix.md"), format!("{table}\n"))?;
        Ok(cells.iter().all(Cell::is_well))
    }
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

fn table(cells: &[Cell]) -> Table {
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
    for cell in cells {
        let mut row = vec![cell.workload.clone(), cell.nemesis.clone(), cell.seed.to_string()];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_can_be_run() {
        for matrix in [Matrix::full(180), Matrix::short()] {
            for (workload, nemesis) in matrix.cells {
                assert!(workload::by_name(&workload).is_some(), "{workload}");
                assert!(nemesis::by_name(&nemesis).is_some(), "{nemesis}");
            }
        }
    }

    #[test]
    fn nemeses_that_are_named_replace_those_of_the_selection() {
        let mut matrix = Matrix::short();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        matrix.choose(&names(&["set", "lock"]), &names(&["none", "kill"])).expect("they exist");
        let cells: Vec<_> = matrix.cells.iter().map(|(w, n)| (w.as_str(), n.as_str())).collect();
        assert_eq!(cells, [("set", "none"), ("set", "kill"), ("lock", "none"), ("lock", "kill")]);
        assert!(matrix.choose(&names(&["nobody"]), &[]).is_err());
    }
}
