//! One member: a server process, its directory and its ports.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::Client;
use crate::tls::KeyPair;
use crate::{Program, free_port};

/// The line every start ends with.
const READY: &str = "ready to serve client requests";
/// A debug build on a busy machine needs its time; a working one is there in a second.
const START_MAX: Duration = Duration::from_secs(60);

/// What a member is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server to run.
    pub program: Program,
    /// Flags beyond name, directory, URLs and cluster; a repeated one overrides.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// The server's certificate for the client port; plain HTTP without.
    pub tls: Option<KeyPair>,
    /// Where the data goes, in place of a directory that goes with the member.
    pub data_dir: Option<PathBuf>,
    /// The advertised peer URL, where it is not the one it listens on: identities come from peer URLs.
    pub peer_url: Option<String>,
    /// The member's name.
    pub name: String,
    /// `--initial-cluster`; the member alone without, and no such flag where it is empty.
    pub initial_cluster: Option<String>,
    /// `--initial-cluster-token`.
    pub token: String,
    /// The certificate for both ends of peer connections; plain HTTP without.
    pub peer_tls: Option<KeyPair>,
    /// The address it listens on and is found at.
    pub host: String,
    /// A command that ends by running the rest of its arguments, such as `nsenter --net=…`.
    pub wrapper: Vec<String>,
}

impl Options {
    /// A plain member of this program.
    pub fn new(program: Program) -> Options {
        Options {
            program,
            args: Vec::new(),
            env: Vec::new(),
            tls: None,
            data_dir: None,
            peer_url: None,
            name: "m".to_owned(),
            initial_cluster: None,
            token: "tests".to_owned(),
            peer_tls: None,
            host: "127.0.0.1".to_owned(),
            wrapper: Vec::new(),
        }
    }

    /// Adds one flag, such as `--quota-backend-bytes=16777216`.
    #[must_use]
    pub fn arg(mut self, flag: impl Into<String>) -> Options {
        self.args.push(flag.into());
        self
    }
}

/// A running, or stopped, member.
#[derive(Debug)]
pub struct Member {
    options: Options,
    dir: TempDir,
    client_port: u16,
    peer_port: u16,
    /// Until its end was seen: the kernel gives its number to another process then.
    child: Option<Child>,
    ended: ExitStatus,
    starts: u32,
    process: Arc<AtomicI32>,
}

impl Member {
    /// Starts a member with defaults and waits until it serves.
    pub async fn start(program: Program) -> Result<Member> {
        Member::start_with(Options::new(program)).await
    }

    /// Starts a member and waits until it serves.
    pub async fn start_with(options: Options) -> Result<Member> {
        let mut member = Member::prepare(options)?;
        member.start_again().await?;
        Ok(member)
    }

    /// A member with ports and a directory, not yet started.
    pub fn prepare(options: Options) -> Result<Member> {
        let dir = tempfile::Builder::new().prefix("quorate-").tempdir()?;
        Ok(Member {
            options,
            dir,
            client_port: free_port(),
            peer_port: free_port(),
            child: None,
            ended: ExitStatus::default(),
            starts: 0,
            process: Arc::default(),
        })
    }

    /// Starts the stopped member on its directory and waits until it serves.
    pub async fn start_again(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready().await
    }

    /// What restores a snapshot into this member's directory, as the only member of its cluster.
    pub fn restore(&self, etcdutl: &Path, snapshot: &Path) -> Command {
        let mut command = Command::new(etcdutl);
        command.args(["snapshot", "restore"]).arg(snapshot).arg("--data-dir").arg(self.data_dir());
        command.args(["--name", self.name(), "--initial-cluster-token", &self.options.token]);
        command.arg("--initial-cluster").arg(format!("{}={}", self.name(), self.peer_url()));
        command.arg("--initial-advertise-peer-urls").arg(self.peer_url());
        command
    }

