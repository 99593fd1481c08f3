//! A leader that is told to let another one lead.

use anyhow::Result;
use async_trait::async_trait;
use rand::rngs::StdRng;

use super::whom::one_of;
use super::{Harm, Nemesis};
use crate::cluster::Cluster;

/// Moves the leadership to any other member.
pub struct Transfer;

#[async_trait]
impl Nemesis for Transfer {
    fn unfit(&self, cluster: &Cluster) -> Option<String> {
        (cluster.len() < 2).then(|| "nobody else can lead".to_owned())
    }

    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm> {
        // The next one comes soon after the last: it may still be elected.
        let leader = cluster.some_leader().await?;
        let others: Vec<usize> = cluster.all().into_iter().filter(|&at| at != leader).collect();
        let to = *one_of(&others, rng);
        let from = cluster.move_leader(to).await?;
        Ok(Harm::new("transfer", format!("from member {from} to member {to}")))
    }

    async fn end(&mut self, _: &mut Cluster) -> Result<()> {
        Ok(())
    }
}
