//! What all calls have in common: who may call, and what is counted.
//!
//! The tests of [`Call`] are etcd's, in its order: capability (this version has
//! them all), learner, the client's version, the leader.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use parking_lot::RwLock;
use prometheus::IntCounter;
use prost::Message;
use state::Refusal;
use tokio::time::timeout;
use tonic::Code;
use tracing::warn;

use super::body::{Body, Monitored, reply};
use super::message::framed;
use super::{Method, decode};
use crate::error::Unavailable;
use crate::metrics::METRICS;
use crate::metrics::grpc::Method as Series;
use crate::node::{Failure, Invalid, Node};

/// Versions of clients that are counted apart; what clients may send has no end.
const CLIENT_VERSIONS_MAX: usize = 32;

/// Digits of the longest `grpc-timeout`.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// One call, as far as all calls are alike.
pub struct Call<'a> {
    node: &'a Node,
    method: Method,
    headers: &'a HeaderMap,
}

impl<'a> Call<'a> {
    /// A call of this method with these headers.
    pub fn new(node: &'a Node, method: Method, headers: &'a HeaderMap) -> Self {
        Self { node, method, headers }
    }

    /// The member that is called.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// What is called.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Counts a message that came.
    pub fn received(&self) {
        if let Some(series) = self.method.series() {
            series.received.inc();
        }
    }

    /// Lets a unary call in; `of_learner` is true for what a learner serves too.
    ///
    /// # Errors
    /// Why it is not served.
    pub fn admit(&self, of_learner: bool) -> Result<(), Failure> {
        self.check(of_learner, &UNARY).map(|_wants_leader| ())
    }

    /// Lets a stream in. A learner serves none.
    ///
    /// # Errors
    /// Why it is not served.
    pub fn admit_stream(&self) -> Result<Monitor, Failure> {
        self.stream(false)
    }

    /// Lets a stream in that a learner serves as well.
    ///
    /// # Errors
    /// Why it is not served.
    pub fn admit_stream_of_learner(&self) -> Result<Monitor, Failure> {
        self.stream(true)
    }

    fn stream(&self, of_learner: bool) -> Result<Monitor, Failure> {
        let wants_leader = self.check(of_learner, &STREAM)?;
        Ok(Monitor { node: self.node.clone(), method: self.method, wants_leader })
    }

    /// The tests; answers whether the client wants to be told when the leader goes.
    fn check(&self, of_learner: bool, requests: &Requests) -> Result<bool, Failure> {
        let status = self.node.status();
        if status.is_learner && !of_learner {
            return Err(Invalid::Learner.into());
        }
        if status.diverged {
            // It may have anything to say: nothing is better.
            return Err(Refusal::Corrupt.into());
        }
        requests.count(self.headers.get("client-api-version"))?;
        let wants_leader = self.headers.get("hasleader").is_some_and(|value| value == "true");
        if wants_leader && status.leader == 0 {
            return Err(Unavailable::NoLeader.into());
        }
        Ok(wants_leader)
    }

    /// Reads the request, lets the call in and answers with what the handler says.
    ///
    /// # Errors
    /// Those of the handler, and what all calls are refused for.
    pub async fn unary<Q, A, F>(&self, message: Bytes, handle: impl FnOnce(Node, Q) -> F) -> Answer
    where
        Q: Message + Default,
        A: Message,
        F: Future<Output = Result<A, Failure>>,
    {
        let request = decode(message)?;
        self.admit(false)?;
        Ok(reply(framed(&handle(self.node.clone(), request).await?)))
    }

    /// The same for what a learner serves as well.
    ///
    /// # Errors
    /// As [`Self::unary`].
    pub async fn unary_of_learner<Q, A, F>(&self, message: Bytes, handle: impl FnOnce(Node, Q) -> F) -> Answer
    where
        Q: Message + Default,
        A: Message,
        F: Future<Output = Result<A, Failure>>,
    {
        let request = decode(message)?;
        self.admit(true)?;
        Ok(reply(framed(&handle(self.node.clone(), request).await?)))
    }

    /// The same for what may take as long as its client has time, and which in etcd a member does through a client of
    /// its own: what fails on the way comes without a code.
    ///
    /// # Errors
    /// As [`Self::unary`], and when the time is up.
    pub async fn inner<Q, A, F>(&self, message: Bytes, handle: impl FnOnce(Node, Q) -> F) -> Answer
    where
        Q: Message + Default,
        A: Message,
        F: Future<Output = Result<A, Failure>>,
    {
        let request = decode(message)?;
        self.admit(false)?;
        let handled = handle(self.node.clone(), request);
        let handled = match self.patience() {
            None => handled.await,
            Some(patience) => timeout(patience, handled).await.unwrap_or(Err(Failure::DeadlineExceeded)),
        };
        Ok(reply(framed(&handled.map_err(Failure::without_code)?)))
    }

