//! `check perf`: whether the cluster keeps up with a load of writes.
//!
//! For a minute, many clients put small values at a fixed rate in all. What was
//! written is deleted afterwards, also after an interrupt.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use proto::etcdserverpb as pb;
use tokio::sync::{Mutex, mpsc};

use super::prefix_end;
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::globals::{Globals, Settings};
use crate::go::quote;
use crate::help;
use crate::output::{self, say};

const SECONDS: u64 = 60;
const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;
/// Limit for cleaning up, compacting and defragmenting afterwards.
const AFTERWARDS_MAX: Duration = Duration::from_secs(30);

/// The commands under `check`.
#[derive(Debug, clap::Args)]
pub struct Group {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Measures how well the cluster writes
    Perf(Perf),
    /// Not in this version.
    #[command(hide = true)]
    Datascale {
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        _words: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
struct Perf {
    #[arg(long, value_name = "string", default_value = "s")]
    #[arg(help = "the load: s(mall), m(edium), l(arge) or xl(arge) (default \"s\")")]
    load: String,
    #[arg(long, value_name = "string", default_value = "/etcdctl-check-perf/")]
    #[arg(help = "what the keys written begin with (default \"/etcdctl-check-perf/\")")]
    prefix: String,
    #[arg(long, help = "compact the history afterwards")]
    auto_compact: bool,
    #[arg(long, help = "defragment the store afterwards")]
    auto_defrag: bool,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

impl Group {
    /// Runs the command that was given.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        match self.verb {
            None => help::show(&["check".to_owned()]),
            Some(Verb::Perf(perf)) => perf.run(globals).await,
            Some(Verb::Datascale { .. }) => {
                Err(Failure::general("\"etcdctl check datascale\" is not available in this version"))
            }
        }
    }
}

impl Perf {
    async fn run(self, globals: Globals) -> Result<(), Failure> {
        let (rate, clients): (u32, usize) = match self.load.as_str() {
            "s" | "small" => (150, 50),
            "m" | "medium" => (1_000, 200),
            "l" | "large" => (8_000, 500),
            "xl" | "xLarge" => (15_000, 1_000),
            other => {
                return Err(Failure::new(exit::BAD_FEATURE, format!("unknown load option {other}")));
            }
        };
        let settings = globals.settle(&[])?;
        let client = Client::open(&settings).await?;
        self.refuse_existing(&client).await?;
        let report = self.load(&settings, rate, clients).await?;
        if report.interrupted {
            self.clean(&client, false).await?;
            return Err(Failure::silent(exit::ERROR));
        }
        self.clean(&client, self.auto_compact).await?;
        if self.auto_defrag {
            defragment(&settings).await?;
        }
        report.print(f64::from(rate))
    }

    async fn refuse_existing(&self, client: &Client) -> Result<(), Failure> {
        let key = self.prefix.as_bytes();
        let request = pb::RangeRequest {
            key: key.to_vec().into(),
            range_end: prefix_end(key),
            limit: 1,
            ..Default::default()
        };
        let deadline = Some((Instant::now() + Duration::from_secs(SECONDS)).into());
        let found = client.range(deadline, request).await.map_err(Failure::general)?;
        if found.kvs.is_empty() {
            return Ok(());
        }
        let (shown, prefix) = (quote(key), &self.prefix);
        let message = format!("prefix {shown} has keys. Delete with 'etcdctl del --prefix {prefix}' first");
        Err(Failure::input(message))
    }

