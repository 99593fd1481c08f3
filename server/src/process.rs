//! From a checked configuration to a member that serves, and back down.
//!
//! ```text
//!   data dir + lock ─► sockets ─► peer port ─► who am I? ─► state ─► raft ─► node ─► publish ─► client port
//!   signal ─► another leads ─► client port ends ─► watches end ─► raft and state are flushed ─► peer port ends
//! ```
//!
//! Sockets are bound first, so that a taken port is found before anything is
//! written. Peers are answered from then on, clients when the member can: once
//! what it publishes is in the log, for which most of the cluster must be there.

mod adoption;
pub mod bootstrap;
mod discovery;
mod ending;
mod health;
mod publish;
mod version;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use proto::etcdserverpb as pb;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::compactor::{self, Retention};
use crate::config::gates::Gate;
use crate::config::help::{ETCD_VERSION, QUORATE_VERSION};
use crate::config::url::{Url, Urls};
use crate::config::value::GoDuration;
use crate::config::{AutoCompaction, Config};
use crate::corruption::{self, Checks};
use crate::datadir::{DataDir, Founding};
use crate::http::{HttpContext, Port, listener};
use crate::lessor::Lessor;
use crate::listen::{self, Listener};
use crate::metrics::METRICS;
use crate::node::{Node, Settings, Sink};
use crate::peer;
use crate::peer::dial::Dialer;
use crate::peer::http::{Cluster, Member as PeerMember, PeerHttp};
use crate::peer::listen::{Home, Late};
use crate::peer::service::PeerService;
use crate::peer::timed::Limits;
use crate::raft::{Raft, RaftConfig};
use crate::serve::{self, Transport};
use crate::tls::Acceptor;
use crate::watch::{self, Hub};

/// Below this many file descriptors a member cannot work.
const FDS_MIN: i64 = 150;

/// How long requests under way may take once the member is told to stop.
const GRACE: Duration = Duration::from_secs(3);

/// Runs a member until a signal ends it.
///
/// On SIGINT and SIGTERM the process ends here, by that signal; as process 1,
/// which the kernel does not kill so, it returns.
///
/// # Errors
/// When the member cannot start, or cannot go on.
pub fn run(config: Config) -> anyhow::Result<ExitCode> {
    raise_fd_limit();
    let limit = crate::metrics::process::fd_limit();
    METRICS.process.refresh();
    ensure!(
        limit >= FDS_MIN,
        "the limit of {limit} file descriptors is too low: at least {FDS_MIN} are needed"
    );
    if config.flags.memory_mlock {
        rustix::mm::mlockall(rustix::mm::MlockAllFlags::CURRENT | rustix::mm::MlockAllFlags::FUTURE)
            .context("--memory-mlock")?;
    }
    info!(
        etcd_version = ETCD_VERSION,
        quorate_version = QUORATE_VERSION,
        name = %config.flags.name,
        data_dir = %config.data_dir.display(),
        snapshot_catchup_entries = config.flags.snapshot_catchup_entries,
        v2_deprecation = "write-only",
        "starting an etcd server"
    );
    // Signals still do what they do to any process: it may be ended at any moment.
    adoption::adopt(&config)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("main runtime")?;
    let end = runtime.block_on(Member::run(config))?;
    drop(runtime);
    info!(%end, "stopped");
    if let End::Signal(signal) = end
        && std::process::id() != 1
    {
        signal_hook::low_level::emulate_default_handler(signal)
            .with_context(|| format!("raising signal {signal} again"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Why a member ends that has nothing to complain of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was told to.
    Signal(i32),
    /// It does not belong to the cluster any more.
    Removed,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Signal(signal) => write!(f, "signal {signal}"),
            End::Removed => f.write_str("removed from the cluster"),
        }
    }
}

/// The signals that end a member.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        let interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        Ok(Signals { interrupt, terminate })
    }

    /// Returns when one came.
    async fn one(&mut self) -> End {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        };
        End::Signal(kind.as_raw_value())
    }
}

/// Takes as many descriptors as are allowed, as the Go runtime does.
fn raise_fd_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        warn!(%error, "cannot raise the limit of file descriptors");
    }
}

/// A bound socket, and what is to be served on it.
struct Bound {
    listener: Listener,
    url: Url,
    http: bool,
    grpc: bool,
}

/// What is bound before anything is written.
struct Sockets {
    clients: Vec<Bound>,
    metrics: Vec<(Listener, Url)>,
    peers: Vec<(Listener, Url)>,
    tls: Option<Acceptor>,
    peer_tls: Option<Acceptor>,
}

