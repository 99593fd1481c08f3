//! Whole runs of each workload, on one healthy member of ours: their histories are complete, and nothing is wrong.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jepsen::cell::{recheck, run_cell};
use jepsen::driver::Load;
use jepsen::history::{History, Notice, Outcome};
use jepsen::run::Settings;
use jepsen::workload;
use tests::Program;

fn settings(workload: &str) -> Settings {
    Settings {
        workload: workload.to_owned(),
        nemesis: "none".to_owned(),
        seed: 7,
        time: Duration::from_secs(4),
        members: 1,
        program: Program::ours(),
        load: Load { clients: 6, rate: 200.0, patience: Duration::from_secs(5) },
        flags: Vec::new(),
        loopback: true,
        mutant: None,
        control: false,
    }
}

fn history(dir: &Path) -> Result<History> {
    Ok(serde_json::from_slice(&std::fs::read(dir.join("history.json"))?)?)
}

/// The revisions that the only observer was told of, in the order in which it was.
fn observed(history: &History) -> Vec<i64> {
    let seen = history.watches.iter().filter(|watch| watch.observer).flat_map(|watch| &watch.seen);
    let mut revisions = Vec::new();
    for seen in seen {
        if let Notice::Events(events) = &seen.what {
            revisions.extend(events.iter().map(|event| event.pair.modified));
        }
    }
    revisions.dedup();
    revisions
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_runs_are_complete_and_good() -> Result<()> {
    for name in workload::NAMES {
        let dir = tempfile::tempdir()?;
        let results = run_cell(&settings(name), dir.path()).await.context(name)?;
        ensure!(results.anomalies.is_empty(), "{name}: {:?}", results.anomalies);
        ensure!(results.operations.done > 100, "{name}: {:?}", results.operations);

        let history = history(dir.path())?;
        let ended = history.ends.first().context("the member was asked for its hash")?.revision;
        ensure!(
            observed(&history) == (2..=ended).collect::<Vec<_>>(),
            "{name}: the observer missed something"
        );
        for operation in &history.operations {
            // Nothing was harmed: only the state machine refuses.
            let fine = match &operation.outcome {
                Outcome::Done(_) => true,
                Outcome::Refused(why) => why.contains("etcdserver: "),
                Outcome::Unknown(_) => false,
            };
            ensure!(fine, "{name}: {operation:?}");
        }
        ensure!(!dir.path().join("logs").exists(), "{name}: logs are for those who look for a fault");

        let again = recheck(dir.path())?;
        ensure!(again.anomalies == results.anomalies && again.operations == results.operations);
    }
    Ok(())
}

/// Workloads that are about watchers have many.
#[tokio::test(flavor = "multi_thread")]
async fn watchers_come_and_go() -> Result<()> {
    for name in ["watch", "kubernetes"] {
        let dir = tempfile::tempdir()?;
        run_cell(&settings(name), dir.path()).await.context(name)?;
        let history = history(dir.path())?;
        let told = history.watches.iter().filter(|watch| {
            !watch.observer && watch.seen.iter().any(|seen| matches!(seen.what, Notice::Events(_)))
        });
        ensure!(told.count() >= 2, "{name}: {} watchers", history.watches.len());
    }
    Ok(())
}

/// A server that does not start says nothing about histories.
#[tokio::test]
async fn a_run_that_cannot_begin_is_an_error() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let missing = Settings { program: Program::at("/nowhere/etcd".into(), true), ..settings("set") };
    ensure!(run_cell(&missing, dir.path()).await.is_err());
    Ok(())
}
