//! What the member was asked to be: flags, environment or a file, checked once.
//!
//! [`load`] reads and checks; after it nobody asks again whether a value makes
//! sense. Refusals carry etcd's texts, since scripts and people know them.

mod derived;
pub mod flags;
pub mod gates;
pub mod help;
pub mod ids;
pub mod parse;
pub mod url;
mod validate;
pub mod value;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use self::flags::Flags;
use self::gates::Gate;
pub use self::parse::{Note, Stop};
use self::url::{Url, Urls};
pub use self::validate::{AutoCompaction, TlsVersion};

/// Size of the data at which the NOSPACE alarm goes up unless set otherwise.
pub const DEFAULT_QUOTA_BYTES: i64 = 2 * 1024 * 1024 * 1024;

/// A quota above this is allowed, with a warning.
const LARGE_QUOTA_BYTES: i64 = 8 * 1024 * 1024 * 1024;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The flags. Where a field below speaks of the same thing, it is the one to read.
    pub flags: Flags,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the write-ahead log is kept.
    pub wal_dir: PathBuf,
    /// Names and peer URLs of the members the cluster starts with.
    pub initial_cluster: Vec<(String, Vec<Url>)>,
    /// Name and password for the cluster that serves discovery.
    pub discovery_login: Option<(String, String)>,
    /// The address that connections to peers come from, where it is not for the system to choose.
    pub peer_local_address: Option<IpAddr>,
    /// What automatic compaction keeps; `None` when it is off.
    pub auto_compaction: Option<AutoCompaction>,
    /// Size of the data at which the NOSPACE alarm goes up; `None` for no limit.
    pub quota_bytes: Option<u64>,
    /// Oldest TLS version to speak.
    pub tls_min: TlsVersion,
    /// Newest TLS version to speak.
    pub tls_max: TlsVersion,
    /// Interval of progress notifications on watches that ask for them.
    pub watch_progress_interval: Duration,
    /// Most revisions deleted in one step of a compaction.
    pub compaction_batch_limit: usize,
    /// Pause between two such steps.
    pub compaction_pause: Duration,
    /// What to log about the configuration.
    pub notes: Vec<Note>,
}

impl Config {
    /// How long a proposal or a read index may take: 5 s and two elections.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * Duration::from_millis(self.flags.election_timeout)
    }

    /// Whether a feature is on.
    pub fn feature(&self, gate: Gate) -> bool {
        self.flags.feature_gates.enabled(gate)
    }

    /// The peer URLs this member advertises.
    pub fn peer_urls(&self) -> Vec<String> {
        self.flags.initial_advertise_peer_urls.texts()
    }

    /// The client URLs this member advertises.
    pub fn client_urls(&self) -> Vec<String> {
        self.flags.advertise_client_urls.texts()
    }
}

/// Reads and checks a configuration. `args` come without the program's name.
pub fn load(args: &[String], environment: &BTreeMap<String, String>) -> Result<Config, Stop> {
    let mut given = parse::read(args, environment)?;
    let path = std::mem::take(&mut given.flags.config_file);
    if !path.is_empty() {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Stop::Refused(format!("open {path}: {}", go_io_error(&error))))?;
        given = parse::read_file(&text).map_err(Stop::Refused)?;
        given.flags.config_file = path.clone();
        given.notes.push(Note::info(
            "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided",
            path,
        ));
    }
    validate::validate(given, default_host)
}

/// The text Go gives an I/O error that a user is most likely to see.
fn go_io_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// The address this machine would use towards the outside, if it has a default route.
fn default_host() -> Option<String> {
    // Connecting a datagram socket sends nothing; it only asks the routing table.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then(|| address.to_string())
}

/// `name=url,name=url2,…` to names with their URLs, sorted by name.
pub fn parse_initial_cluster(text: &str) -> Result<Vec<(String, Vec<Url>)>, String> {
    let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (name, url) = item.split_once('=').unwrap_or((item, ""));
        members.entry(name.trim().to_owned()).or_default().push(Url::parse(url)?);
    }
    for urls in members.values_mut() {
        *urls = {
            let mut sorted = Urls(std::mem::take(urls)).0;
            sorted.sort();
            sorted
        };
    }
    Ok(members.into_iter().collect())
}
