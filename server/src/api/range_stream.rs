//! A range in many messages.
//!
//! All chunks are read at the revision the first one found. They begin with a
//! few keys and grow or shrink towards a bearable size; header and numbers
//! stand on the last one alone. A compaction that passes the revision in the
//! meantime ends the stream.

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use prost::encoding::{decode_key, decode_varint};
use proto::etcdserverpb as pb;
use state::mvcc::{Query, Rows};
use state::{Fault, KeyRange, Refusal};
use tonic::Status;

use super::body::{Pieces, stream};
use super::interceptor::{Answer, Monitor};
use super::message::{PREFIX_LEN, put_prefix};
use super::range::{Frame, blocking, query, view_for};
use crate::node::{Failure, Invalid, Node, stop_on};

/// Keys in the first chunk.
const FIRST_CHUNK: i64 = 10;

/// Reads a range that was found valid, and streams it.
pub async fn answer(node: &Node, request: pb::RangeRequest, monitor: Monitor) -> Answer {
    check(&request)?;
    let view = view_for(node, &request).await?;
    let header = node.header(view.revision());
    let mut query = query(&request);
    if query.revision <= 0 {
        query.revision = header.revision;
    }
    let limit = if query.limit > 0 { query.limit } else { i64::MAX };
    let chunks = Chunks {
        node: node.clone(),
        header,
        target: node.settings().request_bytes_max,
        limit,
        size: FIRST_CHUNK.min(limit),
        sent: 0,
        query,
    };
    // The first chunk tells whether the revision can be read at all.
    let (first, rest) = chunks.next().await?;
    Ok(stream(monitor.over(Pieces::new(messages(first, rest)))))
}

/// What a range may ask for and a stream may not.
fn check(request: &pb::RangeRequest) -> Result<(), Invalid> {
    // Ascending by key is the order a stream has anyway. A target without an order is let through by
    // etcd 3.7 too; it sorts each chunk for itself.
    let by_key = request.sort_target == 0 && request.sort_order == 1;
    if request.sort_order != 0 && !by_key {
        return Err(Invalid::StreamSortOrder);
    }
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if bounds.iter().any(|bound| *bound != 0) {
        return Err(Invalid::StreamRevisionFilter);
    }
    Ok(())
}

/// Where a stream stands.
struct Chunks {
    node: Node,
    header: pb::ResponseHeader,
    /// Bytes a chunk should have.
    target: usize,
    /// The most keys to send in all.
    limit: i64,
    /// Keys in the next chunk.
    size: i64,
    sent: i64,
    /// The rest of the range.
    query: Query,
}

/// What one step of the stream gives.
enum Chunk {
    Last(Bytes),
    More(Bytes, KeyRange),
}

impl Chunks {
    /// Reads the next chunk; `None` behind the last.
    async fn next(mut self) -> Result<(Bytes, Option<Self>), Failure> {
        let (chunk, chunks, bytes) = blocking(move || {
            let mut bytes = 0;
            let chunk = self.read(&mut bytes).unwrap_or_else(|fault| stop_on(fault));
            (chunk, self, bytes)
        })
        .await;
        self = chunks;
        match chunk? {
            Chunk::Last(message) => Ok((message, None)),
            Chunk::More(message, rest) => {
                self.query.range = rest;
                self.size = next_size(self.size, bytes, self.target).min(self.limit - self.sent);
                Ok((message, Some(self)))
            }
        }
    }

    fn read(&mut self, bytes: &mut usize) -> Result<Result<Chunk, Refusal>, Fault> {
        // A new view each time: what is compacted by now is not served any more.
        let view = self.node.serializable_view();
        let mut rows = match view.range(&Query { limit: self.size, ..self.query.clone() })? {
            Ok(rows) => rows,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let before = self.sent;
        self.sent += rows.len() as i64;
        *bytes = rows.encoded_len();
        let (count, more) = (before + rows.count, rows.more);
        if more && self.sent < self.limit {
            let (message, last_key) = message(&Frame::none(), &mut rows)?;
            let rest = after(&self.query.range, last_key);
            return Ok(Ok(Chunk::More(message, rest)));
        }
        // An answer without any key has but a header.
        let (message, _) = message(&Frame::new(&self.header, more, count), &mut rows)?;
        Ok(Ok(Chunk::Last(message)))
    }
}

/// What follows a key in a range.
fn after(range: &KeyRange, key: Bytes) -> KeyRange {
    let mut start = BytesMut::with_capacity(key.len() + 1);
    start.extend_from_slice(&key);
    start.extend_from_slice(&[0]);
    let start = start.freeze();
    match range {
        KeyRange::Single(only) => KeyRange::Span { start, end: only.clone() },
        KeyRange::Span { end, .. } => KeyRange::Span { start, end: end.clone() },
        KeyRange::From(_) => KeyRange::From(start),
    }
}

/// One framed `RangeStreamResponse` with these rows, and the last key in it.
fn message(frame: &Frame, rows: &mut Rows) -> Result<(Bytes, Bytes), Fault> {
    let inner = frame.len(rows.encoded_len());
    let mut response = BytesMut::with_capacity(16 + inner);
    prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut response);
    prost::encoding::encode_varint(inner as u64, &mut response);
    let outer = response.len();
    let mut message = BytesMut::with_capacity(PREFIX_LEN + outer + inner);
    put_prefix(&mut message, outer + inner);
    message.extend_from_slice(&response);
    let last = frame.fill(&mut message, rows)?;
    let key = last.map(|row| key_of(&row)).transpose()?.unwrap_or_default();
    Ok((message.freeze(), key))
}