impl Sockets {
    fn bind(config: &Config) -> anyhow::Result<Sockets> {
        let flags = &config.flags;
        let http_apart = !flags.listen_client_http_urls.0.is_empty();
        let mut clients = Vec::new();
        let sets =
            [(&flags.listen_client_urls, !http_apart, true), (&flags.listen_client_http_urls, true, false)];
        for (Urls(urls), http, grpc) in sets {
            for url in urls {
                clients.push(Bound { listener: listen::bind(url, flags)?, url: url.clone(), http, grpc });
            }
        }
        let bind_all = |urls: &Urls| -> anyhow::Result<Vec<(Listener, Url)>> {
            urls.0.iter().map(|url| Ok((listen::bind(url, flags)?, url.clone()))).collect()
        };
        Ok(Sockets {
            clients,
            metrics: bind_all(&flags.listen_metrics_urls)?,
            peers: bind_all(&flags.listen_peer_urls)?,
            tls: Acceptor::for_clients(config)?,
            peer_tls: Acceptor::for_peers(config).context("peer port")?,
        })
    }

    fn tls_for(&self, url: &Url) -> Option<Acceptor> {
        if url.is_tls() { self.tls.clone() } else { None }
    }
}

/// Finds out who the member is to be.
async fn first_start(config: &Config, dialer: &Dialer) -> anyhow::Result<Founding> {
    let members = discovery::members(config).await?;
    bootstrap::found(config, &members, dialer).await.map_err(anyhow::Error::msg)
}

/// The peer port, open.
struct PeerPort {
    grpc: Late,
    http: PeerHttp,
    home: Home,
    stop: tokio::sync::watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

impl PeerPort {
    fn open(sockets: &mut Sockets, limits: Limits) -> anyhow::Result<PeerPort> {
        let (grpc, http, home) = (Late::default(), PeerHttp::default(), Home::default());
        let (stop, stopping) = tokio::sync::watch::channel(false);
        let peers = std::mem::take(&mut sockets.peers);
        let thread = peer::listen::serve(
            peers,
            sockets.peer_tls.clone(),
            grpc.clone(),
            http.clone(),
            &home,
            limits,
            stopping,
        )?;
        Ok(PeerPort { grpc, http, home, stop, thread })
    }

    async fn close(self) {
        self.stop.send_replace(true);
        match tokio::task::spawn_blocking(|| self.thread.join()).await {
            Ok(Ok(())) => {}
            _ => warn!("the thread that serves peers broke"),
        }
    }
}

/// The cluster as the peer port tells of it.
struct PeerView {
    node: Node,
    /// The members until the log says who they are.
    first: Vec<PeerMember>,
}

impl Cluster for PeerView {
    fn id(&self) -> u64 {
        self.node.cluster_id()
    }

    fn members(&self) -> Vec<pb::Member> {
        let members = self.node.reader().members();
        if !members.is_empty() {
            return members;
        }
        let first = self.first.iter().cloned();
        first
            .map(|member| pb::Member {
                id: member.id,
                name: member.name,
                peer_ur_ls: member.peer_urls,
                client_ur_ls: member.client_urls,
                is_learner: member.is_learner,
            })
            .collect()
    }

    fn version(&self) -> Option<String> {
        self.node.reader().cluster_version()
    }

    fn storage_version(&self) -> Option<String> {
        self.node.storage_version()
    }

    fn downgrade_enabled(&self) -> Pin<Box<dyn Future<Output = Result<bool, String>> + Send + '_>> {
        Box::pin(async {
            let read = self.node.linearizable_view().await;
            read.map_err(|failure| tonic::Status::from(failure).message().to_owned())?;
            Ok(self.node.reader().downgrade().enabled)
        })
    }
}

struct Member;

