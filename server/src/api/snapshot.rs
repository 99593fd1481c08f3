//! The state as a stream: an image as etcd's own file has it, and the digest of that.
//!
//! The rows are read twice, to lay the image out and to send it, both times as
//! of the moment the stream began. A thread of its own reads; what it has read
//! waits in a short queue, so that it goes no faster than the client takes it,
//! and ends when the client has gone.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use parking_lot::{Condvar, Mutex};
use proto::etcdserverpb as pb;
use snapshot::bbolt::Plan;
use snapshot::file::{DIGEST_LEN, Hasher};
use state::snapshot::{ExportError, Image};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{info, warn};

use super::body::{Pieces, stream};
use super::decode;
use super::interceptor::{Answer, Call};
use super::message::framed;
use crate::metrics::METRICS;
use crate::node::{Invalid, stop_on};

/// Bytes of the image in one message.
const CHUNK: usize = 32 << 10;
/// Messages that wait for the client. When there are so many the reader waits, and others may read.
const CHUNKS_WAITING_MAX: usize = 32;
/// How many threads read at a time: what they read, others wait for, and reading takes most of a core.
const READERS_MAX: usize = 2;
/// How often one that waits for its turn looks whether its client still waits.
const TURN_POLL: Duration = Duration::from_millis(200);
/// From when on a transfer is told to take long: this time, or what it takes at [`SLOW_BYTES_PER_SECOND`].
const SLOW_MIN: Duration = Duration::from_secs(30);
const SLOW_BYTES_PER_SECOND: f64 = (100 << 20) as f64;

static TURNS: LazyLock<Turns> =
    LazyLock::new(|| Turns { left: Mutex::new(READERS_MAX), freed: Condvar::new() });

/// Streams a snapshot; a learner does so too.
pub async fn answer(call: &Call<'_>, message: Bytes) -> Answer {
    let pb::SnapshotRequest {} = decode(message)?;
    let monitor = call.admit_stream_of_learner()?;
    let (sender, receiver) = channel(CHUNKS_WAITING_MAX);
    let reader = call.node().reader().clone();
    // Not one of those that may be had in a simulation: it waits for the client.
    let started = std::thread::Builder::new().name("snapshot".into()).spawn(move || {
        let (wanted, started) = (|| !sender.is_closed(), Instant::now());
        let Some(turn) = TURNS.wait(&wanted) else { return };
        let sent = reader.image(&wanted, |image| Sending::begin(image, &sender, turn)?.send(image));
        METRICS.storage.backend_snapshot_seconds.observe(started.elapsed().as_secs_f64());
        match sent.unwrap_or_else(|fault| stop_on(fault)) {
            Ok(()) => {}
            Err(ExportError::Fault(fault)) => stop_on(fault),
            Err(ExportError::Unwanted) => info!("the client of a database snapshot has gone"),
            Err(ExportError::Unwritable(problem)) => {
                warn!(error = %problem, "failed to send database snapshot to client");
                let status = Status::internal(format!("etcdserver: no snapshot of this state: {problem}"));
                // To one that has gone there is nothing to say.
                drop(sender.blocking_send(Err(status)));
            }
        }
    });
    started.map_err(|error| {
        warn!(%error, "no thread for a database snapshot");
        Invalid::NoThread
    })?;
    Ok(stream(monitor.over(Pieces::new(messages(receiver)))))
}

fn messages(
    receiver: Receiver<Result<pb::SnapshotResponse, Status>>,
) -> impl Stream<Item = Result<Bytes, Status>> {
    ReceiverStream::new(receiver).map(|message| message.map(|message| framed(&message)))
}

type Messages = Sender<Result<pb::SnapshotResponse, Status>>;

/// An image on its way.
struct Sending<'a> {
    messages: &'a Messages,
    turn: Option<Turn>,
    plan: Plan,
    hasher: Hasher,
    chunk: Vec<u8>,
    left: u64,
    version: String,
    started: Instant,
    slow_after: Duration,
}

