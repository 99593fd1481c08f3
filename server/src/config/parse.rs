//! From the command line, the environment or a file to [`Flags`].
//!
//! Pure: everything it reads comes in, everything it would print goes out.

use std::collections::{BTreeMap, BTreeSet};

use serde_norway::Value as Yaml;

use super::flags::{ALIASES, Alias, FLAGS, Flag, Flags, IGNORED, find};
use super::value::parse_bool;

/// Something to log once logging is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether it is a warning.
    pub warning: bool,
    /// The message.
    pub message: String,
    /// What it is about.
    pub about: String,
}

impl Note {
    /// A line at level info.
    pub fn info(message: &str, about: impl Into<String>) -> Note {
        Note { warning: false, message: message.to_owned(), about: about.into() }
    }

    /// A line at level warn.
    pub fn warning(message: &str, about: impl Into<String>) -> Note {
        Note { warning: true, message: message.to_owned(), about: about.into() }
    }
}

/// Why the process does not start.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// The command line cannot be read: message and usage on stderr, status 2.
    Usage(String),
    /// `failed to verify flags`, status 1.
    Refused(String),
    /// One fatal line with one field, status 1.
    Fatal {
        /// The message.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// The field's value.
        value: String,
    },
}

impl Stop {
    /// What etcd finds wrong only after it has verified the flags.
    pub fn at_start(reason: impl Into<String>) -> Stop {
        Stop::Fatal { message: "discovery failed", field: "error", value: reason.into() }
    }
}

/// Flags as given, and which of them were.
#[derive(Debug, Default)]
pub struct Given {
    /// The values.
    pub flags: Flags,
    /// Names of the flags that were set.
    pub set: BTreeSet<String>,
    /// What to log about it.
    pub notes: Vec<Note>,
}

impl Given {
    /// Whether the flag was set, wherever.
    pub fn is_set(&self, name: &str) -> bool {
        self.set.contains(name)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match target(name) {
            Some(Target::Flag(flag)) => (flag.set)(&mut self.flags, value)?,
            Some(Target::Gate(gate, flag)) => {
                parse_bool(value).ok_or("parse error")?;
                (flag.set)(&mut self.flags, &format!("{gate}={value}"))?;
            }
            Some(Target::Ignored) => {
                self.notes.push(Note::warning("ignoring a flag that is no longer supported", name));
                return Ok(());
            }
            None => return Err("no such flag".to_owned()),
        }
        self.set.insert(name.to_owned());
        if let Some((_, Alias::Flag(meant))) = ALIASES.iter().find(|(alias, _)| *alias == name) {
            self.set.insert((*meant).to_owned());
        }
        Ok(())
    }
}

