//! Links that are slow, or lose, repeat and reorder packets.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use rand::RngExt;
use rand::rngs::StdRng;

use super::whom::{list, one_of};
use super::{Harm, Nemesis};
use crate::cluster::Cluster;
use crate::net::{CLIENTS, Link};

/// What the links do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Delay and jitter.
    Slow,
    /// Loss, repetition and overtaking.
    Lossy,
}

/// Makes the links of one member, or of all, worse; now and then also those to clients.
pub struct Slow {
    how: How,
}

impl Slow {
    pub fn new(how: How) -> Slow {
        Slow { how }
    }

    fn link(&self, rng: &mut StdRng) -> Link {
        match self.how {
            How::Slow => {
                let delay = *one_of(&[10, 50, 150, 400], rng);
                Link {
                    delay: Duration::from_millis(delay),
                    jitter: Duration::from_millis(rng.random_range(0..=delay)),
                    ..Link::default()
                }
            }
            How::Lossy => Link {
                loss: *one_of(&[0.02, 0.1, 0.3], rng),
                duplicate: *one_of(&[0.0, 0.05, 0.2], rng),
                reorder: *one_of(&[0.0, 0.1, 0.5], rng),
                ..Link::default()
            },
        }
    }
}

#[async_trait]
impl Nemesis for Slow {
    fn unfit(&self, cluster: &Cluster) -> Option<String> {
        (!cluster.has_packets()).then(|| "packets need network namespaces".to_owned())
    }

    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm> {
        let link = self.link(rng);
        let all = cluster.all();
        let some = if rng.random_bool(0.5) { all.clone() } else { vec![*one_of(&all, rng)] };
        let clients = cluster.len() == 1 || rng.random_bool(0.3);
        let others: Vec<usize> = all.into_iter().chain(clients.then_some(CLIENTS)).collect();
        for &from in &some {
            for &to in others.iter().filter(|&&to| to != from) {
                cluster.set_link(from, to, link)?;
                cluster.set_link(to, from, link)?;
            }
        }
        let with = if clients { " and clients" } else { "" };
        let (kind, what) = match self.how {
            How::Slow => ("slow", format!("{:?} + {:?}", link.delay, link.jitter)),
            How::Lossy => {
                let Link { loss, duplicate, reorder, .. } = link;
                ("lossy", format!("{loss} lost, {duplicate} twice, {reorder} overtaken"))
            }
        };
        Ok(Harm::new(kind, format!("{}{with}: {what}", list(&some))))
    }

    async fn end(&mut self, cluster: &mut Cluster) -> Result<()> {
        cluster.heal_network();
        Ok(())
    }
}
