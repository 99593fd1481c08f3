//! The other members and the ways to them.
//!
//! ```text
//!   each peer:  append   entries for its log
//!               control  votes, heartbeats, read indexes, forwarded requests, probes
//!               state    whole states, for one that fell too far behind
//! ```
//!
//! Three connections, so that a long message on one does not delay a short one
//! on another. All of them live on the raft thread's runtime, whoever asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use proto::peer as pb;
use proto::peer::peer_client::PeerClient;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::metrics::METRICS;
use crate::peer::dial::Dialer;

/// The headers that every call carries.
pub const CLUSTER_HEADER: &str = "quorate-cluster";
/// Who calls.
pub const FROM_HEADER: &str = "quorate-from";
/// Who is called.
pub const TO_HEADER: &str = "quorate-to";

/// The longest message between members: the largest append, with room.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// How often peers are probed that answer …
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// … and when one of them does not.
const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// A peer that takes longer to answer a probe is not there.
const PROBE_TIME_MAX: Duration = Duration::from_secs(1);

/// The pause after an append that came to nothing, doubled each time …
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// … up to this.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// A connection's use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Append,
    Control,
    State,
}

const WAYS: usize = 3;

/// All peers; clones share them.
#[derive(Clone)]
pub(crate) struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    cluster_id: u64,
    member_id: u64,
    dialer: Dialer,
    runtime: Handle,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    /// True once a peer said that this member was removed from the cluster.
    removed: watch::Sender<bool>,
}

/// One peer.
pub(crate) struct Link {
    id: u64,
    urls: Vec<String>,
    /// Which of the URLs is used.
    at: AtomicUsize,
    ways: [Mutex<Option<PeerClient<Channel>>>; WAYS],
    headers: MetadataMap,
    /// Since when every probe was answered.
    active_since: Mutex<Option<Instant>>,
    /// The last entry that the peer is known to have, and the term of the leader that was told.
    matched: Mutex<(u64, u64)>,
    /// Appends that came to nothing, one after the other.
    failures: AtomicU32,
    complained: AtomicBool,
}

impl Peers {
    /// No peers yet. What they need runs on the current runtime.
    pub fn new(cluster_id: u64, member_id: u64, dialer: Dialer) -> Self {
        let (removed, _) = watch::channel(false);
        let links = Mutex::default();
        let runtime = Handle::current();
        Self { shared: Arc::new(Shared { cluster_id, member_id, dialer, runtime, links, removed }) }
    }

    /// The runtime on which connections live.
    pub fn runtime(&self) -> Handle {
        self.shared.runtime.clone()
    }

    /// Where a peer is to be found from now on.
    pub fn set(&self, id: u64, urls: &[String]) {
        if id == self.shared.member_id || urls.is_empty() {
            return;
        }
        let mut links = self.shared.links.lock();
        let before = links.get(&id);
        if before.is_none_or(|link| link.urls != urls) {
            let link = Link::new(&self.shared, id, urls);
            if let Some(before) = before {
                *link.active_since.lock() = *before.active_since.lock();
                *link.matched.lock() = *before.matched.lock();
            }
            links.insert(id, Arc::new(link));
        }
    }

