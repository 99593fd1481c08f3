//! The answer to a range: rows copied as they are stored, however many.
//!
//! A `RangeResponse` is a header, the rows, and a tail of two numbers. The rows
//! are encoded already, and how long they are together is known before the first
//! is read, so the message's length can be announced at once. A short answer
//! goes out in one piece; a long one piece by piece as the client takes it, so
//! that a list of any size costs memory for one piece.

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use mutants::Mutant;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;
use state::mvcc::{Query, Rows, View};
use state::{Fault, Refusal};
use tonic::Status;

use super::body::{Body, Pieces, reply, stream};
use super::interceptor::Answer;
use super::message::{PREFIX_LEN, put_prefix};
use super::status::ANSWER_BYTES_MAX;
use super::timing::READING;
use crate::insight::INSIGHT;
use crate::metrics::METRICS;
use crate::node::{Failure, Invalid, Node, stop_on};

/// Answers up to this long are put together before they are sent.
const PIECE_MAX: usize = 1 << 20;
/// Pieces of longer answers.
const CHUNK: usize = 256 << 10;
/// So many rows are read on the thread that serves connections. More may have to wait for the disk.
const INLINE_ROWS: i64 = 128;

// Fields of a RangeResponse.
const HEADER: u32 = 1;
const KVS: u32 = 2;
const MORE: u32 = 3;
const COUNT: u32 = 4;

/// A view as the request wants it.
pub async fn view_for(node: &Node, request: &pb::RangeRequest) -> Result<View, Failure> {
    METRICS.storage.ranges.inc();
    INSIGHT.read(&request.key);
    match request.serializable {
        true => Ok(node.serializable_view()),
        false => node.linearizable_view().await,
    }
}

/// Reads a range that was found valid, and answers it.
pub async fn answer(node: &Node, mut request: pb::RangeRequest) -> Answer {
    let view = view_for(node, &request).await?;
    let header = node.header(mutate(&mut request, view.revision()));
    let query = query(&request);
    let reading = READING.start();
    let short = is_short(&view, &request, &query)?;
    let rows = move || view.range(&query);
    let rows = if short { rows() } else { Box::pin(blocking(rows)).await };
    let rows = rows.unwrap_or_else(|fault| stop_on(fault));
    let rows = reading.end(rows)?;
    respond(Frame::new(&header, rows.more, rows.count), rows, short).await
}

/// Reads a range that was found valid, and gives the first key of it.
pub async fn first(
    node: &Node,
    request: pb::RangeRequest,
) -> Result<(pb::ResponseHeader, Option<KeyValue>), Failure> {
    let view = view_for(node, &request).await?;
    let header = node.header(view.revision());
    let query = query(&request);
    let reading = READING.start();
    let short = is_short(&view, &request, &query)?;
    let read = move || first_of(&view, &query);
    let kv = if short { read() } else { Box::pin(blocking(read)).await };
    let kv = reading.end(kv.unwrap_or_else(|fault| stop_on(fault)))?;
    Ok((header, kv))
}