/// The key of an encoded `mvccpb.KeyValue`: its first field.
fn key_of(row: &Bytes) -> Result<Bytes, Fault> {
    let corrupt = |error: prost::DecodeError| Fault::Corrupt { what: "row", detail: error.to_string() };
    let mut rest = row.clone();
    let (tag, _) = decode_key(&mut rest).map_err(corrupt)?;
    let len = decode_varint(&mut rest).map_err(corrupt)?;
    match usize::try_from(len) {
        Ok(len) if tag == 1 && len <= rest.remaining() => Ok(rest.split_to(len)),
        _ => Err(Fault::Corrupt { what: "row", detail: "it does not begin with a key".to_owned() }),
    }
}

/// How many keys the next chunk gets: twice as many after a small one, half after a large one.
fn next_size(size: i64, bytes: usize, target: usize) -> i64 {
    let size = match bytes {
        small if small < target / 2 => size.saturating_mul(2),
        large if large > target.saturating_mul(2) => size / 2,
        _ => size,
    };
    size.max(1)
}

fn messages(first: Bytes, rest: Option<Chunks>) -> impl Stream<Item = Result<Bytes, Status>> {
    enum Next {
        Ready(Bytes, Option<Chunks>),
        Read(Chunks),
        End,
    }
    futures::stream::unfold(Next::Ready(first, rest), |next| async move {
        let (message, rest) = match next {
            Next::Ready(message, rest) => (message, rest),
            Next::Read(chunks) => match chunks.next().await {
                Ok(read) => read,
                Err(failure) => return Some((Err(failure.into()), Next::End)),
            },
            Next::End => return None,
        };
        Some((Ok(message), rest.map_or(Next::End, Next::Read)))
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    const TARGET: usize = 1_572_864;

    fn sizes(total: i64, row: usize) -> Vec<i64> {
        let (mut sizes, mut sent, mut size) = (Vec::new(), 0, FIRST_CHUNK);
        while sent < total {
            let taken = size.min(total - sent);
            sizes.push(taken);
            sent += taken;
            size = next_size(size, taken as usize * row, TARGET);
        }
        sizes
    }

    #[test]
    fn chunks_double_while_they_are_small() {
        assert_eq!(sizes(45, 20), [10, 20, 15]);
    }

    #[test]
    fn chunks_stay_near_the_target_and_never_get_empty() {
        // 100 KiB a row: 10 rows are between half and twice the target.
        assert_eq!(sizes(40, 100 << 10), [10, 10, 10, 10]);
        // 1.4 MiB a row: halved until a chunk is not above twice the target.
        assert_eq!(sizes(20, 1_468_006), [10, 5, 2, 2, 1]);
        assert_eq!(next_size(1, 10 * TARGET, TARGET), 1);
    }

    #[test]
    fn sorting_and_filters_are_refused() {
        let request = pb::RangeRequest { key: "k".into(), ..Default::default() };
        assert_eq!(check(&request), Ok(()));
        assert_eq!(check(&pb::RangeRequest { sort_order: 1, ..request.clone() }), Ok(()));
        assert_eq!(
            check(&pb::RangeRequest { sort_order: 2, ..request.clone() }),
            Err(Invalid::StreamSortOrder)
        );
        assert_eq!(
            check(&pb::RangeRequest { sort_target: 1, sort_order: 1, ..request.clone() }),
            Err(Invalid::StreamSortOrder)
        );
        assert_eq!(
            check(&pb::RangeRequest { max_create_revision: 1, ..request }),
            Err(Invalid::StreamRevisionFilter)
        );
    }

    #[test]
    fn the_next_chunk_begins_right_behind_a_key() {
        let row: Bytes = proto::mvccpb::KeyValue { key: "ab".into(), version: 1, ..Default::default() }
            .encode_to_vec()
            .into();
        let key = key_of(&row).expect("a row");
        let range = KeyRange::Span { start: "a".into(), end: "c".into() };
        assert_eq!(
            after(&range, key),
            KeyRange::Span { start: Bytes::from_static(b"ab\0"), end: "c".into() }
        );
    }
}
