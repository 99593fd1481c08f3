//! The command line: commands, their flags, and cobra's ways with both.
//!
//! clap reads it, bent where scripts would notice: booleans take `=false`, the last of
//! a repeated flag wins, a command may be shortened while it is unique, values may begin
//! with a dash, a group without a command shows its help and succeeds.

use std::ffi::{OsStr, OsString};

use clap::builder::ArgAction;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::failure::{Failure, exit};
use crate::globals::Globals;
use crate::go;
use crate::help;
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
    Utility(Utility),
    #[command(flatten)]
    Later(Later),
}

#[derive(Debug, Subcommand)]
enum KeyValue {
    /// Forgets revisions older than the given one
    Compaction(verb::compaction::Compaction),
    /// Deletes a key or a range of keys
    Del(verb::del::Del),
    /// Reads a key or a range of keys
    Get(verb::get::Get),
    /// Grants, revokes, renews and shows leases
    Lease(verb::lease::Group),
    /// Puts a value under a key
    Put(verb::put::Put),
    /// Runs several requests as one transaction
    Txn(verb::txn::Txn),
    /// Follows the changes of keys
    Watch(verb::watch::Watch),
}

#[derive(Debug, Subcommand)]
enum Maintenance {
    /// Shows and disarms alarms
    Alarm(verb::alarm::Group),
    /// Gives the free space of the members' stores back
    Defrag(verb::defrag::Defrag),
    /// Asks members for health, status and history hash
    Endpoint(verb::endpoint::Group),
    /// Shows and changes the membership
    Member(verb::member::Group),
    /// Has another member lead
    MoveLeader(verb::move_leader::MoveLeader),
}

#[derive(Debug, Subcommand)]
enum Utility {
    /// Measures what the cluster can do
    Check(verb::check::Group),
    /// Writes a completion script for a shell
    Completion(verb::completion::Completion),
    /// Shows the help of a command
    Help(help::Help),
    /// Shows the flags that every command takes
    Options(Words),
    /// Shows the version
    Version(Words),
}

/// Commands of etcd that this version does not have.
#[derive(Debug, Subcommand)]
enum Later {
    #[command(hide = true)]
    Auth(Anything),
    #[command(hide = true)]
    Downgrade(Anything),
    #[command(hide = true)]
    Elect(Anything),
    #[command(hide = true)]
    Lock(Anything),
    #[command(hide = true)]
    MakeMirror(Anything),
    #[command(hide = true)]
    Role(Anything),
    #[command(hide = true)]
    Snapshot(Anything),
    #[command(hide = true)]
    User(Anything),
}

/// Arguments that a command ignores.
#[derive(Debug, clap::Args)]
struct Words {
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
struct Anything {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _words: Vec<OsString>,
}

/// The command tree as [`Cli`] describes it, with cobra's manners.
pub fn command() -> Command {
    manners(Cli::command())
}

/// Reads the command line and runs the command.
pub async fn run(args: Vec<OsString>) -> Result<(), Failure> {
    let root = command();
    let args = verb_first(&root, args);
    let matches = match root.try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => return Err(refuse(&error, &args)),
    };
    let path = path_of(&matches);
    let cli = Cli::from_arg_matches(&matches).map_err(Failure::general)?;
    if cli.globals.help.unwrap_or(false) {
        return help::show(&path);
    }
    if let Some(word) = cli.words.first() {
        let word = go::quote(word.as_encoded_bytes());
        let message = format!("unknown command {word} for \"etcdctl\"\nRun 'etcdctl --help' for usage.");
        return Err(Failure::general(message));
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
        Verb::Maintenance(Maintenance::Endpoint(verb)) => verb.run(globals).await,
        Verb::Maintenance(Maintenance::Member(verb)) => verb.run(globals).await,
        Verb::Maintenance(Maintenance::MoveLeader(verb)) => verb.run(globals).await,
        Verb::Utility(Utility::Check(verb)) => verb.run(globals).await,
        Verb::Utility(Utility::Completion(verb)) => verb.run(),
        Verb::Utility(Utility::Help(verb)) => verb.run(),
        Verb::Utility(Utility::Options(_)) => help::options(),
        Verb::Utility(Utility::Version(_)) => verb::version::run(),
        Verb::Later(_) => {
            let name = path.join(" ");
            Err(Failure::general(format!("\"etcdctl {name}\" is not available in this version")))
        }
    }
}

/// Moves the commands of a line before its flags: cobra takes a command's flags before its name too.
///
/// A flag that the commands so far don't know is taken to have a value behind it, as in cobra:
/// `--rev 3 get a` is a `get`, in `--prefix get a` there is no command.
fn verb_first(root: &Command, args: Vec<OsString>) -> Vec<OsString> {
    let globals: Vec<_> = root.get_arguments().collect();
    let mut words = args.into_iter();
    let mut line: Vec<OsString> = words.by_ref().take(1).collect();
    let mut rest: Vec<OsString> = words.collect();
    let mut here = root;
    while let Some(at) = first_command_word(&rest, &globals, here) {
        let Some(next) = subcommand(here, &rest[at]) else { break };
        line.push(rest.remove(at));
        here = next;
    }
    line.append(&mut rest);
    line
}

