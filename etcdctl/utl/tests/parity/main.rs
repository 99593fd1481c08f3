//! Our `etcdutl` beside etcd's own: the same commands on copies of the same files, the
//! same stdout, messages and exit status.
//!
//! | variable | meaning |
//! |---|---|
//! | `OFFICIAL_ETCDUTL_BIN` | etcd's own tool |
//! | `REAL_ETCD_BIN`, `OFFICIAL_ETCDCTL_BIN` | etcd's own server and its client: what the files are saved with |

mod files;
mod table;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use self::files::Files;
use self::table::{Case, cases};

const OURS: &str = env!("CARGO_BIN_EXE_etcdutl");

/// What a script sees.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    stdout: String,
    /// The texts after `Error: `; cobra says some of them twice.
    messages: BTreeSet<String>,
    /// The log lines that scripts look for, and the ids in them.
    lines: Vec<String>,
    status: Option<i32>,
    /// Whether the files are as they were.
    untouched: bool,
}

/// Runs a command in a folder of its own, with fresh copies of the files in it.
fn run(program: &Path, files: &Files, case: &Case) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary directory");
    files.copy_to(folder.path());
    // A file that is no image can make etcd's tool take all memory there is.
    let mut command = Command::new(if case.broken_file { "prlimit".as_ref() } else { program });
    if case.broken_file {
        command.arg("--as=4294967296").arg(program);
    }
    command.args(&case.args).current_dir(folder.path()).env_remove("ETCDCTL_API").stdin(Stdio::null());
    let output = command.output().expect("the tool can be started");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = |text: &str| if text.is_empty() { "nothing" } else { "something" }.to_owned();
    let mut stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if case.own_words {
        stdout = said(&stdout);
    }
    let messages = stderr.lines().filter_map(|line| line.strip_prefix("Error: "));
    let mut messages: BTreeSet<String> = messages.map(str::to_owned).collect();
    if case.own_messages {
        messages = messages.iter().map(|message| said(message)).collect();
    }
    let mut lines: Vec<String> = stderr.lines().filter_map(log_line).collect();
    lines.sort();
    let mut status = output.status.code();
    if case.broken_file {
        // Where etcd's tool panics there is no message, and another status.
        messages.clear();
        status = Some(i32::from(!output.status.success()));
    }
    Outcome { stdout, messages, lines, status, untouched: files.same_in(folder.path()) }
}

/// What is compared of a log line: that it is there, and which member of which cluster it is about.
fn log_line(line: &str) -> Option<String> {
    let message = ["restoring snapshot", "restored snapshot", "added member", "storage version up-to-date"]
        .into_iter()
        .find(|message| line.split('\t').any(|part| part == *message))?;
    let field = |name: &str| {
        let value = line.split_once(&format!("\"{name}\": "))?.1;
        Some(format!(" {name}={}", value.split([',', '}']).next().unwrap_or_default()))
    };
    let fields = ["cluster-id", "added-peer-id", "path", "wal-dir", "data-dir", "snap-dir"]
        .map(|name| field(name).unwrap_or_default());
    Some(format!("{message}{}", fields.concat()))
}

#[test]
fn both_tools_say_the_same() {
    let official =
        std::env::var_os("OFFICIAL_ETCDUTL_BIN").filter(|path| !path.is_empty()).map(PathBuf::from);
    let Some((official, files)) = official.zip(Files::of_etcd()) else {
        // Straight to stderr: what a test prints is hidden when it passes.
        let text = b"SKIPPED parity: OFFICIAL_ETCDUTL_BIN, REAL_ETCD_BIN or OFFICIAL_ETCDCTL_BIN is not set; nothing was compared\n";
        return std::io::stderr().write_all(text).expect("stderr can be written to");
    };
    let cases = cases();
    let mut different = 0;
    for case in &cases {
        let expected = run(&official, &files, case);
        let mut found = run(Path::new(OURS), &files, case);
        assert!(found.untouched, "etcdutl {} changed a file", case.args.join(" "));
        // Theirs changes some, which is not to be followed.
        found.untouched = expected.untouched;
        if expected != found {
            different += 1;
            println!("--- etcdutl {}\nexpected: {expected:#?}\nfound:    {found:#?}", case.args.join(" "));
        }
    }
    assert!(different == 0, "{different} of {} commands differ", cases.len());
    println!("{} commands agree", cases.len());
}
