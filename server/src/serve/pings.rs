//! Sends clients away that ping too often.
//!
//! HTTP/2 is spoken below us by a library that answers pings and tells nobody.
//! So this looks at the frames as they pass between it and the socket: only
//! their nine-byte heads, on the way in for pings, on the way out for answers.
//! The rules are grpc-go's: a ping may come every so often while a stream is
//! open, every two hours while none is, and answers to requests clear the count.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tracing::warn;

/// What HTTP/2 connections begin with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_LEN: usize = 9;

// Frame types.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const FLAG_ACK: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Pings that come too early and are still let pass.
const STRIKES_MAX: u32 = 2;
/// How often a client without streams may ping.
const IDLE_MIN_TIME: Duration = Duration::from_secs(2 * 3600);

/// The requests of a connection that are under way.
#[derive(Debug, Default)]
pub(super) struct Activity(AtomicUsize);

/// Counts one request for as long as it lives.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Activity>);

impl Activity {
    pub(super) fn begin(this: &Arc<Self>) -> UnderWay {
        this.0.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(this))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where one direction stands between frames.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; HEAD_LEN],
    have: usize,
    /// Bytes of the current frame still to pass.
    left: usize,
}

/// What a frame's head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8], mut see: impl FnMut(Head)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skip = self.left.min(bytes.len());
                self.left -= skip;
                bytes = &bytes[skip..];
                continue;
            }
            let take = (HEAD_LEN - self.have).min(bytes.len());
            self.head[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have == HEAD_LEN {
                let head = &self.head;
                self.have = 0;
                self.left = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
                see(Head { kind: head[3], flags: head[4], stream });
            }
        }
    }

    fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }
}

/// Counts pings that come too early.
#[derive(Debug)]
struct Policy {
    min_time: Duration,
    last: Option<Instant>,
    strikes: u32,
    /// Something was answered since the last ping.
    answered: bool,
}

impl Policy {
    fn new(min_time: Duration) -> Self {
        Self { min_time, last: None, strikes: 0, answered: false }
    }

    /// Whether this ping is one too many.
    fn ping(&mut self, now: Instant, streams: usize) -> bool {
        let last = self.last.replace(now);
        if std::mem::take(&mut self.answered) {
            self.strikes = 0;
            return false;
        }
        let min_time = if streams == 0 { IDLE_MIN_TIME } else { self.min_time };
        if last.is_some_and(|last| now < last + min_time) {
            self.strikes += 1;
        }
        self.strikes > STRIKES_MAX
    }
}

/// What the connection speaks, as far as is known.
#[derive(Debug)]
enum Speaks {
    /// So many bytes of the preface have come.
    Unknown(usize),
    Http2,
    /// Not HTTP/2, or not watched any more.
    Other,
}

/// A stream whose frames are watched.
#[derive(Debug)]
pub(super) struct Policed<S> {
    stream: S,
    speaks: Speaks,
    incoming: Frames,
    outgoing: Frames,
    policy: Policy,
    activity: Arc<Activity>,
    last_stream: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Policed<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>, min_time: Duration) -> Self {
        Self {
            stream,
            speaks: Speaks::Unknown(0),
            incoming: Frames::default(),
            outgoing: Frames::default(),
            policy: Policy::new(min_time),
            activity,
            last_stream: 0,
        }
    }

    /// Looks at what came; true when it was a ping too many.
    fn came(&mut self, mut bytes: &[u8]) -> bool {
        if let Speaks::Unknown(have) = self.speaks {
            let take = bytes.len().min(PREFACE.len() - have);
            if bytes[..take] != PREFACE[have..have + take] {
                self.speaks = Speaks::Other;
                return false;
            }
            bytes = &bytes[take..];
            let whole = have + take == PREFACE.len();
            self.speaks = if whole { Speaks::Http2 } else { Speaks::Unknown(have + take) };
        }
        if !matches!(self.speaks, Speaks::Http2) {
            return false;
        }
        let mut too_many = false;
        let Self { incoming, policy, activity, last_stream, .. } = self;
        incoming.pass(bytes, |head| match head.kind {
            PING if head.flags & FLAG_ACK == 0 => {
                too_many |= policy.ping(Instant::now(), activity.0.load(Ordering::Relaxed));
            }
            HEADERS => *last_stream = head.stream.max(*last_stream),
            _ => {}
        });
        too_many
    }

    fn went(&mut self, bytes: &[u8]) {
        if matches!(self.speaks, Speaks::Http2) {
            let policy = &mut self.policy;
            self.outgoing.pass(bytes, |head| policy.answered |= matches!(head.kind, DATA | HEADERS));
        }
    }

    /// Says why, if that is possible between two frames; the connection ends either way.
    fn send_away(&mut self, context: &mut Context<'_>) -> io::Error {
        self.speaks = Speaks::Other;
        warn!("got too many pings from a client, closing its connection");
        if self.outgoing.is_between() {
            let frame = too_many_pings(self.last_stream);
            if let Poll::Ready(Ok(_)) = Pin::new(&mut self.stream).poll_write(context, &frame) {
                // As far as it goes at once; the connection is about to be dropped.
                if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(context) {
                    return error;
                }
            }
        }
        io::Error::new(io::ErrorKind::ConnectionAborted, "too many pings")
    }
}

