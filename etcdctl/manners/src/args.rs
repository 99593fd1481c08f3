//! A line of arguments, read with cobra's ways.
//!
//! clap reads it, bent where scripts would notice: booleans take `=false`, the last of
//! a repeated flag wins, a command may be shortened while it is unique, values may begin
//! with a dash, a group without a command shows its help and succeeds.

use std::ffi::{OsStr, OsString};

use clap::builder::ArgAction;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command, Parser};

use crate::failure::{Failure, exit};
use crate::{Tool, go, help};

/// Reads a whole command line: what was matched, and the words as they were read, commands first.
///
/// A line that cannot be read is explained on stderr, with the usage of the command it names.
pub fn read(tool: &Tool, args: Vec<OsString>) -> Result<(ArgMatches, Vec<OsString>), Failure> {
    let root = (tool.command)();
    let args = verb_first(&root, args);
    match root.try_get_matches_from(&args) {
        Ok(matches) => Ok((matches, args)),
        Err(error) => Err(refuse(tool, &error, &args)),
    }
}

/// The failure for words that name no command.
pub fn unknown_command(tool: &Tool, word: &OsStr) -> Failure {
    let (word, name) = (go::quote(word.as_encoded_bytes()), tool.name);
    let message = format!("unknown command {word} for \"{name}\"\nRun '{name} --help' for usage.");
    Failure::general(message)
}

/// Moves the commands of a line before its flags: cobra takes a command's flags before its name too.
///
/// A flag that the commands so far don't know is taken to have a value behind it, as in cobra:
/// `--rev 3 get a` is a `get`, in `--prefix get a` there is no command.
pub fn verb_first(root: &Command, args: Vec<OsString>) -> Vec<OsString> {
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
pub fn manners(command: Command) -> Command {
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
pub fn path_of(matches: &ArgMatches) -> Vec<String> {
    let mut path = Vec::new();
    let mut matches = matches;
    while let Some((name, inner)) = matches.subcommand() {
        path.push(name.to_owned());
        matches = inner;
    }
    path
}

/// Tells stderr what is wrong with the command line, and how it should look.
fn refuse(tool: &Tool, error: &clap::Error, args: &[OsString]) -> Failure {
    eprintln!("Error: {}", explain(error, args));
    eprintln!("{}", help::usage(tool, &written_path(&(tool.command)(), args)));
    Failure::silent(exit::ERROR)
}

/// The commands of a line that could not be read as a whole.
fn written_path(root: &Command, args: &[OsString]) -> Vec<String> {
    let (mut here, mut path) = (root, Vec::new());
    for word in args.iter().skip(1).take_while(|word| *word != "--") {
        if let Some(next) = word.to_str().and_then(|word| here.find_subcommand(word)) {
            path.push(next.get_name().to_owned());
            here = next;
        }
    }
    path
}

/// A clap error in cobra's words.
pub fn explain(error: &clap::Error, args: &[OsString]) -> String {
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
