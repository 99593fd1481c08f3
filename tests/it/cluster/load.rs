//! Writers whose every write can be checked afterwards.
//!
//! Each key is written once in its life, so a write that was applied twice, or
//! lost, or changed, shows in the key's version, absence or value.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::{Client, Cluster, eventually};
use tokio::task::JoinHandle;

use super::within;

/// What is waited for one write before the writer turns to the next member.
const WRITE_MAX: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
struct Seen {
    acknowledged: BTreeMap<String, i64>,
    last: Option<Instant>,
    gap: Duration,
}

/// Writers at work.
pub struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    prefix: &'static str,
}

/// What was acknowledged.
pub struct Written {
    /// The revision of each key.
    pub acknowledged: BTreeMap<String, i64>,
    /// The longest time between two acknowledgements, of whatever writer.
    pub gap: Duration,
    prefix: &'static str,
}

impl Load {
    /// Writers through all these members, each turning to the next member when one fails it.
    pub fn start(clients: Vec<Client>, prefix: &'static str) -> Load {
        Load::patient(clients, prefix, WRITE_MAX)
    }

    /// As [`Load::start`], waiting only so long for an answer.
    pub fn patient(clients: Vec<Client>, prefix: &'static str, wait: Duration) -> Load {
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let tasks = (0..2 * clients.len()).map(|writer| {
            let (clients, seen, stop) = (clients.clone(), Arc::clone(&seen), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut via = writer;
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("{prefix}{writer}/{number:06}");
                    match within(wait, clients[via % clients.len()].put(key.clone(), key.clone())).await {
                        Ok(header) => {
                            let mut seen = seen.lock().expect("no panic holds it");
                            seen.acknowledged.insert(key, header.revision);
                            let now = Instant::now();
                            let gap = seen.last.map_or(Duration::ZERO, |last| now - last);
                            seen.gap = seen.gap.max(gap);
                            seen.last = Some(now);
                        }
                        Err(_) => {
                            via += 1;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                    // Enough to be always under way, little enough for a machine that runs other tests.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        });
        Load { tasks: tasks.collect(), seen, stop, prefix }
    }

    /// Waits until so many more writes are acknowledged.
    pub async fn flows(&self, more: usize) -> Result<()> {
        let count = || self.seen.lock().expect("no panic holds it").acknowledged.len();
        let before = count();
        eventually("writes are acknowledged", || async {
            ensure!(count() >= before + more, "{} of {more} writes", count() - before);
            Ok(())
        })
        .await
    }

    /// Stops the writers.
    pub async fn finish(self) -> Result<Written> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await?;
        }
        let seen = std::mem::take(&mut *self.seen.lock().expect("no panic holds it"));
        Ok(Written { acknowledged: seen.acknowledged, gap: seen.gap, prefix: self.prefix })
    }
}

impl Written {
    /// Every acknowledged write is on each of these members, once and at its revision.
    /// Gives all writes of the load, also those of which no writer heard, in their order.
    pub async fn check(&self, cluster: &Cluster, members: &[usize]) -> Result<Vec<(i64, String)>> {
        let mut lists: Vec<Vec<(i64, String)>> = Vec::new();
        for &at in members {
            let client = cluster.client(at);
            let list = eventually("a linearizable list", || async { Ok(client.list(self.prefix).await?) });
            let list = list.await.with_context(|| format!("from member {at}"))?;
            let mut found = BTreeMap::new();
            for kv in list.kvs {
                let key = String::from_utf8(kv.key.to_vec())?;
                ensure!(kv.value == key.as_bytes(), "member {at}: {key} is {:?}", kv.value);
                ensure!(kv.version == 1, "member {at}: {key} was written {} times", kv.version);
                found.insert(key, kv.mod_revision);
            }
            for (key, revision) in &self.acknowledged {
                let there = found.get(key);
                ensure!(
                    there == Some(revision),
                    "member {at}: {key} was acknowledged at revision {revision}, is there at {there:?}"
                );
            }
            let mut in_order: Vec<(i64, String)> = found.into_iter().map(|(key, at)| (at, key)).collect();
            in_order.sort_unstable();
            lists.push(in_order);
        }
        ensure!(lists.windows(2).all(|pair| pair[0] == pair[1]), "members differ in what was written");
        lists.pop().context("somebody is asked")
    }
}
