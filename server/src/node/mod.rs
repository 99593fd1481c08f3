//! What a member can do for the services: propose, read, say who it is.
//!
//! ```text
//!   api ──► Node ──► propose ──► raft ──► reply
//!                └─► linearizable_view ──► read index ──► view
//! ```
//!
//! A [`Node`] is a handle: cloning it is cheap, and all clones are the same member.

pub mod calls;
pub mod cluster;
mod command;
pub mod downgrade;
mod failure;
mod leadership;
mod reads;
mod sink;

use std::sync::Arc;
use std::time::Duration;

use proto::etcdserverpb as pb;
use state::{Fault, Reader, Response};
use tokio::sync::watch;
use tokio::time::timeout;

pub use command::{Encoded, Field};
pub use downgrade::Stays;
pub use failure::{Contest, Failure, Invalid, Reconfiguration};
pub use leadership::Cut;
pub use sink::Sink;

use crate::error::Unavailable;
use crate::lessor::Lessor;
use crate::metrics::METRICS;
use crate::quota::Quota;
use crate::raft::{Raft, Status};
use crate::watch::Hub;

/// Entries that may be committed and not yet applied before proposals are refused.
const APPLY_BACKLOG_MAX: u64 = 5_000;

/// What a request may wait for, beside two elections.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before a leader that could not serve is asked again.
const LEADER_PAUSE: Duration = Duration::from_millis(50);

/// The longest a keep-alive of an unknown lease waits for what is committed to be applied.
const APPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// The last version of etcd whose database does not tell its version.
const UNVERSIONED_STORAGE: &str = "3.5.0";

/// What of the configuration the services need.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cluster's id, in every header.
    pub cluster_id: u64,
    /// This member's id, in every header.
    pub member_id: u64,
    /// The longest command in the log.
    pub request_bytes_max: usize,
    /// The most compares or operations in a list of a transaction.
    pub txn_ops_max: usize,
    /// After how long without a leader the others elect one.
    pub election_timeout: Duration,
    /// The configured quota: 0 is etcd's default, negative is none.
    pub quota_bytes: i64,
    /// Whether remaining times of long leases go into the log now and then.
    pub lease_checkpoint: bool,
    /// Requests that take longer are logged; zero logs none.
    pub slow_request: Duration,
    /// Whether changes of the membership are refused that could cost the quorum.
    pub strict_reconfig: bool,
    /// The most learners in the cluster.
    pub learners_max: usize,
}

impl Settings {
    /// The longest message read from a client: a command and half a mebibyte.
    pub fn message_bytes_max(&self) -> usize {
        self.request_bytes_max + (512 << 10)
    }

    /// The longest a proposal or a read index may take.
    pub fn request_timeout(&self) -> Duration {
        REQUEST_TIMEOUT + 2 * self.election_timeout
    }

    /// The shortest time to live a lease gets, in seconds: one and a half elections, rounded up.
    pub fn lease_ttl_min(&self) -> i64 {
        let milliseconds = self.election_timeout.as_millis() * 3 / 2;
        i64::try_from(milliseconds.div_ceil(1000)).unwrap_or(i64::MAX)
    }
}

/// The result of a proposal that was not refused.
#[derive(Debug)]
pub struct Applied {
    /// The store's revision after the command.
    pub revision: i64,
    /// What the command answers.
    pub response: Response,
}

/// The member, as its services see it.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Inner>,
    reads: reads::Reads,
}

struct Inner {
    raft: Raft,
    reader: Reader,
    hub: Hub,
    lessor: Lessor,
    quota: Quota,
    leadership: leadership::Monitor,
    settings: Settings,
    /// Held by the one change of the membership that is under way.
    changing: tokio::sync::Mutex<()>,
}

impl Node {
    /// Puts a member together from its parts.
    pub fn new(raft: Raft, reader: Reader, hub: Hub, lessor: Lessor, settings: Settings) -> Self {
        let quota = Quota::new(settings.quota_bytes, reader.clone());
        let leadership = leadership::Monitor::new();
        let changing = tokio::sync::Mutex::new(());
        let shared = Arc::new(Inner { raft, reader, hub, lessor, quota, leadership, settings, changing });
        Self { shared, reads: reads::Reads::default() }
    }

