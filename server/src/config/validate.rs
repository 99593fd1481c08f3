//! Whether the flags make sense together. The texts are etcd's.

use std::path::PathBuf;
use std::time::Duration;

use super::flags::{Flags, find};
use super::gates::Gate;
use super::parse::{Given, Note, Stop};
use super::url::{Url, Urls};
use super::value::{DiscoveryFallback, GoDuration, Value};
use super::{Config, DEFAULT_QUOTA_BYTES, LARGE_QUOTA_BYTES, derived, parse_initial_cluster};

/// What automatic compaction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// The revisions of this much time.
    Periodic(Duration),
    /// This many revisions.
    Revision(i64),
}

/// A TLS version that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2
    Tls12,
    /// TLS 1.3
    Tls13,
}

impl TlsVersion {
    fn parse(text: &str) -> Result<Option<TlsVersion>, String> {
        match text {
            "" => Ok(None),
            "TLS1.2" => Ok(Some(TlsVersion::Tls12)),
            "TLS1.3" => Ok(Some(TlsVersion::Tls13)),
            _ => Err(format!("unexpected TLS version {text:?} (must be one of: TLS1.2, TLS1.3)")),
        }
    }
}

const ELECTION_MS_MAX: u64 = 50_000;
const RECOMMENDED_REQUEST_BYTES: u64 = 10 * 1024 * 1024;
const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
const WATCH_PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Checks what was given and fills in what follows from it.
pub fn validate(given: Given, default_host: impl FnOnce() -> Option<String>) -> Result<Config, Stop> {
    let Given { mut flags, set, mut notes } = given;
    let is_set = |name: &str| set.contains(name);

    let discovers = !flags.discovery_endpoints.0.is_empty()
        || !flags.discovery_srv.is_empty()
        || !flags.discovery_srv_name.is_empty();
    if discovers && !is_set("initial-cluster") {
        flags.initial_cluster.clear();
    }
    if !flags.discovery_endpoints.0.is_empty() {
        flags.initial_cluster_token = flags.discovery_token.clone();
    }
    let derives_cluster = !discovers && !is_set("initial-cluster");

    verify(&flags, &mut notes).map_err(Stop::Refused)?;
    if is_set("listen-client-urls") && !is_set("advertise-client-urls") {
        return Err(Stop::Refused(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly".to_owned(),
        ));
    }
    let auto_compaction = auto_compaction(&flags.auto_compaction_mode, &flags.auto_compaction_retention)
        .map_err(Stop::at_start)?;
    let (tls_min, tls_max) = tls(&flags).map_err(Stop::Refused)?;
    unavailable(&flags).map_err(Stop::Refused)?;
    certificates(&flags, &mut notes).map_err(Stop::at_start)?;

    adopt_default_host(&mut flags, &mut notes, default_host);
    if derives_cluster {
        let urls = flags.initial_advertise_peer_urls.texts();
        flags.initial_cluster =
            urls.iter().map(|url| format!("{}={url}", flags.name)).collect::<Vec<_>>().join(",");
    }
    let initial_cluster = parse_initial_cluster(&flags.initial_cluster)
        .map_err(|reason| Stop::at_start(format!("error setting up initial cluster: {reason}")))?;
    remarks(&mut flags, &set, &mut notes);
    let discovery_login = derived::discovery_login(&flags).map_err(Stop::Refused)?;
    let peer_local_address = derived::peer_local_address(&flags, &mut notes);

    let data_dir = if flags.data_dir.is_empty() {
        let default = format!("{}.etcd", flags.name);
        notes.push(Note::warning("'data-dir' was empty; using default", default.clone()));
        PathBuf::from(default)
    } else {
        PathBuf::from(&flags.data_dir)
    };
    let wal_dir = if flags.wal_dir.is_empty() {
        data_dir.join("member").join("wal")
    } else {
        PathBuf::from(&flags.wal_dir)
    };
    let quota_bytes = match flags.quota_backend_bytes {
        0 => Some(DEFAULT_QUOTA_BYTES.unsigned_abs()),
        bytes => u64::try_from(bytes).ok(),
    };
    Ok(Config {
        data_dir,
        wal_dir,
        initial_cluster,
        discovery_login,
        peer_local_address,
        auto_compaction,
        quota_bytes,
        tls_min,
        tls_max,
        watch_progress_interval: match flags.watch_progress_notify_interval.get() {
            Duration::ZERO => WATCH_PROGRESS_INTERVAL,
            interval => interval.max(WATCH_PROGRESS_INTERVAL_MIN),
        },
        compaction_batch_limit: match flags.compaction_batch_limit {
            ..=0 => 1000,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        },
        compaction_pause: match flags.compaction_sleep_interval.get() {
            Duration::ZERO => Duration::from_millis(10),
            pause => pause,
        },
        flags,
        notes,
    })
}