    /// These and no others are the members.
    pub fn set_all<'a>(&self, members: impl Iterator<Item = (u64, &'a [String])>) {
        let mut gone = self.shared.links.lock().clone();
        for (id, urls) in members {
            gone.remove(&id);
            self.set(id, urls);
        }
        for id in gone.keys() {
            self.shared.links.lock().remove(id);
        }
    }

    /// Changes to true once a peer says that this member does not belong to the cluster any more.
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.shared.removed.subscribe()
    }

    /// # Errors
    /// When no such member is known.
    pub fn link(&self, id: u64) -> Result<Arc<Link>, Status> {
        let link = self.shared.links.lock().get(&id).cloned();
        link.ok_or_else(|| Status::unavailable(format!("no address of member {id:x} is known")))
    }

    fn links(&self) -> Vec<Arc<Link>> {
        self.shared.links.lock().values().cloned().collect()
    }

    /// Since when each peer answers its probes.
    pub fn active_since(&self) -> Vec<(u64, Option<Instant>)> {
        self.links().iter().map(|link| (link.id, *link.active_since.lock())).collect()
    }

    /// A client for one way to a peer.
    ///
    /// # Errors
    /// When its URL cannot be connected to at all.
    pub fn client(&self, link: &Link, way: Way) -> Result<PeerClient<Channel>, Status> {
        let mut client = link.ways[way as usize].lock();
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let url = &link.urls[link.at.load(Ordering::Relaxed) % link.urls.len()];
        // Whatever the connection spawns goes to the raft thread, whoever the caller is.
        let _runtime = self.shared.runtime.enter();
        let channel = self.shared.dialer.channel(url).map_err(|e| Status::unavailable(format!("{e:#}")))?;
        let new = PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        *client = Some(new.clone());
        Ok(new)
    }

    /// A call went wrong: the next one may take another URL, and what it says of this member is heard.
    pub fn failed(&self, link: &Link, way: Way, status: &Status) {
        METRICS.network.peer_sent_failures.with_label_values(&[&link.name()]).inc();
        if status.code() == Code::PermissionDenied {
            self.shared.removed.send_replace(true);
        }
        if status.code() == Code::Unavailable {
            self.inactive(link, status);
        }
        if !matches!(status.code(), Code::DeadlineExceeded | Code::FailedPrecondition) && link.urls.len() > 1
        {
            link.at.fetch_add(1, Ordering::Relaxed);
            *link.ways[way as usize].lock() = None;
        }
        if matches!(status.code(), Code::FailedPrecondition | Code::Unauthenticated)
            && !link.complained.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(peer = link.name(), error = status.message(), "a peer refuses this member");
        }
    }

    /// Does one call over the control connection.
    pub async fn control<T, F, R>(
        &self,
        to: u64,
        limit: Duration,
        message: T,
        call: impl FnOnce(PeerClient<Channel>, Request<T>) -> F,
    ) -> Result<R, Status>
    where
        F: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        let link = self.link(to)?;
        let client = self.client(&link, Way::Control)?;
        let result = match tokio::time::timeout(limit, call(client, link.request(message))).await {
            Ok(result) => result.map(tonic::Response::into_inner),
            Err(_elapsed) => Err(Status::deadline_exceeded(format!("no answer from member {to:x}"))),
        };
        result.inspect_err(|status| self.failed(&link, Way::Control, status))
    }

    /// Asks a peer's services; see [`super::Raft::call`].
    pub async fn call(
        &self,
        to: u64,
        method: pb::Method,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, Status> {
        let request = pb::CallRequest { method: method.into(), body };
        let answer =
            self.control(to, limit, request, |mut client, r| async move { client.call(r).await }).await?;
        match Code::from(answer.code) {
            Code::Ok => Ok(answer.body),
            code => Err(Status::new(code, answer.message)),
        }
    }

    /// Probes all peers again and again, those that do not answer more often.
    pub async fn probe_all(self) {
        loop {
            let probes = self.links().into_iter().map(|link| self.probe(link));
            let active = futures::future::join_all(probes).await;
            let all = !active.is_empty() && active.into_iter().all(|active| active);
            tokio::time::sleep(if all { PROBE_INTERVAL } else { PROBE_INTERVAL_MIN }).await;
        }
    }

    /// Whether the peer answered.
    async fn probe(&self, link: Arc<Link>) -> bool {
        let began = Instant::now();
        let request = pb::ProbeRequest {};
        let answer = self
            .control(link.id, PROBE_TIME_MAX, request, |mut client, r| async move { client.probe(r).await })
            .await;
        let peer = link.name();
        if let Err(status) = answer {
            self.inactive(&link, &status);
            return false;
        }
        let before = {
            let mut active_since = link.active_since.lock();
            let before = *active_since;
            active_since.get_or_insert_with(Instant::now);
            before
        };
        if before.is_none() {
            tracing::info!(peer, "peer became active");
        }
        let network = &METRICS.network;
        network.active_peers.with_label_values(&[&format!("{:x}", self.shared.member_id), &peer]).set(1);
        network.peer_round_trip_seconds.with_label_values(&[&peer]).observe(began.elapsed().as_secs_f64());
        link.complained.store(false, Ordering::Relaxed);
        true
    }

    /// The peer does not answer.
    fn inactive(&self, link: &Link, status: &Status) {
        let was_active = link.active_since.lock().take().is_some();
        let (local, peer) = (format!("{:x}", self.shared.member_id), link.name());
        let (network, labels) = (&METRICS.network, [local.as_str(), peer.as_str()]);
        network.active_peers.with_label_values(&labels).set(0);
        if was_active {
            network.disconnected_peers.with_label_values(&labels).inc();
            tracing::warn!(
                peer,
                error = status.message(),
                "peer became inactive (message send to peer failed)"
            );
        }
    }
}

impl Link {
    fn new(shared: &Shared, id: u64, urls: &[String]) -> Self {
        let mut headers = MetadataMap::new();
        for (name, id) in
            [(CLUSTER_HEADER, shared.cluster_id), (FROM_HEADER, shared.member_id), (TO_HEADER, id)]
        {
            let value: MetadataValue<Ascii> =
                format!("{id:x}").parse().expect("hexadecimal digits are ASCII");
            headers.insert(name, value);
        }
        Self {
            id,
            urls: urls.to_vec(),
            at: AtomicUsize::new(0),
            ways: Default::default(),
            headers,
            active_since: Mutex::default(),
            matched: Mutex::default(),
            failures: AtomicU32::new(0),
            complained: AtomicBool::new(false),
        }
    }

    /// Waits before the next try to append, longer each time nothing came of one.
    pub async fn back_off(&self) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep((PAUSE_MIN * 2_u32.pow(failures.min(16))).min(PAUSE_MAX)).await;
    }

    /// The peer is there.
    pub fn succeeded(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// The peer has told the leader of a term up to where their logs are the same.
    pub fn has(&self, term: u64, index: u64) {
        let mut matched = self.matched.lock();
        *matched = (*matched).max((term, index));
    }

    /// The peer tells the leader of a term that it lacks an entry.
    ///
    /// # Errors
    /// When it had that entry: then it has lost its disk, and what it acknowledged is not there any more.
    pub fn lacks(&self, term: u64, index: u64) -> Result<(), Status> {
        let (known_term, known) = *self.matched.lock();
        if known_term != term || index > known {
            return Ok(());
        }
        if !self.complained.swap(true, Ordering::Relaxed) {
            tracing::error!(
                peer = self.name(),
                acknowledged = known + 1,
                missing = index + 1,
                "a member has lost its log: remove it from the cluster, empty its directory and add it as a new one"
            );
        }
        Err(Status::data_loss(format!("member {:x} has lost entry {}", self.id, index + 1)))
    }

    /// The peer's id, as metrics and logs have it.
    pub fn name(&self) -> String {
        format!("{:x}", self.id)
    }

    /// A message with who sends it to whom.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        request
    }
}
