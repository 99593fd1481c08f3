//! What answers are made of.
//!
//! Most answers are one message in one piece. The others bring their own body:
//! lists too long for one piece, streams, and what is not gRPC at all.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use futures::Stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::{Frame, SizeHint};
use tonic::{Code, Status};

use super::message::Counter;
use crate::metrics::METRICS;
use crate::metrics::grpc::Method as Series;

/// What a body fails with when its stream must break off.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");

/// The body of an answer. `T` lives as long as the answer is under way.
pub struct Body<T = ()> {
    kind: Kind,
    _while_under_way: T,
}

enum Kind {
    /// Headers say it all.
    Empty,
    /// One message, then the trailers.
    Message(Bytes),
    Trailers,
    Other(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self { kind: Kind::Empty, _while_under_way: () }
    }

    /// A body of its own kind.
    pub fn other(body: impl http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static) -> Self {
        Self { kind: Kind::Other(Box::pin(body)), _while_under_way: () }
    }

    /// Keeps something alive until the answer is sent or given up.
    pub fn keep<T>(self, while_under_way: T) -> Body<T> {
        Body { kind: self.kind, _while_under_way: while_under_way }
    }
}

impl<T: Unpin> http_body::Body for Body<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Message(message) => {
                let message = std::mem::take(message);
                sent(message.len());
                self.kind = Kind::Trailers;
                Poll::Ready(Some(Ok(Frame::data(message))))
            }
            Kind::Trailers => {
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::trailers(success()))))
            }
            Kind::Other(body) => body.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Message(_) | Kind::Trailers => false,
            Kind::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Message(_) | Kind::Trailers => SizeHint::new(),
            Kind::Other(body) => body.size_hint(),
        }
    }
}

/// An answer of one message, which stands framed in `message`.
pub fn reply(message: Bytes) -> Response<Body> {
    grpc(Body { kind: Kind::Message(message), _while_under_way: () })
}

/// An answer whose body frames messages and ends in trailers itself.
pub fn stream(body: impl http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static) -> Response<Body> {
    grpc(Body::other(body))
}

/// An answer that is an error and nothing else.
pub fn refusal(status: &Status) -> Response<Body> {
    let mut response = grpc(Body::empty());
    *response.headers_mut() = trailers(status);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

fn grpc(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

fn success() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, OK);
    trailers
}

/// How a call ended, as the last thing its client reads.
fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    trailers.insert(GRPC_STATUS, HeaderValue::from(status.code() as i32));
    if !status.message().is_empty() {
        trailers.insert(GRPC_MESSAGE, header_text(status.message()));
    }
    trailers
}

/// A text as gRPC puts it into a header. grpc-go leaves blanks as they are, so this does.
fn header_text(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            plain => encoded.push(char::from(plain)),
        }
    }
    HeaderValue::try_from(encoded).expect("printable ASCII")
}

/// Counts bytes that go to clients.
fn sent(bytes: usize) {
    METRICS.network.client_sent_bytes.inc_by(bytes as u64);
}

/// Sends pieces of framed messages as a stream makes them; its end, or its error, becomes the trailers.
pub struct Pieces<S> {
    stream: Option<Pin<Box<S>>>,
}

impl<S> Pieces<S> {
    /// A body of what the stream makes.
    pub fn new(stream: S) -> Self {
        Self { stream: Some(Box::pin(stream)) }
    }
}

impl<S: Stream<Item = Result<Bytes, Status>>> http_body::Body for Pieces<S> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let last = match ready!(stream.as_mut().poll_next(context)) {
            Some(Ok(piece)) => {
                sent(piece.len());
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            Some(Err(status)) => trailers(&status),
            None => success(),
        };
        self.stream = None;
        Poll::Ready(Some(Ok(Frame::trailers(last))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_none()
    }
}

/// Watches over a stream: counts its messages, ends it when the leader is gone
/// and its client wanted to know, and counts how it ended.
pub struct Monitored<B> {
    body: Pin<Box<B>>,
    counter: Counter,
    series: Option<&'static Series>,
    started: Instant,
    /// Ready when the stream has to end, with what to tell.
    cut: Pin<Box<dyn Future<Output = Status> + Send>>,
    ended: bool,
}

impl<B> Monitored<B> {
    /// Watches over this body.
    pub fn new(
        body: B,
        series: Option<&'static Series>,
        cut: Pin<Box<dyn Future<Output = Status> + Send>>,
    ) -> Self {
        let (body, counter, started) = (Box::pin(body), Counter::default(), Instant::now());
        Self { body, counter, series, started, cut, ended: false }
    }

    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true)
            && let Some(series) = self.series
        {
            series.handled(code);
            series.took(self.started.elapsed().as_secs_f64());
        }
    }
}

impl<B> http_body::Body for Monitored<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(status) = self.cut.as_mut().poll(context) {
            self.end(status.code());
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))));
        }
        let frame = ready!(self.body.as_mut().poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let messages = self.counter.count(data);
                    if let Some(series) = self.series {
                        series.sent.inc_by(messages);
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    let code =
                        trailers.get(GRPC_STATUS).map_or(Code::Unknown, |v| Code::from_bytes(v.as_bytes()));
                    self.end(code);
                }
            }
            Some(Err(_)) => self.end(Code::Unknown),
            None => self.end(Code::Ok),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }
}

impl<B> Drop for Monitored<B> {
    fn drop(&mut self) {
        // The client went before the end.
        self.end(Code::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_in_headers_as_grpc_go_puts_them() {
        assert_eq!(header_text("etcdserver: no leader"), "etcdserver: no leader");
        assert_eq!(header_text("100% \n\u{e9}"), "100%25 %0A%C3%A9");
    }
}
