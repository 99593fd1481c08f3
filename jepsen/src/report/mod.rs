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
use std::io::ErrorKind;
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
    if !results.anomalies.is_empty() {
        return save(dir, "timeline.html", &timeline::page(history, &results.anomalies));
    }
    match fs::remove_file(dir.join("timeline.html")) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn save(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_leaves_everything() {
        let dir = tempfile::tempdir().unwrap();
        let (history, dir) = (sample::history(), dir.path().join("runs/1"));
        leave(&dir, &history, &Results::of(&history, sample::anomalies())).unwrap();
        let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(edn::load(&dir.join("history.json")).unwrap(), history);
        assert_eq!(page::read(&dir).unwrap(), [Results::of(&history, sample::anomalies())]);
        assert!(
            text("results.txt").contains("watch-gap (watch): watch 1 of client 11"),
            "{}",
            text("results.txt")
        );
        assert!(text("history.edn").starts_with("{:index 0, :time 0, :type :invoke, :process 0, :f "));
        assert!(text("latency.svg").contains("<title>latency: register under mix"));
        assert!(text("rate.svg").contains("<title>rate: register under mix"));
        assert!(text("timeline.html").contains("<title>2 anomalies: register under mix"));

        // The same place after a run without any leaves no old page.
        leave(&dir, &history, &Results::of(&history, Vec::new())).unwrap();
        assert!(!dir.join("timeline.html").exists());
    }
}
