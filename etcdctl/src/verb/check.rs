//! `check`: what the cluster can do, measured by putting a load of keys.
//!
//! Many clients put small values under a prefix that must be empty before. What was
//! written is deleted afterwards, also after an interrupt.

mod datascale;
mod perf;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use proto::etcdserverpb as pb;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use super::prefix_end;
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::globals::{Globals, Settings};
use crate::go::quote;
use crate::help;
use crate::output::say;

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
    /// Measures how much memory a member takes for data
    Datascale(datascale::Datascale),
    /// Measures how well the cluster writes
    Perf(perf::Perf),
}

impl Group {
    /// Runs the command that was given.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        match self.verb {
            None => help::show(&["check".to_owned()]),
            Some(Verb::Datascale(check)) => check.run(globals).await,
            Some(Verb::Perf(check)) => check.run(globals).await,
        }
    }
}

/// How much is asked of the cluster.
#[derive(Clone, Copy, Debug)]
enum Size {
    Small,
    Medium,
    Large,
    ExtraLarge,
}

impl Size {
    fn parse(name: &str) -> Result<Self, Failure> {
        Ok(match name {
            "s" | "small" => Self::Small,
            "m" | "medium" => Self::Medium,
            "l" | "large" => Self::Large,
            "xl" | "xLarge" => Self::ExtraLarge,
            other => return Err(Failure::new(exit::BAD_FEATURE, format!("unknown load option {other}"))),
        })
    }
}

/// Whether there is a key with this prefix.
async fn exists(client: &Client, prefix: &str, time_max: Option<Duration>) -> Result<bool, Failure> {
    let key = prefix.as_bytes();
    let request = pb::RangeRequest {
        key: key.to_vec().into(),
        range_end: prefix_end(key),
        limit: 1,
        ..Default::default()
    };
    let deadline = time_max.map(|time| (Instant::now() + time).into());
    Ok(!client.range(deadline, request).await.map_err(Failure::general)?.kvs.is_empty())
}

/// A put of a random key of so many bytes behind the prefix.
fn random_put(prefix: &str, key_bytes: usize, value_bytes: usize) -> pb::PutRequest {
    let mut key = prefix.as_bytes().to_vec();
    key.extend_from_slice(&rand::random::<u64>().to_be_bytes());
    key.resize(prefix.len() + key_bytes, 0);
    pb::PutRequest { key: key.into(), value: vec![0; value_bytes].into(), ..Default::default() }
}

/// Many clients that put what they are given.
struct Load {
    /// Takes what to put; whoever gives waits when every client is busy.
    work: mpsc::Sender<pb::PutRequest>,
    outcomes: mpsc::Receiver<(Duration, Option<String>)>,
}

/// What a load came to.
#[derive(Debug, Default)]
struct Tally {
    /// How long it all took.
    total: Duration,
    /// How long each put took that succeeded, in seconds.
    seconds: Vec<f64>,
    /// How often each error came.
    errors: BTreeMap<String, u64>,
    /// Whether the user ended it early.
    interrupted: bool,
}

impl Load {
    async fn start(settings: &Settings, clients: usize) -> Result<Self, Failure> {
        // When every client is busy the giver waits: the rate then falls, which is what is measured.
        let (work, queue) = mpsc::channel::<pb::PutRequest>(clients);
        let queue = Arc::new(Mutex::new(queue));
        // Drained while the load runs; a client waits when the tally is behind.
        let (results, outcomes) = mpsc::channel(clients * 4);
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
        Ok(Self { work, outcomes })
    }

    /// Runs the load that `feed` gives, until it ends or is interrupted; `shown` tells how far it is.
    /// Every put has its answer when this returns, so that what is deleted then stays deleted.
    async fn run(
        self,
        feed: impl FnOnce(mpsc::Sender<pb::PutRequest>) -> JoinHandle<()>,
        bar: ProgressBar,
        shown: impl Fn(&Tally, Duration) -> u64,
    ) -> Result<Tally, Failure> {
        let Self { work, mut outcomes } = self;
        let start = Instant::now();
        let feeder = feed(work);
        let mut tally = Tally::default();
        let mut second = tokio::time::interval(Duration::from_secs(1));
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            tokio::select! {
                outcome = outcomes.recv() => match outcome {
                    Some((took, None)) => tally.seconds.push(took.as_secs_f64()),
                    Some((_, Some(error))) => *tally.errors.entry(error).or_default() += 1,
                    None => break,
                },
                _ = second.tick() => bar.set_position(shown(&tally, start.elapsed())),
                // With the feeder its end of the queue goes, and with that the clients.
                _ = &mut interrupt, if !tally.interrupted => {
                    tally.interrupted = true;
                    feeder.abort();
                }
            }
        }
        if tally.interrupted {
            bar.abandon();
        } else {
            bar.finish();
        }
        tally.total = start.elapsed();
        Ok(tally)
    }
}

impl Tally {
    /// What there is to say about errors; nothing where there were none.
    fn complaints(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.errors.iter().map(|(error, count)| format!("FAIL: ERROR({error}) -> {count}")).collect();
        if !lines.is_empty() {
            lines.insert(0, "FAIL: too many errors".to_owned());
        }
        lines
    }
}

/// A bar up to `end` of something.
fn bar(end: u64, template: &str) -> Result<ProgressBar, Failure> {
    let style = ProgressStyle::with_template(template).map_err(Failure::general)?;
    Ok(ProgressBar::new(end).with_style(style.progress_chars("=> ")))
}

/// Deletes what has this prefix and tells the revision of that.
async fn delete(
    client: &Client,
    prefix: &str,
    time_max: Option<Duration>,
) -> Result<i64, crate::client::CallError> {
    let key = prefix.as_bytes();
    let request =
        pb::DeleteRangeRequest { key: key.to_vec().into(), range_end: prefix_end(key), prev_kv: false };
    let deadline = time_max.map(|time| (Instant::now() + time).into());
    Ok(client.delete_range(deadline, request).await?.header.map_or(0, |header| header.revision))
}

async fn compact(client: &Client, revision: i64) -> Result<(), Failure> {
    say(format!("Compacting with revision {revision}"))?;
    let request = pb::CompactionRequest { revision, physical: true };
    client.compact(afterwards(), request).await.map_err(Failure::general)?;
    say(format!("Compacted with revision {revision}"))
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
