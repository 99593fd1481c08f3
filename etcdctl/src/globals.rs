//! The flags every command takes, and the environment that can stand in for them.
//!
//! A flag and its variable together are refused, so that neither silently loses;
//! an `ETCDCTL_` variable that means nothing here (`ETCDCTL_API`) only warns.

use std::collections::HashMap;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::discovery;
use crate::failure::{Failure, exit};
use crate::go;
use crate::log;
use crate::output::{Format, Printer};

/// Flags of every command, as given: `None` is a flag that was not.
#[derive(Args, Clone, Debug, Default)]
pub struct Globals {
    #[arg(long, global = true, value_name = "strings", value_delimiter = ',')]
    #[arg(help = "where the members listen for clients, separated by commas (default [127.0.0.1:2379])")]
    pub endpoints: Option<Vec<String>>,
    #[arg(short = 'w', long, global = true, value_name = "string")]
    #[arg(help = "form of the output: fields, json, protobuf, simple or table (default \"simple\")")]
    pub write_out: Option<String>,
    #[arg(long, global = true, value_name = "bool", value_parser = go::parse_bool)]
    #[arg(help = "show byte strings and ids in hexadecimal")]
    pub hex: Option<bool>,
    #[arg(long, global = true, value_name = "bool", value_parser = go::parse_bool)]
    #[arg(help = "print the settings in force to stderr")]
    pub debug: Option<bool>,
    #[arg(long, global = true, value_name = "duration", value_parser = go::parse_duration)]
    #[arg(help = "time limit for authentication when connecting (default 2s)")]
    pub dial_timeout: Option<Duration>,
    #[arg(long, global = true, value_name = "duration", value_parser = go::parse_duration)]
    #[arg(help = "time limit for a short command, connecting included (default 5s)")]
    pub command_timeout: Option<Duration>,
    #[arg(long, global = true, value_name = "duration", value_parser = go::parse_duration)]
    #[arg(
        help = "pause between keepalive pings on a connection (default 2s, never less than 10s in effect)"
    )]
    pub keepalive_time: Option<Duration>,
    #[arg(long, global = true, value_name = "duration", value_parser = go::parse_duration)]
    #[arg(help = "how long a keepalive ping may stay unanswered (default 6s)")]
    pub keepalive_timeout: Option<Duration>,
    #[arg(long, global = true, value_name = "int", value_parser = go::parse_int)]
    #[arg(help = "largest request sent, in bytes (0 means 2 MiB)")]
    pub max_request_bytes: Option<i64>,
    #[arg(long, global = true, value_name = "int", value_parser = go::parse_int)]
    #[arg(help = "largest response accepted, in bytes (0 means 2 GiB - 1)")]
    pub max_recv_bytes: Option<i64>,
    #[arg(long, global = true, value_name = "bool", value_parser = go::parse_bool)]
    #[arg(help = "speak plain text to endpoints without a scheme (default true)")]
    pub insecure_transport: Option<bool>,
    #[arg(long, global = true, value_name = "bool", value_parser = go::parse_bool)]
    #[arg(help = "take endpoints from insecure SRV records too (default true)")]
    pub insecure_discovery: Option<bool>,
    #[arg(long, global = true, value_name = "bool", value_parser = go::parse_bool)]
    #[arg(help = "accept any server certificate (for tests only: it gives up what TLS protects)")]
    pub insecure_skip_tls_verify: Option<bool>,
    #[arg(long, global = true, value_name = "string", value_parser = path(), help = "client certificate file")]
    pub cert: Option<PathBuf>,
    #[arg(long, global = true, value_name = "string", value_parser = path(), help = "key file of the client certificate")]
    pub key: Option<PathBuf>,
    #[arg(long, global = true, value_name = "string", value_parser = path(), help = "file of CA certificates to trust for servers")]
    pub cacert: Option<PathBuf>,
    #[arg(long, global = true, value_name = "string")]
    #[arg(help = "JWT to authenticate with, instead of --user and --password")]
    pub auth_jwt_token: Option<String>,
    #[arg(long, global = true, value_name = "string")]
    #[arg(help = "user to authenticate as, name[:password]; asks for a password that is missing")]
    pub user: Option<String>,
    #[arg(long, global = true, value_name = "string", help = "password of the user named by --user")]
    pub password: Option<String>,
    #[arg(short = 'd', long, global = true, value_name = "string")]
    #[arg(help = "domain whose SRV records list the endpoints")]
    pub discovery_srv: Option<String>,
    #[arg(long, global = true, value_name = "string", help = "service name in those SRV records")]
    pub discovery_srv_name: Option<String>,
    #[arg(short = 'h', long, global = true, value_name = "bool", value_parser = go::parse_bool, hide = true)]
    #[arg(help = "help for the command")]
    pub help: Option<bool>,
}

