//! How a new member learns who the others are, when nobody tells it by `--initial-cluster`.

mod client;
mod records;
mod registry;

use anyhow::{Context, ensure};
use tracing::warn;

use crate::config::Config;
use crate::config::url::Url;
use crate::config::value::ClusterState;

/// Names and peer URLs of the members, however the flags say that they are found.
///
/// # Errors
/// When they are not found, or this member does not belong to them.
pub async fn members(config: &Config) -> anyhow::Result<Vec<(String, Vec<Url>)>> {
    let flags = &config.flags;
    if !flags.discovery_srv.is_empty() {
        return records::members(config).await.context("error setting up initial cluster");
    }
    if flags.discovery_endpoints.0.is_empty() {
        return Ok(config.initial_cluster.clone());
    }
    ensure!(
        flags.initial_cluster_state == ClusterState::New,
        "discovery URL should not be set when joining existing initial cluster"
    );
    let joined = registry::join(config).await;
    joined.map_err(|error| {
        warn!(
            "discovery-token" = flags.discovery_token,
            "discovery-endpoints" = ?flags.discovery_endpoints.0,
            %error,
            "failed to bootstrap; discovery token was already used"
        );
        warn!("do not reuse discovery token; generate a new one to bootstrap a cluster");
        anyhow::anyhow!("failed to join discovery cluster ({error})")
    })
}
