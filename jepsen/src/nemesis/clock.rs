//! Clocks that jump and strobe.
//!
//! The wall clock goes forward and back. The monotonic clock only goes forward,
//! by leaps, or in many small ones, as one that is too fast; leases are counted
//! by it, and may end that much earlier.

use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::whom::{list, one_of};
use super::{Harm, Nemesis};
use crate::cluster::{Cluster, Shape};

const SECOND: i64 = 1_000_000_000;

/// Which clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The time of day.
    Wall,
    /// That of timeouts.
    Monotonic,
}

/// Moves these clocks, of one member or of all.
pub struct Clock {
    which: &'static [Which],
    strobes: JoinSet<()>,
    moved: Vec<usize>,
    leaping: Option<Leaping>,
}

/// How the monotonic clocks of those that are moved were before.
struct Leaping {
    began: Instant,
    ahead: Vec<i64>,
    /// What one may leap in the moment in which another takes over from it.
    step: Duration,
}

impl Clock {
    pub fn new(which: &'static [Which]) -> Clock {
        Clock { which, strobes: JoinSet::new(), moved: Vec::new(), leaping: None }
    }
}

#[async_trait]
impl Nemesis for Clock {
    fn prepare(&self, shape: &mut Shape) {
        shape.clocks = true;
    }

    fn unfit(&self, cluster: &Cluster) -> Option<String> {
        if !cluster.program().is_ours() {
            return Some("etcd is linked statically and asks the kernel for the time".to_owned());
        }
        (!cluster.has_clocks()).then(|| cluster.why_no_clocks().to_owned())
    }

    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm> {
        let all = cluster.all();
        self.moved = if rng.random_bool(0.3) { all } else { vec![*one_of(&all, rng)] };
        let strobe = rng.random_bool(0.4);
        let which = *one_of(self.which, rng);
        let (kind, what) = match which {
            Which::Wall => {
                let jump =
                    *one_of(&[SECOND / 5, SECOND, 30 * SECOND, 3600 * SECOND, 90 * 86_400 * SECOND], rng);
                let jump = if rng.random() { jump } else { -jump };
                self.wall(cluster, jump, strobe, rng)?;
                ("wall", format!("by {} s", jump as f64 / SECOND as f64))
            }
            Which::Monotonic => {
                let most = if strobe { 30 } else { *one_of(&[200, 1_000, 5_000], rng) };
                let jump = Duration::from_millis(rng.random_range(1..=most));
                self.monotonic(cluster, jump, strobe, rng)?;
                ("monotonic", format!("by {jump:?}"))
            }
        };
        let how = if strobe { "strobe" } else { "jump" };
        Ok(Harm::new(format!("clock-{kind}-{how}"), format!("{}: {what}", list(&self.moved))))
    }

    async fn end(&mut self, cluster: &mut Cluster) -> Result<()> {
        self.strobes.shutdown().await;
        if let Some(Leaping { began, ahead, step }) = self.leaping.take() {
            let leapt =
                self.monotonic_ahead(cluster)?.into_iter().zip(ahead).map(|(now, before)| now - before);
            let most = Duration::from_nanos(leapt.max().unwrap_or(0).unsigned_abs());
            cluster.note_leap(began, most + step);
        }
        for at in std::mem::take(&mut self.moved) {
            cluster.with_clock(at, |clock| clock.set_wall(0))??;
        }
        Ok(())
    }
}

impl Clock {
    fn wall(&mut self, cluster: &Cluster, jump: i64, strobe: bool, rng: &mut StdRng) -> Result<()> {
        for &at in &self.moved {
            cluster.with_clock(at, |clock| clock.set_wall(jump))??;
        }
        if strobe {
            let mut away = true;
            self.strobe(cluster, rng, move |clock| {
                away = !away;
                clock.set_wall(if away { jump } else { 0 })
            });
        }
        Ok(())
    }

    fn monotonic_ahead(&self, cluster: &Cluster) -> Result<Vec<i64>> {
        self.moved.iter().map(|&at| cluster.with_clock(at, |clock| clock.ahead().monotonic)).collect()
    }

    fn monotonic(&mut self, cluster: &Cluster, jump: Duration, strobe: bool, rng: &mut StdRng) -> Result<()> {
        let step = if strobe { jump } else { Duration::ZERO };
        self.leaping = Some(Leaping { began: Instant::now(), ahead: self.monotonic_ahead(cluster)?, step });
        for &at in &self.moved {
            cluster.with_clock(at, |clock| clock.add_monotonic(jump))??;
        }
        if strobe {
            self.strobe(cluster, rng, move |clock| clock.add_monotonic(jump));
        }
        Ok(())
    }

    /// Moves the clocks again and again until the end.
    fn strobe(
        &mut self,
        cluster: &Cluster,
        rng: &mut StdRng,
        tick: impl FnMut(&mut crate::clock::Clock) -> Result<()> + Clone + Send + 'static,
    ) {
        let every = Duration::from_millis(*one_of(&[5, 40, 200], rng));
        for &at in &self.moved {
            let (site, mut tick) = (cluster.site(), tick.clone());
            self.strobes.spawn(async move {
                loop {
                    tokio::time::sleep(every).await;
                    if let Some(clock) = &mut site.homes()[at].clock
                        && let Err(error) = tick(clock)
                    {
                        eprintln!("the clock of member {at} stands: {error:#}");
                        return;
                    }
                }
            });
        }
    }
}