    /// A handle for a thread that serves many requests: they share their way to consensus and back.
    pub fn for_thread(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), reads: reads::Reads::default() }
    }

    /// Starts what the member does by itself: expiry of leases, quota, watching over leadership.
    /// They run on the current runtime until `stop` says so.
    pub fn start_background(&self, stop: &watch::Receiver<bool>) {
        tokio::spawn(crate::lessor::run(self.clone(), stop.clone()));
        tokio::spawn(crate::quota::run(self.clone(), stop.clone()));
        tokio::spawn(leadership::run(self.clone(), stop.clone()));
    }

    /// What of the configuration the services need.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The consensus below.
    pub fn raft(&self) -> &Raft {
        &self.shared.raft
    }

    /// Reads of the state that need no agreement.
    pub fn reader(&self) -> &Reader {
        &self.shared.reader
    }

    /// Where watch streams begin.
    pub fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    /// Deadlines of leases.
    pub fn lessor(&self) -> &Lessor {
        &self.shared.lessor
    }

    /// The room left in the database.
    pub fn quota(&self) -> &Quota {
        &self.shared.quota
    }

    /// This member's id.
    pub fn member_id(&self) -> u64 {
        self.shared.settings.member_id
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> u64 {
        self.shared.settings.cluster_id
    }

    /// How consensus stands.
    pub fn status(&self) -> Status {
        self.shared.raft.status()
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.status().leader == self.member_id()
    }

    /// When a stream that begins now has to end; `wants_leader`: also when there is no leader for too long.
    pub fn cut(&self, wants_leader: bool) -> Cut {
        self.shared.leadership.subscribe(wants_leader)
    }

    /// A header with all four fields.
    pub fn header(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.cluster_id(),
            member_id: self.member_id(),
            revision,
            raft_term: self.status().term,
        }
    }

    /// A header with the store's revision of now.
    pub fn header_now(&self) -> pb::ResponseHeader {
        self.header(self.revision())
    }

    /// The store's revision on this member.
    pub fn revision(&self) -> i64 {
        self.shared.reader.view().revision()
    }

    /// The version of etcd that could read a snapshot of the state, as etcd 3.7 tells it: 3.5, which wrote none into its
    /// database, until the cluster has agreed on one; none before there is anything in the log.
    pub fn storage_version(&self) -> Option<String> {
        let version = self.shared.reader.storage_version();
        version.or_else(|| (self.status().applied > 0).then(|| UNVERSIONED_STORAGE.to_owned()))
    }

    /// Proposes a command and waits until this member has applied it.
    ///
    /// # Errors
    /// The refusal of the state machine; what makes this member unable to serve; a command that is too large.
    pub async fn propose(&self, command: Encoded) -> Result<Applied, Failure> {
        let status = self.status();
        if status.committed > status.applied + APPLY_BACKLOG_MAX {
            return Err(Unavailable::TooManyRequests.into());
        }
        if command.size() > self.shared.settings.request_bytes_max {
            return Err(Invalid::TooLarge.into());
        }
        let pending = Pending::new();
        let command = command.into_bytes();
        let raft = &self.shared.raft;
        let proposed = async {
            match raft.propose(command.clone()).await {
                Err(Unavailable::NoLeader | Unavailable::NotLeader { .. }) => {
                    Box::pin(once_led(raft, || raft.propose(command.clone()))).await
                }
                reply => reply,
            }
        };
        let reply = timeout(self.shared.settings.request_timeout(), proposed).await;
        let reply = reply.unwrap_or(Err(Unavailable::TimedOut));
        drop(pending);
        let reply = reply.inspect_err(|_| METRICS.server.proposals_failed.inc())?;
        Ok(Applied { revision: reply.revision, response: reply.result? })
    }

    /// A view that is not older than anything acknowledged before this call.
    ///
    /// # Errors
    /// When the leader cannot be asked in time.
    pub async fn linearizable_view(&self) -> Result<state::mvcc::View, Failure> {
        let read = timeout(self.shared.settings.request_timeout(), self.reads.wait(&self.shared.raft));
        let read = read.await.inspect_err(|_elapsed| METRICS.server.slow_read_indexes.inc());
        read.unwrap_or(Err(Unavailable::TimedOut))
            .inspect_err(|_| METRICS.server.read_indexes_failed.inc())?;
        Ok(self.shared.reader.view())
    }

    /// What this member has applied, however old that is.
    pub fn serializable_view(&self) -> state::mvcc::View {
        self.shared.reader.view()
    }

    /// Waits, a second at most, until what is committed now is applied.
    ///
    /// # Errors
    /// When it took longer.
    pub async fn catch_up(&self) -> Result<(), Failure> {
        let committed = self.status().committed;
        timeout(APPLY_TIMEOUT, self.shared.raft.wait_applied(committed))
            .await
            .map_err(|_elapsed| Failure::ApplyTimedOut)??;
        Ok(())
    }
}

/// Tries again what was refused for want of a leader, as soon as there is one. Nothing of it has been done,
/// so this repeats nothing; whoever calls it says for how long.
async fn once_led<T, F>(raft: &Raft, ask: impl Fn() -> F) -> Result<T, Unavailable>
where
    F: Future<Output = Result<T, Unavailable>>,
{
    let mut status = raft.status_watch();
    loop {
        if status.wait_for(|status| status.leader != 0).await.is_err() {
            return Err(Unavailable::Stopped);
        }
        match ask().await {
            // Known, and yet not able to lead: not at once again.
            Err(Unavailable::NoLeader | Unavailable::NotLeader { .. }) => {
                tokio::time::sleep(LEADER_PAUSE).await
            }
            answer => return answer,
        }
    }
}

/// Counts a proposal for as long as it waits.
struct Pending;

impl Pending {
    fn new() -> Self {
        METRICS.server.proposals_pending.inc();
        Self
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        METRICS.server.proposals_pending.dec();
    }
}

/// Returns once the member is told to stop.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        tracing::debug!("nobody is left to say when to stop");
    }
}

/// A read failed in a way that says this member's state cannot be trusted: it stops.
pub fn stop_on(fault: Fault) -> ! {
    tracing::error!(%fault, "the state on this member cannot be read, stopping");
    std::process::abort()
}