enum Target {
    Flag(&'static Flag),
    Gate(&'static str, &'static Flag),
    Ignored,
}

impl Target {
    fn boolean(&self) -> bool {
        match self {
            Target::Flag(flag) => flag.boolean,
            Target::Gate(..) | Target::Ignored => true,
        }
    }
}

fn target(name: &str) -> Option<Target> {
    if let Some(flag) = find(name) {
        return Some(Target::Flag(flag));
    }
    if let Some((_, alias)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
        return match alias {
            Alias::Flag(meant) => find(meant).map(Target::Flag),
            Alias::Gate(gate) => find("feature-gates").map(|flag| Target::Gate(gate, flag)),
        };
    }
    IGNORED.contains(&name).then_some(Target::Ignored)
}

/// Reads the command line (without the program's name) and then the environment.
pub fn read(args: &[String], environment: &BTreeMap<String, String>) -> Result<Given, Stop> {
    let mut given = command_line(args)?;
    if given.flags.version {
        return Err(Stop::Version);
    }
    if given.flags.config_file.is_empty()
        && let Some(path) = environment.get("ETCD_CONFIG_FILE")
    {
        given.flags.config_file = path.clone();
    }
    if given.flags.config_file.is_empty() {
        from_environment(&mut given, environment)?;
    }
    Ok(given)
}

fn command_line(args: &[String]) -> Result<Given, Stop> {
    let mut given = Given::default();
    let mut rest = args.iter();
    let mut positional = None;
    while let Some(arg) = rest.next() {
        if arg == "--" {
            positional = rest.next();
            break;
        }
        let body = match arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) {
            Some(body) if !body.is_empty() => body,
            _ => {
                positional = Some(arg);
                break;
            }
        };
        if body.starts_with(['-', '=']) {
            return Err(Stop::Usage(format!("bad flag syntax: {arg}")));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some(target) = target(name) else {
            if name == "help" || name == "h" {
                return Err(Stop::Help);
            }
            return Err(Stop::Usage(format!("flag provided but not defined: -{name}")));
        };
        let boolean = target.boolean();
        let value = match value {
            Some(value) => value,
            None if boolean => "true",
            None => rest
                .next()
                .map(String::as_str)
                .ok_or_else(|| Stop::Usage(format!("flag needs an argument: -{name}")))?,
        };
        given.set(name, value).map_err(|reason| {
            Stop::Usage(if boolean {
                format!("invalid boolean value {value:?} for -{name}: {reason}")
            } else {
                format!("invalid value {value:?} for flag -{name}: {reason}")
            })
        })?;
    }
    match positional {
        Some(extra) => Err(Stop::Refused(format!("{extra:?} is not a valid flag"))),
        None => Ok(given),
    }
}

fn from_environment(given: &mut Given, environment: &BTreeMap<String, String>) -> Result<(), Stop> {
    let aliases = ALIASES.iter().map(|(alias, _)| (*alias).to_owned());
    let names: Vec<String> = FLAGS.iter().map(Flag::name).chain(aliases).collect();
    let variables: BTreeMap<String, &String> = names
        .iter()
        .map(|name| (format!("ETCD_{}", name.to_ascii_uppercase().replace('-', "_")), name))
        .collect();
    let on_command_line = given.set.clone();
    for (variable, value) in environment {
        if !variable.starts_with("ETCD_") {
            continue;
        }
        if variable == "ETCD_VERSION" {
            given.notes.push(Note::warning("cannot set special environment variable", variable));
            continue;
        }
        let Some(name) = variables.get(variable) else {
            if variable != "ETCD_UNSUPPORTED_ARCH" {
                given
                    .notes
                    .push(Note::warning("unrecognized environment variable", format!("{variable}={value}")));
            }
            continue;
        };
        if on_command_line.contains(*name) {
            return Err(Stop::Fatal {
                message: "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag)",
                field: "environment-variable",
                value: variable.clone(),
            });
        }
        if value.is_empty() {
            continue;
        }
        given
            .set(name, value)
            .map_err(|reason| Stop::Refused(format!("invalid value {value:?} for {variable}: {reason}")))?;
        given
            .notes
            .push(Note::info("recognized and used environment variable", format!("{variable}={value}")));
    }
    Ok(())
}

/// Flags that a file spells inside a map of their own, with the path to them.
const NESTED: &[(&str, &str)] = &[
    ("client-transport-security/cert-file", "cert-file"),
    ("client-transport-security/key-file", "key-file"),
    ("client-transport-security/client-cert-file", "client-cert-file"),
    ("client-transport-security/client-key-file", "client-key-file"),
    ("client-transport-security/client-cert-auth", "client-cert-auth"),
    ("client-transport-security/trusted-ca-file", "trusted-ca-file"),
    ("client-transport-security/auto-tls", "auto-tls"),
    ("client-transport-security/allowed-hostname", "client-cert-allowed-hostname"),
    ("peer-transport-security/cert-file", "peer-cert-file"),
    ("peer-transport-security/key-file", "peer-key-file"),
    ("peer-transport-security/client-cert-file", "peer-client-cert-file"),
    ("peer-transport-security/client-key-file", "peer-client-key-file"),
    ("peer-transport-security/client-cert-auth", "peer-client-cert-auth"),
    ("peer-transport-security/trusted-ca-file", "peer-trusted-ca-file"),
    ("peer-transport-security/auto-tls", "peer-auto-tls"),
    ("peer-transport-security/allowed-cn", "peer-cert-allowed-cn"),
    ("peer-transport-security/allowed-hostname", "peer-cert-allowed-hostname"),
    ("peer-transport-security/skip-client-san-verification", "peer-skip-client-san-verification"),
    ("socket-options/reuse-port", "socket-reuse-port"),
    ("socket-options/reuse-address", "socket-reuse-address"),
    ("discovery-config/token", "discovery-token"),
    ("discovery-config/client/endpoints", "discovery-endpoints"),
    ("discovery-config/client/dial-timeout", "discovery-dial-timeout"),
    ("discovery-config/client/request-timeout", "discovery-request-timeout"),
    ("discovery-config/client/keepalive-time", "discovery-keepalive-time"),
    ("discovery-config/client/keepalive-timeout", "discovery-keepalive-timeout"),
    ("discovery-config/client/secure/cert", "discovery-cert"),
    ("discovery-config/client/secure/key", "discovery-key"),
    ("discovery-config/client/secure/cacert", "discovery-cacert"),
    ("discovery-config/client/secure/insecure-transport", "discovery-insecure-transport"),
    ("discovery-config/client/secure/insecure-skip-tls-verify", "discovery-insecure-skip-tls-verify"),
    ("discovery-config/client/auth/username", "discovery-user"),
    ("discovery-config/client/auth/password", "discovery-password"),
];

/// Flags a file cannot set.
const NOT_IN_FILE: &[&str] = &["version", "config-file", "client-crl-file", "peer-crl-file"];

/// Reads the text of a configuration file. Keys it does not know are skipped.
pub fn read_file(text: &str) -> Result<Given, String> {
    let root: Yaml =
        serde_norway::from_str(text).map_err(|error| format!("error unmarshaling YAML: {error}"))?;
    if !matches!(root, Yaml::Mapping(_) | Yaml::Null) {
        return Err("error unmarshaling YAML: the file is not a mapping".to_owned());
    }
    let mut given = Given::default();
    let take = |given: &mut Given, key: &str, name: &str, value: &Yaml| {
        let Some(target) = target(name) else { return Ok(()) };
        let taken = match target {
            Target::Flag(flag) => (flag.set_yaml)(&mut given.flags, value),
            Target::Gate(gate, flag) => match value.as_bool() {
                Some(on) => (flag.set)(&mut given.flags, &format!("{gate}={on}")),
                None => Err("cannot unmarshal into a bool".to_owned()),
            },
            Target::Ignored => return Ok(()),
        };
        given.set.insert(name.to_owned());
        taken.map_err(|reason| format!("error unmarshaling {key}: {reason}"))
    };
    for (section, fields) in [("client-transport-security", "object"), ("peer-transport-security", "object")]
    {
        if root.get(section).is_some_and(|value| !value.is_mapping() && !value.is_null()) {
            return Err(format!("invalid {section}: not an {fields}"));
        }
    }
    for (path, name) in NESTED {
        let value = path.split('/').try_fold(&root, |at, key| at.get(key));
        if let Some(value) = value {
            take(&mut given, path, name, value)?;
        }
    }
    let is_nested = |name: &str| NESTED.iter().any(|(_, flag)| *flag == name) || NOT_IN_FILE.contains(&name);
    for (key, value) in root.as_mapping().into_iter().flatten() {
        if let Some(key) = key.as_str()
            && !is_nested(key)
        {
            take(&mut given, key, key, value)?;
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn parse(line: &str) -> Result<Given, Stop> {
        read(&args(line), &BTreeMap::new())
    }

    #[test]
    fn go_syntax() {
        for line in ["--name=a", "--name a", "-name a", "-name=a", "--name=b --name a", "--name a --"] {
            assert_eq!(parse(line).unwrap().flags.name, "a", "{line}");
        }
        assert!(parse("--client-cert-auth").unwrap().flags.client_cert_auth);
        assert!(!parse("--client-cert-auth --client-cert-auth=false").unwrap().flags.client_cert_auth);
        assert!(!parse("--pre-vote=0").unwrap().flags.pre_vote);
        assert_eq!(parse("--name=").unwrap().flags.name, "");
        assert_eq!(parse("--initial-cluster=a=http://b:1").unwrap().flags.initial_cluster, "a=http://b:1");
        assert!(parse("--vv --force").is_ok());
    }

    #[test]
    fn refusals_of_the_command_line() {
        let usage = |text: &str| Stop::Usage(text.to_owned());
        for (line, stop) in [
            ("--nope", usage("flag provided but not defined: -nope")),
            ("-nope=1", usage("flag provided but not defined: -nope")),
            ("--name", usage("flag needs an argument: -name")),
            ("---name", usage("bad flag syntax: ---name")),
            ("--=x", usage("bad flag syntax: --=x")),
            (
                "--heartbeat-interval=abc",
                usage("invalid value \"abc\" for flag -heartbeat-interval: parse error"),
            ),
            (
                "--heartbeat-interval -1",
                usage("invalid value \"-1\" for flag -heartbeat-interval: parse error"),
            ),
            ("--pre-vote=maybe", usage("invalid boolean value \"maybe\" for -pre-vote: parse error")),
            (
                "--grpc-keepalive-min-time=5",
                usage("invalid value \"5\" for flag -grpc-keepalive-min-time: parse error"),
            ),
            (
                "--initial-cluster-state=old",
                usage("invalid value \"old\" for flag -initial-cluster-state: invalid value"),
            ),
            (
                "--listen-client-urls=ftp://a:1",
                usage(
                    "invalid value \"ftp://a:1\" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: ftp://a:1",
                ),
            ),
            (
                "--feature-gates=X=true",
                usage("invalid value \"X=true\" for flag -feature-gates: unrecognized feature gate: X"),
            ),
            (
                "--experimental-max-learners=2",
                usage("flag provided but not defined: -experimental-max-learners"),
            ),
            ("--discovery=x", usage("flag provided but not defined: -discovery")),
            ("extra", Stop::Refused("\"extra\" is not a valid flag".to_owned())),
            ("--client-cert-auth false", Stop::Refused("\"false\" is not a valid flag".to_owned())),
            ("--help", Stop::Help),
            ("-h", Stop::Help),
            ("--version", Stop::Version),
        ] {
            assert_eq!(parse(line).unwrap_err(), stop, "{line}");
        }
    }

    #[test]
    fn environment() {
        let with = |pairs: &[(&str, &str)], line: &str| {
            let environment = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            read(&args(line), &environment)
        };
        assert_eq!(with(&[("ETCD_NAME", "env")], "").unwrap().flags.name, "env");
        assert_eq!(with(&[("ETCD_NAME", "")], "").unwrap().flags.name, "default");
        assert!(with(&[("ETCD_CLIENT_CERT_AUTH", "true")], "").unwrap().flags.client_cert_auth);
        assert!(
            matches!(with(&[("ETCD_NAME", "env")], "--name=a"), Err(Stop::Fatal { value, .. }) if value == "ETCD_NAME")
        );
        assert_eq!(
            with(&[("ETCD_HEARTBEAT_INTERVAL", "x")], "").unwrap_err(),
            Stop::Refused("invalid value \"x\" for ETCD_HEARTBEAT_INTERVAL: parse error".to_owned())
        );
        // kubelet's and docker's service variables
        let given =
            with(&[("ETCD_PORT", "tcp://10.0.0.1:2379"), ("ETCD_SERVICE_HOST", "10.0.0.1")], "").unwrap();
        assert_eq!(given.notes.len(), 2);
        assert!(given.notes.iter().all(|note| note.warning));
    }

    /// kubeadm before 1.34 passes the names that etcd 3.6 had.
    #[test]
    fn old_experimental_names() {
        let given = parse(
            "--experimental-initial-corrupt-check=true --experimental-watch-progress-notify-interval=5s",
        )
        .unwrap();
        assert!(given.flags.feature_gates.enabled(super::super::gates::Gate::InitialCorruptCheck));
        assert_eq!(given.flags.watch_progress_notify_interval.to_string(), "5s");
    }

    #[test]
    fn file() {
        let given = read_file(
            "name: from-file\nlisten-client-urls: http://127.0.0.1:1,http://127.0.0.1:2\n\
             heartbeat-interval: 250\ngrpc-keepalive-min-time: 7000000000\nunknown: {a: 1}\n\
             cipher-suites: [A, B]\nlog-outputs: [stderr]\nfeature-gates: InitialCorruptCheck=true\n\
             client-transport-security:\n  cert-file: /c\n  client-cert-auth: true\n\
             peer-transport-security: {allowed-cn: [x, y]}\nsocket-options: {reuse-port: true}\ncert-file: /ignored\n",
        )
        .unwrap();
        let flags = &given.flags;
        assert_eq!(flags.name, "from-file");
        assert_eq!(flags.listen_client_urls.0.len(), 2);
        assert_eq!(flags.heartbeat_interval, 250);
        assert_eq!(flags.grpc_keepalive_min_time.to_string(), "7s");
        assert_eq!(flags.cipher_suites.0, ["A", "B"]);
        assert_eq!((flags.cert_file.as_str(), flags.client_cert_auth), ("/c", true));
        assert_eq!(flags.peer_cert_allowed_cn.0, ["x", "y"]);
        assert!(flags.socket_reuse_port);
        assert!(read_file("grpc-keepalive-min-time: 7s").is_err());
        assert!(read_file("{\"name\": \"json\"}").unwrap().flags.name == "json");
        assert!(read_file("- a").is_err());
    }
}