    /// Starts the process and waits for nothing.
    pub fn spawn(&mut self) -> Result<()> {
        assert!(self.child.is_none(), "the member runs already");
        self.starts += 1;
        let log = File::create(self.log_path())?;
        // The kernel ends the server when the thread that started it is gone, however that came about.
        let mut words = self.options.wrapper.clone();
        words.extend(["setpriv", "--pdeathsig", "KILL"].map(str::to_owned));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(self.options.program.path()).args(self.flags());
        command.env_clear();
        command.envs(std::env::vars().filter(|(name, _)| !name.starts_with("ETCD")));
        command.envs(self.options.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{} (util-linux) starts servers", words[0]))?;
        self.process.store(Pid::from_child(&child).as_raw_nonzero().get(), Ordering::Relaxed);
        self.child = Some(child);
        Ok(())
    }

    /// Waits until the member says that it serves.
    pub async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            if self.log().contains(READY) {
                return Ok(());
            }
            if let Some(status) = self.exited()? {
                bail!("the member ended with {status} before it was ready:\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("the member was not ready in {START_MAX:?}:\n{}", self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the process at once, as a power cut does.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_exit(Duration::from_secs(20)).await?;
        Ok(())
    }

    /// Asks the process to end and waits until it has.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_exit(Duration::from_secs(20)).await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid().context("the member is not running")?, signal)?;
        Ok(())
    }

    /// Waits for the process to end by itself.
    pub async fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the member still ran after {limit:?}:\n{}", self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How the process ended, if it has.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(Some(self.ended)) };
        let Some(status) = child.try_wait()? else { return Ok(None) };
        (self.child, self.ended) = (None, status);
        Ok(Some(status))
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(Pid::from_child)
    }

    /// The process of the last start, for those who look while the member is started again.
    pub(crate) fn process(&self) -> Arc<AtomicI32> {
        Arc::clone(&self.process)
    }

    /// Where clients connect.
    pub fn client_url(&self) -> String {
        format!("{}://{}:{}", self.scheme(), self.options.host, self.client_port)
    }

    /// The port of [`Member::client_url`].
    pub fn client_port(&self) -> u16 {
        self.client_port
    }

    /// Where the member listens for its peers.
    pub fn peer_listen_url(&self) -> String {
        let scheme = if self.options.peer_tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.options.host, self.peer_port)
    }

    /// Where its peers find the member.
    pub fn peer_url(&self) -> String {
        self.options.peer_url.clone().unwrap_or_else(|| self.peer_listen_url())
    }

    /// The port of [`Member::peer_listen_url`].
    pub fn peer_port(&self) -> u16 {
        self.peer_port
    }

    /// The member's name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Whether a process of the member runs, or is paused.
    pub fn runs(&mut self) -> bool {
        matches!(self.exited(), Ok(None))
    }

    /// Stops the process where it is, until [`Member::resume`]; what is sent to it waits.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused process go on.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Whether the process is paused.
    pub fn is_paused(&self) -> bool {
        let Some(pid) = self.pid() else { return false };
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
    }

    /// Removes the data of the stopped member.
    pub fn wipe(&mut self) -> Result<()> {
        assert!(self.child.is_none(), "the member runs");
        match std::fs::remove_dir_all(self.data_dir()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The member's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.options.data_dir.clone().unwrap_or_else(|| self.dir.path().join("data"))
    }

    /// A directory that goes with the member.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it is started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What it is started with, to be changed before the next start.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// A client of its own connection.
    pub async fn connect(&self) -> Result<Client> {
        Client::connect(&self.client_url(), self.options.tls.as_ref()).await
    }

    /// What this start of the process has printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The end of [`Member::log`], for messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// The server process's memory that is in RAM, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let pid = self.pid().context("the member is not running")?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no value")?.parse()?;
        Ok(kib * 1024)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join(format!("log.{}", self.starts))
    }

    fn scheme(&self) -> &'static str {
        if self.options.tls.is_some() { "https" } else { "http" }
    }

    fn flags(&self) -> Vec<String> {
        let client = self.client_url();
        let (name, peer) = (&self.options.name, self.peer_url());
        let cluster = self.options.initial_cluster.clone().unwrap_or_else(|| format!("{name}={peer}"));
        let mut flags = vec![
            format!("--name={name}"),
            format!("--data-dir={}", self.data_dir().display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={}", self.peer_listen_url()),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster-token={}", self.options.token),
        ];
        if !cluster.is_empty() {
            flags.push(format!("--initial-cluster={cluster}"));
        }
        if let Some(tls) = &self.options.tls {
            flags.extend(tls.server_flags());
        }
        if let Some(tls) = &self.options.peer_tls {
            flags.extend(tls.peer_flags());
        }
        flags.extend(self.options.args.iter().cloned());
        flags
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Already gone is as good as killed.
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- last lines of {} ---\n{}", self.options.program.path().display(), self.log_tail());
        }
    }
}
