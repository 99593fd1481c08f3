//! One run with its evidence: what is left in its directory, and checking it again.
//!
//! Members' logs stay only where something is wrong.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::check::timeline::Timeline;
use crate::check::{self, Anomaly};
use crate::history::History;
use crate::report;
use crate::report::summary::Results;
use crate::run::{CHECKER, Ran, Settings};

/// Runs, checks, and leaves the evidence in a directory.
///
/// # Errors
/// When there is nothing to be said about the program.
pub async fn run_cell(settings: &Settings, dir: &Path) -> Result<Results> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let logs = dir.join("logs");
    let Ran { history, anomalies, notes } = settings.run(&logs).await?;
    for note in &notes {
        println!("  {note}");
    }
    // What was observed outlives a checker that fails.
    fs::write(dir.join("history.json"), serde_json::to_vec(&history)?)?;
    let results = judge(&history, anomalies);
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
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let history: History = serde_json::from_slice(&read("history.json")?)?;
    let before: Option<Results> = match read("results.json") {
        Ok(results) => Some(serde_json::from_slice(&results)?),
        // The checkers had not ended.
        Err(_) => None,
    };
    let found = before.into_iter().flat_map(|results| results.anomalies);
    let results = judge(&history, found.filter(|anomaly| anomaly.checker == CHECKER).collect());
    report::leave(dir, &history, &results)?;
    Ok(results)
}

fn judge(history: &History, mut anomalies: Vec<Anomaly>) -> Results {
    let timeline = Timeline::of(history);
    anomalies.extend(timeline.anomalies().iter().cloned());
    anomalies.extend(check::linearizable::check(history, &timeline).anomalies);
    anomalies.extend(check::wgl::check(history).anomalies);
    anomalies.extend(check::watch::check(history));
    Results::of(history, anomalies)
}
