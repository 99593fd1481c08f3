//! The flags: one field each.
//!
//! A field's name with dashes is the flag; upper-cased behind `ETCD_` it is
//! the variable; as it is it is the key in the configuration file. Its
//! documentation is the help text. To add a flag, add a field; the golden
//! `--help` shows the rest.

use serde_norway::Value as Yaml;

use super::gates::Gates;
use super::url::Urls;
use super::value::{ClusterState, DiscoveryFallback, GoDuration, Strings, V2Deprecation, Value};

/// What the parsers and `--help` know about a flag.
pub struct Flag {
    /// The heading it stands under in `--help`.
    pub section: &'static str,
    field: &'static str,
    help: &'static [&'static str],
    /// The default as one would type it.
    pub default: &'static str,
    /// Whether `--flag` alone sets it.
    pub boolean: bool,
    /// Takes a value from the command line or the environment.
    pub set: fn(&mut Flags, &str) -> Result<(), String>,
    /// Takes a value from the configuration file.
    pub set_yaml: fn(&mut Flags, &Yaml) -> Result<(), String>,
}

impl Flag {
    /// The name as typed, without dashes in front.
    pub fn name(&self) -> String {
        self.field.replace('_', "-")
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.field.to_ascii_uppercase())
    }

    /// The help text, one line per line.
    pub fn help(&self) -> impl Iterator<Item = &'static str> {
        self.help.iter().map(|line| line.trim())
    }
}

/// The flag of this name.
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| {
        flag.field.len() == name.len()
            && flag
                .field
                .bytes()
                .zip(name.bytes())
                .all(|(a, b)| a == b && b != b'_' || (a == b'_' && b == b'-'))
    })
}