/// A path that may be empty here: [`Globals::settle`] refuses it in etcd's words.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// What the flags and the environment come to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Endpoints as given, trimmed.
    pub endpoints: Vec<String>,
    /// How replies are printed.
    pub printer: Printer,
    /// Limit for authentication at connect time.
    pub dial_timeout: Duration,
    /// Limit for a short command.
    pub command_timeout: Duration,
    /// Whether that limit was given: a long command has none otherwise.
    pub command_timeout_given: bool,
    /// Pause between keepalive pings.
    pub keepalive_time: Duration,
    /// Limit for a ping's answer.
    pub keepalive_timeout: Duration,
    /// Largest request.
    pub request_bytes_max: usize,
    /// Largest response.
    pub response_bytes_max: usize,
    /// Plain text where the endpoint's scheme leaves it open.
    pub insecure_transport: bool,
    /// No verification of server certificates.
    pub skip_verify: bool,
    /// Client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Trusted authorities.
    pub cacert: Option<PathBuf>,
    /// The name in the servers' certificates, where it is not that of the endpoint.
    pub server_name: Option<String>,
    /// How to authenticate, if at all.
    pub auth: Auth,
}

/// How a client authenticates.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Not at all, or by certificate.
    None,
    /// By a token made elsewhere.
    Token(String),
    /// By name and password.
    Password { user: String, password: String },
}

