//! A member that comes back after the log it would need is gone, so that it is
//! sent a whole state.
//!
//! Leases that nobody sees fill the log, so that this works whatever clients do.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use proto::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest};
use rand::RngExt;
use rand::rngs::StdRng;
use tests::{Client, eventually};
use tokio::time::{sleep, timeout};

use super::whom::one_of;
use super::{Harm, Nemesis};
use crate::cluster::{Cluster, Shape};

/// `--snapshot-count` of members.
const COUNT: u64 = 100;
/// `--snapshot-catchup-entries`.
const CATCH_UP: u64 = 10;
/// So many entries our members keep in any case.
const KEPT_MIN: u64 = 10_000;
/// How long the log may take to get that long.
const FILL_MAX: Duration = Duration::from_secs(120);
/// How long one request may take: none is waited for longer that was lost with its leader.
const REQUEST_MAX: Duration = Duration::from_secs(3);
/// So many leases are granted and revoked at once.
const AT_ONCE: usize = 200;

/// Keeps a member down for long enough; now and then it is replaced by one without data.
#[derive(Default)]
pub struct Snapshot {
    down: Option<usize>,
}

#[async_trait]
impl Nemesis for Snapshot {
    fn prepare(&self, shape: &mut Shape) {
        shape.args.push(format!("--snapshot-count={COUNT}"));
        shape.args.push(format!("--snapshot-catchup-entries={CATCH_UP}"));
    }

    fn unfit(&self, cluster: &Cluster) -> Option<String> {
        (cluster.len() < 3).then(|| "nobody is there to send a state".to_owned())
    }

    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm> {
        let at = *one_of(&cluster.all(), rng);
        self.down = Some(at);
        let wiped = rng.random_bool(0.3);
        match wiped {
            true => cluster.remove(at).await?,
            false => cluster.kill(at).await?,
        }
        let missed = outgrow(cluster).await?;
        let kind = if wiped { "snapshot-wiped" } else { "snapshot" };
        let mut compacted = String::new();
        if rng.random_bool(0.5) {
            let via = cluster.some_leader().await?;
            let status = timeout(FILL_MAX, cluster.client(via).status()).await??;
            let revision = status.header.unwrap_or_default().revision;
            // One that was compacted already is as good.
            if timeout(FILL_MAX, cluster.compact(via, revision, false)).await?.is_ok() {
                compacted = format!(", compacted up to {revision}");
            }
        }
        let what = format!("member {at} missed entries {} to {}{compacted}", missed.start, missed.end);
        Ok(Harm::new(kind, what))
    }

    async fn end(&mut self, cluster: &mut Cluster) -> Result<()> {
        let Some(at) = self.down.take() else { return Ok(()) };
        cluster.replace(at, true).await?;
        let until = log_end(cluster).await?;
        eventually("a member has caught up", || async {
            let status = timeout(Duration::from_secs(1), cluster.client(at).status()).await??;
            ensure!(status.raft_applied_index >= until, "{} of {until}", status.raft_applied_index);
            Ok(())
        })
        .await
    }
}

/// Writes entries until a member that is away has to be sent a whole state; gives which ones it misses.
///
/// The cluster is one that was prepared for the nemesis `snapshot`.
pub async fn outgrow(cluster: &Cluster) -> Result<Range<u64>> {
    let deadline = Instant::now() + FILL_MAX;
    let from = log_end(cluster).await?;
    let kept = if cluster.program().is_ours() { KEPT_MIN } else { CATCH_UP };
    // What is kept counts from the last point at which a state was safe, which is some counts ago.
    let until = from + kept + 15 * COUNT;
    let (mut leader, mut now) = (None, from);
    // Entries that are on their way to somebody are kept until that is given up: a log is cut off only later,
    // and only as it grows further.
    let mut more = 12;
    while more > 0 {
        ensure!(Instant::now() < deadline, "the log got to {now} of {until} in {FILL_MAX:?}");
        if now >= until {
            more -= 1;
            sleep(Duration::from_millis(300)).await;
        }
        // Who led a moment ago is asked alone: whoever is slow or away would have to be waited for each time.
        let via = match leader {
            Some(via) => via,
            None => cluster.some_leader().await?,
        };
        fill(&cluster.client(via)).await;
        let status = timeout(REQUEST_MAX, cluster.client(via).status()).await;
        leader = match status {
            Ok(Ok(status)) => {
                now = now.max(status.raft_applied_index);
                let own = status.header.as_ref().map_or(0, |header| header.member_id);
                (status.leader == own).then_some(via)
            }
            _ => None,
        };
    }
    Ok(from..until)
}

/// The longest log's end.
async fn log_end(cluster: &Cluster) -> Result<u64> {
    eventually("somebody tells how long the log is", || async {
        let statuses = cluster.statuses().await;
        statuses.iter().map(|(_, status)| status.raft_applied_index).max().context("nobody answers")
    })
    .await
}

/// Some entries, without a revision. What fails while another leader is elected is tried again by who counts them.
async fn fill(client: &Client) {
    let lease = || async {
        let grant = LeaseGrantRequest { ttl: 600, id: 0 };
        let granted = timeout(REQUEST_MAX, client.lease.clone().lease_grant(grant)).await??.into_inner();
        let revoke = LeaseRevokeRequest { id: granted.id };
        timeout(REQUEST_MAX, client.lease.clone().lease_revoke(revoke)).await??;
        Ok::<_, anyhow::Error>(())
    };
    futures::future::join_all((0..AT_ONCE).map(|_| lease())).await;
}