    /// Puts at the given rate through as many clients for a minute, or until an interrupt.
    /// Every put has its answer when this returns, so that what is deleted then stays deleted.
    async fn load(&self, settings: &Settings, rate: u32, clients: usize) -> Result<Report, Failure> {
        // When every client is busy the giver waits: the rate then falls, which is what is measured.
        let (work, queue) = mpsc::channel::<pb::PutRequest>(clients);
        let queue = Arc::new(Mutex::new(queue));
        // Drained while the load runs; a client waits when the report is behind.
        let (results, mut outcomes) = mpsc::channel(clients * 4);
        for _ in 0..clients {
            let (client, queue, results) = (Client::open(settings).await?, queue.clone(), results.clone());
            tokio::spawn(async move {
                loop {
                    let Some(request) = queue.lock().await.recv().await else { return };
                    let start = Instant::now();
                    let error = client.put(None, request).await.err().map(|error| error.to_string());
                    if results.send((start.elapsed(), error)).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        let start = Instant::now();
        let feeder = tokio::spawn(feed(work, self.prefix.clone().into_bytes(), rate, start));
        let bar = ProgressBar::new(SECONDS);
        let style = ProgressStyle::with_template("{pos} / {len} s [{wide_bar}] {percent}%");
        bar.set_style(style.map_err(Failure::general)?.progress_chars("=> "));
        let mut report = Report::default();
        let mut second = tokio::time::interval(Duration::from_secs(1));
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            tokio::select! {
                outcome = outcomes.recv() => match outcome {
                    Some((took, error)) => report.add(took, error),
                    None => break,
                },
                _ = second.tick() => bar.set_position(start.elapsed().as_secs().min(SECONDS)),
                // With the feeder its end of the queue goes, and with that the clients.
                _ = &mut interrupt, if !report.interrupted => {
                    report.interrupted = true;
                    feeder.abort();
                }
            }
        }
        bar.finish();
        report.total = start.elapsed();
        Ok(report)
    }

    async fn clean(&self, client: &Client, compact: bool) -> Result<(), Failure> {
        let key = self.prefix.as_bytes();
        let request =
            pb::DeleteRangeRequest { key: key.to_vec().into(), range_end: prefix_end(key), prev_kv: false };
        let deleted = match client.delete_range(afterwards(), request).await {
            Ok(deleted) => deleted,
            Err(error) => return say(format!("FAIL: Cleanup failed during key deletion: ERROR({error})")),
        };
        if compact {
            let revision = deleted.header.map_or(0, |header| header.revision);
            say(format!("Compacting with revision {revision}"))?;
            let request = pb::CompactionRequest { revision, physical: true };
            client.compact(afterwards(), request).await.map_err(Failure::general)?;
            say(format!("Compacted with revision {revision}"))?;
        }
        Ok(())
    }
}

/// Hands out puts of random keys at the given rate.
async fn feed(work: mpsc::Sender<pb::PutRequest>, prefix: Vec<u8>, rate: u32, start: Instant) {
    let mut ticker = tokio::time::interval(Duration::from_secs(1) / rate);
    while start.elapsed() < Duration::from_secs(SECONDS) {
        ticker.tick().await;
        let mut key = prefix.clone();
        key.extend_from_slice(&rand::random::<u64>().to_be_bytes());
        key.resize(prefix.len() + KEY_BYTES, 0);
        let value = vec![0; VALUE_BYTES].into();
        if work.send(pb::PutRequest { key: key.into(), value, ..Default::default() }).await.is_err() {
            return;
        }
    }
}

fn afterwards() -> Option<tokio::time::Instant> {
    Some(tokio::time::Instant::now() + AFTERWARDS_MAX)
}

async fn defragment(settings: &Settings) -> Result<(), Failure> {
    for endpoint in &settings.endpoints {
        let shown = quote(endpoint.as_bytes());
        say(format!("Defragmenting {shown}"))?;
        let client = Client::open_to(settings, std::slice::from_ref(endpoint)).await?;
        client.defragment(afterwards(), pb::DefragmentRequest {}).await.map_err(Failure::general)?;
        say(format!("Defragmented {shown}"))?;
    }
    Ok(())
}

/// What the load came to.
#[derive(Debug, Default)]
struct Report {
    total: Duration,
    interrupted: bool,
    seconds: Vec<f64>,
    errors: BTreeMap<String, u64>,
}

impl Report {
    fn add(&mut self, took: Duration, error: Option<String>) {
        match error {
            Some(error) => *self.errors.entry(error).or_default() += 1,
            None => self.seconds.push(took.as_secs_f64()),
        }
    }

    fn print(&self, rate: f64) -> Result<(), Failure> {
        let mut lines = Vec::new();
        let mut passed = true;
        if !self.errors.is_empty() {
            passed = false;
            lines.push("FAIL: too many errors".to_owned());
            lines.extend(self.errors.iter().map(|(error, count)| format!("FAIL: ERROR({error}) -> {count}")));
        }
        let count = self.seconds.len() as f64;
        let throughput = count / self.total.as_secs_f64().max(f64::MIN_POSITIVE);
        let slowest = self.seconds.iter().copied().fold(0.0, f64::max);
        let mean = self.seconds.iter().sum::<f64>() / count.max(1.0);
        let variance = self.seconds.iter().map(|took| (took - mean).powi(2)).sum::<f64>() / count.max(1.0);
        let deviation = variance.sqrt();
        let shown = throughput as u64 + 1;
        let mut judge = |good: bool, pass: String, fail: String| {
            passed &= good;
            lines.push(if good { format!("PASS: {pass}") } else { fail });
        };
        judge(
            throughput / rate > 0.9,
            format!("Throughput is {shown} writes/s"),
            format!("FAIL: Throughput too low: {shown} writes/s"),
        );
        judge(
            slowest <= 0.5,
            format!("Slowest request took {slowest:.6}s"),
            format!("Slowest request took too long: {slowest:.6}s"),
        );
        judge(
            deviation <= 0.1,
            format!("Stddev is {deviation:.6}s"),
            format!("Stddev too high: {deviation:.6}s"),
        );
        lines.push(if passed { "PASS" } else { "FAIL" }.to_owned());
        output::say(lines.join("\n"))?;
        if passed { Ok(()) } else { Err(Failure::silent(exit::ERROR)) }
    }
}
