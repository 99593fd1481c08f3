//! One of several, another one each time.

use anyhow::{Context, Result};
use async_trait::async_trait;
use rand::RngExt;
use rand::rngs::StdRng;

use super::{Harm, Nemesis};
use crate::cluster::{Cluster, Shape};

/// Those that do not fit the cluster are left out.
pub struct Mix {
    parts: Vec<Box<dyn Nemesis>>,
    now: Option<usize>,
}

impl Mix {
    pub fn new(parts: Vec<Box<dyn Nemesis>>) -> Mix {
        Mix { parts, now: None }
    }
}

#[async_trait]
impl Nemesis for Mix {
    fn prepare(&self, shape: &mut Shape) {
        for part in &self.parts {
            part.prepare(shape);
        }
    }

    fn unfit(&self, cluster: &Cluster) -> Option<String> {
        let reasons: Option<Vec<String>> = self.parts.iter().map(|part| part.unfit(cluster)).collect();
        reasons.map(|reasons| format!("none of the mix: {}", reasons.join("; ")))
    }

    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm> {
        let fit: Vec<usize> =
            (0..self.parts.len()).filter(|&at| self.parts[at].unfit(cluster).is_none()).collect();
        anyhow::ensure!(!fit.is_empty(), "nothing of the mix fits");
        let at = fit[rng.random_range(0..fit.len())];
        self.now = Some(at);
        self.parts[at].begin(cluster, rng).await
    }

    async fn end(&mut self, cluster: &mut Cluster) -> Result<()> {
        let at = self.now.take().context("nothing was begun")?;
        self.parts[at].end(cluster).await
    }
}