fn first_of(view: &View, query: &Query) -> Result<Result<Option<KeyValue>, Refusal>, Fault> {
    let mut rows = match view.range(query)? {
        Ok(rows) => rows,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let row = rows.next_chunk(1)?.and_then(|rows| rows.into_iter().next());
    let corrupt = |error: prost::DecodeError| Fault::Corrupt { what: "row", detail: error.to_string() };
    Ok(Ok(row.map(KeyValue::decode).transpose().map_err(corrupt)?))
}

/// Makes the request one of the past where a mutant does; gives the revision to tell.
fn mutate(request: &mut pb::RangeRequest, now: i64) -> i64 {
    let old = (now - 3).max(1);
    match request.serializable {
        _ if request.revision != 0 => now,
        true if mutants::sometimes(Mutant::OldSerializable, 4) => {
            request.revision = old;
            old
        }
        false if mutants::sometimes(Mutant::StaleRead, 20) => {
            request.revision = old;
            now
        }
        _ => now,
    }
}

/// The query of a request that was found valid.
pub fn query(request: &pb::RangeRequest) -> Query {
    Query::from_request(request).expect("sort order and target were checked")
}

/// Whether the request itself says that it takes no time.
pub fn is_surely_short(request: &pb::RangeRequest) -> bool {
    let few = (1..=INLINE_ROWS).contains(&request.limit) && !looks_at_all(request);
    request.range_end.is_empty() || request.count_only || few
}

/// Sorting and filters are done on all keys of the range, whatever the limit.
fn looks_at_all(request: &pb::RangeRequest) -> bool {
    let sorted = request.sort_order != 0 || request.sort_target != 0;
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    sorted || bounds.iter().any(|bound| *bound != 0)
}

/// Whether a range can be read here and now. Counting is cheap, so a range is counted to find out.
fn is_short(view: &View, request: &pb::RangeRequest, query: &Query) -> Result<bool, Refusal> {
    if is_surely_short(request) {
        return Ok(true);
    }
    let count = Query { count_only: true, ..query.clone() };
    let rows = view.range(&count).unwrap_or_else(|fault| stop_on(fault))?;
    Ok(rows.count <= INLINE_ROWS)
}

/// Runs something that may wait for the disk where nobody else waits for it.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
    }
}

/// What stands around the rows of a `RangeResponse`.
pub struct Frame {
    head: Bytes,
    tail: Bytes,
}

impl Frame {
    /// The parts of a response with this header.
    pub fn new(header: &pb::ResponseHeader, more: bool, count: i64) -> Self {
        let mut head = BytesMut::with_capacity(64);
        prost::encoding::message::encode(HEADER, header, &mut head);
        let mut tail = BytesMut::with_capacity(16);
        if more {
            prost::encoding::bool::encode(MORE, &more, &mut tail);
        }
        if count != 0 {
            prost::encoding::int64::encode(COUNT, &count, &mut tail);
        }
        Self { head: head.freeze(), tail: tail.freeze() }
    }

    /// Neither header nor numbers.
    pub fn none() -> Self {
        Self { head: Bytes::new(), tail: Bytes::new() }
    }

    /// The message's length around rows of this length.
    pub fn len(&self, rows: usize) -> usize {
        self.head.len() + rows + self.tail.len()
    }

    /// Writes the whole message, without a prefix. Answers the last row in it.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub fn fill(&self, into: &mut BytesMut, rows: &mut Rows) -> Result<Option<Bytes>, Fault> {
        into.put_slice(&self.head);
        let mut last = None;
        while let Some(mut chunk) = rows.next_chunk(CHUNK)? {
            put_rows(into, &chunk);
            last = chunk.pop();
        }
        into.put_slice(&self.tail);
        Ok(last)
    }
}

/// Rows as the field `kvs`.
fn put_rows(into: &mut BytesMut, rows: &[Bytes]) {
    for row in rows {
        encode_key(KVS, WireType::LengthDelimited, into);
        encode_varint(row.len() as u64, into);
        into.put_slice(row);
    }
}

/// The length of rows as the field `kvs`.
fn rows_len(rows: &[Bytes]) -> usize {
    rows.iter().map(|row| 1 + encoded_len_varint(row.len() as u64) + row.len()).sum()
}

async fn respond(frame: Frame, mut rows: Rows, short: bool) -> Result<Response<Body>, Failure> {
    let len = frame.len(rows.encoded_len());
    if len as u64 > ANSWER_BYTES_MAX {
        return Err(Invalid::AnswerTooLong(len as u64).into());
    }
    if len > PIECE_MAX {
        return Ok(stream(Pieces::new(pieces(frame, rows, len))));
    }
    let mut build = move || {
        let mut bytes = BytesMut::with_capacity(PREFIX_LEN + len);
        put_prefix(&mut bytes, len);
        frame.fill(&mut bytes, &mut rows).unwrap_or_else(|fault| stop_on(fault));
        debug_assert_eq!(bytes.len(), PREFIX_LEN + len, "the rows are as long as they said");
        bytes.freeze()
    };
    let message = if short { build() } else { Box::pin(blocking(build)).await };
    Ok(reply(message))
}

