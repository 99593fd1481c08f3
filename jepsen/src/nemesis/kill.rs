//! Processes that end at once, as `kill -9` ends them, and start again.

use anyhow::Result;
use async_trait::async_trait;
use rand::rngs::StdRng;

use super::whom::{Whom, list, one_of};
use super::{Harm, Nemesis};
use crate::cluster::Cluster;

/// Kills one of these choices of members each time.
pub struct Kill {
    whom: &'static [Whom],
    down: Vec<usize>,
}

impl Kill {
    pub fn new(whom: &'static [Whom]) -> Kill {
        Kill { whom, down: Vec::new() }
    }
}

#[async_trait]
impl Nemesis for Kill {
    fn unfit(&self, _: &Cluster) -> Option<String> {
        None
    }

    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm> {
        let whom = *one_of(self.whom, rng);
        self.down = whom.choose(cluster, rng).await?;
        for &at in &self.down {
            cluster.kill(at).await?;
        }
        Ok(Harm::new(format!("kill-{}", whom.name()), list(&self.down)))
    }

    async fn end(&mut self, cluster: &mut Cluster) -> Result<()> {
        let down = std::mem::take(&mut self.down);
        cluster.start_all_again(&down).await
    }
}
