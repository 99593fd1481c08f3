//! The network between members: connections that carry bytes in order, late, or not at all.
//!
//! It behaves as TCP does. What is sent over a cut link waits until the link is
//! mended, and a process that dies closes its connections; only a machine that
//! loses power says nothing, and resets what comes when it is back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use server::simulation::{Connecting, Network, Wire};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::time::{MS, Nanos};

/// Bytes that may be on their way on one connection.
const WINDOW: usize = 1 << 20;
/// What a lost packet costs until it is sent again.
const RESEND: Nanos = 200 * MS;

/// A member's number: 1, 2, …
pub type Id = u64;

/// How one way between two members is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// The shortest time a packet takes …
    pub latency: Nanos,
    /// … and what chance may add.
    pub jitter: Nanos,
    /// How likely a packet is lost, and sent again later.
    pub loss: f64,
}

/// All links; clones are the same network.
#[derive(Clone)]
pub struct Net(Arc<Mutex<Inner>>);

struct Inner {
    now: Nanos,
    random: StdRng,
    link: Link,
    cut: BTreeSet<(Id, Id)>,
    next: u64,
    connections: BTreeMap<u64, Connection>,
    connecting: Vec<Attempt>,
    ports: BTreeMap<Id, Port>,
}

#[derive(Default)]
struct Port {
    state: Listening,
    accepted: VecDeque<End>,
    waker: Option<Waker>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Listening {
    #[default]
    Refused,
    Open,
    /// No power: nothing answers.
    Silent,
}

struct Attempt {
    from: Id,
    to: Id,
    at: Nanos,
    /// Set once the other side has accepted or refused: the answer is on its way.
    answer: Option<io::Result<End>>,
    done: oneshot::Sender<io::Result<End>>,
}

struct Connection {
    /// Who opened it, and to whom.
    ends: [Id; 2],
    /// What side 0 sends, and what side 1 sends.
    pipes: [Pipe; 2],
    dropped: [bool; 2],
}

#[derive(Default)]
struct Pipe {
    flight: VecDeque<(Nanos, Piece)>,
    ready: VecDeque<Bytes>,
    bytes: usize,
    end: Option<Ending>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Piece {
    Bytes(Bytes),
    End(Ending),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Closed,
    Reset,
}

/// One end of a connection.
struct End {
    net: Net,
    connection: u64,
    side: usize,
}

impl Net {
    /// A network whose chance follows from the seed.
    pub fn new(seed: u64, link: Link) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            now: 0,
            random: StdRng::seed_from_u64(seed),
            link,
            cut: BTreeSet::new(),
            next: 0,
            connections: BTreeMap::new(),
            connecting: Vec::new(),
            ports: BTreeMap::new(),
        })))
    }

    /// The network as this member sees it.
    pub fn of(&self, id: Id) -> Arc<dyn Network> {
        Arc::new(Seen { net: self.clone(), id })
    }

    /// How all links are from now on.
    pub fn set_link(&self, link: Link) {
        self.0.lock().link = link;
    }

    /// Nothing goes from one to the other any more.
    pub fn cut(&self, from: Id, to: Id) {
        self.0.lock().cut.insert((from, to));
    }

    /// Everything goes everywhere again.
    pub fn mend(&self) {
        self.0.lock().cut.clear();
    }

    /// The member's port is open.
    pub fn listen(&self, id: Id) {
        self.0.lock().ports.entry(id).or_default().state = Listening::Open;
    }

    /// The member's process is about to end: its connections close, and new ones are refused.
    pub fn close(&self, id: Id) {
        self.set_port(id, Listening::Refused);
    }

    fn set_port(&self, id: Id, state: Listening) {
        let before = self.0.lock().ports.insert(id, Port { state, ..Port::default() });
        // Without the lock: connections that nobody has taken close with it.
        drop(before);
    }

    /// The member's machine has lost its power: nobody hears of it.
    pub fn silence(&self, id: Id) {
        let mut inner = self.0.lock();
        for connection in inner.connections.values_mut() {
            if let Some(side) = connection.ends.iter().position(|end| *end == id) {
                connection.dropped[side] = true;
            }
        }
        drop(inner);
        self.set_port(id, Listening::Silent);
    }

    /// The member's machine has power again: connections from before are reset.
    pub fn power(&self, id: Id) {
        self.set_port(id, Listening::Refused);
        let mut inner = self.0.lock();
        let at = inner.now;
        for connection in inner.connections.values_mut() {
            if let Some(side) = connection.ends.iter().position(|end| *end == id)
                && connection.dropped[side]
            {
                connection.pipes[side].flight.push_back((at, Piece::End(Ending::Reset)));
            }
        }
    }

    /// Breaks some of the open connections.
    pub fn reset_some(&self, likely: f64) -> usize {
        let mut inner = self.0.lock();
        let Inner { connections, random, .. } = &mut *inner;
        let mut wakers = Vec::new();
        let mut broken = 0;
        for connection in connections.values_mut() {
            if random.random_bool(likely) {
                broken += 1;
                for pipe in &mut connection.pipes {
                    pipe.flight.clear();
                    pipe.end = Some(Ending::Reset);
                    wakers.extend(pipe.reader.take().into_iter().chain(pipe.writer.take()));
                }
            }
        }
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        broken
    }

    /// Lets arrive what is due by now.
    pub fn tick(&self, now: Nanos) {
        let mut inner = self.0.lock();
        inner.now = now;
        let mut wakers = inner.deliver();
        let Connected { done, accepted, given_up } = inner.connect(self);
        wakers.extend(accepted);
        drop(inner);
        drop(given_up);
        wakers.into_iter().for_each(Waker::wake);
        for (waiter, answer) in done {
            // Whoever wanted it may have given up: then the end is dropped, which closes it.
            waiter.send(answer).ok();
        }
    }

    /// The next connection from a peer.
    pub async fn accept(&self, id: Id) -> Box<dyn Wire> {
        let end = std::future::poll_fn(|context| {
            let mut inner = self.0.lock();
            let port = inner.ports.entry(id).or_default();
            match port.accepted.pop_front() {
                Some(end) => Poll::Ready(end),
                None => {
                    port.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        Box::new(end.await)
    }
}

/// What came of attempts to connect; what is in it is not to be dropped while the network is locked.
#[derive(Default)]
struct Connected {
    done: Vec<(oneshot::Sender<io::Result<End>>, io::Result<End>)>,
    accepted: Vec<Waker>,
    given_up: Vec<Attempt>,
}

impl Inner {
    fn delay(&mut self) -> Nanos {
        let Link { latency, jitter, loss } = self.link;
        let mut delay = latency + if jitter > 0 { self.random.random_range(0..=jitter) } else { 0 };
        while loss > 0.0 && self.random.random_bool(loss) {
            delay += RESEND;
        }
        delay
    }

    fn deliver(&mut self) -> Vec<Waker> {
        let Self { now, cut, connections, .. } = self;
        let mut wakers = Vec::new();
        connections.retain(|_, connection| {
            for side in 0..2 {
                let (from, to) = (connection.ends[side], connection.ends[1 - side]);
                if cut.contains(&(from, to)) {
                    continue;
                }
                let pipe = &mut connection.pipes[side];
                while pipe.flight.front().is_some_and(|(at, _)| at <= now) {
                    match pipe.flight.pop_front().expect("it is there").1 {
                        Piece::Bytes(bytes) => pipe.ready.push_back(bytes),
                        Piece::End(end) => pipe.end = Some(pipe.end.unwrap_or(end)),
                    }
                    wakers.extend(pipe.reader.take());
                }
            }
            connection.dropped != [true, true]
        });
        wakers
    }

    fn connect(&mut self, net: &Net) -> Connected {
        let mut connected = Connected::default();
        for mut attempt in std::mem::take(&mut self.connecting) {
            if attempt.done.is_closed() {
                connected.given_up.push(attempt);
                continue;
            }
            let Attempt { from, to, at, .. } = attempt;
            let way = if attempt.answer.is_none() { (from, to) } else { (to, from) };
            if at > self.now || self.cut.contains(&way) {
                self.connecting.push(attempt);
                continue;
            }
            if let Some(answer) = attempt.answer.take() {
                connected.done.push((attempt.done, answer));
                continue;
            }
            let state = self.ports.get(&to).map_or(Listening::Refused, |port| port.state);
            attempt.answer = match state {
                Listening::Silent => None,
                Listening::Refused => Some(Err(io::ErrorKind::ConnectionRefused.into())),
                Listening::Open => {
                    let connection = self.next;
                    self.next += 1;
                    let new = Connection {
                        ends: [from, to],
                        pipes: [Pipe::default(), Pipe::default()],
                        dropped: [false, false],
                    };
                    self.connections.insert(connection, new);
                    let port = self.ports.get_mut(&to).expect("it is open");
                    port.accepted.push_back(End { net: net.clone(), connection, side: 1 });
                    connected.accepted.extend(port.waker.take());
                    Some(Ok(End { net: net.clone(), connection, side: 0 }))
                }
            };
            attempt.at = self.now + self.delay();
            self.connecting.push(attempt);
        }
        connected
    }

    fn send(&mut self, connection: u64, side: usize, piece: Piece) {
        let at = self.now + self.delay();
        if let Some(connection) = self.connections.get_mut(&connection) {
            let pipe = &mut connection.pipes[side];
            if let Piece::Bytes(bytes) = &piece {
                pipe.bytes += bytes.len();
            }
            let at = pipe.flight.back().map_or(at, |(last, _)| at.max(*last));
            pipe.flight.push_back((at, piece));
        }
    }
}

struct Seen {
    net: Net,
    id: Id,
}

impl Network for Seen {
    fn connect(&self, address: String) -> Connecting {
        let to = address.trim_start_matches('m').split(':').next().and_then(|id| id.parse().ok());
        let mut inner = self.net.0.lock();
        let at = inner.now + inner.delay();
        let (done, answer) = oneshot::channel();
        if let Some(to) = to {
            inner.connecting.push(Attempt { from: self.id, to, at, answer: None, done });
        }
        Box::pin(async move {
            let end = answer.await.map_err(|_| io::Error::from(io::ErrorKind::NotFound))??;
            Ok(Box::new(end) as Box<dyn Wire>)
        })
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.net.0.lock();
        let Some(connection) = inner.connections.get_mut(&self.connection) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let pipe = &mut connection.pipes[1 - self.side];
        if pipe.end == Some(Ending::Reset) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let Some(bytes) = pipe.ready.front_mut() else {
            if pipe.end.is_some() {
                return Poll::Ready(Ok(()));
            }
            pipe.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        let count = bytes.len().min(buffer.remaining());
        buffer.put_slice(&bytes[..count]);
        bytes.advance(count);
        if bytes.is_empty() {
            pipe.ready.pop_front();
        }
        pipe.bytes -= count;
        let waker = pipe.writer.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.net.0.lock();
        let Some(connection) = inner.connections.get_mut(&self.connection) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        // A reset is noticed by both ends.
        if connection.pipes.iter().any(|pipe| pipe.end == Some(Ending::Reset)) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let pipe = &mut connection.pipes[self.side];
        if pipe.bytes >= WINDOW {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(WINDOW - pipe.bytes);
        inner.send(self.connection, self.side, Piece::Bytes(Bytes::copy_from_slice(&bytes[..count])));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net.0.lock().send(self.connection, self.side, Piece::End(Ending::Closed));
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // Ends are never dropped while the network is at work on them: it hands them out without its lock.
        let mut inner = self.net.0.lock();
        let Some(connection) = inner.connections.get_mut(&self.connection) else { return };
        // One that has lost its power says nothing.
        if !std::mem::replace(&mut connection.dropped[self.side], true) {
            inner.send(self.connection, self.side, Piece::End(Ending::Closed));
        }
    }
}
