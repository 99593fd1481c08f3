//! What only a cluster can be measured by: how long it is without a leader, and what a new member costs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use proto::etcdserverpb::PutRequest;
use proto::etcdserverpb::kv_client::KvClient;
use tests::{Client, Cluster, eventually};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::cases::{Data, load};
use crate::load::connect;

/// After this long without an answer a writer asks another member.
const IMPATIENCE: Duration = Duration::from_millis(100);
/// How long puts are measured before the new member comes.
const BASELINE: Duration = Duration::from_secs(5);

/// Kills the leader and gives the time until a write that began afterwards was acknowledged.
/// The member that was killed is back when this returns.
///
/// # Errors
/// When the cluster does not recover.
pub async fn failover(cluster: &mut Cluster) -> Result<Duration> {
    let leader = cluster.leader().await?;
    let survivors: Vec<Client> = cluster.others(&[leader]).into_iter().map(|at| cluster.client(at)).collect();
    for client in &survivors {
        client.put("failover", "warm").await?;
    }
    let killed = Instant::now();
    cluster[leader].kill().await?;
    let took = 'tries: loop {
        for client in &survivors {
            if let Ok(Ok(_)) = tokio::time::timeout(IMPATIENCE, client.put("failover", "")).await {
                break 'tries killed.elapsed();
            }
        }
        anyhow::ensure!(killed.elapsed() < Duration::from_secs(60), "no write for a minute");
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    cluster[leader].start_again().await?;
    cluster.leader().await?;
    Ok(took)
}

/// What a join took.
#[derive(Debug, Clone, Copy)]
pub struct Join {
    /// From the start of the new member's process until it answered a linearizable read.
    pub serves: Duration,
    /// The 99th percentile of puts through the leader before, in microseconds.
    pub before_us: f64,
    /// The same while the member joined.
    pub meanwhile_us: f64,
    /// The longest of them.
    pub worst_us: f64,
}

/// Loads a cluster, and lets one more member join while `clients` clients put through the leader.
///
/// # Errors
/// When a put fails, or the member does not come to serve.
pub async fn join(cluster: &mut Cluster, data: Data, clients: usize) -> Result<Join> {
    let leader = cluster.leader().await?;
    let channels = connect(&cluster[leader].client_url(), clients.min(50)).await?;
    load(&channels, data).await?;
    let writers = Writers::start(&channels, clients);
    tokio::time::sleep(BASELINE).await;
    let at = cluster.grow().await?;
    cluster.add(at, false, leader).await?;
    let before_us = percentile(&mut writers.take(), 0.99);
    let began = Instant::now();
    cluster[at].start_again().await?;
    let client = cluster.client(at);
    eventually("the new member answers", || async { Ok(client.get("x").await?) }).await?;
    let serves = began.elapsed();
    let mut latencies = writers.take();
    writers.finish().await?;
    let meanwhile_us = percentile(&mut latencies, 0.99);
    Ok(Join { serves, before_us, meanwhile_us, worst_us: percentile(&mut latencies, 1.0) })
}

/// What a soak saw.
#[derive(Debug, Clone, Copy)]
pub struct Soak {
    /// Puts that were acknowledged.
    pub acknowledged: u64,
    /// Puts that were not.
    pub failed: u64,
    /// Members that ended by themselves, and were started again.
    pub ended: u32,
}

/// Has clients put values of 1 KiB for a time; a member that ends is started again, and nothing acknowledged may be
/// missing afterwards.
///
/// # Errors
/// When something is missing, or a member does not come back.
pub async fn soak(cluster: &mut Cluster, clients: usize, time: Duration) -> Result<Soak> {
    let stop = Arc::<AtomicBool>::default();
    let writers = (0..clients).map(|at| {
        let (client, stop) = (cluster.client(at % cluster.len()), Arc::clone(&stop));
        tokio::spawn(put_numbers(client, at, stop))
    });
    let writers: Vec<_> = writers.collect();
    let (began, mut ended) = (Instant::now(), 0);
    while began.elapsed() < time {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for at in 0..cluster.len() {
            if !cluster[at].runs() {
                eprintln!("member {at} ended after {:?}:\n{}", began.elapsed(), cluster[at].log_tail());
                ended += 1;
                cluster[at].start_again().await?;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut soak = Soak { acknowledged: 0, failed: 0, ended };
    let leader = cluster.leader().await?;
    let client = cluster.client(leader);
    for (at, writer) in writers.into_iter().enumerate() {
        let written = writer.await?;
        soak.acknowledged += written.acknowledged;
        soak.failed += written.failed;
        for (slot, last) in written.last {
            let pair = client.get(soak_key(at, slot)).await?.context("a key is gone")?;
            let found: u64 = String::from_utf8_lossy(&pair.value).trim_end().parse()?;
            anyhow::ensure!(found >= last, "put {last} was acknowledged, {found} is there");
        }
    }
    Ok(soak)
}

/// Each of these clients overwrites so many keys in turn.
const SOAK_SLOTS: u64 = 100;

fn soak_key(at: usize, slot: u64) -> String {
    format!("soak/{at}/{slot}")
}

#[derive(Default)]
struct Written {
    acknowledged: u64,
    failed: u64,
    /// The last number acknowledged of each key.
    last: HashMap<u64, u64>,
}

async fn put_numbers(client: Client, at: usize, stop: Arc<AtomicBool>) -> Written {
    let mut written = Written::default();
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let slot = number % SOAK_SLOTS;
        match client.put(soak_key(at, slot), format!("{number:<1024}")).await {
            Ok(_) => {
                written.acknowledged += 1;
                written.last.insert(slot, number);
            }
            Err(_) => {
                written.failed += 1;
                tokio::time::sleep(IMPATIENCE).await;
            }
        }
    }
    written
}

/// Clients that put until they are told to stop.
pub(crate) struct Writers {
    latencies_us: Arc<Mutex<Vec<u32>>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Writers {
    pub(crate) fn start(channels: &[Channel], clients: usize) -> Self {
        let (latencies_us, stop) = (Arc::<Mutex<Vec<u32>>>::default(), Arc::<AtomicBool>::default());
        let tasks = (0..clients).map(|at| {
            let mut client = KvClient::new(channels[at % channels.len()].clone());
            let (latencies, stop) = (latencies_us.clone(), stop.clone());
            tokio::spawn(async move {
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let put = PutRequest {
                        key: format!("beside/{at}/{}", number % 1000).into(),
                        value: vec![b'v'; 256].into(),
                        ..Default::default()
                    };
                    let sent = Instant::now();
                    client.put(put).await.context("a put beside other work")?;
                    let took = u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX);
                    latencies.lock().expect("no panic holds it").push(took);
                }
                Ok(())
            })
        });
        Self { tasks: tasks.collect(), latencies_us, stop }
    }

    /// The latencies since the last time, in microseconds.
    pub(crate) fn take(&self) -> Vec<u32> {
        std::mem::take(&mut *self.latencies_us.lock().expect("no panic holds it"))
    }

    pub(crate) async fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await??;
        }
        Ok(())
    }
}

pub(crate) fn percentile(latencies: &mut [u32], share: f64) -> f64 {
    latencies.sort_unstable();
    let last = latencies.len().saturating_sub(1);
    latencies.get((last as f64 * share) as usize).copied().map_or(f64::NAN, f64::from)
}
