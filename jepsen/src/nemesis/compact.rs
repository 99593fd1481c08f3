//! Old revisions that are forgotten, and files that are written anew.

use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use proto::etcdserverpb::DefragmentRequest;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::timeout;

use super::whom::{Whom, list, one_of};
use super::{Harm, Nemesis};
use crate::cluster::Cluster;

const PATIENCE: Duration = Duration::from_secs(30);

/// Compacts, or defragments one member or all.
pub struct Compact;

#[async_trait]
impl Nemesis for Compact {
    fn unfit(&self, _: &Cluster) -> Option<String> {
        None
    }

    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm> {
        if rng.random_bool(0.5) {
            let some = one_of(&[Whom::One, Whom::Leader, Whom::All], rng).choose(cluster, rng).await?;
            for &at in &some {
                let mut client = cluster.client(at).maintenance;
                timeout(PATIENCE, client.defragment(DefragmentRequest {})).await??;
            }
            return Ok(Harm::new("defragment", list(&some)));
        }
        let statuses = cluster.statuses().await;
        let revision = |status: &proto::etcdserverpb::StatusResponse| {
            status.header.as_ref().map_or(0, |header| header.revision)
        };
        let now = statuses.iter().map(|(_, status)| revision(status)).max().context("nobody answers")?;
        let revision = now - rng.random_range(0..=100).min(now - 1);
        let physical = rng.random();
        let via = *one_of(&cluster.all(), rng);
        timeout(PATIENCE, cluster.compact(via, revision, physical)).await??;
        Ok(Harm::new("compact", format!("up to {revision} of {now}, physical: {physical}")))
    }

    async fn end(&mut self, _: &mut Cluster) -> Result<()> {
        Ok(())
    }
}
