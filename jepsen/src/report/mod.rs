//! What a run leaves for people.
//!
//! ```text
//!   history.edn  history.json     all that clients asked and heard
//!   results.json results.txt      counts and anomalies
//!   latency.svg  rate.svg         plots, with the faults
//!   timeline.html                 what is wrong, if anything is
//! ```

pub mod page;
pub mod plot;
#[cfg(test)]
mod sample;
pub mod summary;
pub mod timeline;
mod words;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::edn;
use crate::history::History;
use summary::Results;

/// Leaves everything about a run in a directory, which is made where it is not there.
pub fn leave(dir: &Path, history: &History, results: &Results) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    edn::save(history, dir)?;
    save(dir, "results.json", &serde_json::to_string_pretty(results)?)?;
    save(dir, "results.txt", &results.to_string())?;
    save(dir, "latency.svg", &plot::latency(history))?;
    save(dir, "rate.svg", &plot::rate(history))?;
    match results.anomalies.is_empty() {
        false => save(dir, "timeline.html", &timeline::page(history, &results.anomalies)),
        true => Ok(()),
    }
}

fn save(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