impl Globals {
    /// Adds the environment to the flags and checks the whole.
    /// `known` are further variables that the command reads by itself.
    pub fn settle(mut self, known: &[&str]) -> Result<Settings, Failure> {
        self.add_environment(known)?;
        if self.debug.unwrap_or(false) {
            self.print(known);
        }
        let domain = self.discovery_srv.take().filter(|domain| !domain.is_empty());
        let insecure = self.insecure_discovery.unwrap_or(true);
        let service = self.discovery_srv_name.as_deref().unwrap_or("");
        let discovered = match &domain {
            Some(domain) => discovery::endpoints(domain, service, insecure)?,
            None => Vec::new(),
        };
        for (name, file) in [("cert", &self.cert), ("key", &self.key), ("cacert", &self.cacert)] {
            if file.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
                return Err(Failure::args(format!("empty string is passed to --{name} option")));
            }
        }
        let auth = match self.auth_jwt_token.as_deref().filter(|token| !token.is_empty()) {
            Some(token) => Auth::Token(token.to_owned()),
            None => {
                let (user, password) = (self.user.as_deref(), self.password.as_deref());
                credentials(user.unwrap_or(""), password.unwrap_or(""), "Password: ")?
            }
        };
        let format = Format::parse(self.write_out.as_deref().unwrap_or("simple"))?;
        let (sent, received) = (self.max_request_bytes.unwrap_or(0), self.max_recv_bytes.unwrap_or(0));
        if received > 0 && sent > received {
            let text = "gRPC message recv limit";
            return Err(Failure::new(
                exit::BAD_CONNECTION,
                format!("{text} ({received} bytes) must be greater than send limit ({sent} bytes)"),
            ));
        }
        let limit =
            |given: i64, default: usize| usize::try_from(given).ok().filter(|n| *n > 0).unwrap_or(default);
        let mut endpoints = discovered;
        if endpoints.is_empty() {
            endpoints = self.endpoints.unwrap_or_else(|| vec!["127.0.0.1:2379".into()]);
        }
        if endpoints == [""] {
            endpoints.clear();
        }
        Ok(Settings {
            endpoints: endpoints.iter().map(|endpoint| endpoint.trim().to_owned()).collect(),
            printer: Printer { format, hex: self.hex.unwrap_or(false), value_only: false },
            dial_timeout: self.dial_timeout.unwrap_or(Duration::from_secs(2)),
            command_timeout_given: self.command_timeout.is_some(),
            command_timeout: self.command_timeout.unwrap_or(Duration::from_secs(5)),
            keepalive_time: self.keepalive_time.unwrap_or(Duration::from_secs(2)),
            keepalive_timeout: self.keepalive_timeout.unwrap_or(Duration::from_secs(6)),
            request_bytes_max: limit(sent, 2 << 20),
            response_bytes_max: limit(received, i32::MAX as usize),
            insecure_transport: self.insecure_transport.unwrap_or(true),
            skip_verify: self.insecure_skip_tls_verify.unwrap_or(false),
            cert: self.cert,
            key: self.key,
            cacert: self.cacert,
            server_name: domain.filter(|_| !insecure),
            auth,
        })
    }

    /// The output format alone, as given: for commands that reach no cluster.
    /// `known` are further variables that the command reads by itself.
    pub fn write_out(mut self, known: &[&str]) -> Result<Option<String>, Failure> {
        self.add_environment(known)?;
        Ok(self.write_out)
    }

    /// How to print, for a command that reaches no cluster and prints what others do.
    pub fn printer(mut self) -> Result<Printer, Failure> {
        self.add_environment(&[])?;
        let format = Format::parse(self.write_out.as_deref().unwrap_or("simple"))?;
        Ok(Printer { format, hex: self.hex.unwrap_or(false), value_only: false })
    }

    fn add_environment(&mut self, known: &[&str]) -> Result<(), Failure> {
        let mut environment: HashMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| name.into_string().ok().map(|name| (name, value)))
            .filter(|(name, _)| name.starts_with("ETCDCTL_"))
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
            .collect();
        let mut conflict = None;
        for (flag, given, set) in self.slots() {
            let name = variable(flag);
            match (given, environment.get(&name)) {
                (true, Some(_)) => conflict = Some(name.clone()),
                // What does not parse leaves the default in force, as it does in etcd.
                (false, Some(value)) if !value.is_empty() => set.set(value),
                _ => continue,
            }
            environment.remove(&name);
        }
        let unknown = environment.iter().filter(|(name, _)| !known.contains(&name.as_str()));
        for (name, value) in unknown {
            log::warn("unrecognized environment variable", "environment-variable", format!("{name}={value}"));
        }
        if let Some(name) = conflict {
            let message = "conflicting environment variable is shadowed by corresponding command-line flag \
                           (either unset environment variable or disable flag))";
            log::fatal(message, "environment-variable", name);
            return Err(Failure::silent(exit::ERROR));
        }
        Ok(())
    }

    /// Every flag with its name, whether it was given, and a way to set it from text.
    fn slots(&mut self) -> Vec<(&'static str, bool, &mut dyn Slot)> {
        fn slot<'a, T>(name: &'static str, field: &'a mut Option<T>) -> (&'static str, bool, &'a mut dyn Slot)
        where
            Option<T>: Slot,
        {
            (name, field.is_some(), field)
        }
        vec![
            slot("auth-jwt-token", &mut self.auth_jwt_token),
            slot("cacert", &mut self.cacert),
            slot("cert", &mut self.cert),
            slot("command-timeout", &mut self.command_timeout),
            slot("debug", &mut self.debug),
            slot("dial-timeout", &mut self.dial_timeout),
            slot("discovery-srv", &mut self.discovery_srv),
            slot("discovery-srv-name", &mut self.discovery_srv_name),
            slot("endpoints", &mut self.endpoints),
            slot("hex", &mut self.hex),
            slot("insecure-discovery", &mut self.insecure_discovery),
            slot("insecure-skip-tls-verify", &mut self.insecure_skip_tls_verify),
            slot("insecure-transport", &mut self.insecure_transport),
            slot("keepalive-time", &mut self.keepalive_time),
            slot("keepalive-timeout", &mut self.keepalive_timeout),
            slot("key", &mut self.key),
            slot("max-recv-bytes", &mut self.max_recv_bytes),
            slot("max-request-bytes", &mut self.max_request_bytes),
            slot("password", &mut self.password),
            slot("user", &mut self.user),
            slot("write-out", &mut self.write_out),
        ]
    }

    /// Shows what is in force to stderr, and the names of what the command reads by itself.
    fn print(&mut self, known: &[&str]) {
        let defaults: HashMap<&str, &str> = [
            ("command-timeout", "5s"),
            ("debug", "false"),
            ("dial-timeout", "2s"),
            ("endpoints", "[127.0.0.1:2379]"),
            ("hex", "false"),
            ("insecure-discovery", "true"),
            ("insecure-skip-tls-verify", "false"),
            ("insecure-transport", "true"),
            ("keepalive-time", "2s"),
            ("keepalive-timeout", "6s"),
            ("max-recv-bytes", "0"),
            ("max-request-bytes", "0"),
            ("write-out", "simple"),
        ]
        .into();
        let mut lines: Vec<String> = known.iter().map(|name| format!("{name}=")).collect();
        for (flag, given, slot) in self.slots() {
            let value =
                if given { slot.show() } else { defaults.get(flag).copied().unwrap_or("").to_owned() };
            lines.push(format!("{}={value}", variable(flag)));
        }
        lines.sort();
        eprintln!("{}", lines.join("\n"));
    }
}

