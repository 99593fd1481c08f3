//! Sends the whole state to a member that the log cannot help any more.
//!
//! What goes over are the files of a checkpoint, which costs nothing but hard
//! links: the leader goes on writing meanwhile. A checkpoint is kept until the
//! receiver has it, so that a transfer that broke goes on where it stopped.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::io::Seek;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use openraft::raft::SnapshotResponse;
use parking_lot::Mutex;
use proto::peer as pb;
use state::Checkpoint;
use tonic::Status;

use super::machine::Checkpointer;
use super::peers::{Peers, Way};
use super::types::{TypeConfig, Vote};
use super::wire;
use crate::metrics::METRICS;
use crate::threads;

/// Bytes of a file in one message.
const CHUNK: usize = 1 << 20;
/// Bytes sent in a second: a leader has other things to do.
const RATE: f64 = (256 << 20) as f64;
/// A checkpoint older than this is not gone on with: the log behind it may be purged.
const AGE_MAX: Duration = Duration::from_secs(600);
/// How long the log is kept for a member that has a state and now needs what came after it
/// (etcd 3.7: `releaseDelayAfterSnapshot`).
const LOG_KEPT: Duration = Duration::from_secs(30);

/// Sends checkpoints.
pub(crate) struct SendState {
    checkpointer: Checkpointer,
    /// Where checkpoints are made: on the file system of the state.
    dir: PathBuf,
    kept: Mutex<HashMap<u64, Arc<Kept>>>,
    /// When a state was last installed somewhere.
    installed: Mutex<Option<Instant>>,
}

/// A checkpoint on disk; it goes with the last one who needs it.
struct Kept {
    dir: PathBuf,
    made: Instant,
    checkpoint: Checkpoint,
    manifest: pb::StateManifest,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot remove a checkpoint that is not needed any more");
        }
    }
}

impl SendState {
    /// Removes what an earlier process left in `dir`.
    pub fn new(checkpointer: Checkpointer, dir: PathBuf) -> std::io::Result<Self> {
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(&dir)?;
        Ok(Self { checkpointer, dir, kept: Mutex::default(), installed: Mutex::default() })
    }

    /// Sends this member's state of now, or of the transfer that broke, and has the peer install it. From then on the
    /// peer is taken to have everything up to the index of `at_least`.
    ///
    /// # Errors
    /// When the peer cannot be reached, or does not take it.
    pub async fn send(
        self: &Arc<Self>,
        peers: &Peers,
        to: u64,
        vote: Vote,
        at_least: Option<u64>,
    ) -> Result<SnapshotResponse<TypeConfig>, Status> {
        let peer = format!("{to:x}");
        let (network, labels) = (&METRICS.network, [peer.as_str()]);
        let began = Instant::now();
        network.snapshot_send_inflight.with_label_values(&labels).inc();
        let sent = self.transfer(peers, to, vote, at_least).await;
        network.snapshot_send_inflight.with_label_values(&labels).dec();
        match &sent {
            Ok(bytes) => {
                network.snapshot_send_success.with_label_values(&labels).inc();
                let seconds = began.elapsed().as_secs_f64();
                network.snapshot_send_seconds.with_label_values(&labels).observe(seconds);
                tracing::info!(peer, bytes = bytes.0, seconds, "sent database snapshot");
            }
            Err(status) => {
                network.snapshot_send_failures.with_label_values(&labels).inc();
                tracing::warn!(peer, error = status.message(), "failed to send database snapshot");
            }
        }
        sent.map(|(_, response)| response)
    }

