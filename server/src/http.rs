//! The HTTP endpoints beside gRPC: health, version, metrics.
//!
//! [`handle`] is a function from a request to a response; what it must know of
//! the member comes in through [`Health`]. Bodies, headers and status codes are
//! etcd's to the byte: probes and scripts compare them.

mod health;
pub mod listener;
mod vars;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use proto::etcdserverpb as pb;

use crate::config::Config;
use crate::config::help::ETCD_VERSION;
use crate::metrics::METRICS;

/// The outcome of a check, with the reason when it failed.
pub type Checked<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// What the endpoints ask of the member.
pub trait Health: Send + Sync + 'static {
    /// The leader's id, 0 when none is known.
    fn leader(&self) -> u64;
    /// The alarms that are up.
    fn alarms(&self) -> Vec<pb::AlarmMember>;
    /// Reads one key from this member alone.
    fn serializable_read(&self) -> Checked<'_>;
    /// Reads one key as of now in the whole cluster.
    fn linearizable_read(&self) -> Checked<'_>;
    /// Whether this member is a learner.
    fn is_learner(&self) -> bool;
    /// The version the cluster agreed on, once it has.
    fn cluster_version(&self) -> Option<String>;
    /// The version of etcd that could read a snapshot of the state, once there is one.
    fn storage_version(&self) -> Option<String>;
    /// Brings gauges up to date that are read rather than counted.
    fn before_scrape(&self) {}
}

/// Which port a request came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Where clients come in: every endpoint, with CORS headers.
    Client,
    /// `--listen-metrics-urls`: metrics and health alone.
    Metrics,
}

/// What [`handle`] needs besides the request.
#[derive(Clone)]
pub struct HttpContext {
    health: Arc<dyn Health>,
    port: Port,
    /// `None`: every origin.
    origins: Option<Arc<BTreeSet<String>>>,
    /// Names that the Host header of a plain request may carry; `None`: every name.
    hosts: Option<Arc<BTreeSet<String>>>,
}

impl HttpContext {
    /// The context of a port. `encrypted`: whether its connections are, since
    /// `--host-whitelist` holds for plain ones alone.
    pub fn new(config: &Config, port: Port, encrypted: bool, health: Arc<dyn Health>) -> HttpContext {
        let listed = |list: &[String]| {
            let all = list.is_empty() || list.iter().any(|item| item == "*");
            (!all).then(|| Arc::new(list.iter().cloned().collect()))
        };
        HttpContext {
            health,
            port,
            origins: listed(&config.flags.cors.0),
            hosts: if encrypted { None } else { listed(&config.flags.host_whitelist.0) },
        }
    }

    fn allows_host(&self, host: Option<&str>) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let host = host.unwrap_or_default();
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        hosts.contains(name)
    }
}

/// Answers a request that is not gRPC. Its body does not matter.
pub async fn handle<B>(request: Request<B>, context: &HttpContext) -> Response<Full<Bytes>> {
    match context.port {
        Port::Metrics => route(&request, context).await,
        Port::Client => {
            let host = request
                .headers()
                .get(http::header::HOST)
                .and_then(|host| host.to_str().ok())
                .or_else(|| request.uri().host());
            if !context.allows_host(host) {
                return plain_error(
                    StatusCode::MISDIRECTED_REQUEST,
                    &format!(
                        "\ncors: {:?} request is not allowed: host is not on --host-whitelist",
                        host.unwrap_or_default()
                    ),
                );
            }
            let origin = request.headers().get(ORIGIN).cloned();
            let mut response = if request.method() == Method::OPTIONS {
                Response::new(Full::default())
            } else {
                route(&request, context).await
            };
            add_cors(&mut response, origin, context);
            response
        }
    }
}

async fn route<B>(request: &Request<B>, context: &HttpContext) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    let health = context.health.as_ref();
    if path == "/health" {
        return get(request, health::health(query, health)).await;
    }
    for (probe, checks) in [("livez", health::LIVEZ), ("readyz", health::READYZ)] {
        let Some(rest) = path.strip_prefix('/').and_then(|path| path.strip_prefix(probe)) else { continue };
        match rest.strip_prefix('/') {
            None if rest.is_empty() => {
                return get(request, health::probe(probe, checks, query, health)).await;
            }
            Some("") => return get(request, health::probe(probe, checks, query, health)).await,
            Some(name) => {
                if let Some(check) = checks.iter().find(|check| check.name() == name) {
                    return get(request, health::probe(probe, std::slice::from_ref(check), query, health))
                        .await;
                }
            }
            None => {}
        }
    }
    match (path, context.port) {
        ("/metrics", _) => {
            METRICS.process.scrapes_in_flight.inc();
            health.before_scrape();
            let body = METRICS.render();
            METRICS.process.scrapes_in_flight.dec();
            METRICS.process.scrapes.with_label_values(&["200"]).inc();
            respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
        }
        ("/version", Port::Client) => get(request, async { version(health) }).await,
        ("/debug/vars", Port::Client) => {
            respond(StatusCode::OK, "application/json; charset=utf-8", vars::render())
        }
        _ => plain_error(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

/// Answers a GET and refuses every other method.
async fn get<B>(
    request: &Request<B>,
    answer: impl Future<Output = Response<Full<Bytes>>>,
) -> Response<Full<Bytes>> {
    if request.method() == Method::GET {
        return answer.await;
    }
    let mut response = plain_error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

fn version(health: &dyn Health) -> Response<Full<Bytes>> {
    let (cluster, storage) = (health.cluster_version(), health.storage_version());
    respond(StatusCode::OK, "application/json", version_body(cluster.as_deref(), storage.as_deref()))
}

/// The body of `/version`, given the version that the cluster agreed on and that of the storage.
pub(crate) fn version_body(cluster: Option<&str>, storage: Option<&str>) -> String {
    format!(
        "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{}\",\"storage\":\"{}\"}}",
        cluster.unwrap_or("not_decided"),
        storage.unwrap_or("unknown"),
    )
}

/// A response with a body of a kind.
pub(crate) fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let body = body.into();
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}

/// Go's `http.Error`: a line of text that a browser must not take for anything else.
pub(crate) fn plain_error(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = respond(status, "text/plain; charset=utf-8", format!("{text}\n"));
    add_nosniff(&mut response);
    response
}

fn add_nosniff(response: &mut Response<Full<Bytes>>) {
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
}

fn add_cors(response: &mut Response<Full<Bytes>>, origin: Option<HeaderValue>, context: &HttpContext) {
    let allowed = match &context.origins {
        None => Some(HeaderValue::from_static("*")),
        Some(origins) => origin.filter(|origin| origin.to_str().is_ok_and(|origin| origins.contains(origin))),
    };
    let Some(allowed) = allowed else { return };
    let headers = response.headers_mut();
    for (name, value) in [
        ("access-control-allow-methods", HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE")),
        ("access-control-allow-origin", allowed),
        ("access-control-allow-headers", HeaderValue::from_static("accept, content-type, authorization")),
    ] {
        headers.insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests;
