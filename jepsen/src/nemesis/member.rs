//! Members that are removed and replaced, and clusters that grow and shrink.

use anyhow::Result;
use async_trait::async_trait;
use rand::RngExt;
use rand::rngs::StdRng;

use super::whom::one_of;
use super::{Harm, Nemesis};
use crate::cluster::Cluster;

/// Removes a member and its data, to add it again as a new one; or adds one more, to remove it again.
#[derive(Default)]
pub struct Member {
    removed: Option<usize>,
    added: Option<usize>,
    learner: bool,
}

#[async_trait]
impl Nemesis for Member {
    fn unfit(&self, cluster: &Cluster) -> Option<String> {
        (cluster.len() < 3).then(|| format!("of {} members none can be spared", cluster.len()))
    }

    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm> {
        self.learner = rng.random();
        let as_what = if self.learner { "as a learner first" } else { "as a voter at once" };
        if rng.random_bool(0.3) {
            let at = cluster.grow().await?;
            self.added = Some(at);
            cluster.add(at, self.learner).await?;
            return Ok(Harm::new("member-grow", format!("member {at}, {as_what}")));
        }
        let at = *one_of(&cluster.all(), rng);
        self.removed = Some(at);
        cluster.remove(at).await?;
        Ok(Harm::new("member-replace", format!("member {at}, to come back {as_what}")))
    }

    async fn end(&mut self, cluster: &mut Cluster) -> Result<()> {
        if let Some(at) = self.added.take() {
            cluster.remove(at).await?;
        }
        if let Some(at) = self.removed.take() {
            cluster.replace(at, self.learner).await?;
        }
        Ok(())
    }
}