/// What etcd verifies before anything else.
fn verify(flags: &Flags, notes: &mut Vec<Note>) -> Result<(), String> {
    logging(flags)?;
    if flags.discovery_fallback == DiscoveryFallback::Proxy {
        return Err(
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"".to_owned()
        );
    }
    urls(flags, notes)?;
    bootstrap_flags(flags)?;
    timing(flags)?;
    match flags.auto_compaction_mode.as_str() {
        "periodic" | "revision" => {}
        "" => return Err("undefined auto-compaction-mode".to_owned()),
        other => return Err(format!("unknown auto-compaction-mode {other:?}")),
    }
    gates(flags, notes)
}

fn logging(flags: &Flags) -> Result<(), String> {
    match flags.logger.as_str() {
        "zap" => {}
        "capnslog" => return Err("--logger=capnslog is removed in v3.5".to_owned()),
        other => return Err(format!("unknown logger option {other:?}")),
    }
    let outputs = &flags.log_outputs.0;
    if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
        return Err("multi logoutput for \"default\" is not supported yet".to_owned());
    }
    let files = outputs
        .iter()
        .filter(|output| !matches!(output.as_str(), "default" | "stderr" | "stdout" | "systemd/journal"))
        .count();
    if flags.enable_log_rotation && files != 1 {
        return Err(
            "--log-outputs requires a single file path when --log-rotate-config-json is defined".to_owned()
        );
    }
    if outputs.len() > 1 && outputs.iter().any(|output| output == "systemd/journal") {
        return Err(format!(
            "running with systemd/journal but other '--log-outputs' values ({outputs:?}) are configured with 'default'; override 'default' value with something else"
        ));
    }
    match flags.log_level.as_str() {
        "debug" | "info" | "warn" | "error" | "dpanic" | "panic" | "fatal" => {}
        other => return Err(format!("unrecognized level: {other:?}")),
    }
    match flags.log_format.as_str() {
        "json" | "console" => Ok(()),
        other => Err(format!("unknown log format: {other}, supported values json, console")),
    }
}

fn urls(flags: &Flags, notes: &mut Vec<Note>) -> Result<(), String> {
    let listening = [
        &flags.listen_peer_urls,
        &flags.listen_client_urls,
        &flags.listen_client_http_urls,
        &flags.listen_metrics_urls,
    ];
    for url in listening.iter().flat_map(|urls| &urls.0) {
        url.check_bind()?;
    }
    if flags.listen_client_http_urls.0.is_empty() {
        notes.push(Note::warning(
            "Running http and grpc server on single port. This is not recommended for production.",
            "",
        ));
    }
    let hostless = |urls: &Urls| {
        urls.0
            .iter()
            .find(|url| !url.is_unix() && url.host().is_empty())
            .map(|url| format!("unexpected empty host ({url})"))
    };
    if let Some(reason) = hostless(&flags.initial_advertise_peer_urls) {
        return Err(format!(
            "--initial-advertise-peer-urls {:?} must be \"host:port\" ({reason})",
            flags.initial_advertise_peer_urls.to_string()
        ));
    }
    if let Some(reason) = hostless(&flags.advertise_client_urls) {
        return Err(format!(
            "--advertise-client-urls {:?} must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" ({reason})",
            flags.advertise_client_urls.to_string()
        ));
    }
    Ok(())
}