/// How a user authenticates that was given as `name[:password]`; asks for a password that is missing.
/// Without a name or a password in the end, not at all.
pub fn credentials(user: &str, password: &str, prompt: &str) -> Result<Auth, Failure> {
    if user.is_empty() {
        return Ok(Auth::None);
    }
    let (user, password) = match user.split_once(':') {
        _ if !password.is_empty() => (user, password.to_owned()),
        Some((user, password)) => (user, password.to_owned()),
        None => (user, ask_password(prompt).map_err(Failure::general)?),
    };
    if user.is_empty() || password.is_empty() {
        return Ok(Auth::None);
    }
    Ok(Auth::Password { user: user.to_owned(), password })
}

fn variable(flag: &str) -> String {
    format!("ETCDCTL_{}", flag.to_uppercase().replace('-', "_"))
}

/// A flag that the environment can set and `--debug` can show.
trait Slot {
    fn set(&mut self, text: &str);
    fn show(&self) -> String;
}

impl Slot for Option<String> {
    fn set(&mut self, text: &str) {
        *self = Some(text.to_owned());
    }
    fn show(&self) -> String {
        self.clone().unwrap_or_default()
    }
}

impl Slot for Option<PathBuf> {
    fn set(&mut self, text: &str) {
        *self = Some(text.into());
    }
    fn show(&self) -> String {
        self.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

impl Slot for Option<Vec<String>> {
    fn set(&mut self, text: &str) {
        *self = Some(text.split(',').map(str::to_owned).collect());
    }
    fn show(&self) -> String {
        format!("[{}]", self.clone().unwrap_or_default().join(","))
    }
}

impl Slot for Option<bool> {
    fn set(&mut self, text: &str) {
        *self = go::parse_bool(text).ok();
    }
    fn show(&self) -> String {
        self.unwrap_or_default().to_string()
    }
}

impl Slot for Option<i64> {
    fn set(&mut self, text: &str) {
        *self = go::parse_int(text).ok();
    }
    fn show(&self) -> String {
        self.unwrap_or_default().to_string()
    }
}

impl Slot for Option<Duration> {
    fn set(&mut self, text: &str) {
        *self = go::parse_duration(text).ok();
    }
    fn show(&self) -> String {
        go::duration(self.unwrap_or_default())
    }
}

/// Asks on the terminal without echo; takes a line from stdin where there is no terminal.
/// Prompt and line feed go to stdout, as in etcd; spaces around the password do not count.
pub fn ask_password(prompt: &str) -> std::io::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

    print!("{prompt}");
    std::io::stdout().flush()?;
    let input = std::io::stdin();
    let mut line = String::new();
    if input.is_terminal() {
        let before = tcgetattr(&input)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Flush, &silent)?;
        let read = input.lock().read_line(&mut line);
        tcsetattr(&input, OptionalActions::Flush, &before)?;
        read?;
    } else {
        input.lock().read_line(&mut line)?;
    }
    println!();
    Ok(line.trim().to_owned())
}
