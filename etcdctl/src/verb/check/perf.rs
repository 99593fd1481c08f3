//! `check perf`: whether the cluster keeps up with a load of writes.
//!
//! For a minute, clients put small values at a fixed rate in all.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use proto::etcdserverpb as pb;
use tokio::sync::mpsc;

use super::{AFTERWARDS_MAX, Load, Size, Tally, bar, compact, defragment, delete, exists, random_put};
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::globals::Globals;
use crate::go::quote;
use crate::output::say;

const SECONDS: u64 = 60;
const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;

/// The flags of `check perf`.
#[derive(Debug, clap::Args)]
pub struct Perf {
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

impl Perf {
    /// Measures, cleans up, and judges; after an interrupt, what was measured until then.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let (rate, clients): (u32, usize) = match Size::parse(&self.load)? {
            Size::Small => (150, 50),
            Size::Medium => (1_000, 200),
            Size::Large => (8_000, 500),
            Size::ExtraLarge => (15_000, 1_000),
        };
        let settings = globals.settle(&[])?;
        let client = Client::open(&settings).await?;
        if exists(&client, &self.prefix, Some(Duration::from_secs(SECONDS))).await? {
            let (shown, prefix) = (quote(self.prefix.as_bytes()), &self.prefix);
            let hint = format!("Delete with 'etcdctl del --prefix {prefix}' first");
            return Err(Failure::input(format!("prefix {shown} has keys. {hint}")));
        }
        let load = Load::start(&settings, clients).await?;
        let bar = bar(SECONDS, "{pos} / {len} s [{wide_bar}] {percent}%")?;
        let prefix = self.prefix.clone();
        let feed = |work| tokio::spawn(feed(work, prefix, rate));
        let tally = load.run(feed, bar, |_, elapsed| elapsed.as_secs().min(SECONDS)).await?;
        match delete(&client, &self.prefix, Some(AFTERWARDS_MAX)).await {
            Ok(revision) if self.auto_compact => compact(&client, revision).await?,
            Ok(_) => {}
            Err(error) => say(format!("FAIL: Cleanup failed during key deletion: ERROR({error})"))?,
        }
        if self.auto_defrag {
            defragment(&settings).await?;
        }
        judge(&tally, f64::from(rate))
    }
}

/// Hands out puts of random keys at the given rate for as long as it is measured.
async fn feed(work: mpsc::Sender<pb::PutRequest>, prefix: String, rate: u32) {
    let start = Instant::now();
    let mut ticker = tokio::time::interval(Duration::from_secs(1) / rate);
    while start.elapsed() < Duration::from_secs(SECONDS) {
        ticker.tick().await;
        if work.send(random_put(&prefix, KEY_BYTES, VALUE_BYTES)).await.is_err() {
            return;
        }
    }
}

fn judge(tally: &Tally, rate: f64) -> Result<(), Failure> {
    let mut lines = tally.complaints();
    let mut passed = lines.is_empty();
    let count = tally.seconds.len() as f64;
    let throughput = count / tally.total.as_secs_f64().max(f64::MIN_POSITIVE);
    let slowest = tally.seconds.iter().copied().fold(0.0, f64::max);
    let mean = tally.seconds.iter().sum::<f64>() / count.max(1.0);
    let variance = tally.seconds.iter().map(|took| (took - mean).powi(2)).sum::<f64>() / count.max(1.0);
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
    say(lines.join("\n"))?;
    if passed { Ok(()) } else { Err(Failure::silent(exit::ERROR)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_is_kept_up_with_passes() {
        let tally = |puts: usize, took: f64| Tally {
            total: Duration::from_secs(10),
            seconds: vec![took; puts],
            ..Default::default()
        };
        assert!(judge(&tally(1_500, 0.5), 150.0).is_ok());
        assert!(judge(&tally(1_350, 0.5), 150.0).is_err());
        assert!(judge(&tally(1_500, 0.51), 150.0).is_err());
        let refused = Tally { errors: [("no".to_owned(), 1)].into(), ..tally(1_500, 0.1) };
        assert!(judge(&refused, 150.0).is_err());
    }
}
