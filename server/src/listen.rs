//! Listening sockets for the URLs of the configuration.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, anyhow};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::flags::Flags;
use crate::config::url::Url;

/// Connections that may wait to be accepted; the kernel lowers it to its own limit.
const BACKLOG: i32 = 4096;

/// A socket that is listened on.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// Another handle of the same socket.
    pub fn try_clone(&self) -> io::Result<Listener> {
        match self {
            Listener::Tcp(listener) => listener.try_clone().map(Listener::Tcp),
            Listener::Unix(listener) => listener.try_clone().map(Listener::Unix),
        }
    }
}

/// Listens on a URL. The socket is non-blocking.
pub fn bind(url: &Url, flags: &Flags) -> anyhow::Result<Listener> {
    if url.is_unix() {
        return bind_unix(Path::new(url.address())).with_context(|| format!("listen unix {}", url.address()));
    }
    let address = resolve(url).with_context(|| format!("listen tcp {}", url.address()))?;
    bind_tcp(address, flags).map(Listener::Tcp).map_err(|error| {
        let reason = match Errno::from_io_error(&error) {
            Some(Errno::ADDRINUSE) => "address already in use".to_owned(),
            Some(Errno::ADDRNOTAVAIL) => "cannot assign requested address".to_owned(),
            Some(Errno::ACCESS) => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        anyhow!("listen tcp {address}: bind: {reason}")
    })
}

/// The address to listen on: of a name's addresses the first of IPv4, as Go prefers it.
fn resolve(url: &Url) -> io::Result<SocketAddr> {
    let port: u16 = url.port().parse().map_err(io::Error::other)?;
    let addresses: Vec<SocketAddr> = (url.host(), port).to_socket_addrs()?.collect();
    let preferred = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    preferred.copied().ok_or_else(|| io::Error::other("no address"))
}

fn bind_tcp(address: SocketAddr, flags: &Flags) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Go's listeners set it always; --socket-reuse-address asks for what is there.
    socket.set_reuse_address(true)?;
    if flags.socket_reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket file that nobody listens on is what a process left that was killed: it goes.
fn bind_unix(path: &Path) -> io::Result<Listener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    listener.set_nonblocking(true)?;
    Ok(Listener::Unix(listener))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_said_as_etcd_says_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let url = Url::parse(&format!("http://{address}")).unwrap();
        let refusal = bind(&url, &Flags::default()).unwrap_err().to_string();
        assert_eq!(refusal, format!("listen tcp {address}: bind: address already in use"));
    }

    #[test]
    fn the_socket_of_a_dead_process_is_replaced_that_of_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let url = Url::parse(&format!("unix://{}", dir.path().join("s").display())).unwrap();
        let first = bind(&url, &Flags::default()).unwrap();
        assert!(bind(&url, &Flags::default()).is_err());
        drop(first);
        bind(&url, &Flags::default()).unwrap();
    }
}
