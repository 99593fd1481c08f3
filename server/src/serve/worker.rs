//! A thread that serves connections.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};
use tracing::{debug, error};

use super::Transport;
use super::connection::{self, Port};
use super::socket::Accepted;
use crate::api;

/// Threads of one worker that may wait for the disk on behalf of long ranges.
const BLOCKING_THREADS: usize = 4;
/// Connections handed over and not yet taken; the sender waits when there are more.
type Handover = (Accepted, Arc<Port>);

/// A running thread, and the way to hand it connections.
pub(super) struct Worker {
    // Unbounded: what waits here are accepted sockets, which the limit for open files bounds.
    connections: mpsc::UnboundedSender<Handover>,
    thread: JoinHandle<()>,
}

impl Worker {
    pub(super) fn start(
        number: usize,
        service: api::Service,
        transport: Arc<Transport>,
        stop: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let (connections, handed) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name(format!("read-{number}"))
            .build()?;
        let thread = std::thread::Builder::new().name(format!("grpc-{number}")).spawn(move || {
            runtime.block_on(work(handed, service, transport, stop));
            // Reads that nobody waits for any more are not waited for either.
            runtime.shutdown_background();
        })?;
        Ok(Self { connections, thread })
    }

    pub(super) fn serve(&self, connection: Accepted, port: Arc<Port>) {
        if self.connections.send((connection, port)).is_err() {
            debug!("a connection came while the member stops");
        }
    }

    pub(super) fn join(self) {
        drop(self.connections);
        if self.thread.join().is_err() {
            error!("a thread that serves connections broke");
        }
    }
}

async fn work(
    mut handed: mpsc::UnboundedReceiver<Handover>,
    service: api::Service,
    transport: Arc<Transport>,
    stop: watch::Receiver<bool>,
) {
    let service = Arc::new(service);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            handed = handed.recv() => {
                let Some((accepted, port)) = handed else { break };
                connections.spawn(connection::serve(accepted, port, Arc::clone(&service), Arc::clone(&transport), stop.clone()));
            }
            Some(ended) = connections.join_next() => {
                if let Err(broken) = ended {
                    error!(%broken, "a connection broke");
                }
            }
        }
    }
    if tokio::time::timeout(transport.grace, connections.join_all()).await.is_err() {
        debug!("connections were cut that did not end in time");
    }
}
