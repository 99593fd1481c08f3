//! Connections to other members, and to the cluster that serves discovery.
//!
//! A [`Dialer`] knows how: plain or with TLS, over TCP or a Unix socket. What it
//! makes for gRPC is a channel that connects when it is first used and again
//! whenever it broke, though not more often than ten times a second: between
//! two tries a call fails at once, with the reason of the last one.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tracing::debug;

use super::timed::{Limits, Timed};
use crate::config::Config;
use crate::config::url::Url;
use crate::tls::{Connector, Protocol};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The least time between two tries to connect a channel.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// What a peer may send before it is read.
const WINDOW: u32 = 8 << 20;
/// A peer that nothing comes from is pinged this often.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Pings that come more often than this a server takes for an attack.
const CLIENT_PING_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// The longest body of an answer to [`Dialer::get`].
const BODY_BYTES_MAX: usize = 1 << 20;

/// Makes connections. The default one knows nothing of TLS, and has no limits.
#[derive(Clone, Default)]
pub struct Dialer {
    tls: Option<Arc<Connector>>,
    /// The address that connections come from.
    local: Option<IpAddr>,
    limits: Option<Limits>,
    patience: Patience,
    #[cfg(feature = "simulation")]
    network: Option<Arc<dyn crate::simulation::Network>>,
}

/// How long the other end may be silent.
#[derive(Clone, Copy)]
struct Patience {
    connect: Duration,
    ping_interval: Duration,
    ping_timeout: Duration,
    /// Whether connections are pinged over which nothing is asked.
    pings_idle: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: CONNECT_TIMEOUT,
            ping_interval: PING_INTERVAL,
            ping_timeout: CONNECT_TIMEOUT,
            pings_idle: true,
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("tls", &self.tls.is_some()).field("local", &self.local).finish()
    }
}

/// An answer to [`Dialer::get`].
#[derive(Debug)]
pub struct Got {
    /// How it went.
    pub status: StatusCode,
    /// What was said about the body.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Dialer {
    /// The dialer that the flags `--peer-*` and `--raft-*-timeout` ask for.
    ///
    /// # Errors
    /// When a certificate or a CA cannot be read.
    pub fn new(config: &Config) -> anyhow::Result<Dialer> {
        let limits = Limits::new(config);
        Ok(Dialer {
            tls: Some(Arc::new(Connector::for_peers(config)?)),
            local: config.peer_local_address,
            limits: Some(limits),
            // The limits end a connection that pings get no answer on; two rules would contradict each other.
            patience: Patience { ping_timeout: limits.read(), ..Patience::default() },
            #[cfg(feature = "simulation")]
            network: None,
        })
    }

    /// A dialer that reaches peers through a network that is not real.
    #[cfg(feature = "simulation")]
    pub fn over(network: Arc<dyn crate::simulation::Network>) -> Dialer {
        let limits = Limits::usual();
        Dialer {
            limits: Some(limits),
            patience: Patience { ping_timeout: limits.read(), ..Patience::default() },
            network: Some(network),
            ..Dialer::default()
        }
    }

    /// The dialer that the flags `--discovery-*` ask for.
    pub fn for_discovery(config: &Config, tls: Option<Connector>) -> Dialer {
        let flags = &config.flags;
        let connect = flags.discovery_dial_timeout.get();
        Dialer {
            tls: tls.map(Arc::new),
            patience: Patience {
                connect: if connect.is_zero() { CONNECT_TIMEOUT } else { connect },
                ping_interval: flags.discovery_keepalive_time.get().max(CLIENT_PING_INTERVAL_MIN),
                ping_timeout: flags.discovery_keepalive_timeout.get(),
                pings_idle: false,
            },
            ..Dialer::default()
        }
    }