    async fn transfer(
        self: &Arc<Self>,
        peers: &Peers,
        to: u64,
        vote: Vote,
        at_least: Option<u64>,
    ) -> Result<(u64, SnapshotResponse<TypeConfig>), Status> {
        let kept = self.checkpoint(to, at_least).await?;
        let link = peers.link(to)?;
        let mut client = peers.client(&link, Way::State)?;
        let progress = client.offer_state(link.request(kept.manifest.clone())).await?.into_inner();
        let total: u64 = kept.manifest.files.iter().map(|file| file.size).sum();
        tracing::info!(
            peer = format!("{to:x}"),
            files = kept.manifest.files.len(),
            files_there = progress.files,
            bytes = total,
            applied_index = kept.checkpoint.applied.index,
            "sending database snapshot"
        );
        let chunks = chunks(Arc::clone(&kept), progress);
        client.send_state(link.request(chunks)).await?;
        let membership = kept.checkpoint.membership.clone();
        let id = |id: state::LogId| pb::LogId { term: id.term, index: id.index };
        let install = pb::InstallRequest {
            vote: Some(wire::vote(&vote)),
            name: kept.manifest.name.clone(),
            last: Some(id(kept.checkpoint.applied)),
            membership_at: membership.as_ref().map(|(at, _)| id(*at)),
            membership: membership.map(|(_, opaque)| opaque).unwrap_or_default(),
        };
        let response = client.install_state(link.request(install)).await?.into_inner();
        *self.installed.lock() = Some(Instant::now());
        self.kept.lock().remove(&to);
        Ok((total, SnapshotResponse { vote: wire::to_vote(response.vote)? }))
    }

    /// Whether a member needs the log from some state on: one that is under way, or has just arrived. Were it purged
    /// meanwhile, the member would need another state, and so on.
    pub fn needs_log(&self) -> bool {
        !self.kept.lock().is_empty() || self.installed.lock().is_some_and(|at| at.elapsed() < LOG_KEPT)
    }

    /// Lets go of checkpoints that nobody has fetched in time.
    pub fn prune(&self) {
        self.kept.lock().retain(|_, kept| kept.made.elapsed() < AGE_MAX);
    }

    /// The checkpoint of the transfer that broke, or a new one. A snapshot that was under way when the former was made
    /// ends beyond it.
    async fn checkpoint(self: &Arc<Self>, to: u64, at_least: Option<u64>) -> Result<Arc<Kept>, Status> {
        if let Some(kept) = self.kept.lock().get(&to)
            && kept.made.elapsed() < AGE_MAX
            && at_least.is_none_or(|index| kept.checkpoint.applied.index >= index)
        {
            return Ok(Arc::clone(kept));
        }
        let this = Arc::clone(self);
        let made = threads::blocking(move || this.make()).await;
        let made = made.map_err(|error| Status::internal(error.to_string()))?;
        let made = Arc::new(made.map_err(|error| Status::internal(format!("checkpoint: {error:#}")))?);
        self.kept.lock().insert(to, Arc::clone(&made));
        Ok(made)
    }

    fn make(&self) -> anyhow::Result<Kept> {
        let name = format!("{:016x}", rand::random::<u64>());
        let dir = self.dir.join(&name);
        let checkpoint = (self.checkpointer)(&dir)?;
        let mut files = Vec::new();
        for file in fs::read_dir(&dir)? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            files.push(pb::StateFile { name, size: file.metadata()?.len() });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let manifest = pb::StateManifest { name, files };
        Ok(Kept { dir, made: Instant::now(), checkpoint, manifest })
    }
}

/// Where a transfer stands.
struct Cursor {
    kept: Arc<Kept>,
    file: usize,
    offset: u64,
    open: Option<fs::File>,
    began: Instant,
    sent: f64,
}

/// The bytes that are missing, not faster than [`RATE`]. A file that cannot be read ends them early.
fn chunks(kept: Arc<Kept>, progress: pb::StateProgress) -> impl Stream<Item = pb::StateChunk> {
    let file = usize::try_from(progress.files).unwrap_or(usize::MAX);
    let cursor = Cursor { kept, file, offset: progress.bytes, open: None, began: Instant::now(), sent: 0.0 };
    futures::stream::unfold(cursor, |cursor| async move {
        let ahead = Duration::from_secs_f64(cursor.sent / RATE).saturating_sub(cursor.began.elapsed());
        if !ahead.is_zero() {
            tokio::time::sleep(ahead).await;
        }
        match threads::blocking(move || cursor.next()).await {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot read a checkpoint");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "reading a checkpoint failed");
                None
            }
        }
    })
}

