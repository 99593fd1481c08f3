//! Clients that write in every way while members come and go.

use std::time::Duration;

use anyhow::{Result, ensure};
use jepsen::cluster::Cluster;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{CompactionRequest, Compare, LeaseGrantRequest, PutRequest, RequestOp, TxnRequest};
use tests::{Client, eventually};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// A client that is not answered for so long goes on.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// What all clients count up.
const COUNTER: &str = "counter";
const LEASE_TTL: i64 = 600;

/// One client for each member.
pub struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<Result<Done>>,
}

/// What clients know of their writes.
#[derive(Debug, Default)]
pub struct Done {
    acknowledged: Vec<String>,
    counted: u64,
    /// Attempts to count whose outcome nobody told.
    unknown: u64,
}

impl Load {
    /// Starts to write under a name of its own.
    pub async fn start(cluster: &Cluster, name: &str) -> Result<Load> {
        let grant = || async {
            let request = LeaseGrantRequest { ttl: LEASE_TTL, id: 0 };
            Ok(cluster.client(cluster.all()[0]).lease.lease_grant(request).await?.into_inner().id)
        };
        let lease = eventually("a lease", grant).await?;
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for at in cluster.all() {
            clients.spawn(work(cluster.client(at), format!("{name}/{at}"), lease, stopped.clone()));
        }
        Ok(Load { stop, clients })
    }

    /// Ends it; gives what is known.
    pub async fn stop(self) -> Result<Done> {
        self.stop.send_replace(true);
        let mut all = Done::default();
        for done in self.clients.join_all().await {
            let done = done?;
            all.acknowledged.extend(done.acknowledged);
            all.counted += done.counted;
            all.unknown += done.unknown;
        }
        Ok(all)
    }
}

impl Done {
    /// How many writes were acknowledged.
    pub fn len(&self) -> usize {
        self.acknowledged.len()
    }

    /// All that was acknowledged is there, at every member, and nothing was counted twice.
    pub async fn is_kept(&self, cluster: &Cluster, name: &str) -> Result<()> {
        for at in cluster.all() {
            let client = cluster.client(at);
            let listed = eventually("a list", || async { Ok(client.list(&format!("{name}/")).await?) });
            let keys: std::collections::BTreeSet<Vec<u8>> =
                listed.await?.kvs.into_iter().map(|pair| pair.key.to_vec()).collect();
            let lost: Vec<_> =
                self.acknowledged.iter().filter(|key| !keys.contains(key.as_bytes())).collect();
            ensure!(lost.is_empty(), "member {at} lost {lost:?}");
            let pair = eventually("a read", || async { Ok(client.get(COUNTER).await?) }).await?;
            let count = pair.map_or(0, |pair| pair.version as u64);
            ensure!(
                (self.counted..=self.counted + self.unknown).contains(&count),
                "member {at} counted {count} of {} and perhaps {}",
                self.counted,
                self.unknown
            );
        }
        Ok(())
    }
}

/// Puts, leased puts, transactions that may fail, and now and then a compaction.
async fn work(client: Client, name: String, lease: i64, stopped: watch::Receiver<bool>) -> Result<Done> {
    let mut done = Done::default();
    for n in 0.. {
        if *stopped.borrow() {
            break;
        }
        let went_well = match n % 4 {
            3 => count(&client, &mut done).await,
            kind => {
                let key = format!("{name}/{n}");
                let lease = if kind == 1 { lease } else { 0 };
                let request =
                    PutRequest { key: key.clone().into(), value: "x".into(), lease, ..PutRequest::default() };
                let put = timeout(ANSWER_MAX, client.kv.clone().put(request)).await;
                let revision = put.ok().and_then(Result::ok).map(|answer| answer.into_inner().header);
                if let Some(header) = revision {
                    done.acknowledged.push(key);
                    if n % 40 == 0 {
                        let revision = (header.unwrap_or_default().revision - 20).max(1);
                        let compact = CompactionRequest { revision, physical: false };
                        // Another client may have compacted further.
                        timeout(ANSWER_MAX, client.kv.clone().compact(compact)).await.ok();
                    }
                    true
                } else {
                    false
                }
            }
        };
        if !went_well {
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(done)
}

/// Counts up by one, unless another client did so in between.
async fn count(client: &Client, done: &mut Done) -> bool {
    let Ok(Ok(pair)) = timeout(ANSWER_MAX, client.get(COUNTER)).await else { return false };
    let version = pair.map_or(0, |pair| pair.version);
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: COUNTER.into(),
        target_union: Some(TargetUnion::Version(version)),
        ..Compare::default()
    };
    let put = PutRequest { key: COUNTER.into(), value: "x".into(), ..PutRequest::default() };
    let txn = TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
        ..TxnRequest::default()
    };
    match timeout(ANSWER_MAX, client.kv.clone().txn(txn)).await {
        Ok(Ok(answer)) => {
            done.counted += u64::from(answer.into_inner().succeeded);
            true
        }
        _ => {
            done.unknown += 1;
            false
        }
    }
}
