//! Members that do not hear each other. Clients reach all of them.

use anyhow::Result;
use async_trait::async_trait;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::whom::{Whom, list, one_of};
use super::{Harm, Nemesis};
use crate::cluster::Cluster;
use crate::net::Link;

/// What is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A majority and the others.
    Halves,
    /// The leader and the others.
    Leader,
    /// Everyone hears a majority, no two the same one.
    Ring,
    /// Two halves, and one member that hears and is heard by both.
    Bridge,
    /// One member hears nobody, or nobody hears it.
    OneWay,
}

/// All of them.
pub const SHAPES: &[Shape] = &[Shape::Halves, Shape::Leader, Shape::Ring, Shape::Bridge, Shape::OneWay];

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Halves => "halves",
            Shape::Leader => "leader",
            Shape::Ring => "ring",
            Shape::Bridge => "bridge",
            Shape::OneWay => "one-way",
        }
    }
}

/// Cuts in one of these shapes each time.
pub struct Partition {
    shapes: &'static [Shape],
}

impl Partition {
    pub fn new(shapes: &'static [Shape]) -> Partition {
        Partition { shapes }
    }
}

#[async_trait]
impl Nemesis for Partition {
    fn unfit(&self, cluster: &Cluster) -> Option<String> {
        (cluster.len() < 3).then(|| format!("{} members cannot be parted", cluster.len()))
    }

    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm> {
        let shape = *one_of(self.shapes, rng);
        let mut order = cluster.all();
        order.shuffle(rng);
        let minority = cluster.minority();
        let (what, cuts) = match shape {
            Shape::Halves => {
                let (few, many) = order.split_at(minority);
                (format!("{} | {}", list(few), list(many)), between(few, many))
            }
            Shape::Leader => {
                let leader = Whom::Leader.choose(cluster, rng).await?;
                let others: Vec<usize> = order.iter().copied().filter(|at| !leader.contains(at)).collect();
                (list(&leader), between(&leader, &others))
            }
            Shape::Ring => (format!("in the order of {order:?}"), ring(&order)),
            Shape::Bridge => {
                let (bridge, rest) = (order[0], &order[1..]);
                let (left, right) = rest.split_at(rest.len() / 2);
                (format!("{} | {bridge} | {}", list(left), list(right)), between(left, right))
            }
            Shape::OneWay => {
                let (one, others) = (order[0], &order[1..]);
                match rng.random::<bool>() {
                    true => (
                        format!("member {one} hears nobody"),
                        others.iter().map(|&other| (other, one)).collect(),
                    ),
                    false => (
                        format!("nobody hears member {one}"),
                        others.iter().map(|&other| (one, other)).collect(),
                    ),
                }
            }
        };
        for (from, to) in cuts {
            cluster.set_link(from, to, Link::CUT)?;
        }
        Ok(Harm::new(format!("partition-{}", shape.name()), what))
    }

    async fn end(&mut self, cluster: &mut Cluster) -> Result<()> {
        cluster.heal_network();
        Ok(())
    }
}

/// Both ways between each of these and each of those.
fn between(these: &[usize], those: &[usize]) -> Vec<(usize, usize)> {
    these.iter().flat_map(|&a| those.iter().flat_map(move |&b| [(a, b), (b, a)])).collect()
}

/// Everyone hears only those that follow it in the order, as many as make a majority with itself.
fn ring(order: &[usize]) -> Vec<(usize, usize)> {
    let count = order.len();
    let heard = count / 2;
    let mut cuts = Vec::new();
    for to in 0..count {
        for step in 1..count {
            let from = (to + step) % count;
            if step > heard {
                cuts.push((order[from], order[to]));
            }
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_in_a_ring_hears_a_majority_of_its_own() {
        for count in [3, 5, 7] {
            let order: Vec<usize> = (0..count).collect();
            let cuts = ring(&order);
            let mut seen = Vec::new();
            for to in 0..count {
                let heard: Vec<usize> =
                    (0..count).filter(|&from| from == to || !cuts.contains(&(from, to))).collect();
                assert_eq!(heard.len(), count / 2 + 1, "{cuts:?}");
                assert!(!seen.contains(&heard), "{cuts:?}");
                seen.push(heard);
            }
        }
    }
}