macro_rules! flags {
    ($($section:literal { $($(#[doc = $help:literal])+ $field:ident: $kind:ty = $default:literal,)* })*) => {
        /// The value of every flag.
        #[derive(Clone, Debug)]
        pub struct Flags {
            $($($(#[doc = $help])+ pub $field: $kind,)*)*
        }

        impl Default for Flags {
            fn default() -> Flags {
                Flags {
                    $($($field: <$kind as Value>::parse($default).expect("a default parses"),)*)*
                }
            }
        }

        /// Every flag, in the order of `--help`.
        pub static FLAGS: &[Flag] = &[$($(Flag {
            section: $section,
            field: stringify!($field),
            help: &[$($help),+],
            default: $default,
            boolean: <$kind as Value>::BOOLEAN,
            set: |flags, text| flags.$field.merge(text),
            set_yaml: |flags, value| <$kind as Value>::from_yaml(value).map(|value| flags.$field = value),
        },)*)*];
    };
}

flags! {
    "Process" {
        /// Print the version and exit.
        version: bool = "false",
        /// Read the configuration from this YAML or JSON file.
        /// All other flags and the environment are then ignored.
        config_file: String = "",
    }
    "Member" {
        /// Name of this member, for people.
        name: String = "default",
        /// Directory with everything this member keeps; '${name}.etcd' when empty.
        data_dir: String = "",
        /// Directory of the write-ahead log, when it is to be on a disk of its own.
        wal_dir: String = "",
        /// Entries applied between two points up to which the log may be purged.
        snapshot_count: u64 = "10000",
        /// Entries kept behind such a point for followers that lag.
        snapshot_catchup_entries: u64 = "5000",
        /// Milliseconds between two heartbeats of the leader.
        heartbeat_interval: u64 = "100",
        /// Milliseconds without a heartbeat after which a member stands for election.
        election_timeout: u64 = "1000",
        /// Start the first election early after a boot.
        initial_election_tick_advance: bool = "true",
        /// URLs to listen on for other members.
        listen_peer_urls: Urls = "http://localhost:2380",
        /// URLs to listen on for clients: gRPC, and HTTP too unless --listen-client-http-urls is set.
        listen_client_urls: Urls = "http://localhost:2379",
        /// URLs to listen on for HTTP alone; --listen-client-urls then serve gRPC alone.
        listen_client_http_urls: Urls = "",
        /// Accepted; snapshots are not files here.
        max_snapshots: u64 = "5",
        /// Accepted; the log keeps what it needs.
        max_wals: u64 = "5",
        /// Keep all memory of the process from being swapped out.
        memory_mlock: bool = "false",
        /// Size of the data at which the NOSPACE alarm goes up (0: 2 GiB, negative: no limit).
        quota_backend_bytes: i64 = "0",
        /// Accepted ('array' or 'map'); there is no bbolt here.
        backend_bbolt_freelist_type: String = "",
        /// Accepted; a batch is committed as soon as it is applied.
        backend_batch_interval: GoDuration = "0s",
        /// Accepted; a batch is committed as soon as it is applied.
        backend_batch_limit: i64 = "0",
        /// Most operations in one transaction.
        max_txn_ops: u64 = "128",
        /// Largest request a client may send, in bytes.
        max_request_bytes: u64 = "1572864",
        /// Most streams a client may have open on one connection.
        max_concurrent_streams: u32 = "4294967295",
        /// Shortest interval at which a client may ping.
        grpc_keepalive_min_time: GoDuration = "5s",
        /// Interval at which the server pings a silent client (0: never).
        grpc_keepalive_interval: GoDuration = "2h",
        /// How long the answer to such a ping may take before the connection is closed.
        grpc_keepalive_timeout: GoDuration = "20s",
        /// Set SO_REUSEPORT on listeners.
        socket_reuse_port: bool = "false",
        /// Set SO_REUSEADDR on listeners.
        socket_reuse_address: bool = "false",
        /// Serve the JSON gateway.
        enable_grpc_gateway: bool = "true",
        /// Read timeout on connections between members; at least 5s.
        raft_read_timeout: GoDuration = "5s",
        /// Write timeout on connections between members; at least 5s.
        raft_write_timeout: GoDuration = "5s",
        /// Features to turn on or off: name=true|false, separated by commas.
        feature_gates: Gates = "",
    }
    "Clustering" {
        /// This member's peer URLs, as the others are to reach it.
        initial_advertise_peer_urls: Urls = "http://localhost:2380",
        /// The members the cluster starts with: name=url, separated by commas.
        initial_cluster: String = "default=http://localhost:2380",
        /// 'new' to found the cluster, 'existing' to join one. Ignored once the member has data.
        initial_cluster_state: ClusterState = "new",
        /// Token that keeps clusters with equal URLs apart.
        initial_cluster_token: String = "etcd-cluster",
        /// This member's client URLs, as clients are to reach it.
        advertise_client_urls: Urls = "http://localhost:2379",
        /// Discovery token of the cluster to found.
        discovery_token: String = "",
        /// Endpoints of the cluster that serves discovery.
        discovery_endpoints: Strings = "",
        /// Dial timeout of discovery.
        discovery_dial_timeout: GoDuration = "2s",
        /// Request timeout of discovery.
        discovery_request_timeout: GoDuration = "5s",
        /// Keepalive interval of discovery.
        discovery_keepalive_time: GoDuration = "2s",
        /// Keepalive timeout of discovery.
        discovery_keepalive_timeout: GoDuration = "6s",
        /// Talk to discovery without TLS.
        discovery_insecure_transport: bool = "true",
        /// Do not verify discovery's certificate.
        discovery_insecure_skip_tls_verify: bool = "false",
        /// Client certificate for discovery.
        discovery_cert: String = "",
        /// Key of that certificate.
        discovery_key: String = "",
        /// CA that discovery's certificate must come from.
        discovery_cacert: String = "",
        /// User for discovery, as "name" or "name:password".
        discovery_user: String = "",
        /// Password for discovery.
        discovery_password: String = "",
        /// 'exit'; the v2 proxy is gone.
        discovery_fallback: DiscoveryFallback = "exit",
        /// DNS domain whose SRV records name the initial cluster.
        discovery_srv: String = "",
        /// Suffix of the SRV name.
        discovery_srv_name: String = "",
        /// Refuse membership changes that would lose the quorum.
        strict_reconfig_check: bool = "true",
        /// Ask before standing for election, so that a member that was cut off disturbs nobody.
        pre_vote: bool = "true",
        /// What automatic compaction keeps: a duration or a number of revisions (0: off).
        auto_compaction_retention: String = "0",
        /// 'periodic' (retention is a duration; a bare number counts hours) or 'revision'.
        auto_compaction_mode: String = "periodic",
        /// Accepted; there is no v2 store.
        v2_deprecation: V2Deprecation = "write-only",
    }
    "Security" {
        /// Certificate of the client port.
        cert_file: String = "",
        /// Key of that certificate.
        key_file: String = "",
        /// Certificate for connections this member opens to its own client port.
        client_cert_file: String = "",
        /// Key of that certificate.
        client_key_file: String = "",
        /// Require a certificate from every client.
        client_cert_auth: bool = "false",
        /// Revocation list (DER) that client certificates are checked against.
        client_crl_file: String = "",
        /// Names of which a client's certificate must carry one.
        client_cert_allowed_hostname: Strings = "",
        /// CA that client certificates must come from. Alone it already requires them.
        trusted_ca_file: String = "",
        /// Make a certificate for the client port.
        auto_tls: bool = "false",
        /// Certificate of the peer port.
        peer_cert_file: String = "",
        /// Key of that certificate.
        peer_key_file: String = "",
        /// Certificate for connections to peers, when not the one above.
        peer_client_cert_file: String = "",
        /// Key of that certificate.
        peer_client_key_file: String = "",
        /// Require a certificate from every peer.
        peer_client_cert_auth: bool = "false",
        /// Revocation list (DER) that peer certificates are checked against.
        peer_crl_file: String = "",
        /// CA that peer certificates must come from.
        peer_trusted_ca_file: String = "",
        /// Common names of which a peer's certificate must carry one.
        peer_cert_allowed_cn: Strings = "",
        /// Names of which a peer's certificate must carry one.
        peer_cert_allowed_hostname: Strings = "",
        /// Make a certificate for the peer port.
        peer_auto_tls: bool = "false",
        /// Do not match a peer's certificate against its address.
        peer_skip_client_san_verification: bool = "false",
        /// Years a certificate made by this member is valid.
        self_signed_cert_validity: u64 = "1",
        /// TLS 1.2 cipher suites to allow, separated by commas (empty: a safe choice).
        cipher_suites: Strings = "",
        /// Origins that browsers may call from (empty or *: all).
        cors: Strings = "*",
        /// Host names that plain HTTP requests may carry (empty or *: all).
        host_whitelist: Strings = "*",
        /// Oldest TLS version to speak: TLS1.2 or TLS1.3.
        tls_min_version: String = "TLS1.2",
        /// Newest TLS version to speak: TLS1.2 or TLS1.3 (empty: the newest).
        tls_max_version: String = "",
    }
    "Auth" {
        /// Kind of authentication token and its options.
        auth_token: String = "simple",
        /// Cost of hashing passwords, 4 to 31.
        bcrypt_cost: u64 = "10",
        /// Seconds a simple token lives.
        auth_token_ttl: u64 = "300",
    }
    "Profiling and Monitoring" {
        /// Serve profiles below /debug/pprof/.
        enable_pprof: bool = "false",
        /// 'basic', or 'extensive' for latency histograms of every gRPC method too.
        metrics: String = "basic",
        /// URLs to listen on for /metrics and the health endpoints alone.
        listen_metrics_urls: Urls = "",
    }
    "Logging" {
        /// 'zap', the format of the log lines.
        logger: String = "zap",
        /// Where log lines go: default, stdout, stderr, systemd/journal or file names.
        log_outputs: Strings = "default",
        /// Least level to log: debug, info, warn, error, panic or fatal.
        log_level: String = "info",
        /// 'json' or 'console'.
        log_format: String = "json",
        /// Rotate the one log file.
        enable_log_rotation: bool = "false",
        /// How to rotate: megabytes, days, files kept, local time, compression.
        log_rotation_config_json: String = "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}",
        /// Time after which a request is logged as slow.
        warning_unary_request_duration: GoDuration = "300ms",
    }
    "Distributed tracing" {
        /// Send OpenTelemetry traces.
        enable_distributed_tracing: bool = "false",
        /// Address of the collector.
        distributed_tracing_address: String = "localhost:4317",
        /// Service name in traces.
        distributed_tracing_service_name: String = "etcd",
        /// Instance id in traces.
        distributed_tracing_instance_id: String = "",
        /// Spans sampled, per million.
        distributed_tracing_sampling_rate: i64 = "0",
    }
    "Features" {
        /// Interval of comparing all members' data (0: never).
        corrupt_check_time: GoDuration = "0s",
        /// Interval of comparing hashes after compactions.
        compact_hash_check_time: GoDuration = "1m",
        /// Most revisions deleted in one step of a compaction (0: 1000).
        compaction_batch_limit: i64 = "0",
        /// Pause between two steps (0: 10ms).
        compaction_sleep_interval: GoDuration = "0s",
        /// Interval of progress notifications on watches that ask for them (0: 10m).
        watch_progress_notify_interval: GoDuration = "0s",
        /// Interval of looking at a running downgrade.
        downgrade_check_time: GoDuration = "5s",
        /// Time after which applying is logged as slow.
        warning_apply_duration: GoDuration = "100ms",
        /// Accepted; files shrink by themselves.
        bootstrap_defrag_threshold_megabytes: u64 = "0",
        /// Most learners in the cluster.
        max_learners: i64 = "1",
        /// Bytes of memory for caches and write buffers.
        memory_budget: u64 = "268435456",
    }
    "Unsafe" {
        /// Go on alone with this member's data: all other members are removed.
        force_new_cluster: bool = "false",
        /// Do not wait for the disk: a crash loses data.
        unsafe_no_fsync: bool = "false",
    }
}

/// Old flags that are taken and do nothing. They are booleans to the parser.
pub const IGNORED: &[&str] = &[
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
    "test.coverprofile",
    "test.outputdir",
];

/// What an alias does with its value.
pub enum Alias {
    /// It is another name of this flag.
    Flag(&'static str),
    /// It turns this feature gate on or off.
    Gate(&'static str),
}

/// Names that older kubeadm manifests still pass, with what they mean now.
pub const ALIASES: &[(&str, Alias)] = &[
    ("experimental-initial-corrupt-check", Alias::Gate("InitialCorruptCheck")),
    ("experimental-watch-progress-notify-interval", Alias::Flag("watch-progress-notify-interval")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_their_spelling_alone() {
        assert_eq!(find("listen-client-urls").unwrap().name(), "listen-client-urls");
        assert_eq!(find("listen-client-urls").unwrap().variable(), "ETCD_LISTEN_CLIENT_URLS");
        assert!(find("listen_client_urls").is_none());
        assert!(find("nope").is_none());
    }

    #[test]
    fn every_default_parses() {
        let flags = Flags::default();
        assert_eq!(flags.max_request_bytes, 1_572_864);
        for flag in FLAGS {
            (flag.set)(&mut Flags::default(), flag.default)
                .unwrap_or_else(|e| panic!("{}: {e}", flag.name()));
        }
    }
}
