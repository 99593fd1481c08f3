//! gRPC calls by hand: nothing but what the member answers ends them.

use anyhow::{Context, Result};
use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tonic::Status;

/// Makes a unary call with these headers, and gives its status.
pub async fn call(
    url: &str,
    path: &str,
    message: &impl Message,
    headers: &[(&'static str, &'static str)],
) -> Result<Status> {
    let address = url.strip_prefix("http://").context("a plain URL")?;
    let stream = TokioIo::new(tokio::net::TcpStream::connect(address).await?);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
    let connection = tokio::spawn(connection);
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.encoded_len())?);
    message.encode(&mut body)?;
    let mut request = Request::post(format!("{url}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::new(body.freeze()))?;
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let trailers = body.collect().await?.trailers().cloned().unwrap_or(parts.headers);
    connection.abort();
    Status::from_header_map(&trailers).context("no status")
}
