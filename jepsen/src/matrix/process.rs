//! One cell as a process of its own.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::process::Command;
use tokio::time::timeout;

use crate::report::summary::Results;
use crate::run::{Settings, Unfit};

/// What `jepsen run` ends with where the nemesis does not fit.
pub const UNFIT: u8 = 3;
/// What the process printed.
const PRINTED: &str = "printed.txt";
/// So much longer than the time at work a cell takes at most: starting, healing and checking have limits, too.
const OTHER_TIME_MAX: Duration = Duration::from_secs(900);

/// Runs it and reads its results; what it printed stays where it does not end well.
///
/// # Errors
/// When it said nothing about the program: [`Unfit`], or whatever ended it.
pub async fn run(jepsen: &Path, settings: &Settings, dir: &Path) -> Result<Results> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (results, printed) = (dir.join("results.json"), dir.join(PRINTED));
    // Those of an earlier run are not this one's.
    remove(&results)?;
    let output = File::create(&printed).with_context(|| format!("cannot write {}", printed.display()))?;
    // Like members, a cell ends with whoever started it, and whoever interrupts the matrix does not interrupt cells.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(jepsen).args(settings.args()).arg("--out").arg(dir);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().context("setpriv (util-linux) starts cells")?;
    let limit = settings.time * 2 + OTHER_TIME_MAX;
    let Ok(status) = timeout(limit, child.wait()).await else {
        child.kill().await?;
        bail!("not over in {limit:?}; {} tells more", printed.display());
    };
    let status = status?;
    match status.code() {
        Some(0 | 1) => {
            let text = fs::read(&results).with_context(|| format!("no {}", results.display()))?;
            let results: Results = serde_json::from_slice(&text)?;
            if results.anomalies.is_empty() {
                remove(&printed)?;
            }
            Ok(results)
        }
        code => {
            let text = String::from_utf8_lossy(&fs::read(&printed)?).into_owned();
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let why = last.strip_prefix("jepsen: ").unwrap_or(last);
            Err(match (code, why.strip_prefix(Unfit::PREFIX)) {
                (Some(code), Some(why)) if code == i32::from(UNFIT) => Unfit(why.to_owned()).into(),
                (Some(2), _) => anyhow!("{why}"),
                _ => anyhow!("its process ended with {status}: {why}"),
            })
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
