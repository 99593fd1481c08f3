//! What a backup costs: saving and restoring, and those who put meanwhile.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::{Member, Options, Program};

use crate::cases::{Data, load};
use crate::cluster::{Writers, percentile};
use crate::load::connect;
use crate::process::{reset_peak, usage};

/// How long puts are measured before the snapshot is taken.
const BASELINE: Duration = Duration::from_secs(5);
/// How often the memory of a tool is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The programs of one side.
#[derive(Debug, Clone)]
pub struct Side {
    /// The server.
    pub server: Program,
    /// What saves.
    pub etcdctl: PathBuf,
    /// What restores.
    pub etcdutl: PathBuf,
}

/// What a tool took.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    /// From its start to its end.
    pub took: Duration,
    /// The most memory it had, in bytes.
    pub rss_peak: u64,
}

/// What a backup took.
#[derive(Debug, Clone, Copy)]
pub struct Backup {
    /// Bytes of the snapshot file.
    pub file: u64,
    /// The saving tool.
    pub save: Ran,
    /// How much more memory the server had at most while it was saved, in bytes.
    pub server_grew: u64,
    /// CPU seconds of the server from the start of saving to its end, puts included.
    pub server_cpu_s: f64,
    /// The 99th percentile of puts before, in microseconds.
    pub before_us: f64,
    /// The same while it was saved.
    pub meanwhile_us: f64,
    /// The longest of them.
    pub worst_us: f64,
    /// The restoring tool.
    pub restore: Ran,
    /// From the start of a server on what was restored until it served.
    pub serves: Duration,
}

/// Loads a member, saves a snapshot of it while `clients` clients put, restores it and starts a member on that.
///
/// # Errors
/// When a put fails, a tool does not succeed, or the member does not come to serve.
pub async fn backup(side: &Side, data: Data, clients: usize) -> Result<Backup> {
    let mut member = Member::start_with(options(&side.server)).await?;
    let channels = connect(&member.client_url(), clients.clamp(1, 50)).await?;
    load(&channels, data).await?;
    let writers = Writers::start(&channels, clients);
    tokio::time::sleep(BASELINE).await;
    let before_us = percentile(&mut writers.take(), 0.99);

    let dir = tempfile::tempdir()?;
    let file = dir.path().join("snapshot.db");
    let pid = member.pid().context("the member has ended")?.as_raw_nonzero().get() as u32;
    reset_peak(pid)?;
    let before = usage(pid)?;
    let mut save = Command::new(&side.etcdctl);
    save.args(["--endpoints", &member.client_url(), "snapshot", "save"]).arg(&file);
    let save = run(save).await?;
    let after = usage(pid)?;
    let mut latencies = writers.take();
    writers.finish().await?;
    member.kill().await?;

    let mut restored = Member::prepare(options(&side.server))?;
    let restore = run(restored.restore(&side.etcdutl, &file)).await?;
    let began = Instant::now();
    restored.start_again().await?;
    Ok(Backup {
        file: file.metadata()?.len(),
        save,
        server_grew: after.rss_peak.saturating_sub(before.rss),
        server_cpu_s: after.cpu_s - before.cpu_s,
        before_us,
        meanwhile_us: percentile(&mut latencies, 0.99),
        worst_us: percentile(&mut latencies, 1.0),
        restore,
        serves: began.elapsed(),
    })
}

fn options(server: &Program) -> Options {
    Options::new(server.clone()).arg("--quota-backend-bytes=17179869184")
}

/// Runs a tool to its end; only the kernel knows its peak, and only while it lives.
async fn run(mut command: Command) -> Result<Ran> {
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let mut rss_peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // Between its end and the next look there is nothing to see any more.
        rss_peak = usage(child.id()).map_or(rss_peak, |usage| usage.rss_peak.max(rss_peak));
        tokio::time::sleep(LOOK).await;
    };
    ensure!(status.success(), "{command:?}: {status}");
    Ok(Ran { took: began.elapsed(), rss_peak })
}
