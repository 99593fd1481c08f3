//! Disks that fill up, hang, and fail.
//!
//! A log is written into space that was reserved, and a state reaches the disk
//! once it is large: a full disk is met only when what is reserved is used up.
//! So large entries, which change nothing, fill the log until it is.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use async_trait::async_trait;
use futures::future::join_all;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest};
use rand::rngs::StdRng;
use tests::Client;
use tokio::time::timeout;

use super::whom::{Whom, list, one_of};
use super::{Harm, Nemesis, wants_disks, why_no_disks};
use crate::cluster::{Cluster, Shape};

/// An entry that fills the log; requests may have half as much again.
const FILLER_BYTES: usize = 1 << 20;
/// So many of them are under way at once.
const FILLERS: usize = 4;
/// How long filling may take, and one entry of it.
const FILL_MAX: Duration = Duration::from_secs(20);
const ENTRY_MAX: Duration = Duration::from_secs(3);

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

    /// Writes until each disk has refused something and its member can no longer write its log, or so many are down
    /// that nothing more is written; tells how it went.
    async fn fill(&self, cluster: &mut Cluster) -> Result<String> {
        let began = Instant::now();
        let mut entries = 0;
        loop {
            let awake = cluster.awake();
            let mut up = self.hit.iter().filter(|at| awake.contains(at)).count();
            let refused: Vec<u64> = self
                .hit
                .iter()
                .map(|&at| cluster.with_disk(at, |disk| disk.refused()))
                .collect::<Result<_>>()?;
            // Whoever is left of too few writes nothing any more, and so meets nothing.
            if awake.len() <= cluster.len() / 2 && refused.iter().any(|times| *times > 0) {
                up = 0;
            }
            if up == 0 || began.elapsed() > FILL_MAX {
                ensure!(refused.iter().any(|times| *times > 0), "{entries} large entries found room");
                let met = self.hit.iter().zip(&refused).map(|(at, times)| match awake.contains(at) {
                    true => format!("member {at} was refused {times} times and is up"),
                    false => format!("member {at} was refused {times} times and ended"),
                });
                return Ok(format!("{entries} large entries, {}", met.collect::<Vec<_>>().join(", ")));
            }
            let Some(via) = cluster.leader().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let fill = || timeout(ENTRY_MAX, fill(cluster.client(via)));
            let filled = join_all((0..FILLERS).map(|_| fill())).await;
            entries += filled.iter().filter(|filled| matches!(filled, Ok(Ok(())))).count();
        }
    }
}

/// A transaction that never holds: it has its place in the log, and no revision.
async fn fill(mut client: Client) -> Result<()> {
    let key = "filler";
    let never = Compare {
        key: key.into(),
        result: CompareResult::Less.into(),
        target: CompareTarget::Create.into(),
        target_union: Some(TargetUnion::CreateRevision(0)),
        ..Compare::default()
    };
    let value = vec![b'x'; FILLER_BYTES].into();
    let put = PutRequest { key: key.into(), value, ..PutRequest::default() };
    let put = RequestOp { request: Some(Request::RequestPut(put)) };
    let txn = TxnRequest { compare: vec![never], success: vec![put], failure: Vec::new() };
    let answer = client.kv.txn(txn).await?.into_inner();
    ensure!(!answer.succeeded, "a key was made before the first revision");
    Ok(())
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
        let mut what = list(&self.hit);
        if self.how == How::Full {
            what = format!("{what}; {}", self.fill(cluster).await?);
        }
        Ok(Harm::new(format!("disk-{}", self.how.name()), what))
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
