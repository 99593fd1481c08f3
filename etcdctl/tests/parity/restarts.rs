//! What our tool holds and follows while a member goes and comes back.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::OURS;
use super::server::{Server, free_port, program, skipped};

/// Longest wait for something that has to come.
const LIMIT: Duration = Duration::from_secs(60);

/// A tool that runs until it is dropped.
struct Tool {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Tool {
    fn start(port: u16, args: &[&str]) -> Self {
        let mut command = Command::new(OURS);
        command.args(args).env("ETCDCTL_ENDPOINTS", format!("127.0.0.1:{port}"));
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the tool can be started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("the tool goes on").expect("lines are text")
    }

    fn end(&mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the child is ours");
        self.child.wait().expect("the child is ours").code()
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Already ended is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn run(port: u16, args: &[&str]) -> String {
    let mut command = Command::new(OURS);
    command.args(args).args(["--command-timeout", "30s"]);
    command.env("ETCDCTL_ENDPOINTS", format!("127.0.0.1:{port}"));
    let output = command.output().expect("the tool can be started");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("values are text")
}

fn wait_for(port: u16, key: &str, value: &str) {
    let start = Instant::now();
    while run(port, &["get", key, "--print-value-only"]).trim() != value {
        assert!(start.elapsed() < LIMIT, "{key} does not become {value}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A member of ours where there is one, of etcd otherwise.
fn start() -> Option<(Server, u16)> {
    let etcd = program("ETCD_BIN").or_else(|| program("REAL_ETCD_BIN"))?;
    let port = free_port();
    Some((Server::start(&etcd, port, "http", &[]), port))
}

#[test]
fn a_lock_is_held_and_waited_for_over_a_restart() {
    let Some((mut server, port)) = start() else { return skipped() };
    let mut holder = Tool::start(port, &["lock", "a", "--ttl", "20"]);
    let key = holder.line();
    let mut next = Tool::start(port, &["lock", "a", "--ttl", "20"]);
    while run(port, &["get", "a/", "--prefix", "--keys-only"]).split_whitespace().count() < 2 {
        std::thread::sleep(Duration::from_millis(50));
    }
    server.restart(port);
    // Without a renewal both leases would end by then.
    std::thread::sleep(Duration::from_secs(25));
    assert_eq!(run(port, &["get", "a/", "--prefix", "--keys-only"]).split_whitespace().count(), 2);
    assert_eq!(holder.end(), Some(0));
    let other = next.line();
    assert!(other.starts_with("a/") && other != key, "{other}");
    assert_eq!(next.end(), Some(0));
    assert_eq!(run(port, &["get", "a/", "--prefix", "--keys-only"]), "");
}

#[test]
fn a_mirror_goes_on_when_either_side_was_away() {
    let (Some((mut source, from)), Some((mut destination, to))) = (start(), start()) else {
        return skipped();
    };
    run(from, &["put", "a", "1"]);
    let _mirror = Tool::start(from, &["make-mirror", &format!("127.0.0.1:{to}"), "--dest-prefix", "of/"]);
    wait_for(to, "of/a", "1");
    source.restart(from);
    run(from, &["put", "a", "2"]);
    wait_for(to, "of/a", "2");
    destination.restart(to);
    for value in ["3", "4", "5"] {
        run(from, &["put", "a", value]);
    }
    wait_for(to, "of/a", "5");
    run(from, &["del", "a"]);
    wait_for(to, "of/a", "");
}
