//! Processes that stop where they are, as on a machine that swaps, and go on.

use anyhow::Result;
use async_trait::async_trait;
use rand::rngs::StdRng;

use super::whom::{Whom, list, one_of};
use super::{Harm, Nemesis};
use crate::cluster::Cluster;

/// Pauses one of these choices of members each time.
pub struct Pause {
    whom: &'static [Whom],
    paused: Vec<usize>,
}

impl Pause {
    pub fn new(whom: &'static [Whom]) -> Pause {
        Pause { whom, paused: Vec::new() }
    }
}

#[async_trait]
impl Nemesis for Pause {
    fn unfit(&self, _: &Cluster) -> Option<String> {
        None
    }

    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm> {
        let whom = *one_of(self.whom, rng);
        self.paused = whom.choose(cluster, rng).await?;
        for &at in &self.paused {
            cluster.pause(at).await?;
        }
        Ok(Harm::new(format!("pause-{}", whom.name()), list(&self.paused)))
    }

    async fn end(&mut self, cluster: &mut Cluster) -> Result<()> {
        for at in std::mem::take(&mut self.paused) {
            cluster.resume(at)?;
        }
        Ok(())
    }
}