/// The frame that tells a client to calm down, as grpc-go sends it: its clients know the words.
fn too_many_pings(last_stream: u32) -> Vec<u8> {
    let debug = b"too_many_pings";
    let len = 8 + debug.len() as u32;
    let mut frame = Vec::with_capacity(HEAD_LEN + len as usize);
    frame.extend_from_slice(&len.to_be_bytes()[1..]);
    frame.extend_from_slice(&[GOAWAY, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(&last_stream.to_be_bytes());
    frame.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
    frame.extend_from_slice(debug);
    frame
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Policed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if self.came(&buffer.filled()[before..]) {
            // An error says that nothing was read.
            buffer.set_filled(before);
            return Poll::Ready(Err(self.send_away(context)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Policed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.went(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        let mut left = written;
        for slice in slices {
            let part = left.min(slice.len());
            self.went(&slice[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PING_FRAME: [u8; 17] = [0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    #[test]
    fn pings_must_keep_their_distance_while_a_stream_is_open() {
        let start = Instant::now();
        let seconds = |seconds| start + Duration::from_secs(seconds);
        let mut policy = Policy::new(Duration::from_secs(5));
        assert!((0..100).all(|n| !policy.ping(seconds(5 * n), 1)));
        let mut policy = Policy::new(Duration::from_secs(5));
        let answers: Vec<_> = (0..4).map(|n| policy.ping(seconds(n), 1)).collect();
        assert_eq!(answers, [false, false, false, true]);
    }

    #[test]
    fn without_streams_pings_are_not_wanted_at_all() {
        let start = Instant::now();
        let mut policy = Policy::new(Duration::from_secs(5));
        let answers: Vec<_> = (0..4).map(|n| policy.ping(start + Duration::from_secs(60 * n), 0)).collect();
        assert_eq!(answers, [false, false, false, true]);
    }

    #[test]
    fn answers_clear_the_count() {
        let start = Instant::now();
        let mut policy = Policy::new(Duration::from_secs(5));
        for n in 0..100 {
            policy.answered = true;
            assert!(!policy.ping(start + Duration::from_millis(n), 1));
        }
    }

    #[tokio::test]
    async fn a_client_that_pings_too_often_is_told_to_calm_down() {
        let (mut client, server) = tokio::io::duplex(4096);
        let mut policed = Policed::new(server, Arc::default(), Duration::from_secs(5));
        client.write_all(PREFACE).await.expect("room");
        for _ in 0..4 {
            client.write_all(&PING_FRAME).await.expect("room");
        }
        let mut bytes = Vec::new();
        let error = policed.read_to_end(&mut bytes).await.expect_err("one ping too many");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        drop(policed);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("the other side is closed");
        assert_eq!(answer, too_many_pings(0));
        assert!(answer.ends_with(b"too_many_pings"));
    }

    #[tokio::test]
    async fn what_is_not_http2_is_left_alone() {
        let (mut client, server) = tokio::io::duplex(4096);
        let mut policed = Policed::new(server, Arc::default(), Duration::from_secs(5));
        let request = b"GET /health HTTP/1.1\r\n\r\n";
        client.write_all(request).await.expect("room");
        for _ in 0..10 {
            client.write_all(&PING_FRAME).await.expect("room");
        }
        drop(client);
        let mut bytes = Vec::new();
        policed.read_to_end(&mut bytes).await.expect("no policy");
        assert_eq!(bytes.len(), request.len() + 10 * PING_FRAME.len());
    }

    #[test]
    fn frames_are_seen_however_they_are_cut() {
        let bytes =
            [&PING_FRAME[..], &[0, 0, 3, DATA, 1, 0, 0, 0, 5, b'a', b'b', b'c'], &PING_FRAME[..]].concat();
        for size in 1..=bytes.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            bytes
                .chunks(size)
                .for_each(|piece| frames.pass(piece, |head| seen.push((head.kind, head.stream))));
            assert_eq!(seen, [(PING, 0), (DATA, 5), (PING, 0)]);
            assert!(frames.is_between());
        }
    }
}
