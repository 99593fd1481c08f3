//! The command line: commands and their flags. [`manners::args`] reads it.

use std::ffi::OsString;

use clap::{Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use manners::args;

use crate::failure::Failure;
use crate::globals::Globals;
use crate::help::{self, TOOL};
use crate::verb;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "etcdctl", about = "Reads and changes an etcd cluster from the command line.")]
#[command(disable_help_flag = true, disable_help_subcommand = true)]
#[command(infer_subcommands = true, args_override_self = true)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Option<Verb>,
    #[arg(hide = true)]
    words: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    KeyValue(KeyValue),
    #[command(flatten)]
    Maintenance(Maintenance),
    #[command(flatten)]
    Concurrency(Concurrency),
    #[command(flatten)]
    Authentication(Authentication),
    #[command(flatten)]
    Utility(Utility),
}

#[derive(Debug, Subcommand)]
enum KeyValue {
    /// Reads a key or a range of keys
    Get(verb::get::Get),
    /// Puts a value under a key
    Put(verb::put::Put),
    /// Deletes a key or a range of keys
    Del(verb::del::Del),
    /// Runs several requests as one transaction
    Txn(verb::txn::Txn),
    /// Forgets revisions older than the given one
    Compaction(verb::compaction::Compaction),
    /// Follows the changes of keys
    Watch(verb::watch::Watch),
    /// Grants, revokes, renews and shows leases
    Lease(verb::lease::Group),
}

#[derive(Debug, Subcommand)]
enum Maintenance {
    /// Shows and disarms alarms
    Alarm(verb::alarm::Group),
    /// Gives the free space of the members' stores back
    Defrag(verb::defrag::Defrag),
    /// Prepares the cluster for an older version
    Downgrade(verb::downgrade::Group),
    /// Asks members for health, status and history hash
    Endpoint(verb::endpoint::Group),
    /// Shows and changes the membership
    Member(verb::member::Group),
    /// Has another member lead
    MoveLeader(verb::move_leader::MoveLeader),
    /// Saves, shows, checks and restores snapshots
    Snapshot(verb::snapshot::Group),
}

#[derive(Debug, Subcommand)]
enum Concurrency {
    /// Stands for an election, or watches one
    Elect(verb::elect::Elect),
    /// Holds a named lock
    Lock(verb::lock::Lock),
}

#[derive(Debug, Subcommand)]
enum Authentication {
    /// Turns authentication on and off
    Auth(verb::auth::Group),
    /// Shows and changes roles and what they permit
    Role(verb::role::Group),
    /// Shows and changes users
    User(verb::user::Group),
}

#[derive(Debug, Subcommand)]
enum Utility {
    /// Measures what the cluster can do
    Check(verb::check::Group),
    /// Writes a completion script for a shell
    Completion(verb::completion::Completion),
    /// Shows the help of a command
    Help(help::Help),
    /// Copies keys to another cluster, and what changes
    MakeMirror(verb::make_mirror::MakeMirror),
    /// Shows the flags that every command takes
    Options(Words),
    /// Shows what the cluster is doing, again every second
    Top(verb::top::Top),
    /// Shows the version
    Version(Words),
}

