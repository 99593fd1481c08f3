//! Requests that no well-behaved client sends: a clear error each, and the member goes on.

use anyhow::Result;
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, HashKvRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use tests::{Client, Member};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

use crate::program;

/// Sends and receives messages as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;
    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

async fn send(client: &Client, path: &'static str, message: &'static [u8]) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    Ok(grpc.unary(Request::new(Bytes::from_static(message)), path, Raw).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_messages_and_unknown_methods_are_refused() -> Result<()> {
    let member = Member::start(program()).await?;
    let client = member.connect().await?;
    let malformed: [&[u8]; 4] = [
        b"\x0a\x7f",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x0b\x00",
        b"\x0a\x80\x80\x80\x80\x08",
    ];
    for message in malformed {
        for path in [
            "/etcdserverpb.KV/Range",
            "/etcdserverpb.KV/Put",
            "/etcdserverpb.KV/Txn",
            "/etcdserverpb.Watch/Watch",
            "/etcdserverpb.Lease/LeaseGrant",
            "/etcdserverpb.Lease/LeaseKeepAlive",
            "/etcdserverpb.Maintenance/HashKV",
        ] {
            let refused = send(&client, path, message).await.expect_err("a malformed message");
            assert_eq!(refused.code(), Code::Internal, "{path} {message:?}: {refused}");
        }
    }
    let unknown = send(&client, "/etcdserverpb.KV/Nope", b"").await.expect_err("no such method");
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::Unimplemented, "unknown method Nope for service etcdserverpb.KV")
    );
    let unknown = send(&client, "/foo.Bar/Nope", b"").await.expect_err("no such service");
    assert_eq!((unknown.code(), unknown.message()), (Code::Unimplemented, "unknown service foo.Bar"));
    // A field nobody knows is ignored.
    send(&client, "/etcdserverpb.KV/Put", b"\x0a\x01k\x12\x01v\xfa\x3e\x03xyz").await?;
    assert_eq!(client.get("k").await?.expect("it was put").value, "v");
    Ok(())
}

fn put(key: &str, value: usize) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: vec![b'x'; value].into(), ..PutRequest::default() }
}

fn refusal<T>(answer: Result<T, Status>) -> (Code, String) {
    match answer {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_etcds() -> Result<()> {
    let member = Member::start(program()).await?;
    let mut client = member.connect().await?;
    let too_large = (Code::InvalidArgument, "etcdserver: request is too large".to_owned());
    assert_eq!(refusal(client.kv.put(put("a", 1_572_764)).await), (Code::Ok, String::new()));
    assert_eq!(refusal(client.kv.put(put("a", 1_572_864)).await), too_large);
    assert_eq!(refusal(client.kv.put(put("a", 2_000_000)).await), too_large);
    // The request is 10 bytes more than its value: two tags, two lengths and the key.
    let beyond = refusal(client.kv.put(put("a", 2_097_152)).await);
    let text = "grpc: received message larger than max (2097160 vs. 2097152)".to_owned();
    assert_eq!(beyond, (Code::ResourceExhausted, text));

    let no_key = (Code::InvalidArgument, "etcdserver: key is not provided".to_owned());
    assert_eq!(refusal(client.kv.put(put("", 1)).await), no_key);
    assert_eq!(refusal(client.kv.range(RangeRequest::default()).await), no_key);
    assert_eq!(refusal(client.kv.delete_range(DeleteRangeRequest::default()).await), no_key);
    let op = |put: PutRequest| RequestOp { request: Some(Op::RequestPut(put)) };
    let txn = TxnRequest { success: vec![op(put("", 1))], ..TxnRequest::default() };
    assert_eq!(refusal(client.kv.txn(txn).await), no_key);
    let many = (0..129).map(|at| op(put(&format!("k{at}"), 1))).collect();
    let txn = TxnRequest { success: many, ..TxnRequest::default() };
    let too_many = (Code::InvalidArgument, "etcdserver: too many operations in txn request".to_owned());
    assert_eq!(refusal(client.kv.txn(txn).await), too_many);

    let future = (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision".to_owned());
    assert_eq!(
        refusal(client.kv.compact(CompactionRequest { revision: i64::MAX, physical: true }).await),
        future
    );
    assert_eq!(refusal(client.maintenance.hash_kv(HashKvRequest { revision: i64::MAX }).await), future);
    let huge =
        RangeRequest { key: "\0".into(), range_end: "\0".into(), limit: i64::MAX, ..RangeRequest::default() };
    assert_eq!(client.kv.range(huge).await?.into_inner().count, 1);
    Ok(())
}

/// A transaction nested as deep as a message can be must not exhaust a stack.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_nesting_does_no_harm() -> Result<()> {
    let member = Member::start(program()).await?;
    let mut client = member.connect().await?;
    for depth in [10, 90, 1_000] {
        let mut txn = TxnRequest {
            success: vec![RequestOp { request: Some(Op::RequestPut(put("deep", 1))) }],
            ..TxnRequest::default()
        };
        for _ in 0..depth {
            txn = TxnRequest {
                success: vec![RequestOp { request: Some(Op::RequestTxn(txn)) }],
                ..TxnRequest::default()
            };
        }
        // Whatever the answer, the member is there afterwards.
        let (code, text) = refusal(client.kv.txn(txn).await);
        assert!(
            matches!(code, Code::Ok | Code::InvalidArgument | Code::Internal),
            "{depth}: {code:?} {text}"
        );
        client.put("after", depth.to_string()).await?;
    }
    Ok(())
}

/// The service `client-api-version` names must be text; a member without a leader refuses what asks for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_understood() -> Result<()> {
    let member = Member::start(program()).await?;
    let mut client = member.connect().await?;
    let mut request = Request::new(RangeRequest { key: "k".into(), ..RangeRequest::default() });
    request.metadata_mut().insert("hasleader", "true".parse()?);
    request.metadata_mut().insert("client-api-version", "3.7".parse()?);
    client.kv.range(request).await?;
    Ok(())
}
