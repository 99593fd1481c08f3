//! One connection from its handshake to its end.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tracing::debug;

use super::Transport;
use super::pings::{Activity, Policed};
use super::socket::{Accepted, Stream};
use crate::api::{self, Body};
use crate::http::HttpContext;
use crate::node::stopped;
use crate::tls;

/// What one stream may send ahead of being read: a message of the largest size.
const STREAM_WINDOW: u32 = 2 << 20;
/// The same for a connection.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Streams that a client gives up on before they are looked at: more, and it is taken for an attack.
const RESETS_PENDING_MAX: usize = 4096;
/// A plain HTTP request's head must have come within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);

/// What is served on the port that a connection came in on.
pub(super) struct Port {
    pub(super) tls: Option<tls::Acceptor>,
    pub(super) http: Option<HttpContext>,
    pub(super) grpc: bool,
}

/// Serves a connection until either side ends it.
pub(super) async fn serve(
    accepted: Accepted,
    port: Arc<Port>,
    service: Arc<api::Service>,
    transport: Arc<Transport>,
    stop: watch::Receiver<bool>,
) {
    let (stream, remote) = match Stream::new(accepted) {
        Ok(opened) => opened,
        Err(error) => return debug!(%error, "a connection was gone at once"),
    };
    match &port.tls {
        None => speak(stream, &port, &service, &transport, stop).await,
        Some(acceptor) => match acceptor.accept(stream, remote).await {
            Ok(stream) => speak(stream, &port, &service, &transport, stop).await,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                debug!("a connection was closed before its handshake, as probes do");
            }
            Err(error) => {
                let remote = remote.map(|remote| remote.to_string()).unwrap_or_default();
                tracing::warn!(remote, %error, "rejected connection on client endpoint");
            }
        },
    }
}

async fn speak<S>(
    stream: S,
    port: &Arc<Port>,
    service: &Arc<api::Service>,
    transport: &Transport,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let stream = Policed::new(stream, Arc::clone(&activity), transport.ping_min_time);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(transport.streams_max)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .keep_alive_interval(transport.ping_interval)
        .keep_alive_timeout(transport.ping_timeout);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let answering = service_fn(|request| {
        let (port, service) = (Arc::clone(port), Arc::clone(service));
        let under_way = Activity::begin(&activity);
        async move { Ok::<_, Infallible>(answer(request, &port, &service).await.map(|body| body.keep(under_way))) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), answering));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients come and go as they like; what they sent before has been dealt with.
        debug!(%error, "a connection ended early");
    }
}

async fn answer(request: Request<Incoming>, port: &Port, service: &api::Service) -> Response<Body> {
    if port.grpc && is_grpc(&request) {
        return service.call(request).await;
    }
    match &port.http {
        Some(context) => {
            let response = crate::http::handle(request, context).await;
            response.map(|body| Body::other(body.map_err(|never| match never {})))
        }
        None => {
            let text = Full::new(Bytes::from_static(b"this port serves gRPC alone\n"));
            let mut response = Response::new(Body::other(text.map_err(|never| match never {})));
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            response
        }
    }
}

/// gRPC proper: its variants for browsers only begin alike.
fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    request.version() == http::Version::HTTP_2
        && rest.is_some_and(|rest| matches!(rest, [] | [b'+' | b';', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_proper_over_http2_is_grpc() {
        let request = |kind: &str, version| {
            let request = Request::builder().version(version).header(CONTENT_TYPE, kind);
            is_grpc(&request.body(()).expect("valid"))
        };
        assert!(request("application/grpc", http::Version::HTTP_2));
        assert!(request("application/grpc+proto", http::Version::HTTP_2));
        assert!(!request("application/grpc-web", http::Version::HTTP_2));
        assert!(!request("application/grpc", http::Version::HTTP_11));
        assert!(!request("application/json", http::Version::HTTP_2));
    }
}