    /// How long the client waits for the call, if not for ever.
    pub fn patience(&self) -> Option<Duration> {
        let text = self.headers.get("grpc-timeout")?.to_str().ok()?;
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let number: u64 = digits.parse().ok().filter(|_| digits.len() <= TIMEOUT_DIGITS_MAX)?;
        match unit {
            "H" => Some(Duration::from_secs(60 * 60 * number)),
            "M" => Some(Duration::from_secs(60 * number)),
            "S" => Some(Duration::from_secs(number)),
            "m" => Some(Duration::from_millis(number)),
            "u" => Some(Duration::from_micros(number)),
            "n" => Some(Duration::from_nanos(number)),
            _ => None,
        }
    }

    /// Refuses a call of what this version does not have.
    ///
    /// # Errors
    /// Always.
    pub fn not_implemented(&self, what: &'static str) -> Answer {
        self.admit(false)?;
        Err(Invalid::NotImplemented(what).into())
    }
}

/// A stream ends at what its client sent, which is not that the client has gone.
pub fn failed_to_receive(api: &str, invalid: &Invalid) {
    if *invalid != Invalid::Truncated {
        METRICS.network.stream_failures.with_label_values(&["receive", api]).inc();
        warn!(api, error = ?invalid, "failed to receive a request from gRPC stream");
    }
}

/// What a call comes to.
pub type Answer = Result<Response<Body>, Failure>;

/// A stream that was let in, before it has a body.
pub struct Monitor {
    node: Node,
    method: Method,
    wants_leader: bool,
}

impl Monitor {
    /// Watches over the stream's answers.
    pub fn over<B>(self, body: B) -> Monitored<B> {
        let cut = self.node.cut(self.wants_leader);
        let cut = Box::pin(async move { Failure::from(cut.wait().await).into() });
        Monitored::new(body, self.method.series(), cut)
    }
}

/// Counts how a call ends, also when its client does not wait for that.
pub struct Ending<'a> {
    node: &'a Node,
    method: Method,
    series: Option<&'static Series>,
    started: Instant,
    ended: bool,
}

impl<'a> Ending<'a> {
    /// Counts a call that begins.
    pub fn new(node: &'a Node, method: Method) -> Self {
        let series = method.series();
        if let Some(series) = series {
            series.started.inc();
        }
        Self { node, method, series, started: Instant::now(), ended: false }
    }

    /// The call has its answer, or its stream has begun: streams are counted when they end.
    pub fn answered(mut self) {
        if !self.method.is_stream() {
            self.end(Code::Ok);
        }
        self.ended = true;
    }

    /// The call is answered with an error.
    pub fn failed(mut self, code: Code) {
        self.end(code);
    }

    fn end(&mut self, code: Code) {
        self.ended = true;
        let took = self.started.elapsed();
        if let Some(series) = self.series {
            // An error counts as a message too.
            if !self.method.is_stream() {
                series.sent.inc();
            }
            series.handled(code);
            series.took(took.as_secs_f64());
        }
        let slow = self.node.settings().slow_request;
        if !slow.is_zero() && took > slow && !self.method.is_stream() {
            warn!("response type" = self.method.path(), "time spent" = ?took, expected = ?slow, code = ?code, "request stats");
        }
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Code::Cancelled);
        }
    }
}

/// Counters of requests by kind and version of the client.
struct Requests {
    kind: &'static str,
    unknown: IntCounter,
    versions: RwLock<Vec<(HeaderValue, IntCounter)>>,
}

static UNARY: LazyLock<Requests> = LazyLock::new(|| Requests::new("unary"));
static STREAM: LazyLock<Requests> = LazyLock::new(|| Requests::new("stream"));

impl Requests {
    fn new(kind: &'static str) -> Self {
        let unknown = METRICS.server.client_requests.with_label_values(&[kind, "unknown"]);
        Self { kind, unknown, versions: RwLock::new(Vec::new()) }
    }

    fn count(&self, version: Option<&HeaderValue>) -> Result<(), Invalid> {
        let Some(version) = version else {
            self.unknown.inc();
            return Ok(());
        };
        let known = self.versions.read();
        if let Some((_, counter)) = known.iter().find(|(known, _)| known == version) {
            counter.inc();
            return Ok(());
        }
        let full = known.len() >= CLIENT_VERSIONS_MAX;
        drop(known);
        let text = std::str::from_utf8(version.as_bytes()).map_err(|_| Invalid::ClientApiVersion)?;
        if full {
            self.unknown.inc();
            return Ok(());
        }
        let counter = METRICS.server.client_requests.with_label_values(&[self.kind, text]);
        counter.inc();
        let mut versions = self.versions.write();
        if !versions.iter().any(|(known, _)| known == version) {
            versions.push((version.clone(), counter));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_must_be_text_and_only_so_many_are_counted_apart() {
        let requests = Requests::new("unary");
        requests.count(None).expect("no version is fine");
        let binary = HeaderValue::from_bytes(&[0xff, 0xfe]).expect("allowed in a header");
        assert_eq!(requests.count(Some(&binary)), Err(Invalid::ClientApiVersion));
        for version in 0..2 * CLIENT_VERSIONS_MAX {
            let version = HeaderValue::from_str(&format!("9.{version}")).expect("text");
            requests.count(Some(&version)).expect("text is fine");
        }
        assert_eq!(requests.versions.read().len(), CLIENT_VERSIONS_MAX);
    }
}