/// Arguments that a command ignores.
#[derive(Debug, clap::Args)]
struct Words {
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

/// The command tree as [`Cli`] describes it, with cobra's manners.
pub fn command() -> Command {
    args::manners(Cli::command())
}

/// Reads the command line and runs the command.
pub async fn run(args: Vec<OsString>) -> Result<(), Failure> {
    let (matches, args) = args::read(&TOOL, args)?;
    let path = args::path_of(&matches);
    let cli = Cli::from_arg_matches(&matches).map_err(Failure::general)?;
    if cli.globals.help.unwrap_or(false) {
        return help::show(&path);
    }
    if let Some(word) = cli.words.first() {
        return Err(args::unknown_command(&TOOL, word));
    }
    let globals = cli.globals;
    let Some(verb) = cli.verb else { return help::show(&path) };
    match verb {
        Verb::KeyValue(KeyValue::Compaction(verb)) => verb.run(globals).await,
        Verb::KeyValue(KeyValue::Del(verb)) => verb.run(globals).await,
        Verb::KeyValue(KeyValue::Get(verb)) => verb.run(globals).await,
        Verb::KeyValue(KeyValue::Lease(verb)) => verb.run(globals).await,
        Verb::KeyValue(KeyValue::Put(verb)) => verb.run(globals).await,
        Verb::KeyValue(KeyValue::Txn(verb)) => verb.run(globals).await,
        Verb::KeyValue(KeyValue::Watch(verb)) => verb.run(globals, &args).await,
        Verb::Maintenance(Maintenance::Alarm(verb)) => verb.run(globals).await,
        Verb::Maintenance(Maintenance::Defrag(verb)) => verb.run(globals).await,
        Verb::Maintenance(Maintenance::Downgrade(verb)) => verb.run(globals).await,
        Verb::Maintenance(Maintenance::Endpoint(verb)) => verb.run(globals).await,
        Verb::Maintenance(Maintenance::Member(verb)) => verb.run(globals).await,
        Verb::Maintenance(Maintenance::MoveLeader(verb)) => verb.run(globals).await,
        Verb::Maintenance(Maintenance::Snapshot(verb)) => verb.run(globals).await,
        Verb::Concurrency(Concurrency::Elect(verb)) => verb.run(globals).await,
        Verb::Concurrency(Concurrency::Lock(verb)) => verb.run(globals).await,
        Verb::Authentication(Authentication::Auth(verb)) => verb.run(globals).await,
        Verb::Authentication(Authentication::Role(verb)) => verb.run(globals).await,
        Verb::Authentication(Authentication::User(verb)) => verb.run(globals).await,
        Verb::Utility(Utility::Check(verb)) => verb.run(globals).await,
        Verb::Utility(Utility::Completion(verb)) => verb.run(),
        Verb::Utility(Utility::Help(verb)) => verb.run(),
        Verb::Utility(Utility::MakeMirror(verb)) => verb.run(globals).await,
        Verb::Utility(Utility::Options(_)) => help::options(),
        Verb::Utility(Utility::Top(verb)) => verb.run(globals).await,
        Verb::Utility(Utility::Version(_)) => verb::version::run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        command().debug_assert();
    }

    fn globals(line: &str) -> Result<Globals, String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let matches =
            command().try_get_matches_from(&words).map_err(|error| args::explain(&error, &words))?;
        Ok(Cli::from_arg_matches(&matches).expect("matches fit the struct").globals)
    }

    #[test]
    fn flags_stand_anywhere_and_the_last_wins() {
        for line in [
            "etcdctl -w json get a",
            "etcdctl get -w=json a",
            "etcdctl get a -wjson -w fields --write-out json",
        ] {
            assert_eq!(globals(line).unwrap().write_out.as_deref(), Some("json"), "{line}");
        }
        assert_eq!(globals("etcdctl get a --hex=false").unwrap().hex, Some(false));
        assert_eq!(globals("etcdctl get a --hex").unwrap().hex, Some(true));
        assert_eq!(globals("etcdctl get --hex a").unwrap().hex, Some(true));
        assert_eq!(globals("etcdctl get a --endpoints a:1,b:2").unwrap().endpoints.unwrap(), ["a:1", "b:2"]);
    }

    #[test]
    fn a_commands_flags_may_stand_before_it() {
        let read = |line: &str| {
            let words = args::verb_first(&command(), line.split(' ').map(OsString::from).collect());
            words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        for (line, reads) in [
            ("etcdctl get --rev 3 a", "etcdctl get --rev 3 a"),
            ("etcdctl --consistency s get a", "etcdctl get --consistency s a"),
            ("etcdctl --hex --prefix=true -w json get a", "etcdctl get --hex --prefix=true -w json a"),
            ("etcdctl lease --keys=true timetolive 12", "etcdctl lease timetolive --keys=true 12"),
            ("etcdctl -w json lease 12 list", "etcdctl lease -w json 12 list"),
            ("etcdctl --prefix get a", "etcdctl --prefix get a"),
            ("etcdctl -- get a", "etcdctl -- get a"),
        ] {
            assert_eq!(read(line), reads);
        }
    }

    #[test]
    fn errors_are_cobras() {
        for (line, text) in [
            ("etcdctl get a --nope", "unknown flag: --nope"),
            ("etcdctl get a --nope=1", "unknown flag: --nope"),
            ("etcdctl put a -1", "unknown shorthand flag: '1' in -1"),
            ("etcdctl get a --rev", "flag needs an argument: --rev"),
            ("etcdctl get a -w", "flag needs an argument: 'w' in -w"),
            (
                "etcdctl get a --rev x",
                "invalid argument \"x\" for \"--rev\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "etcdctl get a --prefix=x",
                "invalid argument \"x\" for \"--prefix\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(globals(line).unwrap_err(), text, "{line}");
        }
    }
}