/// The message of a long answer, piece by piece.
fn pieces(frame: Frame, rows: Rows, len: usize) -> impl futures::Stream<Item = Result<Bytes, Status>> {
    enum Next {
        Head(Frame, Rows),
        Rows(Frame, Rows),
        End,
    }
    futures::stream::unfold(Next::Head(frame, rows), move |next| async move {
        match next {
            Next::Head(frame, rows) => {
                let mut bytes = BytesMut::with_capacity(PREFIX_LEN + frame.head.len());
                put_prefix(&mut bytes, len);
                bytes.put_slice(&frame.head);
                Some((Ok(bytes.freeze()), Next::Rows(frame, rows)))
            }
            Next::Rows(frame, mut rows) => {
                let (piece, rows) = blocking(move || {
                    let piece = piece(&mut rows).unwrap_or_else(|fault| stop_on(fault));
                    (piece, rows)
                })
                .await;
                match piece {
                    Some(piece) => Some((Ok(piece), Next::Rows(frame, rows))),
                    None if frame.tail.is_empty() => None,
                    None => Some((Ok(frame.tail), Next::End)),
                }
            }
            Next::End => None,
        }
    })
}

/// The next rows, up to about [`CHUNK`].
fn piece(rows: &mut Rows) -> Result<Option<Bytes>, Fault> {
    let mut bytes = BytesMut::new();
    while bytes.len() < CHUNK / 2 {
        let Some(chunk) = rows.next_chunk(CHUNK - bytes.len())? else { break };
        let len = rows_len(&chunk);
        // One allocation for what usually comes in one chunk.
        bytes.reserve(if bytes.is_empty() { len } else { len.max(CHUNK - bytes.len()) });
        put_rows(&mut bytes, &chunk);
    }
    Ok((!bytes.is_empty()).then(|| bytes.freeze()))
}

#[cfg(test)]
mod tests {
    use proto::mvccpb;

    use super::*;

    #[test]
    fn a_response_put_together_is_the_response_encoded() {
        let header = pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };
        let kvs: Vec<_> = (0..3)
            .map(|n| mvccpb::KeyValue {
                key: format!("key{n}").into(),
                value: vec![b'v'; 200 * n].into(),
                version: 1,
                ..Default::default()
            })
            .collect();
        let rows: Vec<Bytes> = kvs.iter().map(|kv| kv.encode_to_vec().into()).collect();
        for (more, count) in [(false, 0), (true, 0), (false, 3), (true, 300)] {
            let frame = Frame::new(&header, more, count);
            let mut bytes = BytesMut::new();
            bytes.put_slice(&frame.head);
            put_rows(&mut bytes, &rows);
            bytes.put_slice(&frame.tail);
            let response = pb::RangeResponse { header: Some(header), kvs: kvs.clone(), more, count };
            assert_eq!(bytes, response.encode_to_vec());
            assert_eq!(bytes.len(), frame.len(rows_len(&rows)));
        }
    }

    #[test]
    fn sorting_and_filters_look_at_all_keys() {
        let plain =
            pb::RangeRequest { key: "a".into(), range_end: "b".into(), limit: 10, ..Default::default() };
        assert!(is_surely_short(&plain));
        assert!(!is_surely_short(&pb::RangeRequest { limit: 0, ..plain.clone() }));
        assert!(!is_surely_short(&pb::RangeRequest { sort_target: 3, ..plain.clone() }));
        assert!(!is_surely_short(&pb::RangeRequest { min_mod_revision: 3, ..plain.clone() }));
        assert!(is_surely_short(&pb::RangeRequest { range_end: Bytes::new(), limit: 0, ..plain }));
    }
}
