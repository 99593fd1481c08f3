//! `--discovery-token`: the members of a new cluster, from a registry in another cluster.
//!
//! ```text
//!   /_etcd/registry/TOKEN/_config/size   how many members; whoever makes the token puts it
//!   /_etcd/registry/TOKEN/members/ID     name=url,name=url of one of them
//! ```
//!
//! Each member puts itself there and waits for the others. Those that came
//! first are the cluster; whoever comes when it is full is refused. Keys,
//! values and texts are etcd's, so that its tools can prepare a token.

use std::time::Duration;

use thiserror::Error;
use tonic::Status;
use tracing::{error, info, warn};

use super::client::Client;
use crate::config::url::Url;
use crate::config::{Config, ids, parse_initial_cluster};

const REGISTRY: &str = "/_etcd/registry";
/// The pause before the n-th try of a step is 2^n seconds, with an n of at most this.
const PAUSE_DOUBLINGS_MAX: u32 = 8;

/// Names and peer URLs of the members of one cluster.
type Named = Vec<(String, Vec<Url>)>;

/// Why this member is not one of the cluster.
#[derive(Debug, Error)]
pub enum Failure {
    #[error("discovery: size key not found")]
    NoSize,
    #[error("discovery: size key is bad")]
    BadSize,
    #[error("discovery: cluster is full")]
    Full,
    #[error("discovery: invalid peer URL")]
    InvalidUrl,
    #[error("discovery cluster {0} has duplicate url")]
    DuplicateUrl(String),
    #[error("{0}")]
    Client(String),
}

/// Puts this member into the registry and waits until all are there.
pub async fn join(config: &Config) -> Result<Named, Failure> {
    let flags = &config.flags;
    info!("Bootstrapping cluster using v3 discovery.");
    let id = ids::member_id(&config.peer_urls(), &flags.initial_cluster_token, None);
    let joined = async {
        let client = Client::connect(config).await.map_err(Failure::Client)?;
        let mut registry = Registry::new(client, &flags.discovery_token, id);
        let cluster = registry.join(&in_registry(&flags.name, &config.peer_urls())).await?;
        let members = named(&cluster)?;
        info!(cluster, "discovery joined cluster successfully");
        Ok(members)
    };
    joined.await.inspect_err(|error| error!(%error, "discovery failed to join cluster"))
}

/// A member as the registry has it.
fn in_registry(name: &str, peer_urls: &[String]) -> String {
    let mut urls = peer_urls.to_vec();
    urls.sort_unstable();
    urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
}

/// The members of the cluster, from its form in `--initial-cluster`.
fn named(cluster: &str) -> Result<Named, Failure> {
    let members = parse_initial_cluster(cluster).map_err(|_| Failure::InvalidUrl)?;
    let mut urls: Vec<&Url> = members.iter().flat_map(|(_, urls)| urls).collect();
    urls.sort();
    if urls.windows(2).any(|pair| pair[0] == pair[1]) {
        let named = |(name, urls): &(String, Vec<Url>)| {
            urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>()
        };
        return Err(Failure::DuplicateUrl(members.iter().flat_map(named).collect::<Vec<_>>().join(",")));
    }
    Ok(members)
}

/// One token's part of the registry, as one member uses it.
struct Registry {
    client: Client,
    size_key: String,
    members_prefix: String,
    own_key: String,
    /// Steps that came to nothing, one after the other.
    failures: u32,
}

impl Registry {
    fn new(client: Client, token: &str, id: u64) -> Self {
        let members_prefix = path(&format!("{REGISTRY}/{token}/members"));
        Registry {
            client,
            size_key: path(&format!("{REGISTRY}/{token}/_config/size")),
            own_key: format!("{members_prefix}/{id:x}"),
            members_prefix,
            failures: 0,
        }
    }