impl Member {
    /// Runs the member until it has to end.
    async fn run(config: Config) -> anyhow::Result<End> {
        let mut signals = Signals::new()?;
        let mut dir = DataDir::open(&config.data_dir, &config.wal_dir)?;
        let dialer = Dialer::new(&config).context("peer certificates")?;
        let mut sockets = Sockets::bind(&config)?;
        let health = Arc::new(health::MemberHealth::default());
        serve_metrics(&config, &sockets, &health)?;
        let peers = PeerPort::open(&mut sockets, Limits::new(&config))?;

        let initialized = dir.founding().is_some();
        let founding = match dir.founding() {
            // --initial-* and --discovery-* are for the first start alone.
            Some(founding) => {
                if !config.flags.discovery_endpoints.0.is_empty() {
                    warn!(
                        "wal-dir" = %config.wal_dir.display(),
                        "discovery token is ignored since cluster already initialized; valid logs are found"
                    );
                }
                founding.clone()
            }
            None => {
                let founding = tokio::select! {
                    founding = first_start(&config, &dialer) => founding?,
                    end = signals.one() => return Ok(end),
                };
                dir.found(founding.clone())?;
                founding
            }
        };
        describe(&config, &founding);

        let node = start_node(&config, &dir, &founding, &dialer)?;
        health.is(node.clone());
        let first = if founding.founders.is_empty() { founding.peers } else { founding.founders };
        peers.grpc.is(PeerService::new(node.clone()));
        peers.home.is(node.raft().runtime());
        peers.http.is(PeerView { node: node.for_thread(), first });
        let every = |time: GoDuration| Some(time.get()).filter(|time| !time.is_zero());
        let (stop, stopping) = tokio::sync::watch::channel(false);
        node.start_background(&stopping);
        if let Some(kept) = config.auto_compaction {
            let retention = match kept {
                AutoCompaction::Periodic(period) => Retention::Period(period),
                AutoCompaction::Revision(revisions) => Retention::Revisions(revisions),
            };
            tokio::spawn(compactor::run(node.clone(), retention, stopping.clone()));
        }
        tokio::spawn(health::follow(node.clone(), stopping.clone()));
        let downgrade_looks = every(config.flags.downgrade_check_time);
        tokio::spawn(version::run(node.clone(), dialer, downgrade_looks, stopping.clone()));

        if initialized && config.feature(Gate::InitialCorruptCheck) {
            tokio::select! {
                checked = corruption::initial(&node) => checked.context("checkInitialHashKV failed")?,
                end = signals.one() => {
                    node.raft().clone().shutdown().await;
                    return Ok(end);
                }
            }
        }
        let checks = Checks {
            data: every(config.flags.corrupt_check_time),
            compacted: config
                .feature(Gate::CompactHashCheck)
                .then_some(config.flags.compact_hash_check_time)
                .and_then(every),
        };
        tokio::spawn(corruption::run(node.clone(), checks, stopping.clone()));

        let mut member = ending::Running { node: node.clone(), dir, stop, peers, serving: None };
        let removed = ending::removed(&node);
        tokio::pin!(removed);
        tokio::select! {
            () = publish::publish(&node, &config) => {}
            end = signals.one() => return member.end(end).await,
            () = &mut removed => return member.end(End::Removed).await,
        }
        let listeners = client_listeners(&config, sockets, &health);
        let serving = tokio::spawn(serve::run(listeners, transport(&config), node.clone(), stopping.clone()));
        let serving = member.serving.insert(serving);
        info!("ready to serve client requests");
        notify(&[sd_notify::NotifyState::Ready]);

        let end = tokio::select! {
            end = signals.one() => end,
            () = &mut removed => End::Removed,
            served = serving => {
                served.context("the listeners' task")?.context("listeners")?;
                return Err(anyhow!("the listeners ended by themselves"));
            }
        };
        member.end(end).await
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot notify systemd");
    }
}

fn describe(config: &Config, founding: &Founding) {
    let member_id = format!("{:x}", founding.identity.member_id);
    let metrics = &METRICS.server;
    metrics.version.with_label_values(&[ETCD_VERSION]).set(1);
    metrics.go_version.with_label_values(&["none (Rust)"]).set(1);
    metrics.id.with_label_values(&[member_id.as_str()]).set(1);
    metrics
        .quota_backend_bytes
        .set(config.quota_bytes.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(0));
    for gate in Gate::ALL {
        let on = i64::from(config.feature(*gate));
        metrics.feature_enabled.with_label_values(&[gate.name(), gate.stage().as_str()]).set(on);
    }
    if config.flags.metrics == "extensive" {
        METRICS.extend();
    }
    info!(
        local_member_id = member_id,
        cluster_id = format!("{:x}", founding.identity.cluster_id),
        advertise_client_urls = %config.flags.advertise_client_urls,
        listen_client_urls = %config.flags.listen_client_urls,
        listen_metrics_urls = %config.flags.listen_metrics_urls,
        initial_cluster = %config.flags.initial_cluster,
        "this member"
    );
}