    /// A channel to a URL.
    ///
    /// # Errors
    /// When the URL is not one.
    pub fn channel(&self, url: &str) -> anyhow::Result<Channel> {
        let url = Url::parse(url).map_err(anyhow::Error::msg)?;
        // What is dialed is the connector's matter; this is what HTTP calls the other end.
        let authority = if url.is_unix() { "localhost" } else { url.address() };
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))
            .with_context(|| format!("URL {url}"))?
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW)
            .http2_keep_alive_interval(self.patience.ping_interval)
            .keep_alive_timeout(self.patience.ping_timeout)
            .keep_alive_while_idle(self.patience.pings_idle);
        let dialer = self.clone();
        let dial = Dial { dialer, url, last: Arc::default() };
        Ok(endpoint.connect_with_connector_lazy(dial))
    }

    /// Asks a peer's URL for a path, by HTTP/1.1 on a connection of its own; the caller says for how long.
    ///
    /// # Errors
    /// When no answer came, or it is too long.
    pub async fn get(&self, url: &str, path: &str) -> anyhow::Result<Got> {
        let url = Url::parse(url).map_err(anyhow::Error::msg)?;
        let stream = timeout(self.patience.connect, self.connect(&url, Protocol::Http1))
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))
            .flatten()
            .with_context(|| format!("connect to {url}"))?;
        let host = if url.is_unix() { "localhost" } else { url.address() };
        let request = Request::get(path).header(http::header::HOST, host).body(Empty::<Bytes>::new())?;
        let asked = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let answer = async {
                let response = sender.send_request(request).await?;
                let (parts, body) = response.into_parts();
                match Limited::new(body, BODY_BYTES_MAX).collect().await {
                    Ok(body) => Ok((parts, body.to_bytes())),
                    Err(error) => bail!("body: {error}"),
                }
            };
            tokio::pin!(answer);
            tokio::select! {
                answer = &mut answer => answer,
                ended = connection => {
                    if let Err(error) = ended {
                        debug!(%error, "a connection to a peer ended early");
                    }
                    answer.await
                }
            }
        };
        let (parts, body) = asked.await.with_context(|| format!("GET {path} from {url}"))?;
        Ok(Got { status: parts.status, headers: parts.headers, body })
    }

    async fn connect(&self, url: &Url, protocol: Protocol) -> io::Result<Stream> {
        let plain = self.open(url).await?;
        let plain: Box<dyn Wire> = match self.limits {
            Some(limits) => Box::new(Timed::new(plain, limits)),
            None => plain,
        };
        if !url.is_tls() {
            return Ok(Stream(plain));
        }
        let tls = self.tls.as_ref().ok_or_else(|| io::Error::other("TLS is not set up"))?;
        Ok(Stream(Box::new(tls.connect(plain, url.host(), protocol).await?)))
    }
}

impl Dialer {
    async fn open(&self, url: &Url) -> io::Result<Box<dyn Wire>> {
        #[cfg(feature = "simulation")]
        if let Some(network) = &self.network {
            return network.connect(url.address().to_owned()).await;
        }
        if url.is_unix() {
            return Ok(Box::new(UnixStream::connect(url.address()).await?));
        }
        let stream = self.connect_tcp(url).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn connect_tcp(&self, url: &Url) -> io::Result<TcpStream> {
        let port: u16 = url.port().parse().map_err(|_| io::Error::other("the port is not a number"))?;
        let Some(local) = self.local else { return TcpStream::connect((url.host(), port)).await };
        let mut failed = io::Error::other(format!("{} has no address that {local} can reach", url.host()));
        for remote in lookup_host((url.host(), port)).await?.filter(|to| to.is_ipv4() == local.is_ipv4()) {
            let socket = if local.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.bind((local, 0).into())?;
            match socket.connect(remote).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

/// Whatever bytes go over.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// An open connection.
struct Stream(Box<dyn Wire>);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }
}

/// When a channel last tried to connect in vain, and why that was.
type Failed = Option<(Instant, String)>;

/// Connects one channel, each time it asks.
#[derive(Clone)]
struct Dial {
    dialer: Dialer,
    url: Url,
    last: Arc<Mutex<Failed>>,
}

impl Dial {
    async fn dial(self) -> io::Result<TokioIo<Stream>> {
        let refused = match &*self.last.lock() {
            Some((when, reason)) if when.elapsed() < RETRY_PAUSE => Some(reason.clone()),
            _ => None,
        };
        if let Some(reason) = refused {
            return Err(io::Error::other(reason));
        }
        let connect = self.dialer.connect(&self.url, Protocol::Http2);
        let connected = timeout(self.dialer.patience.connect, connect).await;
        let connected = connected.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        *self.last.lock() = match &connected {
            Ok(_) => None,
            Err(error) => Some((Instant::now(), format!("connect to {}: {error}", self.url))),
        };
        connected
            .map(TokioIo::new)
            .map_err(|error| io::Error::new(error.kind(), format!("connect to {}: {error}", self.url)))
    }
}

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Peers that check where a connection comes from must see the address that the member advertises.
    #[tokio::test]
    async fn connections_come_from_the_local_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let url = Url::parse(&url).unwrap();
        for local in [None, Some("127.0.0.9".parse().unwrap())] {
            let dialer = Dialer { local, ..Dialer::default() };
            let (connected, accepted) = tokio::join!(dialer.connect_tcp(&url), listener.accept());
            connected.unwrap();
            let seen: IpAddr = accepted.unwrap().1.ip();
            assert_eq!(seen, local.unwrap_or_else(|| "127.0.0.1".parse().unwrap()));
        }
        let dialer = Dialer { local: Some("::1".parse().unwrap()), ..Dialer::default() };
        let refused = dialer.connect_tcp(&Url::parse("http://127.0.0.1:1").unwrap()).await.unwrap_err();
        assert_eq!(refused.to_string(), "127.0.0.1 has no address that ::1 can reach");
    }
}
