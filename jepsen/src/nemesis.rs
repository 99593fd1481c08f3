//! Who does harm to the cluster while clients are at work.
//!
//! A nemesis does one thing at a time: [`Nemesis::begin`] does it and says
//! what, [`Nemesis::end`] takes it back. [`run`] repeats that until it is time,
//! and every choice comes from the one random source it is given.

mod clock;
mod compact;
mod corrupt;
mod disk;
mod kill;
mod member;
mod mix;
mod none;
mod partition;
mod pause;
mod registry;
mod slow;
mod snapshot;
mod transfer;
mod unsynced;
mod whom;

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use rand::RngExt;
use rand::rngs::StdRng;

pub use registry::{NAMES, by_name, names};
pub use snapshot::outgrow;

use crate::cluster::{Cluster, Shape};
use crate::disk::Names;
use crate::history::Fault;

/// What was done, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Harm {
    /// As in [`Fault::kind`].
    pub kind: String,
    /// As in [`Fault::what`].
    pub what: String,
}

impl Harm {
    /// A kind, and to whom or with what.
    pub fn new(kind: impl Into<String>, what: impl Into<String>) -> Harm {
        Harm { kind: kind.into(), what: what.into() }
    }
}

/// One way to do harm.
#[async_trait]
pub trait Nemesis: Send {
    /// What the cluster must be started with for it.
    fn prepare(&self, _shape: &mut Shape) {}

    /// Why this cluster cannot suffer it: the program, the machine, or the number of members.
    fn unfit(&self, cluster: &Cluster) -> Option<String>;

    /// Does it.
    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm>;

    /// Takes it back, also when it was only half begun.
    async fn end(&mut self, cluster: &mut Cluster) -> Result<()>;
}

/// Disks of their own: of our members, everything must hold that POSIX lets happen; etcd relies on a journal.
fn wants_disks(shape: &mut Shape) {
    shape.disks = Some(if shape.program.is_ours() { Names::Posix } else { Names::Journal });
}

fn why_no_disks(cluster: &Cluster) -> Option<String> {
    (!cluster.has_disks()).then(|| cluster.why_no_disks().to_owned())
}

/// How long a fault lasts and how long the cluster has to recover.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Between two faults.
    pub quiet: Range<Duration>,
    /// From a fault's beginning to its end.
    pub held: Range<Duration>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            quiet: Duration::from_millis(1500)..Duration::from_secs(4),
            held: Duration::from_secs(2)..Duration::from_secs(6),
        }
    }
}

/// What came of a nemesis's work.
#[derive(Debug, Default)]
pub struct Work {
    /// What it did.
    pub faults: Vec<Fault>,
    /// What it tried and could not do, and why.
    pub failures: Vec<String>,
}

/// Does harm again and again until it is time, and takes back what it did last.
///
/// Times are told as since `start`.
pub async fn run(
    nemesis: &mut dyn Nemesis,
    cluster: &mut Cluster,
    rng: &mut StdRng,
    pace: &Pace,
    start: Instant,
    until: Instant,
) -> Work {
    let mut work = Work::default();
    let since = |at: Instant| at.saturating_duration_since(start).as_nanos() as u64;
    loop {
        let quiet = rng.random_range(pace.quiet.clone());
        let held = rng.random_range(pace.held.clone());
        if Instant::now() + quiet >= until {
            tokio::time::sleep_until(until.into()).await;
            return work;
        }
        tokio::time::sleep(quiet).await;
        let began = Instant::now();
        let harm = nemesis.begin(cluster, rng).await;
        if harm.is_ok() {
            tokio::time::sleep_until(until.min(Instant::now() + held).into()).await;
        }
        if let Err(error) = nemesis.end(cluster).await {
            work.failures.push(format!("end: {error:#}"));
        }
        let ended = Instant::now();
        match harm {
            Ok(Harm { kind, what }) => {
                work.faults.push(Fault { kind, what, began: since(began), ended: since(ended) });
            }
            Err(error) => work.failures.push(format!("begin: {error:#}")),
        }
    }
}
