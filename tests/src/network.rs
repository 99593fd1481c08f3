//! The network between members, with faults, and without root.
//!
//! In front of each member's peer port stands a TCP proxy, and the proxy's
//! address is what the member advertises. Two members talk over connections
//! that either may have dialled, and bytes go both ways on each; so a fault
//! belongs to a way, from one member to another, not to a connection. Who
//! dialled is what the kernel tells: `/proc` knows the process at the other end.
//!
//! A way that is cut holds what is sent, as a network holds what it will
//! deliver when it is whole again; connections stay, and new ones hang.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::free_port;

/// What happens to the bytes from one member to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Way {
    /// Nothing arrives.
    pub cut: bool,
    /// What arrives does so that much later.
    pub delay: Duration,
}

type Ways = HashMap<(usize, usize), Way>;

/// All ways between the members of a cluster, which it knows by their numbers.
#[derive(Debug, Clone)]
pub struct Network {
    ways: watch::Sender<Ways>,
    processes: Arc<Mutex<Vec<Arc<AtomicI32>>>>,
}

impl Network {
    pub(crate) fn new() -> Network {
        Network { ways: watch::Sender::new(Ways::new()), processes: Arc::default() }
    }

    /// Puts a proxy in front of the next member's peer port and gives the proxy's port.
    pub(crate) async fn attach(&self, process: Arc<AtomicI32>, peer_port: u16) -> Result<u16> {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let mut processes = self.processes.lock().expect("no panic holds it");
        let to = processes.len();
        processes.push(process);
        drop(processes);
        tokio::spawn(self.clone().serve(listener, to, peer_port));
        Ok(port)
    }

    /// Sets one way.
    pub fn set(&self, from: usize, to: usize, way: Way) {
        self.ways.send_modify(|ways| {
            ways.insert((from, to), way);
        });
    }

    /// Cuts both ways between each of some members and all others.
    pub fn isolate(&self, some: &[usize]) {
        let all = self.processes.lock().expect("no panic holds it").len();
        self.ways.send_modify(|ways| {
            for from in 0..all {
                for to in 0..all {
                    if some.contains(&from) != some.contains(&to) {
                        ways.entry((from, to)).or_default().cut = true;
                    }
                }
            }
        });
    }

    /// Delays every way.
    pub fn delay(&self, delay: Duration) {
        let all = self.processes.lock().expect("no panic holds it").len();
        self.ways.send_modify(|ways| {
            for from in 0..all {
                for to in 0..all {
                    ways.entry((from, to)).or_default().delay = delay;
                }
            }
        });
    }

    /// Lets everything through again, what was held first.
    pub fn heal(&self) {
        self.ways.send_modify(Ways::clear);
    }

    async fn serve(self, listener: TcpListener, to: usize, peer_port: u16) {
        while let Ok((inbound, remote)) = listener.accept().await {
            // Whoever is no member has a way of its own, which nobody cuts.
            let network = self.clone();
            tokio::spawn(async move {
                let from = network.dialler(remote).await.unwrap_or(to);
                network.connect(inbound, from, to, peer_port).await;
            });
        }
    }

    async fn connect(self, inbound: TcpStream, from: usize, to: usize, peer_port: u16) {
        let mut ways = self.ways.subscribe();
        let open = |ways: &Ways| !way(ways, from, to).cut && !way(ways, to, from).cut;
        if ways.wait_for(open).await.is_err() {
            return;
        }
        // A member that is down refuses; closing our end says so.
        let Ok(outbound) = TcpStream::connect(("127.0.0.1", peer_port)).await else { return };
        inbound.set_nodelay(true).ok();
        outbound.set_nodelay(true).ok();
        let ((in_read, in_write), (out_read, out_write)) = (inbound.into_split(), outbound.into_split());
        let forth = forward(in_read, out_write, self.ways.subscribe(), (from, to));
        let back = forward(out_read, in_write, self.ways.subscribe(), (to, from));
        // When one end is gone, so is the connection.
        tokio::select! {
            () = forth => {}
            () = back => {}
        }
    }

    /// The number of the member whose process holds this end of a connection. The kernel's table of sockets may miss
    /// one while it is read: it is looked for again.
    async fn dialler(&self, end: SocketAddr) -> Option<usize> {
        for _ in 0..20 {
            if let Some(found) = self.holder(end) {
                return Some(found);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }

    fn holder(&self, end: SocketAddr) -> Option<usize> {
        let socket = format!("socket:[{}]", inode(end.port())?);
        let processes = self.processes.lock().expect("no panic holds it");
        processes.iter().position(|process| holds(process.load(Ordering::Relaxed), &socket))
    }
}

fn way(ways: &Ways, from: usize, to: usize) -> Way {
    ways.get(&(from, to)).copied().unwrap_or_default()
}

/// Carries bytes one way until either end closes.
async fn forward(
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    mut ways: watch::Receiver<Ways>,
    (from, to): (usize, usize),
) {
    // What is on its way; when that is much, the sender waits.
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let settings = ways.clone();
    let reader = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            let due = Instant::now() + way(&settings.borrow(), from, to).delay;
            if sender.send((due, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writer = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            if ways.wait_for(|ways| !way(ways, from, to).cut).await.is_err()
                || write.write_all(&bytes).await.is_err()
            {
                return;
            }
        }
        // Also the end of a connection arrives only over a way that is whole.
        ways.wait_for(|ways| !way(ways, from, to).cut).await.ok();
    };
    tokio::join!(reader, writer);
}

/// The inode of the socket on this machine that is bound to a port of the loopback interface.
fn inode(port: u16) -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let local = format!("0100007F:{port:04X}");
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&local))?;
    line.split_whitespace().nth(9).map(str::to_owned)
}

fn holds(process: i32, socket: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    entries.flatten().any(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| target.as_path() == Path::new(socket))
    })
}