fn bootstrap_flags(flags: &Flags) -> Result<(), String> {
    let endpoints = &flags.discovery_endpoints.0;
    let ways = [!flags.initial_cluster.is_empty(), !flags.discovery_srv.is_empty(), !endpoints.is_empty()];
    if ways.iter().filter(|way| **way).count() > 1 {
        return Err("multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"".to_owned());
    }
    if flags.discovery_token.is_empty() != endpoints.is_empty() {
        return Err("both --discovery-token and --discovery-endpoints must be set".to_owned());
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return Err("--discovery-endpoints must not contain empty endpoints".to_owned());
    }
    Ok(())
}

fn timing(flags: &Flags) -> Result<(), String> {
    let (heartbeat, election) = (flags.heartbeat_interval, flags.election_timeout);
    if heartbeat == 0 {
        return Err(format!("--heartbeat-interval must be >0 (set to {heartbeat}ms)"));
    }
    if election == 0 {
        return Err(format!("--election-timeout must be >0 (set to {election}ms)"));
    }
    if heartbeat.saturating_mul(5) > election {
        return Err(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > ELECTION_MS_MAX {
        return Err(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_MS_MAX}ms"
        ));
    }
    Ok(())
}

fn auto_compaction(mode: &str, retention: &str) -> Result<Option<AutoCompaction>, String> {
    let retention = if retention.is_empty() { "0" } else { retention };
    let periodic = mode == "periodic";
    let number = retention.parse::<i64>().ok().filter(|number| *number >= 0);
    let kept = match number {
        Some(hours) if periodic => {
            AutoCompaction::Periodic(Duration::from_secs(hours.unsigned_abs().saturating_mul(3600)))
        }
        Some(revisions) => AutoCompaction::Revision(revisions),
        None => {
            let duration = GoDuration::read(retention).ok_or_else(|| {
                format!("error parsing CompactionRetention: time: invalid duration {retention:?}")
            })?;
            // As etcd has it, a duration counts nanoseconds where revisions are asked for.
            if periodic {
                AutoCompaction::Periodic(duration.get())
            } else {
                AutoCompaction::Revision(duration.nanoseconds())
            }
        }
    };
    Ok(match kept {
        AutoCompaction::Periodic(Duration::ZERO) | AutoCompaction::Revision(..=0) => None,
        kept => Some(kept),
    })
}

fn gates(flags: &Flags, notes: &mut Vec<Note>) -> Result<(), String> {
    let on = |gate| flags.feature_gates.enabled(gate);
    if on(Gate::LeaseCheckpointPersist) && !on(Gate::LeaseCheckpoint) {
        return Err(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"
                .to_owned(),
        );
    }
    if on(Gate::LeaseCheckpoint) && !on(Gate::LeaseCheckpointPersist) {
        notes.push(Note::warning(
            "Detected that checkpointing is enabled without persistence. Consider enabling feature gate LeaseCheckpointPersist",
            "",
        ));
    }
    if flags.compact_hash_check_time.nanoseconds() <= 0 {
        return Err(format!(
            "--compact-hash-check-time must be >0 (set to {})",
            flags.compact_hash_check_time
        ));
    }
    Ok(())
}

fn tls(flags: &Flags) -> Result<(TlsVersion, TlsVersion), String> {
    let least = TlsVersion::parse(&flags.tls_min_version)?.unwrap_or(TlsVersion::Tls12);
    let most = TlsVersion::parse(&flags.tls_max_version)?.unwrap_or(TlsVersion::Tls13);
    if least > most {
        return Err(format!(
            "min version ({}) is greater than max version ({})",
            flags.tls_min_version, flags.tls_max_version
        ));
    }
    if least == TlsVersion::Tls13 && !flags.cipher_suites.0.is_empty() {
        return Err("cipher suites cannot be configured when only TLS1.3 is enabled".to_owned());
    }
    Ok((least, most))
}

/// What etcd finds when it opens its listeners.
fn certificates(flags: &Flags, notes: &mut Vec<Note>) -> Result<(), String> {
    crate::tls::suites(&flags.cipher_suites.0)?;
    if let Some(url) =
        flags.listen_client_http_urls.0.iter().find(|url| flags.listen_client_urls.0.contains(url))
    {
        return Err(format!(
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"
        ));
    }
    let incomplete = |certificate: &str, key: &str| {
        format!("KeyFile and CertFile must both be present[key: {key}, cert: {certificate}]")
    };
    for url in flags.listen_peer_urls.0.iter().filter(|url| url.is_tls()) {
        match (flags.peer_cert_file.as_str(), flags.peer_key_file.as_str()) {
            ("", "") if flags.peer_auto_tls => {}
            ("", "") => {
                return Err(format!(
                    "cannot listen on TLS for {}: KeyFile and CertFile are not presented",
                    url.address()
                ));
            }
            (certificate, key) if certificate.is_empty() || key.is_empty() => {
                return Err(incomplete(certificate, key));
            }
            _ => {}
        }
        if !flags.peer_cert_allowed_cn.0.is_empty() && !flags.peer_cert_allowed_hostname.0.is_empty() {
            return Err("allowedCNs and allowedHostnames are mutually exclusive".to_owned());
        }
    }
    let (certificate, key) = (flags.cert_file.as_str(), flags.key_file.as_str());
    let has_any = !certificate.is_empty() || !key.is_empty();
    if flags.auto_tls {
        if has_any {
            notes.push(Note::warning("ignoring client auto TLS since certs given", ""));
        } else if flags.self_signed_cert_validity == 0 {
            return Err("selfSignedCertValidity is invalid,it should be greater than 0".to_owned());
        }
    }
    if flags.listen_metrics_urls.0.iter().any(Url::is_tls) && !has_any && !flags.auto_tls {
        return Err("client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
            .to_owned());
    }
    let urls = [&flags.listen_client_urls, &flags.listen_client_http_urls, &flags.listen_metrics_urls];
    for url in urls.iter().flat_map(|urls| &urls.0).filter(|url| url.is_tls()) {
        if !has_any && !flags.auto_tls {
            return Err(format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
            ));
        }
        if has_any && (certificate.is_empty() || key.is_empty()) {
            return Err(incomplete(certificate, key));
        }
    }
    for url in flags.listen_client_urls.0.iter().filter(|url| !url.is_tls()) {
        if has_any {
            notes.push(Note::warning(
                "scheme is http or unix while key and cert files are present; ignoring key and cert files",
                url.to_string(),
            ));
        }
        if flags.client_cert_auth {
            notes.push(Note::warning(
                "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for this URL",
                url.to_string(),
            ));
        }
    }
    Ok(())
}

