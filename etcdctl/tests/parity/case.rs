//! One command, run by either tool, and what a script sees of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longest time a command may take; only a hang meets it.
const LIMIT: Duration = Duration::from_secs(30);

/// A command line and how to run and compare it.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// Words after the program; `{lease}` is the last lease granted, `{port}` the server's port.
    pub args: Vec<String>,
    /// Text for stdin.
    pub stdin: String,
    /// Environment besides the endpoints.
    pub env: Vec<(&'static str, String)>,
    /// Lines of stdout after which stdin is closed and, without `ends`, the command killed.
    pub lines: usize,
    /// The command ends by itself.
    pub ends: bool,
    /// What is sent to the command after `lines`; it then ends by itself.
    pub signal: Option<Signal>,
    /// Another command that runs beside this one, and is killed with it.
    pub beside: Vec<String>,
    /// Numbers, durations and widths are not compared.
    pub vague: bool,
    /// The parts of the output may come in any order: members come sorted by a random id.
    pub any_order: bool,
    /// Stdout has to be there but is not compared.
    pub own_words: bool,
}

/// A function of scripts: tries a command until it succeeds, and gives up in the end.
const AWAIT: &str =
    "await() { n=0; until eval \"$1\"; do n=$((n+1)); [ $n -lt 300 ] || exit 9; sleep 0.1; done; }";

/// A shell script that calls the tool as `$TOOL` and waits by `await COMMAND`, run by the tool under a lock
/// of this name.
pub fn script(lock: &str, text: &str) -> Case {
    let mut case = case(&format!("lock {lock} -- sh -c"));
    case.args.push(format!("{AWAIT}\n{text}"));
    case
}

/// Splits a command line at spaces; single quotes keep words together.
pub fn case(line: &str) -> Case {
    Case { args: words(line), ends: true, ..Case::default() }
}

fn words(line: &str) -> Vec<String> {
    let mut args = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, tail) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').expect("quotes are closed"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        args.push(word.to_owned());
        rest = tail.trim_start();
    }
    args
}

impl Case {
    /// With this text on stdin.
    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin = text.to_owned();
        self
    }

    /// With this variable.
    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    /// Killed after so many lines.
    pub fn until(mut self, lines: usize) -> Self {
        self.lines = lines;
        self.ends = false;
        self
    }

    /// Stdin closed after so many lines.
    pub fn close_after(mut self, lines: usize) -> Self {
        self.lines = lines;
        self
    }

    /// Ended by a signal after so many lines.
    pub fn signal(mut self, lines: usize, signal: Signal) -> Self {
        self.lines = lines;
        self.signal = Some(signal);
        self
    }

    /// With another command beside it.
    pub fn beside(mut self, line: &str) -> Self {
        self.beside = words(line);
        self
    }

    /// Numbers, durations and widths aside.
    pub fn vague(mut self) -> Self {
        self.vague = true;
        self
    }

    /// Order aside.
    pub fn any_order(mut self) -> Self {
        self.any_order = true;
        self
    }

    /// Each tool says it in its own words.
    pub fn own_words(mut self) -> Self {
        self.own_words = true;
        self
    }
}

/// What a script sees.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Stdout, with unstable parts replaced.
    pub stdout: String,
    /// The messages on stderr: log lines and usage are left out.
    pub messages: Vec<String>,
    /// Exit status; `None` when the test ended it.
    pub status: Option<i32>,
}

impl Outcome {
    /// The same with the Raft term of every header made one, in text and in bytes.
    pub fn without_term(&self) -> Self {
        let mut stdout = self.stdout.clone();
        for (name, end) in [("\"raft_term\":", '}'), ("\"RaftTerm\" : ", '\n')] {
            let mut parts = stdout.split(name).map(str::to_owned);
            let first = parts.next().unwrap_or_default();
            stdout = parts.fold(first, |text, part| {
                let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
                let rest = if rest.starts_with([end, ',']) { rest } else { &part };
                format!("{text}{name}1{rest}")
            });
        }
        Self {
            stdout: ('\u{2}'..='\u{9}')
                .fold(stdout, |text, term| text.replace(&format!(" {term}"), " \u{1}")),
            messages: self.messages.clone(),
            status: self.status,
        }
    }
}

/// Runs cases with one tool against one server.
pub struct Runner<'a> {
    /// The tool.
    pub program: &'a Path,
    /// The server's port.
    pub port: u16,
    /// The last lease granted, in hex.
    pub lease: String,
}

