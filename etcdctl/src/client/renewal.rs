//! Renewing one lease for as long as it lives.
//!
//! A lease is renewed whenever a third of its time has passed. It counts as gone when
//! the server says so, or when nobody has answered for as long as it lives.

use std::time::Duration;

use proto::etcdserverpb as pb;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Client, describe};
use crate::failure::Failure;
use crate::log;

/// Pause before a broken stream is opened again.
pub const RETRY: Duration = Duration::from_millis(500);
/// How long a lease may stay without its first renewal before it counts as gone.
const FIRST_RENEWAL_MAX: Duration = Duration::from_secs(5);

/// Renews the lease of this id until it is gone, and shows every reply to `told`.
///
/// # Errors
/// When `told` has one.
pub async fn renew(
    client: &Client,
    id: i64,
    mut told: impl FnMut(&pb::LeaseKeepAliveResponse) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut gone = Instant::now() + FIRST_RENEWAL_MAX;
    while Instant::now() < gone {
        // One request is under way at a time: the channel is never full. The first goes ahead of
        // the stream, because a server may answer nothing, not even a header, before it.
        let (requests, receiver) = mpsc::channel(1);
        if requests.send(pb::LeaseKeepAliveRequest { id }).await.is_err() {
            return Ok(());
        }
        match tokio::time::timeout_at(gone, client.keep_alive(ReceiverStream::new(receiver))).await {
            Ok(Ok(stream)) => match over(stream, requests, id, gone, &mut told).await? {
                Some(later) => gone = later,
                None => return Ok(()),
            },
            Ok(Err(status)) => {
                log::warn("keep-alive stream broke", "error", describe(&status));
            }
            Err(_) => return Ok(()),
        }
        client.disconnect();
        tokio::time::sleep(RETRY).await;
    }
    Ok(())
}

/// Renews over one stream until it breaks, then tells until when the lease lives; `None` when
/// the lease is gone. The first request is on its way.
async fn over(
    mut replies: Streaming<pb::LeaseKeepAliveResponse>,
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    id: i64,
    mut gone: Instant,
    told: &mut impl FnMut(&pb::LeaseKeepAliveResponse) -> Result<(), Failure>,
) -> Result<Option<Instant>, Failure> {
    loop {
        let Ok(reply) = tokio::time::timeout_at(gone, replies.message()).await else { return Ok(None) };
        let Ok(Some(reply)) = reply else { break };
        if reply.ttl <= 0 {
            return Ok(None);
        }
        told(&reply)?;
        let ttl = Duration::from_secs(reply.ttl.unsigned_abs());
        gone = Instant::now() + ttl;
        tokio::time::sleep(ttl / 3).await;
        if requests.send(pb::LeaseKeepAliveRequest { id }).await.is_err() {
            break;
        }
    }
    Ok(Some(gone))
}
