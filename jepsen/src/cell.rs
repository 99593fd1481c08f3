//! One run with its evidence: what is left in its directory, and checking it again.
//!
//! Members' logs stay only where something is wrong.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::check::{self, Check};
use crate::history::History;
use crate::report::summary::Results;
use crate::run::{CHECKER, Ran, Settings};
use crate::{edn, report};

/// Runs, checks, and leaves the evidence in a directory.
///
/// # Errors
/// When there is nothing to be said about the program.
pub async fn run_cell(settings: &Settings, dir: &Path) -> Result<Results> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let logs = dir.join("logs");
    let Ran { history, check, notes } = settings.run(&logs).await?;
    // What was observed outlives a checker that fails.
    edn::save(&history, dir)?;
    let mutant = settings.told_mutant();
    let results = Results { notes, mutant, ..judge(&history, check) };
    report::leave(dir, &history, &results)?;
    if results.anomalies.is_empty() {
        fs::remove_dir_all(&logs).with_context(|| format!("cannot remove {}", logs.display()))?;
    }
    Ok(results)
}

/// Checks what a run left behind; what the run itself had found wrong stays.
///
/// # Errors
/// When there is no history.
pub fn recheck(dir: &Path) -> Result<Results> {
    let history = edn::load(&dir.join("history.json"))?;
    // Without results the checkers had not ended.
    let before: Results = match fs::read(dir.join("results.json")) {
        Ok(results) => serde_json::from_slice(&results)?,
        Err(_) => Results::default(),
    };
    let mut check = Check::new(CHECKER);
    for anomaly in before.anomalies.into_iter().filter(|anomaly| anomaly.checker == CHECKER) {
        check.take(anomaly);
    }
    let results = Results { notes: before.notes, mutant: before.mutant, ..judge(&history, check) };
    report::leave(dir, &history, &results)?;
    Ok(results)
}

/// What all checkers and the run itself say.
fn judge(history: &History, run: Check) -> Results {
    let mut verdict = check::all(history);
    verdict.checks.insert(0, run);
    Results::judged(history, verdict)
}
