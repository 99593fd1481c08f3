//! No harm at all, as a run's own check.

use anyhow::{Result, bail};
use async_trait::async_trait;
use rand::rngs::StdRng;

use super::{Harm, Nemesis};
use crate::cluster::Cluster;

pub struct None;

#[async_trait]
impl Nemesis for None {
    fn unfit(&self, _: &Cluster) -> Option<String> {
        Option::None
    }

    async fn begin(&mut self, _: &mut Cluster, _: &mut StdRng) -> Result<Harm> {
        bail!("this nemesis does nothing")
    }

    async fn end(&mut self, _: &mut Cluster) -> Result<()> {
        Ok(())
    }
}