impl Runner<'_> {
    /// Runs one case.
    pub fn run(&mut self, case: &Case) -> Outcome {
        let port = self.port.to_string();
        let fill = |text: &str| text.replace("{lease}", &self.lease).replace("{port}", &port);
        let command = |args: &[String]| {
            let mut command = Command::new(self.program);
            command.args(args.iter().map(|arg| fill(arg))).env("TOOL", self.program);
            if !args.iter().any(|arg| arg.starts_with("--endpoints")) {
                command.env("ETCDCTL_ENDPOINTS", format!("127.0.0.1:{port}"));
            }
            command.envs(case.env.iter().map(|(name, value)| (name, fill(value))));
            command
        };
        let mut beside = (!case.beside.is_empty()).then(|| {
            let mut other = command(&case.beside);
            other.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            other.spawn().expect("the tool can be started")
        });
        let mut command = command(&case.args);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the tool can be started");
        let mut stdin = child.stdin.take();
        if let Some(pipe) = &mut stdin {
            // A command that reads no stdin may have ended by now.
            pipe.write_all(fill(&case.stdin).as_bytes()).ok();
        }
        if case.lines == 0 {
            drop(stdin.take());
        }
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (lines, received) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            loop {
                let mut line = Vec::new();
                let count = out.read_until(b'\n', &mut line).unwrap_or(0);
                if lines.send(line).is_err() || count == 0 {
                    return;
                }
            }
        });
        let messages = std::thread::spawn(move || {
            let mut text = Vec::new();
            BufReader::new(err).read_to_end(&mut text).ok();
            String::from_utf8_lossy(&text).into_owned()
        });
        let (mut stdout, mut count, mut killed) = (Vec::new(), 0, false);
        loop {
            match received.recv_timeout(LIMIT) {
                Ok(line) if line.is_empty() => break,
                Ok(line) => stdout.extend(line),
                Err(_) => {
                    child.kill().expect("the child is ours");
                    stdout.extend(b"<hangs>");
                    killed = true;
                    break;
                }
            }
            count += 1;
            if case.lines > 0 && count == case.lines {
                drop(stdin.take());
                if let Some(signal) = case.signal {
                    kill_process(Pid::from_child(&child), signal).expect("the child is ours");
                }
                if !case.ends {
                    child.kill().expect("the child is ours");
                    killed = true;
                    break;
                }
            }
        }
        let status = child.wait().expect("the child is ours");
        if let Some(other) = &mut beside {
            // It may have ended by now.
            other.kill().ok();
            other.wait().expect("the other is ours");
        }
        drop(received);
        reader.join().expect("the reader does not panic");
        let messages = messages.join().expect("the reader does not panic");
        let stdout = escape(&stdout);
        let granted = stdout.strip_prefix("lease ").and_then(|rest| rest.split_once(" granted with TTL("));
        if let Some((id, _)) = granted.filter(|_| case.args.iter().any(|arg| arg == "grant")) {
            self.lease = id.to_owned();
        }
        let told = [
            "Error:",
            "watch was canceled",
            "Warning:",
            "command [",
            "Invalid command",
            "Failed to",
            "Did you mean",
            "Unknown help topic",
            "ETCDCTL_",
            "\t",
            "127.0.0.1",
        ];
        let messages = messages.lines().filter(|line| told.iter().any(|start| line.starts_with(start)));
        Outcome {
            stdout: self.stable(&stdout, case),
            messages: messages.map(|line| self.stable(line, case)).collect(),
            status: (!killed).then_some(status.code()).flatten(),
        }
    }

    fn stable(&self, text: &str, case: &Case) -> String {
        let mut text = text.to_owned();
        if let Ok(id) = i64::from_str_radix(&self.lease, 16) {
            for form in [self.lease.clone(), id.to_string(), format!("{id:x}")] {
                text = text.replace(&form, "LEASE");
            }
        }
        if case.own_words {
            return if text.is_empty() { "nothing" } else { "something" }.to_owned();
        }
        let text = if case.vague { blur(&text) } else { text };
        if !case.any_order {
            return text;
        }
        let mut parts: Vec<&str> = text.split([' ', ',', '{', '}', '[', ']', '"', '\n']).collect();
        parts.sort_unstable();
        parts.join(" ")
    }
}

/// Keeps bytes that are not text apart from each other.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("<{byte:02x}>")));
    }
    text
}

/// Every number and every id, with a unit of time behind it, becomes one mark, a size one of bytes; so does
/// what fills space. Keys in JSON, which may hold an id, are left out.
fn blur(text: &str) -> String {
    let mut parts = text.split("\"key\":\"");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text += "\"key\":\"";
        text += part.trim_start_matches(|c: char| c != '"');
    }
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let figure = |c: char| c.is_ascii_digit() || matches!(c, 'a'..='f' | '.');
        let run = rest.find(|c| !figure(c)).unwrap_or(rest.len());
        if run == 0 {
            if !(matches!(c, ' ' | '─') && out.ends_with(c)) {
                out.push(c);
            }
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let word = &rest[..run];
        out.push_str(if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word });
        rest = &rest[run..];
    }
    for unit in ["#ms", "#µs", "#s", "#m#"] {
        out = out.replace(unit, "#");
    }
    for unit in ["# kB", "# MB", "# GB"] {
        out = out.replace(unit, "# B");
    }
    out
}