impl<'a> Sending<'a> {
    fn begin(image: &Image<'_>, messages: &'a Messages, turn: Turn) -> Result<Self, ExportError> {
        let plan = Plan::of(image)?;
        let (total, version) = (plan.len(), image.storage_version().to_owned());
        info!(
            "total-bytes" = total,
            size = in_si_units(total),
            "storage-version" = version,
            "sending database snapshot to client"
        );
        let fair = Duration::from_secs_f64(total as f64 / SLOW_BYTES_PER_SECOND);
        Ok(Self {
            messages,
            turn: Some(turn),
            plan,
            hasher: Hasher::default(),
            chunk: Vec::with_capacity(CHUNK),
            left: total,
            version,
            started: Instant::now(),
            slow_after: fair.max(SLOW_MIN),
        })
    }

    fn send(mut self, image: &Image<'_>) -> Result<(), ExportError> {
        let (plan, total) = (self.plan.clone(), self.left);
        plan.write(image, &mut |bytes| self.take(bytes))?;
        self.flush()?;
        let digest = std::mem::take(&mut self.hasher).finish();
        info!(
            "total-bytes" = total,
            "checksum-size" = DIGEST_LEN,
            "sending database sha256 checksum to client"
        );
        self.give(Bytes::copy_from_slice(&digest.0))?;
        info!(
            "total-bytes" = total,
            size = in_si_units(total),
            took = ?self.started.elapsed(),
            "storage-version" = self.version,
            "successfully sent database snapshot to client"
        );
        Ok(())
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), ExportError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.hasher.update(&chunk);
        self.left -= chunk.len() as u64;
        self.give(chunk.into())
    }

    /// Hands a message on. Whoever waits for its client lets others read.
    fn give(&mut self, blob: Bytes) -> Result<(), ExportError> {
        let version = self.version.clone();
        let message = pb::SnapshotResponse { header: None, remaining_bytes: self.left, blob, version };
        match self.messages.try_send(Ok(message)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(ExportError::Unwanted),
            Err(TrySendError::Full(message)) => {
                self.turn = None;
                self.messages.blocking_send(message).map_err(|_| ExportError::Unwanted)?;
            }
        }
        if self.started.elapsed() > self.slow_after {
            self.slow_after *= 2;
            warn!(
                taking = ?self.started.elapsed(),
                bytes = self.left,
                size = in_si_units(self.left),
                "snapshotting taking too long to transfer"
            );
        }
        let messages = self.messages;
        self.turn = Some(TURNS.wait(&|| !messages.is_closed()).ok_or(ExportError::Unwanted)?);
        Ok(())
    }
}

/// Whose turn it is to read.
struct Turns {
    left: Mutex<usize>,
    freed: Condvar,
}

/// Held by one that reads.
struct Turn;

impl Turns {
    /// Waits for a turn; none when it is not wanted any more.
    fn wait(&self, wanted: &dyn Fn() -> bool) -> Option<Turn> {
        let mut left = self.left.lock();
        while *left == 0 {
            self.freed.wait_for(&mut left, TURN_POLL);
            if !wanted() {
                return None;
            }
        }
        *left -= 1;
        Some(Turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TURNS.left.lock() += 1;
        TURNS.freed.notify_one();
    }
}

/// A size as etcd's log has it: `25 kB`, `2.1 GB`.
fn in_si_units(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if size < 1000.0 {
            break;
        }
        (size, unit) = (size / 1000.0, larger);
    }
    let digits = usize::from(size < 10.0 && unit != "B");
    format!("{size:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_in_etcds_log() {
        for (bytes, text) in
            [(12, "12 B"), (20_480, "20 kB"), (2_097_152, "2.1 MB"), (2_147_483_648, "2.1 GB")]
        {
            assert_eq!(in_si_units(bytes), text);
        }
    }

    /// One that waits for its client must not keep the others from theirs.
    #[test]
    fn a_turn_comes_back() {
        let turns: Vec<_> = (0..READERS_MAX).map(|_| TURNS.wait(&|| true).expect("a turn")).collect();
        assert!(TURNS.wait(&|| false).is_none());
        drop(turns);
        drop(TURNS.wait(&|| true).expect("a turn"));
    }
}
