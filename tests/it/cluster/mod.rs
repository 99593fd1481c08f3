//! Clusters: what members do together, and what is left when some of them fail.

mod basics;
mod catch_up;
mod disaster;
mod discovery;
mod disk_hang;
mod divergence;
mod failover;
mod leadership;
mod load;
mod membership;
mod metrics;
mod partition;
mod peers;
mod watcher;

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, anyhow};
use proto::etcdserverpb::MoveLeaderRequest;
use tests::{Cluster, Shape, eventually};
use tonic::{Code, Request, Status};

use crate::program;

/// What etcd gives a proposal or a read index that gets nowhere: 5 s and two election timeouts, here 6 s.
const REQUEST_MAX: Duration = Duration::from_secs(6);

/// So many members of the server under test.
fn shape(members: usize) -> Shape {
    Shape::new(program(), members)
}

/// A request that wants the member to know a leader, as `clientv3.WithRequireLeader` makes it.
fn with_leader<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", "true".parse().expect("plain ASCII"));
    request
}

/// The answer, or an error when it takes longer.
async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let answer = tokio::time::timeout(limit, answer).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("the test waits no longer")))
}

/// The answer is a refusal with this code and text.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) -> Result<()> {
    let place = std::panic::Location::caller();
    match answer {
        Err(status) if status.code() == code && status.message() == text => Ok(()),
        Err(status) => {
            Err(anyhow!("{place}: {:?} {:?}, not {code:?} {text:?}", status.code(), status.message()))
        }
        Ok(answer) => Err(anyhow!("{place}: {answer:?}, not {code:?} {text:?}")),
    }
}

/// Makes a member the leader and waits until all know.
async fn move_leader(cluster: &mut Cluster, to: usize) -> Result<()> {
    let target_id = cluster.id(to).await?;
    for _ in 0..50 {
        let leader = cluster.leader().await?;
        if leader == to {
            return Ok(());
        }
        let request = MoveLeaderRequest { target_id };
        // It may refuse what it has not caught up for, and the leader may change meanwhile.
        if let Err(status) = cluster.client(leader).maintenance.move_leader(request).await {
            eprintln!("moving the leader from {leader} to {to}: {status}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Err(anyhow!("member {to} does not become the leader"))
}

/// Puts until it works; gives the revision.
async fn put_eventually(cluster: &Cluster, at: usize, key: &str, value: &str) -> Result<i64> {
    let client = cluster.client(at);
    let put = || async { Ok(within(Duration::from_secs(2), client.put(key, value)).await?.revision) };
    eventually("a put", put).await
}