    /// All members, as `--initial-cluster` names them.
    async fn join(&mut self, own: &str) -> Result<String, Failure> {
        self.check().await?;
        self.register(own).await;
        let (size, mut members, mut revision) = self.check().await?;
        while members.len() < size {
            info!(
                "clusterSize" = size,
                "found-peers" = members.len(),
                "waiting for peers from discovery service"
            );
            if let Err(status) = self.wait(&mut members, size, revision).await {
                warn!(error = status.message(), "failed to watch cluster members in discovery service");
                self.back_off("watch members").await;
                (_, members, revision) = self.check().await?;
            }
        }
        info!(
            "clusterSize" = size,
            "found-peers" = members.len(),
            "found all needed peers from discovery service"
        );
        Ok(members.first(size))
    }

    /// How many members are wanted, and who is there as of a revision.
    async fn check(&mut self) -> Result<(usize, Members, i64), Failure> {
        loop {
            match self.look().await {
                Ok(Ok((size, members, revision))) => {
                    self.failures = 0;
                    let full = members.is_full_without(&self.own_key, size);
                    return if full { Err(Failure::Full) } else { Ok((size, members, revision)) };
                }
                Ok(Err(failure)) => return Err(failure),
                Err(_) => self.back_off("cluster status check").await,
            }
        }
    }

    async fn look(&self) -> Result<Result<(usize, Members, i64), Failure>, Status> {
        let complain = |what: &'static str, key: &str| {
            let key = key.to_owned();
            move |status: &Status| {
                warn!(key, error = status.message(), "failed to get {what} from discovery service");
            }
        };
        let found = self.client.get(&self.size_key).await;
        let found = found.inspect_err(complain("cluster size", &self.size_key))?;
        let Some(row) = found.kvs.first() else { return Ok(Err(Failure::NoSize)) };
        let Some(size) = parse_size(&row.value) else { return Ok(Err(Failure::BadSize)) };
        let found = self.client.get_all(&self.members_prefix).await;
        let found = found.inspect_err(complain("cluster members", &self.members_prefix))?;
        let mut members = Members::new(&self.members_prefix);
        for row in &found.kvs {
            members.add_logged(&row.key, &row.value, row.create_revision);
        }
        Ok(Ok((size, members, found.header.unwrap_or_default().revision)))
    }

    async fn register(&mut self, own: &str) {
        while let Err(status) = self.client.put(&self.own_key, own).await {
            warn!(
                "memberKey" = self.own_key,
                error = status.message(),
                "failed to register members itself to the discovery service"
            );
            self.back_off("register member itself").await;
        }
        self.failures = 0;
        info!("memberKey" = self.own_key, "memberInfo" = own, "register member itself successfully");
    }

    /// Adds members as they come, until they are enough.
    async fn wait(&self, members: &mut Members, size: usize, revision: i64) -> Result<(), Status> {
        let mut watch = self.client.watch(&self.members_prefix, revision + 1).await?;
        while members.len() < size {
            for event in watch.events().await? {
                let row = event.kv.unwrap_or_default();
                members.add_logged(&row.key, &row.value, row.create_revision);
            }
        }
        Ok(())
    }

    async fn back_off(&mut self, step: &'static str) {
        self.failures = self.failures.saturating_add(1);
        let backoff = Duration::from_secs(1 << self.failures.min(PAUSE_DOUBLINGS_MAX));
        warn!(reason = step, ?backoff, "retry connecting to discovery service");
        tokio::time::sleep(backoff).await;
    }
}

