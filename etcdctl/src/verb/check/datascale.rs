//! `check datascale`: how much memory a member takes for a number of keys.
//!
//! The member is the first endpoint; what it takes is the growth of the resident memory
//! that its metrics tell.

use std::ffi::OsString;

use proto::etcdserverpb as pb;
use tokio::sync::mpsc;

use super::{Load, Size, bar, compact, defragment, delete, exists, random_put};
use crate::client::{Client, http_get};
use crate::failure::{Failure, exit};
use crate::globals::{Globals, Settings};
use crate::go::quote;
use crate::output::say;

const KEY_BYTES: usize = 512;
const VALUE_BYTES: usize = 512;
/// The metric, in bytes.
const MEMORY: &str = "process_resident_memory_bytes";

/// The flags of `check datascale`.
#[derive(Debug, clap::Args)]
#[command(long_about = "Measures how much memory a member takes for data: the first of the endpoints.")]
pub struct Datascale {
    #[arg(long, value_name = "string", default_value = "s")]
    #[arg(help = "the load: s(mall), m(edium), l(arge) or xl(arge) (default \"s\")")]
    load: String,
    #[arg(long, value_name = "string", default_value = "/etcdctl-check-datascale/")]
    #[arg(help = "what the keys written begin with (default \"/etcdctl-check-datascale/\")")]
    prefix: String,
    #[arg(long, help = "compact the history afterwards")]
    auto_compact: bool,
    #[arg(long, help = "defragment the store afterwards")]
    auto_defrag: bool,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

impl Datascale {
    /// Puts the keys, looks at the memory, and cleans up.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let (keys, clients): (u64, usize) = match Size::parse(&self.load)? {
            Size::Small => (10_000, 50),
            Size::Medium => (100_000, 200),
            Size::Large => (1_000_000, 500),
            // Three versions of a million objects.
            Size::ExtraLarge => (3_000_000, 1_000),
        };
        let settings = globals.settle(&[])?;
        let client = Client::open(&settings).await?;
        if exists(&client, &self.prefix, None).await? {
            let (shown, prefix) = (quote(self.prefix.as_bytes()), &self.prefix);
            let hint = format!("Delete with etcdctl del --prefix {prefix} first");
            return Err(Failure::input(format!("prefix {shown} has keys. {hint}")));
        }
        let before = memory(&settings, "before").await?;
        let pair = KEY_BYTES + VALUE_BYTES;
        let load =
            format!("{keys} key-value pairs, {pair} bytes per key-value, {clients} concurrent clients");
        say(format!("Start data scale check for work load [{load}]."))?;
        let load = Load::start(&settings, clients).await?;
        let bar = bar(keys, "{pos} / {len} [{wide_bar}] {percent}% {eta}")?;
        let prefix = self.prefix.clone();
        let feed = |work| tokio::spawn(feed(work, prefix, keys));
        let done = |tally: &super::Tally, _| tally.seconds.len() as u64;
        let tally = load.run(feed, bar, done).await?;
        let after = memory(&settings, "after").await;
        let revision = delete(&client, &self.prefix, None).await.map_err(Failure::general)?;
        if tally.interrupted {
            return Err(Failure::silent(exit::ERROR));
        }
        let after = after?;
        if self.auto_compact {
            compact(&client, revision).await?;
        }
        if self.auto_defrag {
            defragment(&settings).await?;
        }
        let complaints = tally.complaints();
        if !complaints.is_empty() {
            say(complaints.join("\n"))?;
            return Err(Failure::silent(exit::ERROR));
        }
        let used = (after - before) / f64::from(1 << 20);
        say(format!("PASS: Approximate system memory used : {used:.2} MB."))
    }
}

/// Hands out puts of so many random keys.
async fn feed(work: mpsc::Sender<pb::PutRequest>, prefix: String, keys: u64) {
    for _ in 0..keys {
        if work.send(random_put(&prefix, KEY_BYTES, VALUE_BYTES)).await.is_err() {
            return;
        }
    }
}

/// The resident memory of the first endpoint's process, in bytes.
async fn memory(settings: &Settings, when: &str) -> Result<f64, Failure> {
    let endpoint = settings.endpoints.first().map(String::as_str).unwrap_or_default();
    let reason = match http_get(settings, endpoint, "/metrics").await {
        Ok(text) => match resident(&text) {
            Ok(bytes) => return Ok(bytes),
            Err(reason) => reason,
        },
        Err(reason) => format!("fetch error: {reason}"),
    };
    say(reason)?;
    say(format!("FAIL: Could not read {MEMORY} {when} the put operations."))?;
    Err(Failure::silent(exit::ERROR))
}

fn resident(metrics: &str) -> Result<f64, String> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(MEMORY)).map(str::trim);
    match value.filter(|value| !value.is_empty()) {
        Some(value) => value.parse().map_err(|error| format!("parse error: {error}")),
        None => Err(format!("could not find: {MEMORY}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_among_the_metrics() {
        let text = "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 2.5e+07\nx 1\n";
        assert_eq!(resident(text), Ok(25_000_000.0));
        assert_eq!(resident("x 1\n").unwrap_err(), "could not find: process_resident_memory_bytes");
        assert!(resident("process_resident_memory_bytes much\n").unwrap_err().starts_with("parse error: "));
    }
}