/// What this release cannot do yet is refused rather than taken and not done.
fn unavailable(flags: &Flags) -> Result<(), String> {
    let token = flags.auth_token.split(',').next().unwrap_or_default();
    if !matches!(token, "simple" | "jwt") {
        return Err("auth: invalid auth options".to_owned());
    }
    let refused = [
        (flags.enable_distributed_tracing, "--enable-distributed-tracing", "there is no exporter yet"),
        (flags.enable_pprof, "--enable-pprof", "profiles are those of the Go runtime; use perf"),
        (token != "simple", "--auth-token=jwt", "authentication is not there yet"),
    ];
    match refused.iter().find(|(asked, ..)| *asked) {
        Some((_, flag, reason)) => Err(format!("{flag} is not supported by this release: {reason}")),
        None => Ok(()),
    }
}

/// A member that listens on 0.0.0.0 and advertises the default would advertise `localhost`.
fn adopt_default_host(
    flags: &mut Flags,
    notes: &mut Vec<Note>,
    default_host: impl FnOnce() -> Option<String>,
) {
    let wildcard = |urls: &Urls| urls.0.first().is_some_and(|url| url.host() == "0.0.0.0");
    let is_default = |urls: &Urls, flag: &str| {
        find(flag).is_some_and(|flag| Urls::parse(flag.default).is_ok_and(|default| *urls == default))
    };
    let peer = wildcard(&flags.listen_peer_urls)
        && is_default(&flags.initial_advertise_peer_urls, "initial-advertise-peer-urls");
    let client = wildcard(&flags.listen_client_urls)
        && is_default(&flags.advertise_client_urls, "advertise-client-urls");
    if !peer && !client {
        return;
    }
    let Some(host) = default_host() else {
        notes.push(Note::info("failed to detect default host", ""));
        return;
    };
    let advertise = |listening: &Urls, advertised: &Urls| {
        let port = listening.0[0].port();
        Urls(vec![Url::parse(&format!("http://{host}:{port}")).unwrap_or_else(|_| advertised.0[0].clone())])
    };
    if peer {
        flags.initial_advertise_peer_urls =
            advertise(&flags.listen_peer_urls, &flags.initial_advertise_peer_urls);
    }
    if client {
        flags.advertise_client_urls = advertise(&flags.listen_client_urls, &flags.advertise_client_urls);
    }
    notes.push(Note::info("detected default host for advertise", host));
}

