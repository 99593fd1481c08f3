//! Help: the groups of commands, and what every help ends with.

use std::ffi::OsString;

use manners::{Tool, help};

use crate::cli;
use crate::failure::Failure;
use crate::output;

/// The commands of the first level, by group.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Key-value commands", &["compaction", "del", "get", "lease", "put", "txn", "watch"]),
    (
        "Cluster maintenance commands",
        &["alarm", "defrag", "downgrade", "endpoint", "member", "move-leader", "snapshot"],
    ),
    ("Concurrency commands", &["elect", "lock"]),
    ("Authentication commands", &["auth", "role", "user"]),
    ("Utility commands", &["check", "completion", "help", "make-mirror", "options", "top", "version"]),
];

const OPTIONS_HINT: &str =
    "Use \"etcdctl options\" for a list of global command-line options (applies to all commands).";

/// What [`manners`] has to know.
pub const TOOL: Tool =
    Tool { name: "etcdctl", command: cli::command, groups: &GROUPS, options_hint: Some(OPTIONS_HINT) };

/// `help [command]`.
#[derive(Debug, clap::Args)]
pub struct Help {
    #[arg(hide = true)]
    path: Vec<OsString>,
}

impl Help {
    /// Shows the help of the named command.
    pub fn run(self) -> Result<(), Failure> {
        let path: Vec<String> = self.path.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        help::topic(&TOOL, &path)
    }
}

/// Shows the help of a command by its path.
pub fn show(path: &[String]) -> Result<(), Failure> {
    help::show(&TOOL, path)
}

/// Shows the flags that every command takes.
pub fn options() -> Result<(), Failure> {
    let flags = help::options(&TOOL);
    output::say(format!("The following options can be passed to any command:\n\n{flags}"))
}
