//! One endpoint: how its text reads, and how a connection to it is made.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint as Transport};
use tower_service::Service;

use crate::globals::Settings;

/// Where a member listens, and whether TLS is spoken there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    address: Address,
    server_name: String,
    encrypted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Tcp(String),
    Unix(PathBuf),
}

impl Endpoint {
    /// Reads `host:port`, `http://…`, `https://…`, `unix:…` or `unixs:…`. Where the
    /// scheme does not say, `encrypted` decides. Any text is some endpoint: one that
    /// makes no sense fails to connect, as in etcd's client.
    pub fn parse(text: &str, encrypted: bool) -> Self {
        for (scheme, encrypted) in [("unixs:", true), ("unix:", encrypted)] {
            if let Some(path) = text.strip_prefix(scheme) {
                let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
                let server_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                let server_name = host(&server_name.unwrap_or_default()).to_owned();
                return Self { address: Address::Unix(path), server_name, encrypted };
            }
        }
        let (authority, encrypted) = match text.split_once("://") {
            Some(("http", rest)) => (rest, false),
            Some(("https", rest)) => (rest, true),
            Some((_, rest)) => (rest, encrypted),
            None => (text, encrypted),
        };
        let authority = authority.split('/').next().unwrap_or(authority);
        Self {
            address: Address::Tcp(authority.to_owned()),
            server_name: host(authority).to_owned(),
            encrypted,
        }
    }

    /// Whether a connection needs the TLS configuration.
    pub fn encrypted(&self) -> bool {
        self.encrypted
    }

    /// Connects, and waits for the server's first bytes: one that refuses our certificate says so only then.
    /// The returned channel reconnects by itself.
    pub async fn connect(
        &self,
        settings: &Settings,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Channel, String> {
        let authority = self.authority();
        let uri = |scheme: &str| {
            format!("{scheme}://{authority}").parse::<Uri>().map_err(|error| error.to_string())
        };
        // grpc-go, and with it every etcd server, counts on pings being 10 s apart.
        let ping = settings.keepalive_time.max(std::time::Duration::from_secs(10));
        let transport = Transport::from(uri("http")?)
            .origin(uri(if self.encrypted { "https" } else { "http" })?)
            .http2_keep_alive_interval(ping)
            .keep_alive_timeout(settings.keepalive_timeout)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        let (spoke, speaks) = oneshot::channel();
        let dialer = Dialer { endpoint: self.named(settings), tls, spoke: Some(spoke) };
        let channel = transport.connect_with_connector(dialer).await.map_err(|error| causes(&error))?;
        match speaks.await {
            Ok(first) => first.map(|()| channel),
            Err(_) => Err("the connection ended before the server said anything".to_owned()),
        }
    }

    /// Fetches a path by HTTP/1.1.
    pub async fn get(
        &self,
        settings: &Settings,
        tls: Option<Arc<ClientConfig>>,
        path: &str,
    ) -> Result<Bytes, String> {
        let endpoint = self.named(settings);
        let stream = endpoint.dial(tls).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| causes(&error))?;
        let request = http::Request::get(path).header(http::header::HOST, self.authority());
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let body = async {
            let reply = sender.send_request(request).await?;
            Ok::<_, hyper::Error>(reply.into_body().collect().await?.to_bytes())
        };
        // The connection moves the bytes; it has to be driven until the body is whole.
        tokio::select! {
            body = body => body.map_err(|error| causes(&error)),
            ended = connection => Err(match ended {
                Ok(()) => "the connection ended".to_owned(),
                Err(error) => causes(&error),
            }),
        }
    }

    fn authority(&self) -> &str {
        match &self.address {
            Address::Tcp(authority) => authority,
            Address::Unix(_) => "localhost",
        }
    }

    /// With the name that the flags want in the server's certificate, if they want one.
    fn named(&self, settings: &Settings) -> Self {
        let server_name = settings.server_name.as_ref().unwrap_or(&self.server_name).clone();
        Self { server_name, ..self.clone() }
    }

    async fn dial(&self, tls: Option<Arc<ClientConfig>>) -> io::Result<Box<dyn Stream>> {
        let plain: Box<dyn Stream> = match &self.address {
            Address::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        match tls {
            Some(config) if self.encrypted => {
                let name = ServerName::try_from(self.server_name.clone()).map_err(io::Error::other)?;
                Ok(Box::new(TlsConnector::from(config).connect(name, plain).await?))
            }
            _ => Ok(plain),
        }
    }
}

/// The host of `host:port` or `[v6]:port`.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') || host.ends_with(']') => {
            // Names from DNS may end with a dot, those in certificates do not.
            host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.')
        }
        _ => authority,
    }
}

/// An error with what caused it, outermost first.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Bytes both ways, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Tells what the first read of a connection brought.
struct Heard {
    stream: Box<dyn Stream>,
    spoke: Option<oneshot::Sender<Result<(), String>>>,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if let Some(spoke) = self.spoke.take() {
            let first = match &read {
                Ok(()) if buffer.filled().len() > before => Ok(()),
                Ok(()) => Err("the server closed the connection".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            // Whoever connects may have given up.
            spoke.send(first).ok();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

struct Dialer {
    endpoint: Endpoint,
    tls: Option<Arc<ClientConfig>>,
    /// Where the first connection tells what its first read brought.
    spoke: Option<oneshot::Sender<Result<(), String>>>,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Heard>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (endpoint, tls, spoke) = (self.endpoint.clone(), self.tls.clone(), self.spoke.take());
        Box::pin(async move {
            let stream = endpoint.dial(tls).await?;
            Ok(TokioIo::new(Heard { stream, spoke }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(authority: &str, name: &str, encrypted: bool) -> Endpoint {
        Endpoint { address: Address::Tcp(authority.into()), server_name: name.into(), encrypted }
    }

    #[test]
    fn schemes_decide_about_encryption_and_flags_where_there_is_none() {
        assert_eq!(Endpoint::parse("a.b:2379", false), tcp("a.b:2379", "a.b", false));
        assert_eq!(Endpoint::parse("a.b:2379", true), tcp("a.b:2379", "a.b", true));
        assert_eq!(Endpoint::parse("http://a:1/x", true), tcp("a:1", "a", false));
        assert_eq!(Endpoint::parse("https://[::1]:1", false), tcp("[::1]:1", "::1", true));
        assert_eq!(Endpoint::parse("https://a.b.:1", false), tcp("a.b.:1", "a.b", true));
        let unix = Endpoint::parse("unix:///run/etcd.sock", false);
        assert_eq!(unix.address, Address::Unix("/run/etcd.sock".into()));
        assert!(!unix.encrypted());
        assert!(Endpoint::parse("unixs:localhost:1", false).encrypted());
    }
}
