//! A connection that ends when nothing moves on it: `--raft-read-timeout` and `--raft-write-timeout`.
//!
//! Peers ping each other, so that something comes over every connection that
//! is whole. What is there already is taken first: a member that did not run
//! for a while does not blame its peers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Config;

/// How long a connection may make no progress in either direction.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    read: Duration,
    write: Duration,
}

impl Limits {
    /// The limits that the flags ask for.
    pub fn new(config: &Config) -> Limits {
        let flags = &config.flags;
        Limits { read: flags.raft_read_timeout.get(), write: flags.raft_write_timeout.get() }
    }

    /// As without the flags.
    #[cfg(feature = "simulation")]
    pub fn usual() -> Limits {
        let usual = Duration::from_secs(5);
        Limits { read: usual, write: usual }
    }

    /// How long nothing may come.
    pub fn read(&self) -> Duration {
        self.read
    }
}

/// A stream with limits.
pub struct Timed<S> {
    stream: S,
    read: Wait,
    write: Wait,
}

impl<S> Timed<S> {
    /// Puts limits on a stream.
    pub fn new(stream: S, limits: Limits) -> Timed<S> {
        let wait = |what, limit| Wait { what, limit, since: None, timer: None };
        Timed { stream, read: wait("read", limits.read), write: wait("write", limits.write) }
    }
}

/// One direction.
struct Wait {
    what: &'static str,
    limit: Duration,
    /// Since when it waits; `None` while it moves.
    since: Option<Instant>,
    /// Goes off when it may be too long; what moved meanwhile does not set it anew.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    fn watch<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.since = None;
            return polled;
        }
        let end = *self.since.get_or_insert_with(Instant::now) + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= end {
                let text = format!("i/o timeout: no {} in {:?}", self.what, self.limit);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            timer.as_mut().reset(end);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read.watch(context, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.write.watch(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.write.watch(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.write.watch(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::sleep;

    use super::*;

    const LIMITS: Limits = Limits { read: Duration::from_secs(5), write: Duration::from_secs(7) };

    #[tokio::test(start_paused = true)]
    async fn a_read_that_gets_nothing_ends() {
        let (near, mut far) = duplex(64);
        let mut near = Timed::new(near, LIMITS);
        let began = Instant::now();
        let sender = tokio::spawn(async move {
            for _ in 0..3 {
                sleep(Duration::from_secs(4)).await;
                far.write_u8(1).await.unwrap();
            }
            far
        });
        for _ in 0..3 {
            near.read_u8().await.unwrap();
        }
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "i/o timeout: no read in 5s");
        assert_eq!(began.elapsed().as_secs(), 3 * 4 + 5);
        drop(sender.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_ends() {
        let (near, mut far) = duplex(8);
        let mut near = Timed::new(near, LIMITS);
        let began = Instant::now();
        let reader = tokio::spawn(async move {
            sleep(Duration::from_secs(6)).await;
            far.read_u64().await.unwrap();
            far
        });
        let error = near.write_all(&[0; 24]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 6 + 7);
        drop(reader.await.unwrap());
    }

    /// A member that was stopped for longer than the limit finds what came meanwhile, and its timer gone off.
    #[tokio::test(start_paused = true)]
    async fn what_is_there_is_read_however_late_it_is() {
        let (near, mut far) = duplex(64);
        let mut near = Timed::new(near, LIMITS);
        tokio::time::timeout(Duration::from_secs(1), near.read_u8()).await.unwrap_err();
        far.write_u8(7).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(near.read_u8().await.unwrap(), 7);
        far.write_u8(8).await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), 8);
    }
}