/// Opens the state, starts Raft on it, and puts the node together.
fn start_node(config: &Config, dir: &DataDir, founding: &Founding, dialer: &Dialer) -> anyhow::Result<Node> {
    let flags = &config.flags;
    let mut founders = founding.nodes();
    if founders.is_empty() && founding.peers.is_empty() {
        // Founded by the first release, alone.
        founders.push(state::Node {
            id: founding.identity.member_id,
            name: flags.name.clone(),
            peer_urls: config.peer_urls(),
            learner: false,
        });
    }
    let started = Instant::now();
    let mut options = state::Options::new(dir.state());
    options.memory_budget = usize::try_from(flags.memory_budget).unwrap_or(usize::MAX);
    options.compaction_batch_limit = config.compaction_batch_limit;
    options.compaction_sleep = config.compaction_pause;
    let (state, reader) =
        state::State::open(options).with_context(|| format!("state in {}", dir.state().display()))?;
    ensure!(
        !reader.auth_enabled().context("users and roles")?,
        "{} holds the state of a cluster with authentication, which this release does not enforce: turn it off there before the snapshot is taken, with `etcdctl auth disable`",
        dir.state().display()
    );
    let revision = reader.view().revision();
    info!(revision, took_ms = started.elapsed().as_millis() as u64, "opened the state");
    version::check(&reader)?;

    let lessor = Lessor::new(reader.leases());
    let watches = watch::Options { progress_interval: config.watch_progress_interval, ..Default::default() };
    let views = reader.clone();
    let hub = Hub::start(Arc::new(move || views.view()), watches).context("watch threads")?;
    let raft = Raft::start(
        RaftConfig {
            member_id: founding.identity.member_id,
            name: flags.name.clone(),
            peer_urls: config.peer_urls(),
            cluster_id: founding.identity.cluster_id,
            force_new_cluster: flags.force_new_cluster,
            pre_vote: flags.pre_vote,
            advance_first_election: flags.initial_election_tick_advance,
            dialer: dialer.clone(),
            known_peers: founding.peers.iter().map(|peer| (peer.id, peer.peer_urls.clone())).collect(),
            receive_dir: dir.state().with_file_name("receive"),
            initial_members: founders,
            heartbeat_ms: flags.heartbeat_interval,
            election_ms: flags.election_timeout,
            wal_dir: dir.wal().to_owned(),
            fsync: !flags.unsafe_no_fsync,
            slow_apply: flags.warning_apply_duration.get(),
            snapshot_count: flags.snapshot_count,
            catchup_entries: flags.snapshot_catchup_entries,
        },
        state,
        reader.clone(),
        Sink::new(hub.clone(), lessor.clone(), reader.clone()),
    )
    .with_context(|| format!("Raft log in {}", dir.wal().display()))?;
    let settings = Settings {
        cluster_id: founding.identity.cluster_id,
        member_id: founding.identity.member_id,
        request_bytes_max: usize::try_from(flags.max_request_bytes).unwrap_or(usize::MAX),
        txn_ops_max: usize::try_from(flags.max_txn_ops).unwrap_or(usize::MAX),
        election_timeout: Duration::from_millis(flags.election_timeout),
        quota_bytes: flags.quota_backend_bytes,
        lease_checkpoint: config.feature(Gate::LeaseCheckpoint),
        slow_request: flags.warning_unary_request_duration.get(),
        strict_reconfig: flags.strict_reconfig_check,
        learners_max: usize::try_from(flags.max_learners).unwrap_or(0),
    };
    Ok(Node::new(raft, reader, hub, lessor, settings))
}

fn serve_metrics(
    config: &Config,
    sockets: &Sockets,
    health: &Arc<health::MemberHealth>,
) -> anyhow::Result<()> {
    if sockets.metrics.is_empty() {
        return Ok(());
    }
    let mut listeners = Vec::new();
    for (socket, url) in &sockets.metrics {
        let context = HttpContext::new(config, Port::Metrics, url.is_tls(), health.clone());
        let acceptor = sockets.tls_for(url).map(|acceptor| acceptor.matching_address());
        listeners.push((socket.try_clone().context("metrics socket")?, context, acceptor));
        info!(address = %url, "serving metrics");
    }
    listener::serve(listeners)
}

fn client_listeners(
    config: &Config,
    sockets: Sockets,
    health: &Arc<health::MemberHealth>,
) -> Vec<serve::Listener> {
    let tls = sockets.tls.clone();
    let mut listeners = Vec::new();
    for Bound { listener, url, http, grpc } in sockets.clients {
        let traffic = match (grpc, http) {
            (true, true) => "grpc+http",
            (true, false) => "grpc",
            _ => "http",
        };
        match url.is_tls() {
            true => info!(traffic, address = %url, "serving client traffic securely"),
            false => {
                info!(traffic, address = %url, "serving client traffic insecurely; this is strongly discouraged!");
            }
        }
        listeners.push(serve::Listener {
            socket: match listener {
                Listener::Tcp(listener) => serve::Socket::Tcp(listener),
                Listener::Unix(listener) => serve::Socket::Unix(listener),
            },
            tls: if url.is_tls() { tls.clone() } else { None },
            http: http.then(|| HttpContext::new(config, Port::Client, url.is_tls(), health.clone())),
            grpc,
        });
    }
    listeners
}

fn transport(config: &Config) -> Transport {
    let flags = &config.flags;
    Transport {
        streams_max: flags.max_concurrent_streams,
        ping_min_time: flags.grpc_keepalive_min_time.get(),
        ping_interval: flags.grpc_keepalive_interval.get(),
        ping_timeout: flags.grpc_keepalive_timeout.get(),
        grace: GRACE,
        ..Transport::default()
    }
}