impl Cursor {
    fn next(mut self) -> std::io::Result<Option<(pb::StateChunk, Self)>> {
        let Some(entry) = self.kept.manifest.files.get(self.file) else { return Ok(None) };
        let missing = entry.size.checked_sub(self.offset);
        let missing =
            missing.ok_or_else(|| std::io::Error::other("the peer has more of it than there is"))?;
        let len = missing.min(CHUNK as u64) as usize;
        let file = match self.open.take() {
            Some(file) => file,
            None => {
                let mut file = fs::File::open(self.kept.dir.join(&entry.name))?;
                file.seek(std::io::SeekFrom::Start(self.offset))?;
                file
            }
        };
        let file = self.open.insert(file);
        let mut data = vec![0; len];
        file.read_exact(&mut data)?;
        let chunk = pb::StateChunk {
            name: self.kept.manifest.name.clone(),
            file: self.file as u64,
            offset: self.offset,
            crc: crc32c::crc32c(&data),
            data: Bytes::from(data),
        };
        self.sent += len as f64;
        self.offset += len as u64;
        if self.offset == entry.size {
            self.file += 1;
            self.offset = 0;
            self.open = None;
        }
        Ok(Some((chunk, self)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::StreamExt;

    use super::*;

    /// A receiver that got less than its leader takes it to have would refuse all that follows.
    #[tokio::test]
    async fn a_transfer_goes_on_with_its_checkpoint_unless_that_ends_too_early() {
        let dir = tempfile::tempdir().expect("a folder");
        let applied = Arc::new(AtomicU64::new(100));
        let now = Arc::clone(&applied);
        let checkpointer: Checkpointer = Box::new(move |dir| {
            fs::create_dir(dir).map_err(|source| state::Fault::Io { path: dir.to_owned(), source })?;
            let applied = state::LogId { term: 1, index: now.load(Ordering::Relaxed) };
            Ok(Checkpoint { applied, membership: None, fingerprint: state::Fingerprint::default() })
        });
        let send = Arc::new(SendState::new(checkpointer, dir.path().join("send")).expect("a folder"));
        let sent =
            async |at_least| send.checkpoint(7, at_least).await.expect("made").checkpoint.applied.index;
        assert_eq!(sent(Some(90)).await, 100);
        applied.store(200, Ordering::Relaxed);
        assert_eq!(sent(Some(100)).await, 100);
        assert_eq!(sent(Some(150)).await, 200);
        assert_eq!(sent(None).await, 200);
    }
    /// What a peer says it has is a number of the peer's.
    #[tokio::test]
    async fn a_peer_that_has_more_than_there_is_gets_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let checkpointer: Checkpointer = Box::new(|dir| {
            let written = fs::create_dir(dir).and_then(|()| fs::write(dir.join("a"), "content"));
            written.map_err(|source| state::Fault::Io { path: dir.to_owned(), source })?;
            let (applied, fingerprint) = (state::LogId::default(), state::Fingerprint::default());
            Ok(Checkpoint { applied, membership: None, fingerprint })
        });
        let send = Arc::new(SendState::new(checkpointer, dir.path().join("send")).expect("a folder"));
        let kept = send.checkpoint(7, None).await.expect("made");
        let sent = async |files, bytes| {
            let chunks = chunks(Arc::clone(&kept), pb::StateProgress { files, bytes });
            chunks.map(|chunk| chunk.data.len()).collect::<Vec<_>>().await
        };
        assert_eq!(sent(0, 0).await, [7]);
        assert_eq!(sent(0, 3).await, [4]);
        for (files, bytes) in [(0, 8), (0, u64::MAX), (1, 0), (u64::MAX, 3)] {
            assert!(sent(files, bytes).await.is_empty());
        }
    }
}