fn remarks(flags: &mut Flags, set: &std::collections::BTreeSet<String>, notes: &mut Vec<Note>) {
    if flags.name == "default" {
        notes.push(Note::warning(
            "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into issue when multiple members have the same default name",
            "default",
        ));
    }
    if flags.max_request_bytes > RECOMMENDED_REQUEST_BYTES {
        notes.push(Note::warning("exceeded recommended request limit", flags.max_request_bytes.to_string()));
    }
    if flags.quota_backend_bytes > LARGE_QUOTA_BYTES {
        notes.push(Note::warning("quota exceeds the maximum value", flags.quota_backend_bytes.to_string()));
    }
    if !(4..=31).contains(&flags.bcrypt_cost) {
        notes.push(Note::warning(
            "use default bcrypt cost instead of the invalid given cost",
            flags.bcrypt_cost.to_string(),
        ));
        flags.bcrypt_cost = 10;
    }
    let least = GoDuration::read("5s").expect("a duration");
    for (flag, timeout) in
        [("raft-read", &mut flags.raft_read_timeout), ("raft-write", &mut flags.raft_write_timeout)]
    {
        if *timeout < least {
            *timeout = least;
            notes.push(Note::info(&format!("{flag}-timeout increased to minimum value: {least}"), ""));
        }
    }
    const WITHOUT_EFFECT: &[&str] =
        &["max-wals", "backend-bbolt-freelist-type", "backend-batch-interval", "backend-batch-limit"];
    for flag in WITHOUT_EFFECT.iter().filter(|flag| set.contains(**flag)) {
        notes.push(Note::warning("this flag has no effect on this storage engine", format!("--{flag}")));
    }
    const IN_ETCDS_WORDS: &[(&str, &str)] = &[
        ("bootstrap-defrag-threshold-megabytes", "Skipping defragmentation: this storage engine needs none"),
        ("max-snapshots", "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
        (
            "v2-deprecation",
            "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, \
             ignoring user input.",
        ),
    ];
    for (_, text) in IN_ETCDS_WORDS.iter().filter(|(flag, _)| set.contains(*flag)) {
        notes.push(Note::warning(text, ""));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn load(line: &str) -> Result<Config, Stop> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let given = super::super::parse::read(&args, &BTreeMap::new())?;
        validate(given, || Some("10.1.2.3".to_owned()))
    }

    #[test]
    fn accepts() {
        let config = load("").unwrap();
        assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
        assert_eq!(config.quota_bytes, Some(2 << 30));
        assert_eq!(config.initial_cluster[0].0, "default");

        let config =
            load("--name=m1 --data-dir=/d --quota-backend-bytes=-1 --auto-compaction-retention=1").unwrap();
        assert_eq!(config.wal_dir, PathBuf::from("/d/member/wal"));
        assert_eq!(config.initial_cluster[0].0, "m1");
        assert_eq!(config.quota_bytes, None);
        assert_eq!(config.auto_compaction, Some(AutoCompaction::Periodic(Duration::from_secs(3600))));

        let config = load("--auto-compaction-mode=revision --auto-compaction-retention=1000").unwrap();
        assert_eq!(config.auto_compaction, Some(AutoCompaction::Revision(1000)));
        let config = load("--auto-compaction-retention=5m --watch-progress-notify-interval=1ms").unwrap();
        assert_eq!(config.auto_compaction, Some(AutoCompaction::Periodic(Duration::from_secs(300))));
        assert_eq!(config.watch_progress_interval, WATCH_PROGRESS_INTERVAL_MIN);
    }

    /// The static pod of kubeadm: everything in it is taken.
    #[test]
    fn accepts_what_kubeadm_passes() {
        let config = load(
            "--name=node1 --feature-gates=InitialCorruptCheck=true \
             --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379 --advertise-client-urls=https://10.0.0.1:2379 \
             --listen-peer-urls=https://10.0.0.1:2380 --initial-advertise-peer-urls=https://10.0.0.1:2380 \
             --data-dir=/var/lib/etcd --cert-file=/p/server.crt --key-file=/p/server.key --trusted-ca-file=/p/ca.crt \
             --client-cert-auth=true --peer-cert-file=/p/peer.crt --peer-key-file=/p/peer.key \
             --peer-trusted-ca-file=/p/ca.crt --peer-client-cert-auth=true --snapshot-count=10000 \
             --listen-metrics-urls=http://127.0.0.1:2381 --watch-progress-notify-interval=5s \
             --initial-cluster=node1=https://10.0.0.1:2380",
        )
        .unwrap();
        assert!(config.feature(Gate::InitialCorruptCheck));
        assert_eq!(config.watch_progress_interval, Duration::from_secs(5));
        assert_eq!(config.initial_cluster.len(), 1);
    }

    #[test]
    fn advertises_the_default_route_when_listening_everywhere() {
        let config = load("--listen-peer-urls=http://0.0.0.0:2380").unwrap();
        assert_eq!(config.peer_urls(), ["http://10.1.2.3:2380"]);
        assert_eq!(config.initial_cluster[0].1[0].to_string(), "http://10.1.2.3:2380");
    }

    #[test]
    fn refuses_with_etcds_texts() {
        for (line, text) in [
            (
                "--listen-client-urls=http://example.com:1 --advertise-client-urls=http://a:1",
                "expected IP in URL for binding (http://example.com:1)",
            ),
            (
                "--listen-client-urls=http://127.0.0.1:1",
                "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            ),
            (
                "--advertise-client-urls=http://:1",
                "--advertise-client-urls \"http://:1\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host (http://:1))",
            ),
            ("--heartbeat-interval=0", "--heartbeat-interval must be >0 (set to 0ms)"),
            ("--election-timeout=0", "--election-timeout must be >0 (set to 0ms)"),
            (
                "--heartbeat-interval=300",
                "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
            ),
            (
                "--election-timeout=60000",
                "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
            ),
            ("--auto-compaction-mode=x", "unknown auto-compaction-mode \"x\""),
            ("--auto-compaction-mode=", "undefined auto-compaction-mode"),
            (
                "--auto-compaction-retention=x",
                "error parsing CompactionRetention: time: invalid duration \"x\"",
            ),
            ("--compact-hash-check-time=0s", "--compact-hash-check-time must be >0 (set to 0s)"),
            (
                "--feature-gates=LeaseCheckpointPersist=true",
                "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
            ),
            (
                "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2",
                "min version (TLS1.3) is greater than max version (TLS1.2)",
            ),
            (
                "--tls-min-version=TLS1.1",
                "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)",
            ),
            ("--cipher-suites=X", "unexpected TLS cipher suite \"X\""),
            (
                "--tls-min-version=TLS1.3 --cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "cipher suites cannot be configured when only TLS1.3 is enabled",
            ),
            (
                "--discovery-srv=a --initial-cluster=a=http://b:1",
                "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
            ),
            (
                "--discovery-endpoints=a:1 --discovery-token=b --initial-cluster=a=http://b:1",
                "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
            ),
            (
                "--discovery-endpoints=a:1 --discovery-token=b --discovery-srv=c",
                "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
            ),
            ("--discovery-endpoints=a:1", "both --discovery-token and --discovery-endpoints must be set"),
            (
                "--discovery-endpoints=a:1,,b:1 --discovery-token=a",
                "--discovery-endpoints must not contain empty endpoints",
            ),
            (
                "--discovery-endpoints=a:1 --discovery-token=a --discovery-user=b",
                "--discovery-user is set, but --discovery-password is not",
            ),
            ("--discovery-token=a", "both --discovery-token and --discovery-endpoints must be set"),
            (
                "--discovery-fallback=proxy",
                "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
            ),
            (
                "--listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://127.0.0.1:1",
                "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS scheme",
            ),
            (
                "--cert-file=a --listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://127.0.0.1:1",
                "KeyFile and CertFile must both be present[key: , cert: a]",
            ),
            (
                "--listen-peer-urls=https://127.0.0.1:1",
                "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented",
            ),
            (
                "--initial-cluster=a",
                "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
            ),
            (
                "--listen-client-http-urls=http://localhost:2379",
                "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://localhost:2379",
            ),
            ("--logger=capnslog", "--logger=capnslog is removed in v3.5"),
            ("--log-outputs=default,stdout", "multi logoutput for \"default\" is not supported yet"),
            (
                "--enable-distributed-tracing",
                "--enable-distributed-tracing is not supported by this release: there is no exporter yet",
            ),
            (
                "--auth-token=jwt,pub-key=a",
                "--auth-token=jwt is not supported by this release: authentication is not there yet",
            ),
        ] {
            match load(line) {
                Err(Stop::Refused(refusal) | Stop::Fatal { value: refusal, .. }) => {
                    assert_eq!(refusal, text, "{line}");
                }
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