/// A key without empty, `.` and `..` parts, as Go joins paths.
fn path(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn parse_size(value: &[u8]) -> Option<usize> {
    let size: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    usize::try_from(size).ok().filter(|size| *size > 0)
}

/// Who is in the registry, in the order in which they came.
struct Members {
    prefix: String,
    found: Vec<Found>,
}

struct Found {
    created: i64,
    key: String,
    urls: String,
}

impl Members {
    fn new(prefix: &str) -> Self {
        Members { prefix: prefix.to_owned(), found: Vec::new() }
    }

    fn len(&self) -> usize {
        self.found.len()
    }

    fn add(&mut self, key: &str, urls: &str, created: i64) -> Result<(), &'static str> {
        if !key.starts_with(&self.prefix) {
            return Err("invalid peer registry key");
        }
        if !urls.contains('=') {
            return Err("invalid peer info returned from discovery service");
        }
        if self.found.iter().any(|found| found.key == key) {
            return Err("found duplicate peer from discovery service");
        }
        self.found.push(Found { created, key: key.to_owned(), urls: urls.to_owned() });
        self.found.sort_by_key(|found| found.created);
        Ok(())
    }

    /// As [`Self::add`]; what is no member is left out, and said.
    fn add_logged(&mut self, key: &[u8], urls: &[u8], created: i64) {
        let (key, urls) = (String::from_utf8_lossy(key), String::from_utf8_lossy(urls));
        let (key, urls) = (key.trim(), urls.trim());
        match self.add(key, urls, created) {
            Ok(()) => info!("memberKey" = key, "memberInfo" = urls, "found peer from discovery service"),
            Err(reason) => warn!("memberKey" = key, "memberInfo" = urls, "{reason}"),
        }
    }

    /// Whether the cluster has all its members, and this is none of them.
    fn is_full_without(&self, key: &str, size: usize) -> bool {
        self.len() >= size && !self.found[..size].iter().any(|found| found.key == key)
    }

    /// The first so many, as `--initial-cluster` names them.
    fn first(&self, size: usize) -> String {
        let first: Vec<&str> = self.found.iter().take(size).map(|found| found.urls.as_str()).collect();
        first.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(of: &[(&str, &str, i64)]) -> Members {
        let mut members = Members::new("/_etcd/registry/t/members");
        for (id, urls, created) in of {
            members.add(&format!("/_etcd/registry/t/members/{id}"), urls, *created).unwrap();
        }
        members
    }

    #[test]
    fn keys_are_cleaned_as_paths() {
        assert_eq!(path("/_etcd/registry/a/members"), "/_etcd/registry/a/members");
        assert_eq!(path("/_etcd/registry//a/./b/../members"), "/_etcd/registry/a/members");
        assert_eq!(path("/_etcd/registry/../../../a/members"), "/a/members");
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size(b"3"), Some(3));
        for bad in ["", "0", "-1", "three", " 3", "3\n", "9223372036854775808"] {
            assert_eq!(parse_size(bad.as_bytes()), None, "{bad:?}");
        }
    }

    /// More members than wanted may come at once: all of them must take the same ones for the cluster.
    #[test]
    fn those_that_came_first_are_the_cluster() {
        let members =
            members(&[("c", "c=http://c:1", 7), ("a", "a=http://a:1", 9), ("b", "b=http://b:1", 8)]);
        assert_eq!(members.first(2), "c=http://c:1,b=http://b:1");
        assert_eq!(members.first(5), "c=http://c:1,b=http://b:1,a=http://a:1");
        let full = |id: &str, size| members.is_full_without(&format!("/_etcd/registry/t/members/{id}"), size);
        assert!(full("a", 2) && !full("b", 2) && !full("c", 2));
        assert!(full("new", 3) && !full("new", 4) && !full("a", 3));
    }

    #[test]
    fn what_is_no_member_is_left_out() {
        let mut members = members(&[("a", "a=http://a:1", 7)]);
        assert_eq!(members.add("/elsewhere/b", "b=http://b:1", 8), Err("invalid peer registry key"));
        let key = "/_etcd/registry/t/members/b";
        assert_eq!(
            members.add(key, "http://b:1", 8),
            Err("invalid peer info returned from discovery service")
        );
        let again = members.add("/_etcd/registry/t/members/a", "b=http://b:1", 8);
        assert_eq!(again, Err("found duplicate peer from discovery service"));
        members.add_logged(b" /_etcd/registry/t/members/b ", b" b=http://b:1\n", 8);
        assert_eq!(members.first(9), "a=http://a:1,b=http://b:1");
    }

    #[test]
    fn what_the_registry_names_must_be_a_cluster() {
        assert_eq!(
            in_registry("a", &["http://b:1".to_owned(), "http://a:1".to_owned()]),
            "a=http://a:1,a=http://b:1"
        );
        assert_eq!(named("b=http://b:1,a=http://a:1").unwrap().len(), 2);
        assert_eq!(named("a=b:1").unwrap_err().to_string(), "discovery: invalid peer URL");
        assert_eq!(
            named("b=http://a:1,a=http://a:1").unwrap_err().to_string(),
            "discovery cluster a=http://a:1,b=http://a:1 has duplicate url"
        );
    }
}
