//! gRPC's framing: a flag, a length, a message.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use prost::Message;

use crate::metrics::METRICS;
use crate::node::Invalid;

/// Bytes before each message: one flag, four of length.
pub const PREFIX_LEN: usize = 5;

/// A message with its prefix, in one piece.
pub fn framed(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_LEN + len);
    put_prefix(&mut bytes, len);
    message.encode(&mut bytes).expect("a growing buffer takes every message");
    bytes.freeze()
}

/// Writes the prefix of a message of `len` bytes.
pub fn put_prefix(bytes: &mut BytesMut, len: usize) {
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(len).expect("answers are bounded well below 4 GiB"));
}

/// Reads messages off a request's body.
pub struct Messages<B> {
    body: B,
    /// Came, and not yet part of a message. When a message is longer than one
    /// piece, the pieces are collected in `partial`.
    piece: Bytes,
    partial: BytesMut,
    limit: usize,
    /// What the request says its messages are compressed with.
    encoding: String,
    ended: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Messages<B> {
    /// Reads messages of at most `limit` bytes.
    pub fn new(headers: &HeaderMap, body: B, limit: usize) -> Self {
        let encoding = headers
            .get("grpc-encoding")
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .unwrap_or_default();
        Self { body, piece: Bytes::new(), partial: BytesMut::new(), limit, encoding, ended: false }
    }

    /// The next message; `None` when the client has closed its side.
    ///
    /// # Errors
    /// When what comes is not a message that this member reads.
    pub async fn next(&mut self) -> Option<Result<Bytes, Invalid>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Invalid>>> {
        loop {
            match self.take() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(invalid) => return Poll::Ready(Some(Err(invalid))),
            }
            if self.ended {
                let rest = self.piece.len() + self.partial.len();
                self.piece.clear();
                self.partial.clear();
                return Poll::Ready((rest > 0).then_some(Err(Invalid::Truncated)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.add(data);
                    }
                }
                Some(Err(_)) => return Poll::Ready(Some(Err(Invalid::Truncated))),
                None => self.ended = true,
            }
        }
    }

    fn add(&mut self, data: Bytes) {
        if self.piece.is_empty() && self.partial.is_empty() {
            self.piece = data;
        } else {
            self.partial.extend_from_slice(&std::mem::take(&mut self.piece));
            self.partial.extend_from_slice(&data);
        }
    }

    /// A message that has come whole.
    fn take(&mut self) -> Result<Option<Bytes>, Invalid> {
        let seen = if self.partial.is_empty() { &self.piece[..] } else { &self.partial[..] };
        if seen.len() < PREFIX_LEN {
            return Ok(None);
        }
        let (compressed, len) = ((seen[0] != 0), (&seen[1..]).get_u32() as usize);
        if compressed {
            return Err(Invalid::Compressed(self.encoding.clone()));
        }
        if len > self.limit {
            return Err(Invalid::MessageTooLong { size: len as u64, limit: self.limit });
        }
        let whole = PREFIX_LEN + len;
        if seen.len() < whole {
            if !self.partial.is_empty() {
                self.partial.reserve(whole - self.partial.len());
            } else if self.piece.len() < whole {
                // More pieces follow: collect them in a buffer of the right size.
                self.partial.reserve(whole);
            }
            return Ok(None);
        }
        let mut message = if self.partial.is_empty() {
            self.piece.split_to(whole)
        } else {
            self.partial.split_to(whole).freeze()
        };
        message.advance(PREFIX_LEN);
        METRICS.network.client_received_bytes.inc_by(len as u64);
        Ok(Some(message))
    }
}

/// Counts the messages in a stream of bytes that it only watches go by.
#[derive(Debug, Default)]
pub struct Counter {
    prefix: [u8; PREFIX_LEN],
    have: usize,
    /// Bytes of the current message still to come.
    left: usize,
}

impl Counter {
    /// How many messages these bytes complete.
    pub fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut messages = 0;
        loop {
            if self.have < PREFIX_LEN {
                let take = bytes.len().min(PREFIX_LEN - self.have);
                self.prefix[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have < PREFIX_LEN {
                    return messages;
                }
                self.left = (&self.prefix[1..]).get_u32() as usize;
            }
            let take = bytes.len().min(self.left);
            self.left -= take;
            bytes = &bytes[take..];
            if self.left > 0 {
                return messages;
            }
            messages += 1;
            self.have = 0;
            if bytes.is_empty() {
                return messages;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use http_body_util::StreamBody;

    use super::*;

    fn body(pieces: Vec<Vec<u8>>) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let pieces: VecDeque<_> =
            pieces.into_iter().map(|piece| Ok(http_body::Frame::data(Bytes::from(piece)))).collect();
        StreamBody::new(futures::stream::iter(pieces))
    }

    async fn read(pieces: Vec<Vec<u8>>, limit: usize) -> Vec<Result<Vec<u8>, Invalid>> {
        let mut messages = Messages::new(&HeaderMap::new(), body(pieces), limit);
        let mut read = Vec::new();
        while let Some(message) = messages.next().await {
            let failed = message.is_err();
            read.push(message.map(|message| message.to_vec()));
            if failed {
                break;
            }
        }
        read
    }

    fn message(payload: &[u8]) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        put_prefix(&mut bytes, payload.len());
        bytes.extend_from_slice(payload);
        bytes.to_vec()
    }

    #[tokio::test]
    async fn messages_are_read_however_they_are_cut() {
        let bytes = [message(b"one"), message(b""), message(b"three")].concat();
        let want = vec![Ok(b"one".to_vec()), Ok(b"".to_vec()), Ok(b"three".to_vec())];
        for size in 1..=bytes.len() {
            let pieces = bytes.chunks(size).map(<[u8]>::to_vec).collect();
            assert_eq!(read(pieces, 100).await, want, "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn what_is_too_long_compressed_or_cut_is_refused() {
        let long = Err(Invalid::MessageTooLong { size: 4, limit: 3 });
        assert_eq!(read(vec![message(b"four")], 3).await, [long]);
        let mut compressed = message(b"x");
        compressed[0] = 1;
        assert_eq!(read(vec![compressed], 3).await, [Err(Invalid::Compressed(String::new()))]);
        assert_eq!(read(vec![message(b"abc")[..7].to_vec()], 3).await, [Err(Invalid::Truncated)]);
    }

    #[test]
    fn messages_that_go_by_are_counted() {
        let bytes = [message(b"one"), message(b""), message(b"three")].concat();
        for size in 1..=bytes.len() {
            let mut counter = Counter::default();
            let count: u64 = bytes.chunks(size).map(|piece| counter.count(piece)).sum();
            assert_eq!(count, 3, "pieces of {size}");
        }
    }
}
