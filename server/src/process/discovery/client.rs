//! A client of the cluster that serves discovery.
//!
//! Each call goes to one endpoint, and to the next when that one is not there,
//! until it is answered or its time is up. A token that is not taken any more
//! is asked for anew.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::mvccpb::Event;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::debug;

use crate::config::Config;
use crate::config::url::Url;
use crate::peer::dial::Dialer;
use crate::tls::Connector;

/// The pause between two endpoints.
const PAUSE: Duration = Duration::from_millis(25);
/// The version of the API that the client says it speaks.
const API_VERSION: &str = "3.7";
/// What a cluster without authentication answers to a login.
const NOT_ENABLED: &str = "etcdserver: authentication is not enabled";
/// What is answered to a token that is not taken any more.
const STALE: &[&str] = &[
    "etcdserver: user name is empty",
    "etcdserver: invalid auth token",
    "etcdserver: revision of auth store is old",
];

/// The way to the cluster.
pub struct Client {
    endpoints: Vec<Channel>,
    /// Which of them is asked.
    at: AtomicUsize,
    login: Option<(String, String)>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    request_timeout: Duration,
    login_timeout: Duration,
}

impl Client {
    /// Makes the way, and logs in where there is a login.
    ///
    /// # Errors
    /// When a file or an endpoint is not one, or the login is refused.
    pub async fn connect(config: &Config) -> Result<Client, String> {
        let flags = &config.flags;
        let mut endpoints = flags.discovery_endpoints.0.clone();
        endpoints.sort();
        let tls = Connector::for_discovery(flags)?;
        let secure = encrypts(&endpoints[0], tls.is_some());
        let tls = match tls {
            None if secure => Some(Connector::with_system_roots().map_err(|error| format!("{error:#}"))?),
            tls => tls,
        };
        let dialer = Dialer::for_discovery(config, tls);
        let channel = |endpoint: &String| {
            let url = url(endpoint, secure)?;
            dialer.channel(&url).map_err(|error| format!("{error:#}"))
        };
        let client = Client {
            endpoints: endpoints.iter().map(channel).collect::<Result<_, _>>()?,
            at: AtomicUsize::new(0),
            login: config.discovery_login.clone(),
            token: Mutex::default(),
            request_timeout: flags.discovery_request_timeout.get(),
            login_timeout: flags.discovery_dial_timeout.get(),
        };
        let login = client.log_in();
        let logged_in = match client.login_timeout {
            Duration::ZERO => login.await,
            limit => timeout(limit, login).await.unwrap_or_else(|_| Err(too_late("no answer to the login"))),
        };
        logged_in.map_err(|status| status.message().to_owned())?;
        Ok(client)
    }

    /// The key's row, if there is one.
    pub async fn get(&self, key: &str) -> Result<pb::RangeResponse, Status> {
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.range(request).await
    }

