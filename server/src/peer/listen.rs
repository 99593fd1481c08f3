//! The peer port: a thread of its own, so that no client's request delays what keeps the cluster together.
//!
//! Connections live where consensus does, once it runs: what a peer asks is
//! answered there, and nothing is handed from thread to thread. Those from
//! before are closed then, and come again.
//!
//! It answers from the first moment. What it has no answer for yet, since the
//! member starts, it refuses at once: a peer that asks must not wait in a queue.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;
use tracing::{debug, error, info, warn};

use super::http::PeerHttp;
use super::timed::{Limits, Timed};
use crate::config::url::Url;
use crate::listen::Listener;
use crate::node::stopped;
use crate::tls::Acceptor;

/// What a peer may send on a connection, or on one stream, before it is read.
const WINDOW: u32 = 8 << 20;
/// The longest frame that is taken.
const FRAME: u32 = 256 << 10;
/// Calls given up by a peer that may wait to be seen.
const RESETS: usize = 4096;
/// Connections that nothing comes over are pinged this often.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// A plain HTTP request's head must have come within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// The pause after an accept that failed, for want of file descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long calls under way may take once the port closes.
const GRACE: Duration = Duration::from_millis(500);

/// A gRPC service that can answer on the peer port.
pub trait Grpc:
    Service<
        Request<Incoming>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Future<Output = Result<Response<Body>, Infallible>> + Send,
    > + Clone
    + Send
    + 'static
{
}

impl<G> Grpc for G
where
    G: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    G::Future: Future<Output = Result<Response<Body>, Infallible>> + Send,
{
}

/// What a call comes to.
type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

type Answering = dyn Fn(Request<Incoming>) -> Answer + Send + Sync;

/// A service that is there later: until then every call is refused as unavailable. Clones are the same.
#[derive(Clone, Default)]
pub struct Late(Arc<OnceLock<Box<Answering>>>);

impl Late {
    /// From now on this service answers.
    pub fn is(&self, service: impl Grpc) {
        let service = Mutex::new(service);
        self.0.get_or_init(|| {
            Box::new(move |request| {
                let mut service = service.lock().clone();
                Box::pin(async move {
                    std::future::poll_fn(|context| service.poll_ready(context)).await?;
                    service.call(request).await
                })
            })
        });
    }
}

impl Service<Request<Incoming>> for Late {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Answer {
        match self.0.get() {
            Some(answer) => answer(request),
            None => Box::pin(async { Ok(Status::unavailable("the member is starting").into_http()) }),
        }
    }
}

/// The runtime on which connections live, once there is one. Clones are the same.
#[derive(Clone)]
pub struct Home(Arc<watch::Sender<Option<Handle>>>);

impl Default for Home {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Home {
    /// From now on it is this one.
    pub fn is(&self, runtime: Handle) {
        self.0.send_replace(Some(runtime));
    }
}

/// Serves the peer port until `stop` says so; the thread ends a moment later.
///
/// # Errors
/// When the thread cannot be started.
pub fn serve<G: Grpc>(
    sockets: Vec<(Listener, Url)>,
    tls: Option<Acceptor>,
    grpc: G,
    http: PeerHttp,
    home: &Home,
    limits: Limits,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<JoinHandle<()>> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("peers runtime")?;
    let home = home.0.subscribe();
    let serving = move || {
        runtime.block_on(async {
            let mut ports = JoinSet::new();
            for (listener, url) in sockets {
                info!(address = %url, "serving peer traffic");
                let tls = tls.clone().filter(|_| url.is_tls());
                let port = Port {
                    tls,
                    grpc: grpc.clone(),
                    http: http.clone(),
                    home: home.clone(),
                    limits,
                    stop: stop.clone(),
                };
                ports.spawn(accept(listener, port));
            }
            while let Some(ended) = ports.join_next().await {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => error!(%error, "a peer listener ended"),
                    Err(broken) => error!(%broken, "a peer listener broke"),
                }
            }
        });
        // What a peer still asks for here it will ask another member for.
        runtime.shutdown_background();
    };
    thread::Builder::new().name("peers".into()).spawn(serving).context("thread for peers")
}