/// Where the first word stands that is neither a flag nor a flag's value.
fn first_command_word(words: &[OsString], globals: &[&Arg], here: &Command) -> Option<usize> {
    let lone = |is_it: &dyn Fn(&Arg) -> bool| {
        let mut flags = globals.iter().copied().chain(here.get_arguments());
        flags.any(|flag| {
            is_it(flag) && !flag.is_positional() && flag.get_num_args().is_some_and(|n| n.min_values() == 0)
        })
    };
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let word = word.to_string_lossy();
        if word == "--" {
            return None;
        }
        let takes_next = match (word.strip_prefix("--"), word.strip_prefix('-')) {
            (Some(name), _) => !name.contains('=') && !lone(&|flag| flag.get_long() == Some(name)),
            (None, Some(letter)) => {
                letter.chars().count() == 1 && !lone(&|flag| flag.get_short() == letter.chars().next())
            }
            (None, None) if word.is_empty() => false,
            (None, None) => return Some(at),
        };
        at += if takes_next { 2 } else { 1 };
    }
    None
}

/// The command of this name, or the only one whose name begins so.
fn subcommand<'a>(here: &'a Command, word: &OsStr) -> Option<&'a Command> {
    let word = word.to_str()?;
    here.find_subcommand(word).or_else(|| {
        let mut like = here.get_subcommands().filter(|command| command.get_name().starts_with(word));
        like.next().filter(|_| like.next().is_none())
    })
}

/// Reads one command line inside another: a request of a transaction, a line of `watch -i`.
pub fn parse_inner<T: Parser>(args: &[OsString]) -> Result<T, Failure> {
    let matches = manners(T::command()).try_get_matches_from(args);
    let matches = matches.map_err(|error| Failure::args(explain(&error, args)))?;
    T::from_arg_matches(&matches).map_err(Failure::args)
}

/// Gives every flag of the tree the manners of Go's flags.
fn manners(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let boolean = matches!(arg.get_action(), ArgAction::SetTrue);
            let optional = arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == "bool"));
            if arg.is_positional() {
                return arg;
            }
            if !boolean && !optional {
                return arg.allow_hyphen_values(true);
            }
            let arg = arg
                .action(ArgAction::Set)
                .value_parser(go::parse_bool)
                .value_name("bool")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true");
            if boolean { arg.default_value("false") } else { arg }
        })
        .mut_subcommands(manners)
}

/// The names of the commands that were given, outermost first.
fn path_of(matches: &ArgMatches) -> Vec<String> {
    let mut path = Vec::new();
    let mut matches = matches;
    while let Some((name, inner)) = matches.subcommand() {
        path.push(name.to_owned());
        matches = inner;
    }
    path
}

/// Tells stderr what is wrong with the command line, and how it should look.
fn refuse(error: &clap::Error, args: &[OsString]) -> Failure {
    eprintln!("Error: {}", explain(error, args));
    eprintln!("{}", help::usage(&written_path(args)));
    Failure::silent(exit::ERROR)
}

/// The commands of a line that could not be read as a whole.
fn written_path(args: &[OsString]) -> Vec<String> {
    let root = command();
    let (mut here, mut path) = (&root, Vec::new());
    for word in args.iter().skip(1).take_while(|word| *word != "--") {
        if let Some(next) = word.to_str().and_then(|word| here.find_subcommand(word)) {
            path.push(next.get_name().to_owned());
            here = next;
        }
    }
    path
}

/// A clap error in cobra's words.
fn explain(error: &clap::Error, args: &[OsString]) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let (flag, value) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue));
    let name = flag.split([' ', '=', '[']).next().unwrap_or_default().to_owned();
    match error.kind() {
        ErrorKind::UnknownArgument if name.starts_with("--") => format!("unknown flag: {name}"),
        ErrorKind::UnknownArgument => {
            let letter = name.chars().nth(1).unwrap_or('-');
            format!("unknown shorthand flag: '{letter}' in {}", cluster(args, letter).unwrap_or(&name))
        }
        ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("invalid argument {} for \"{name}\" flag: {reason}", go::quote(value.as_bytes()))
        }
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues => {
            // Only the last word can lack its value.
            match args.last().and_then(|word| word.to_str()).and_then(|word| word.strip_prefix('-')) {
                Some(short) if !short.starts_with('-') && !short.is_empty() => {
                    let letter = short.chars().next_back().unwrap_or('-');
                    format!("flag needs an argument: '{letter}' in -{short}")
                }
                _ => format!("flag needs an argument: {name}"),
            }
        }
        _ => error.to_string().trim_start_matches("error: ").trim_end().to_owned(),
    }
}

/// The word of short flags that holds this letter.
fn cluster(args: &[OsString], letter: char) -> Option<&str> {
    let words = args.iter().filter_map(|word| OsStr::to_str(word));
    words.filter(|word| word.starts_with('-') && !word.starts_with("--")).find(|word| word.contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        command().debug_assert();
    }

    fn globals(line: &str) -> Result<Globals, String> {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let matches = command().try_get_matches_from(&args).map_err(|error| explain(&error, &args))?;
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
            let args = verb_first(&command(), line.split(' ').map(OsString::from).collect());
            args.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
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
