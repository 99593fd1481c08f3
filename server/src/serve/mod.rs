//! Connections: who listens, who serves.
//!
//! ```text
//!   listeners ──► one task each accepts ──► grpc-0 … grpc-n: a runtime of one thread each
//!                                            TLS ─► h1 or h2 ─► gRPC: api::Service
//!                                                             └► else: http::handle
//! ```
//!
//! A connection stays on the thread it was given to, with all its streams: less
//! CPU per request than work stealing, since nothing is handed between cores.

mod connection;
mod pings;
mod socket;
mod worker;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, warn};

pub use socket::Socket;

use crate::api;
use crate::http::HttpContext;
use crate::node::{Node, stopped};
use crate::tls;

/// The pause after an accept that failed, for want of file descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket, and what is served on it.
pub struct Listener {
    /// Where connections come in.
    pub socket: Socket,
    /// How they are encrypted; `None`: not at all.
    pub tls: Option<tls::Acceptor>,
    /// What is not gRPC; `None`: refused.
    pub http: Option<HttpContext>,
    /// Whether gRPC is served.
    pub grpc: bool,
}

/// How connections are served.
#[derive(Debug, Clone)]
pub struct Transport {
    /// Threads that serve connections.
    pub threads: usize,
    /// Streams a client may have open on one connection.
    pub streams_max: u32,
    /// Clients that ping more often than this are sent away.
    pub ping_min_time: Duration,
    /// Idle connections are pinged this often …
    pub ping_interval: Duration,
    /// … and closed when no answer comes within this time.
    pub ping_timeout: Duration,
    /// How long requests under way may take once the member stops.
    pub grace: Duration,
}

impl Default for Transport {
    /// etcd's defaults, and a thread per core up to eight.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads: cores.min(8),
            streams_max: u32::MAX,
            ping_min_time: Duration::from_secs(5),
            ping_interval: Duration::from_secs(2 * 3600),
            ping_timeout: Duration::from_secs(20),
            grace: Duration::from_secs(3),
        }
    }
}

/// Serves until `stop` says so, and then until what is under way is answered.
///
/// # Errors
/// When a socket cannot be listened on or a thread not started.
pub async fn run(
    listeners: Vec<Listener>,
    transport: Transport,
    node: Node,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let transport = Arc::new(transport);
    let workers = (0..transport.threads.max(1))
        .map(|number| {
            let service = api::Service::new(node.for_thread());
            worker::Worker::start(number, service, Arc::clone(&transport), stop.clone())
        })
        .collect::<io::Result<Vec<_>>>()?;
    let workers = Arc::new(workers);
    let mut accepting = Vec::new();
    for listener in listeners {
        let Listener { socket, tls, http, grpc } = listener;
        let port = connection::Port { tls, http, grpc };
        let socket = socket::Accepting::new(socket)?;
        accepting.push(tokio::spawn(accept(socket, Arc::new(port), Arc::clone(&workers), stop.clone())));
    }
    for task in accepting {
        if let Err(broken) = task.await {
            error!(%broken, "a listener broke");
        }
    }
    let workers = Arc::into_inner(workers).expect("the acceptors have ended");
    tokio::task::spawn_blocking(move || workers.into_iter().for_each(worker::Worker::join))
        .await
        .map_err(io::Error::other)
}

async fn accept(
    socket: socket::Accepting,
    port: Arc<connection::Port>,
    workers: Arc<Vec<worker::Worker>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut next = 0;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stopped(&mut stop) => return,
        };
        match accepted {
            Ok(stream) => {
                workers[next % workers.len()].serve(stream, Arc::clone(&port));
                next += 1;
            }
            Err(error) => {
                warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
