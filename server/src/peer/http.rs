//! What the peer port answers besides gRPC: who the members are, and which version this one runs.
//!
//! The paths and bodies are those of etcd's peer port that something outside of
//! it is known to ask for. Before the member knows its cluster, they are not there yet.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use proto::etcdserverpb as pb;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::help::QUORATE_VERSION;
use crate::http::{plain_error, respond, version_body};

/// The header that names the cluster in hexadecimal.
pub const CLUSTER_ID: &str = "x-etcd-cluster-id";
/// The header by which a member of ours is told from one of etcd's.
pub const PROGRAM: &str = "x-quorate-version";
/// Where the members are listed.
pub const MEMBERS: &str = "/members";
/// Where it is told whether the cluster prepares to go down one minor version.
pub const DOWNGRADE: &str = "/downgrade/enabled";

/// What the answers are about.
pub trait Cluster: Send + Sync + 'static {
    /// The cluster's id.
    fn id(&self) -> u64;
    /// Its members, by id.
    fn members(&self) -> Vec<pb::Member>;
    /// The version the cluster agreed on, once it has.
    fn version(&self) -> Option<String>;
    /// The version of etcd that could read a snapshot of the state, once there is one.
    fn storage_version(&self) -> Option<String>;
    /// Whether the cluster prepares to go down one minor version, as of now in the whole cluster; or why that is
    /// not known.
    fn downgrade_enabled(&self) -> Pin<Box<dyn Future<Output = Result<bool, String>> + Send + '_>>;
}

/// A member as [`MEMBERS`] shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Where its peers reach it.
    #[serde(rename = "peerURLs", default)]
    pub peer_urls: Vec<String>,
    /// Whether it has no vote.
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    /// Its name, once it has started.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where clients reach it, once it has started.
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

impl From<pb::Member> for Member {
    fn from(member: pb::Member) -> Self {
        Self {
            id: member.id,
            peer_urls: member.peer_ur_ls,
            is_learner: member.is_learner,
            name: member.name,
            client_urls: member.client_ur_ls,
        }
    }
}

/// Answers plain HTTP on the peer port. Clones answer alike.
#[derive(Clone, Default)]
pub struct PeerHttp {
    cluster: Arc<OnceLock<Box<dyn Cluster>>>,
}

impl PeerHttp {
    /// From now on this is the cluster.
    pub fn is(&self, cluster: impl Cluster) {
        self.cluster.get_or_init(|| Box::new(cluster));
    }

    /// Answers a request. Its body does not matter.
    pub async fn handle(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let Some(cluster) = self.cluster.get() else {
            return plain_error(StatusCode::SERVICE_UNAVAILABLE, "the member is starting");
        };
        match path {
            "/raft/probing" => respond(StatusCode::OK, "text/plain; charset=utf-8", probing()),
            MEMBERS | DOWNGRADE | "/version" if method != Method::GET => not_allowed(),
            MEMBERS => {
                let response = respond(StatusCode::OK, "application/json", members(cluster.as_ref()));
                in_cluster(cluster.id(), response)
            }
            DOWNGRADE => {
                let response = match cluster.downgrade_enabled().await {
                    Ok(enabled) => respond(StatusCode::OK, "text/plain", enabled.to_string()),
                    Err(reason) => {
                        let text = format!("failed linearized read: {reason}");
                        plain_error(StatusCode::INTERNAL_SERVER_ERROR, &text)
                    }
                };
                in_cluster(cluster.id(), response)
            }
            "/version" => {
                let (cluster, storage) = (cluster.version(), cluster.storage_version());
                let body = version_body(cluster.as_deref(), storage.as_deref());
                respond(StatusCode::OK, "application/json", body)
            }
            _ => plain_error(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }
}

fn not_allowed() -> Response<Full<Bytes>> {
    let mut response = plain_error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("GET"));
    response
}

fn in_cluster(id: u64, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&format!("{id:x}")) {
        headers.insert(HeaderName::from_static(CLUSTER_ID), id);
    }
    headers.insert(HeaderName::from_static(PROGRAM), HeaderValue::from_static(QUORATE_VERSION));
    response
}

fn members(cluster: &dyn Cluster) -> String {
    let mut members: Vec<Member> = cluster.members().into_iter().map(Member::from).collect();
    members.sort_by_key(|member| member.id);
    let mut text = serde_json::to_string(&members).expect("strings and numbers");
    text.push('\n');
    text
}

fn probing() -> String {
    format!("{{\"OK\":true,\"Now\":\"{}\"}}\n", clock::timestamp(SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    struct Two;

    impl Cluster for Two {
        fn id(&self) -> u64 {
            0xabc
        }
        fn members(&self) -> Vec<pb::Member> {
            let member = |id, name: &str| pb::Member {
                id,
                name: name.to_owned(),
                peer_ur_ls: vec![format!("http://127.0.0.1:{id}")],
                ..pb::Member::default()
            };
            let started = vec!["http://127.0.0.1:9".to_owned()];
            vec![
                pb::Member { is_learner: true, ..member(7, "") },
                pb::Member { client_ur_ls: started, ..member(3, "n1") },
            ]
        }
        fn version(&self) -> Option<String> {
            None
        }
        fn storage_version(&self) -> Option<String> {
            Some("3.6.0".to_owned())
        }
        fn downgrade_enabled(&self) -> Pin<Box<dyn Future<Output = Result<bool, String>> + Send + '_>> {
            Box::pin(async { Ok(true) })
        }
    }

    async fn ask(http: &PeerHttp, method: &str, path: &str) -> (u16, Option<String>, String) {
        let response = http.handle(&method.parse().unwrap(), path).await;
        let cluster = response.headers().get(CLUSTER_ID).map(|id| id.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, cluster, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn members_are_listed_as_etcd_lists_them() {
        let http = PeerHttp::default();
        assert_eq!(ask(&http, "GET", "/members").await.0, 503);
        http.is(Two);
        let (status, cluster, body) = ask(&http, "GET", "/members").await;
        assert_eq!((status, cluster.as_deref()), (200, Some("abc")));
        assert_eq!(
            body,
            "[{\"id\":3,\"peerURLs\":[\"http://127.0.0.1:3\"],\"name\":\"n1\",\"clientURLs\":[\"http://127.0.0.1:9\"]},\
             {\"id\":7,\"peerURLs\":[\"http://127.0.0.1:7\"],\"isLearner\":true}]\n"
        );
        let read: Vec<Member> = serde_json::from_str(&body).unwrap();
        assert!(read[1].is_learner && read[0].name == "n1");
    }

    #[tokio::test]
    async fn the_rest_is_not_there() {
        let http = PeerHttp::default();
        http.is(Two);
        assert_eq!(ask(&http, "POST", "/members").await.0, 405);
        assert_eq!(ask(&http, "GET", "/health").await.0, 404);
        assert_eq!(ask(&http, "POST", DOWNGRADE).await.0, 405);
        assert_eq!(ask(&http, "GET", DOWNGRADE).await.2, "true");
        let (_, _, version) = ask(&http, "GET", "/version").await;
        assert!(version.contains("\"etcdcluster\":\"not_decided\",\"storage\":\"3.6.0\""), "{version}");
        let (_, _, probing) = ask(&http, "GET", "/raft/probing").await;
        assert!(probing.starts_with("{\"OK\":true,\"Now\":\"2"), "{probing}");
    }
}
