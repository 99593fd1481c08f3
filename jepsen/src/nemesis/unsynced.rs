//! Machines that stop: what their disks were not told to keep is lost.

use anyhow::Result;
use async_trait::async_trait;
use rand::rngs::StdRng;

use super::whom::{Whom, list, one_of};
use super::{Harm, Nemesis, wants_disks, why_no_disks};
use crate::cluster::{Cluster, Shape};
use crate::disk::Loss;

/// Stops the machines of one of these choices of members each time.
pub struct Unsynced {
    whom: &'static [Whom],
    down: Vec<usize>,
}

impl Unsynced {
    pub fn new(whom: &'static [Whom]) -> Unsynced {
        Unsynced { whom, down: Vec::new() }
    }
}

#[async_trait]
impl Nemesis for Unsynced {
    fn prepare(&self, shape: &mut Shape) {
        wants_disks(shape);
    }

    fn unfit(&self, cluster: &Cluster) -> Option<String> {
        why_no_disks(cluster)
    }

    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm> {
        let whom = *one_of(self.whom, rng);
        let loss = *one_of(&[Loss::All, Loss::Torn], rng);
        self.down = whom.choose(cluster, rng).await?;
        let lost = cluster.crash(&self.down, loss, rng).await?;
        let (files, names) = lost.iter().fold((0, 0), |sum, lost| (sum.0 + lost.files, sum.1 + lost.names));
        let part = if loss == Loss::All { "all" } else { "a part" };
        let what = format!(
            "{}: {part} of what was not synced, in {files} files and {names} names",
            list(&self.down)
        );
        Ok(Harm::new(format!("unsynced-{}", whom.name()), what))
    }

    async fn end(&mut self, cluster: &mut Cluster) -> Result<()> {
        let down = std::mem::take(&mut self.down);
        cluster.start_all_again(&down).await
    }
}
