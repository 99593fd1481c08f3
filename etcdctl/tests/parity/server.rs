//! A real etcd for one run of the table.
//!
//! What it advertises is the same text in every run, so the ids that etcd derives
//! from it are the same too, and outputs can be compared byte for byte.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A member that dies with the test.
pub struct Server {
    child: Child,
    /// How it was started.
    command: Command,
    _data: tempfile::TempDir,
}

impl Server {
    /// Starts a fresh member that listens for clients on `port`.
    pub fn start(program: &Path, port: u16, scheme: &str, flags: &[String]) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let client = format!("{scheme}://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut command = Command::new(program);
        command
            .args(["--name", "one", "--log-level", "error"])
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", "http://127.0.0.1:1"])
            .args(["--initial-cluster", "one=http://127.0.0.1:1"])
            .args(flags);
        let server = Self::spawn(command, data);
        wait_for(port);
        server
    }

    fn spawn(mut command: Command, data: tempfile::TempDir) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the server program can be started");
        Self { child, command, _data: data }
    }

    /// Ends without warning and starts again on the same data.
    pub fn restart(&mut self, port: u16) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
        self.child = self.command.spawn().expect("the server program can be started");
        wait_for(port);
    }
}

/// Ports of the three members of a cluster, for clients and for peers: kept over runs, so that ids are the same.
pub struct Three([(u16, u16); 3]);

impl Three {
    /// Free ports.
    pub fn new() -> Self {
        // All are held until all are chosen, so that none is chosen twice.
        let held: Vec<TcpListener> =
            (0..6).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let port = |at: usize| held[at].local_addr().expect("bound").port();
        Self([0, 1, 2].map(|member| (port(member), port(member + 3))))
    }

    /// Where clients reach the members, separated by commas.
    pub fn endpoints(&self) -> String {
        self.0.map(|(port, _)| format!("http://127.0.0.1:{port}")).join(",")
    }

    /// The port for clients of the first member.
    pub fn port(&self) -> u16 {
        self.0[0].0
    }

    /// Starts a fresh cluster.
    pub fn start(&self, program: &Path) -> Vec<Server> {
        let peer = |at: usize| format!("http://127.0.0.1:{}", self.0[at].1);
        let cluster = [0, 1, 2].map(|at| format!("m{at}={}", peer(at))).join(",");
        let start = |at: usize| {
            let data = tempfile::tempdir().expect("a temporary directory");
            let client = format!("http://127.0.0.1:{}", self.0[at].0);
            let mut command = Command::new(program);
            command
                .args(["--name", &format!("m{at}"), "--log-level", "error"])
                .arg("--data-dir")
                .arg(data.path())
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer(at), "--initial-advertise-peer-urls", &peer(at)])
                .args(["--initial-cluster", &cluster]);
            Server::spawn(command, data)
        };
        vec![start(0), start(1), start(2)]
    }
}

fn wait_for(port: u16) {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "etcd does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already dead is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// A program named by a variable.
pub fn program(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Says that nothing was compared, straight to stderr: what a test prints is hidden when it passes.
pub fn skipped() {
    let text =
        b"SKIPPED parity: REAL_ETCD_BIN, OFFICIAL_ETCDCTL_BIN or ETCD_BIN is not set; nothing was compared\n";
    std::io::stderr().write_all(text).expect("stderr can be written to");
}