/// What is served on a socket.
#[derive(Clone)]
struct Port<G> {
    tls: Option<Acceptor>,
    grpc: G,
    http: PeerHttp,
    home: watch::Receiver<Option<Handle>>,
    limits: Limits,
    stop: watch::Receiver<bool>,
}

async fn accept<G: Grpc>(listener: Listener, port: Port<G>) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let mut stop = port.stop.clone();
    let listener = Accepting::new(listener)?;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(Accepted::Tcp(stream, remote)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%error, "a peer's connection was gone at once");
                        continue;
                    }
                    let home = port.home.borrow().clone();
                    match home {
                        None => connections.spawn(port.clone().take(stream, Some(remote))),
                        Some(home) => {
                            let stream = stream.into_std()?;
                            connections.spawn_on(port.clone().take_home(stream, remote), &home)
                        }
                    };
                }
                Ok(Accepted::Unix(stream)) => {
                    connections.spawn(port.clone().take(stream, None));
                }
                Err(error) => {
                    warn!(%error, "failed to accept a peer's connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(broken) = ended
                    && !broken.is_cancelled()
                {
                    error!(%broken, "a peer's connection broke");
                }
            }
            () = stopped(&mut stop) => break,
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        debug!("peers' connections were cut that did not end in time");
    }
    Ok(())
}

enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

enum Accepted {
    Tcp(tokio::net::TcpStream, IpAddr),
    Unix(tokio::net::UnixStream),
}

impl Accepting {
    fn new(listener: Listener) -> io::Result<Self> {
        match listener {
            Listener::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Self::Tcp),
            Listener::Unix(listener) => tokio::net::UnixListener::from_std(listener).map(Self::Unix),
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, remote.ip()))
            }
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

impl<G: Grpc> Port<G> {
    /// As [`Self::take`], for a connection that begins on the runtime where it stays.
    async fn take_home(mut self, stream: std::net::TcpStream, remote: IpAddr) {
        // It is there already: nothing to wait for.
        self.home = watch::Sender::new(None).subscribe();
        match tokio::net::TcpStream::from_std(stream) {
            Ok(stream) => self.take(stream, Some(remote)).await,
            Err(error) => warn!(%error, "a peer's connection cannot be served"),
        }
    }

    async fn take<S>(self, stream: S, remote: Option<IpAddr>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = Timed::new(stream, self.limits);
        match self.tls.clone() {
            None => self.speak(stream).await,
            Some(acceptor) => match acceptor.accept(stream, remote).await {
                Ok(stream) => self.speak(stream).await,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    debug!("a connection was closed before its handshake, as probes do");
                }
                Err(error) => {
                    let remote = remote.map(|remote| remote.to_string()).unwrap_or_default();
                    warn!("remote-addr" = remote, %error, "rejected connection on peer endpoint");
                }
            },
        }
    }

    async fn speak<S>(mut self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(FRAME)
            // A member that hung finds all that others have given up meanwhile; that is no attack.
            .max_pending_accept_reset_streams(RESETS)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(self.limits.read());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let (grpc, http) = (self.grpc.clone(), self.http.clone());
        let answering = service_fn(move |request| answer(request, grpc.clone(), http.clone()));
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), answering));
        let moves = async {
            if self.home.wait_for(Option::is_some).await.is_err() {
                std::future::pending().await
            }
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = moves => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = stopped(&mut self.stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "a peer's connection ended early");
        }
    }
}

/// Serves one connection that came over a network that is not real.
#[cfg(feature = "simulation")]
pub async fn serve_connection<G: Grpc>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    grpc: G,
) {
    let (_stops, stop) = watch::channel(false);
    let home = watch::Sender::new(None).subscribe();
    let http = PeerHttp::default();
    let port = Port { tls: None, grpc, http, home, stop, limits: Limits::usual() };
    port.take(stream, None).await;
}

async fn answer<G: Grpc>(
    request: Request<Incoming>,
    mut grpc: G,
    http: PeerHttp,
) -> Result<Response<Body>, Infallible> {
    let kind = request.headers().get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        std::future::poll_fn(|context| grpc.poll_ready(context)).await?;
        let answer = grpc.call(request);
        drop(grpc);
        return answer.await;
    }
    Ok(http.handle(request.method(), request.uri().path()).await.map(Body::new))
}

#[cfg(test)]
mod tests;
