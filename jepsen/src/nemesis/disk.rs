//! Disks that fill up, hang, and fail.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use rand::rngs::StdRng;

use super::whom::{Whom, list, one_of};
use super::{Harm, Nemesis, wants_disks, why_no_disks};
use crate::cluster::{Cluster, Shape};

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Nothing more fits on it.
    Full,
    /// It takes requests and does not answer.
    Hang,
    /// Writes and syncs end with an error.
    Fail,
}

impl How {
    fn name(self) -> &'static str {
        match self {
            How::Full => "full",
            How::Hang => "hang",
            How::Fail => "fail",
        }
    }
}

/// Does this to the disks of one of these choices of members.
pub struct Disk {
    how: How,
    whom: &'static [Whom],
    hit: Vec<usize>,
}

impl Disk {
    pub fn new(how: How, whom: &'static [Whom]) -> Disk {
        Disk { how, whom, hit: Vec::new() }
    }
}

#[async_trait]
impl Nemesis for Disk {
    fn prepare(&self, shape: &mut Shape) {
        wants_disks(shape);
    }

    fn unfit(&self, cluster: &Cluster) -> Option<String> {
        why_no_disks(cluster)
    }

    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm> {
        let whom = *one_of(self.whom, rng);
        self.hit = whom.choose(cluster, rng).await?;
        for &at in &self.hit {
            if self.how != How::Hang {
                // A member may end rather than go on with such a disk.
                cluster.may_die(at);
            }
            cluster.with_disk(at, |disk| match self.how {
                How::Full => disk.set_full(true),
                How::Hang => disk.set_hanging(true),
                How::Fail => disk.set_failing(true),
            })?;
        }
        Ok(Harm::new(format!("disk-{}", self.how.name()), list(&self.hit)))
    }

    async fn end(&mut self, cluster: &mut Cluster) -> Result<()> {
        let hit = std::mem::take(&mut self.hit);
        for &at in &hit {
            cluster.with_disk(at, |disk| disk.heal())?;
        }
        // A member that is about to end does so before it is started again.
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.start_all_again(&hit).await
    }
}