    /// The rows of all keys that begin so.
    pub async fn get_all(&self, prefix: &str) -> Result<pb::RangeResponse, Status> {
        let request =
            pb::RangeRequest { key: prefix.to_owned().into(), range_end: end(prefix), ..Default::default() };
        self.range(request).await
    }

    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        self.call(request, |channel, request| async move { KvClient::new(channel).range(request).await })
            .await
    }

    /// Puts a key. It may be put twice: that changes nothing of its row but the version.
    pub async fn put(&self, key: &str, value: &str) -> Result<(), Status> {
        let request = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        self.call(request, |channel, request| async move { KvClient::new(channel).put(request).await })
            .await
            .map(drop)
    }

    /// All changes of keys that begin so, from a revision on.
    pub async fn watch(&self, prefix: &str, start_revision: i64) -> Result<Watch, Status> {
        self.log_in().await?;
        let (requests, receiver) = mpsc::channel(1);
        let create = pb::WatchCreateRequest {
            key: prefix.to_owned().into(),
            range_end: end(prefix),
            start_revision,
            ..Default::default()
        };
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(create).expect("the channel is empty");
        let request = self.request(ReceiverStream::new(receiver));
        let watch = WatchClient::new(self.channel()).watch(request).await.inspect_err(|_| self.next())?;
        Ok(Watch { answers: watch.into_inner(), _requests: requests })
    }

    async fn call<T, R, F>(&self, message: T, send: impl Fn(Channel, Request<T>) -> F) -> Result<R, Status>
    where
        T: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut last = None;
        let answered = timeout(self.request_timeout, async {
            loop {
                let status = match send(self.channel(), self.request(message.clone())).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => status,
                };
                match status.code() {
                    _ if self.login.is_some() && STALE.contains(&status.message()) => self.log_in().await?,
                    Code::Unavailable => self.next(),
                    _ => return Err(status),
                }
                last = Some(status);
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await;
        answered.unwrap_or_else(|_elapsed| Err(last.unwrap_or_else(|| too_late("no answer"))))
    }

    /// Gets a token, if there is a login and the cluster asks for one.
    async fn log_in(&self) -> Result<(), Status> {
        let Some((name, password)) = &self.login else { return Ok(()) };
        let request = pb::AuthenticateRequest { name: name.clone(), password: password.clone() };
        loop {
            let answer = AuthClient::new(self.channel()).authenticate(Request::new(request.clone())).await;
            let token = match answer {
                Ok(answer) => Some(answer.into_inner().token),
                Err(status) if status.message() == NOT_ENABLED => None,
                Err(status) if status.code() == Code::Unavailable => {
                    debug!(error = status.message(), "failed to log in to the discovery service");
                    self.next();
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(status) => return Err(status),
            };
            let token =
                token.map(|token| token.parse().map_err(|_| Status::internal("the token is no text")));
            *self.token.lock() = token.transpose()?;
            return Ok(());
        }
    }

    fn channel(&self) -> Channel {
        self.endpoints[self.at.load(Ordering::Relaxed) % self.endpoints.len()].clone()
    }

    fn next(&self) {
        self.at.fetch_add(1, Ordering::Relaxed);
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let headers = request.metadata_mut();
        headers.insert("client-api-version", MetadataValue::from_static(API_VERSION));
        if let Some(token) = &*self.token.lock() {
            headers.insert("token", token.clone());
        }
        request
    }
}

/// An open watch.
pub struct Watch {
    answers: Streaming<pb::WatchResponse>,
    /// The stream lives as long as this.
    _requests: mpsc::Sender<pb::WatchRequest>,
}

impl Watch {
    /// The next events.
    ///
    /// # Errors
    /// When there will be none.
    pub async fn events(&mut self) -> Result<Vec<Event>, Status> {
        match self.answers.message().await? {
            None => Err(Status::unavailable("the watch has ended")),
            Some(answer) if answer.canceled => {
                Err(Status::unavailable(format!("the watch was canceled: {}", answer.cancel_reason)))
            }
            Some(answer) => Ok(answer.events),
        }
    }
}

fn too_late(what: &str) -> Status {
    Status::deadline_exceeded(format!("context deadline exceeded: {what}"))
}

/// The end of the range of all keys that begin so; the last letter of those here is not the last there is.
fn end(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

/// Whether connections are encrypted: as the first endpoint says, or else if there is anything to do it with.
fn encrypts(first: &str, has_tls: bool) -> bool {
    match first.split_once(':') {
        Some(("https" | "unixs", _)) => true,
        Some(("http", _)) => false,
        _ => has_tls,
    }
}

/// An endpoint as a URL; it may lack a scheme.
fn url(endpoint: &str, secure: bool) -> Result<String, String> {
    let endpoint = endpoint.trim();
    let (unix, rest) = match (endpoint.split_once("://"), endpoint.split_once(':')) {
        (Some(("http" | "https", rest)), _) => (false, rest),
        (Some(("unix" | "unixs", rest)), _) | (None, Some(("unix" | "unixs", rest))) => (true, rest),
        _ => (false, endpoint),
    };
    let scheme = match (unix, secure) {
        (false, false) => "http",
        (false, true) => "https",
        (true, false) => "unix",
        (true, true) => "unixs",
    };
    Url::parse(&format!("{scheme}://{rest}"))
        .map(|url| url.to_string())
        .map_err(|reason| format!("--discovery-endpoints {endpoint:?}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_endpoint_says_whether_connections_are_encrypted() {
        for (endpoint, without_tls, with_tls) in [
            ("http://a:1", "http://a:1", "http://a:1"),
            ("https://a:1", "https://a:1", "https://a:1"),
            ("a:1", "http://a:1", "https://a:1"),
            ("localhost:1", "http://localhost:1", "https://localhost:1"),
            ("unix:///s", "unix:///s", "unixs:///s"),
            ("unix:s", "unix://s", "unixs://s"),
            ("unixs:///s", "unixs:///s", "unixs:///s"),
        ] {
            let with = |tls| url(endpoint, encrypts(endpoint, tls)).unwrap();
            assert_eq!((with(false).as_str(), with(true).as_str()), (without_tls, with_tls), "{endpoint}");
        }
        assert_eq!(url("https://b:1", encrypts("http://a:1", true)).unwrap(), "http://b:1");
        assert_eq!(
            url("a", false).unwrap_err(),
            "--discovery-endpoints \"a\": URL address does not have the form \"host:port\": http://a"
        );
    }

    #[test]
    fn a_prefix_ends_after_its_last_letter() {
        assert_eq!(end("/t/members"), "/t/membert");
    }
}
