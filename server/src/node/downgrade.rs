//! Preparing the cluster to go down one minor version.
//!
//! What the cluster is to go down to is agreed on through the log. From then on
//! the leader lowers the cluster's version (`process::version`), the storage's
//! follows, and no member of the version before may join. Any member decides,
//! from what it knows once it has caught up with the leader.
//!
//! The order of the tests is etcd 3.7's: `version.Manager` and `EtcdServer.Downgrade`.

use proto::command::Downgrade;
use proto::command::command::Op;
use proto::etcdserverpb::downgrade_request::DowngradeAction as Action;
use tracing::warn;

use super::{Encoded, Failure, Node};
use crate::version::Version;

/// Why the cluster does not prepare to go down, or to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stays {
    /// The target is no version.
    #[error("wrong downgrade target version format")]
    BadFormat,
    /// The target is not one minor version below the cluster's.
    #[error("invalid downgrade target version")]
    BadTarget,
    /// The cluster has no version yet.
    #[error("cluster version not found during downgrade")]
    NoVersion,
    /// It prepares to go down already.
    #[error("cluster has a downgrade job in progress")]
    UnderWay,
    /// There is nothing to cancel.
    #[error("no inflight downgrade job")]
    NotUnderWay,
    /// Neither validate, enable nor cancel.
    #[error("unknown method")]
    UnknownAction,
}

/// Does what was asked; gives the version of the cluster.
///
/// # Errors
/// Why the target is refused, or why the cluster does not answer. A cancel that fails is logged alone, as etcd does it.
pub async fn downgrade(node: &Node, action: i32, target: &str) -> Result<Version, Failure> {
    match Action::try_from(action) {
        Ok(Action::Validate) => {
            let target = Version::read_target(target).ok_or(Stays::BadFormat)?;
            // Told as of before the test.
            let version = cluster_version(node)?;
            validate(node, target).await?;
            Ok(version)
        }
        Ok(Action::Enable) => {
            enable(node, target).await.inspect_err(|error| warn!(%error, "reject downgrade request"))?;
            cluster_version(node)
        }
        Ok(Action::Cancel) => {
            if let Err(error) = cancel(node).await {
                warn!(%error, "failed to cancel downgrade");
            }
            cluster_version(node)
        }
        Err(_) => Err(Stays::UnknownAction.into()),
    }
}

async fn enable(node: &Node, target: &str) -> Result<(), Failure> {
    let target = Version::read_target(target).ok_or(Stays::BadFormat)?;
    validate(node, target).await?;
    set(node, target.to_string()).await
}

/// Ends the preparation to go down.
///
/// # Errors
/// When there is none, or the cluster does not answer.
pub async fn cancel(node: &Node) -> Result<(), Failure> {
    node.linearizable_view().await?;
    if !node.reader().downgrade().enabled {
        return Err(Stays::NotUnderWay.into());
    }
    set(node, String::new()).await
}

async fn validate(node: &Node, target: Version) -> Result<(), Failure> {
    node.linearizable_view().await?;
    if Some(target) != cluster_version(node)?.one_below() {
        return Err(Stays::BadTarget.into());
    }
    if node.reader().downgrade().enabled {
        return Err(Stays::UnderWay.into());
    }
    Ok(())
}

async fn set(node: &Node, target_version: String) -> Result<(), Failure> {
    let command = Encoded::new(Op::Downgrade(Downgrade { target_version }));
    node.propose(command).await.map(|_applied| ())
}

fn cluster_version(node: &Node) -> Result<Version, Failure> {
    let version = node.reader().cluster_version();
    Ok(version.as_deref().and_then(Version::read).ok_or(Stays::NoVersion)?)
}
