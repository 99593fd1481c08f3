//! The command line of `etcdutl`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use manners::failure::Failure;
use manners::{API_VERSION, Tool, VERSION, args, completion, go, help, output};

use crate::{Settings, defrag, hashkv, migrate, restore, snapshot, verify};

/// What [`manners`] has to know.
pub const TOOL: Tool = Tool { name: "etcdutl", command, groups: &[], options_hint: None };

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "etcdutl", about = "Works on the files of a cluster, without the cluster.")]
#[command(disable_help_flag = true, disable_help_subcommand = true)]
#[command(infer_subcommands = true, args_override_self = true)]
struct Cli {
    #[arg(short = 'w', long, global = true, value_name = "string")]
    #[arg(help = "form of the output: fields, json, protobuf, simple or table (default \"simple\")")]
    write_out: Option<String>,
    #[arg(long, global = true, value_name = "duration", value_parser = go::parse_duration)]
    #[arg(help = "how long to wait for a file that another process has, 0 for ever (default 10s)")]
    timeout: Option<Duration>,
    #[arg(short = 'h', long, global = true, value_name = "bool", value_parser = go::parse_bool, hide = true)]
    help: Option<bool>,
    #[command(subcommand)]
    verb: Option<Verb>,
    #[arg(hide = true)]
    words: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Writes a completion script for a shell
    Completion(Completion),
    /// Gives the free space of a data directory back
    Defrag(defrag::Defrag),
    /// Shows the hash of the history in a snapshot file
    Hashkv(hashkv::Hashkv),
    /// Shows the help of a command
    Help(Words),
    /// Changes the storage version of a data directory
    Migrate(migrate::Migrate),
    /// Shows, checks and restores snapshot files
    Snapshot(Group),
    /// Shows the version
    Version(Words),
}

/// The commands under `snapshot`. `save` is not among them, nor is it in etcd's: `etcdctl` has it.
#[derive(Debug, clap::Args)]
struct Group {
    #[command(subcommand)]
    verb: Option<SnapshotVerb>,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum SnapshotVerb {
    /// Makes a member's data directory from a snapshot file
    Restore(restore::Restore),
    /// Shows what is in a snapshot file
    Status(snapshot::Status),
    /// Checks everything in a snapshot file
    Verify(verify::Verify),
}

/// The argument of `completion`.
#[derive(Debug, clap::Args)]
#[command(long_about = "Writes a completion script for a shell to stdout.

  bash         source <(etcdutl completion bash)
  zsh          etcdutl completion zsh > \"${fpath[1]}/_etcdutl\"
  fish         etcdutl completion fish | source
  powershell   etcdutl completion powershell | Out-String | Invoke-Expression")]
struct Completion {
    #[arg(value_name = "bash|zsh|fish|powershell")]
    words: Vec<OsString>,
}

/// Words that a command ignores, or takes for the path of another.
#[derive(Debug, clap::Args)]
struct Words {
    #[arg(hide = true)]
    words: Vec<OsString>,
}

/// The command tree, with cobra's manners.
fn command() -> Command {
    args::manners(Cli::command())
}

/// Reads the command line and runs the command.
///
/// # Errors
/// As the command; a line that cannot be read was explained on stderr.
pub fn run(args: Vec<OsString>) -> Result<(), Failure> {
    let (matches, _) = args::read(&TOOL, args)?;
    let path = args::path_of(&matches);
    let cli = Cli::from_arg_matches(&matches).map_err(Failure::general)?;
    if cli.help.unwrap_or(false) {
        return help::show(&TOOL, &path);
    }
    if let Some(word) = cli.words.first() {
        return Err(args::unknown_command(&TOOL, word));
    }
    let Some(verb) = cli.verb else { return help::show(&TOOL, &path) };
    let defaults = Settings::default();
    let settings = Settings {
        write_out: cli.write_out.unwrap_or(defaults.write_out),
        lock_timeout: match cli.timeout {
            None => defaults.lock_timeout,
            Some(timeout) => (!timeout.is_zero()).then_some(timeout),
        },
    };
    match verb {
        Verb::Completion(verb) => completion::run(&TOOL, &verb.words),
        Verb::Defrag(verb) => verb.run(&settings),
        Verb::Hashkv(verb) => verb.run(&settings),
        Verb::Help(words) => {
            let path: Vec<_> = words.words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            help::topic(&TOOL, &path)
        }
        Verb::Migrate(verb) => verb.run(&settings),
        Verb::Snapshot(Group { verb: None, .. }) => help::show(&TOOL, &path),
        Verb::Snapshot(Group { verb: Some(verb), .. }) => match verb {
            SnapshotVerb::Restore(verb) => verb.run(),
            SnapshotVerb::Status(verb) => verb.run(&settings),
            SnapshotVerb::Verify(verb) => verb.run(&settings),
        },
        Verb::Version(_) => output::say(format!("etcdutl version: {VERSION}\nAPI version: {API_VERSION}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        command().debug_assert();
    }
}
