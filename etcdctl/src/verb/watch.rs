//! `watch`: follows the changes of keys, prints them, and runs a command for each if asked.
//!
//! With `-i` the watches, and requests for progress, come line by line from stdin and
//! share one stream. Every watch has a task that prints; [`stream`] feeds them.

mod stream;

use std::ffi::OsString;
use std::io::BufRead as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};

use clap::Parser;
use proto::etcdserverpb::WatchCreateRequest;
use proto::mvccpb::Event;
use tokio::sync::mpsc;

use self::stream::{Notice, Stream};
use super::{bytes, range_of, txn};
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::globals::Globals;
use crate::go::{self, quote};
use crate::output::{self, Printer, Reply};
use manners::args;

/// Variables that stand for the arguments.
const KEY: &str = "ETCDCTL_WATCH_KEY";
const RANGE_END: &str = "ETCDCTL_WATCH_RANGE_END";

/// The flags of `watch`.
#[derive(Debug, clap::Args)]
#[command(long_about = "Follows the changes of a key, a range or a prefix until interrupted.

With a command after '--', runs it for every event; it finds the event in ETCD_WATCH_REVISION,
ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and ETCD_WATCH_VALUE. With -i, reads lines from stdin:
'watch [flags] key [range_end] [-- command]' adds a watch, 'progress' asks how far all have come.
ETCDCTL_WATCH_KEY and ETCDCTL_WATCH_RANGE_END can stand for the key and the range's end.")]
pub struct Watch {
    #[arg(short = 'i', long, help = "read watches and progress requests from stdin")]
    interactive: bool,
    #[arg(long, help = "watch the keys that begin with the given one")]
    prefix: bool,
    #[arg(long, value_name = "int", default_value = "0", value_parser = go::parse_int)]
    #[arg(help = "begin with this revision")]
    rev: i64,
    #[arg(long, help = "show the key and value that were there before")]
    prev_kv: bool,
    #[arg(long, help = "have the server tell how far it is when nothing happens")]
    progress_notify: bool,
    #[arg(value_name = "<key> [range_end] [-- command [args]]")]
    words: Vec<OsString>,
}

/// What the environment says about the keys to watch.
#[derive(Debug)]
struct Environment {
    key: Option<OsString>,
    range_end: Option<OsString>,
}

/// A line of `watch -i` after its first word.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
struct Line {
    #[command(flatten)]
    watch: Watch,
}

/// One watch that was asked for.
#[derive(Debug)]
struct Order {
    request: WatchCreateRequest,
    command: Vec<OsString>,
}

impl Watch {
    /// Watches until interrupted. `args` is the whole command line: clap does not tell where `--` stood.
    pub async fn run(mut self, globals: Globals, args: &[OsString]) -> Result<(), Failure> {
        let environment = Environment::read()?;
        if self.interactive {
            let settings = globals.settle(&[KEY, RANGE_END])?;
            let client = Client::open(&settings).await?;
            return interact(client, settings.printer, &environment).await;
        }
        let after_verb = args.iter().position(|word| word == "watch").map_or(args, |at| &args[at + 1..]);
        let command = match after_verb.iter().position(|word| word == "--") {
            Some(at) => after_verb[at + 1..].to_vec(),
            None => Vec::new(),
        };
        if after_verb.last().is_some_and(|word| word == "--") && command.is_empty() {
            return Err(no_command());
        }
        self.words.truncate(self.words.len().saturating_sub(command.len()));
        environment.stand_in(&mut self.words)?;
        let settings = globals.settle(&[KEY, RANGE_END])?;
        let client = Client::open(&settings).await?;
        let order = self.order(command).map_err(Failure::args)?;
        let notices = Stream::start(client).watch(order.request).await;
        follow(notices, settings.printer, order.command).await?;
        Err(Failure::new(exit::INTERRUPTED, "watch is canceled by the server"))
    }

    /// The watch that flags and arguments describe; more than two arguments leave the range's end out.
    fn order(self, command: Vec<OsString>) -> Result<Order, &'static str> {
        let two = self.words.len() == 2;
        let mut words = self.words.into_iter().map(bytes);
        let key = words.next().ok_or("bad number of arguments")?;
        let end = words.next().filter(|_| two);
        if end.is_some() && self.prefix {
            return Err("`range_end` and `--prefix` are mutually exclusive");
        }
        let (key, range_end) = range_of(key, end, self.prefix, false);
        let request = WatchCreateRequest {
            key,
            range_end,
            start_revision: self.rev,
            progress_notify: self.progress_notify,
            prev_kv: self.prev_kv,
            ..Default::default()
        };
        Ok(Order { request, command })
    }
}

impl Environment {
    fn read() -> Result<Self, Failure> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let environment = Self { key: variable(KEY), range_end: variable(RANGE_END) };
        match (&environment.key, &environment.range_end) {
            (None, Some(end)) => {
                let end = quote(end.as_encoded_bytes());
                Err(Failure::args(format!("{KEY} is empty but got {RANGE_END}={end}")))
            }
            _ => Ok(environment),
        }
    }

    /// Puts the variables where arguments are missing; both together are refused.
    fn stand_in(&self, words: &mut Vec<OsString>) -> Result<(), Failure> {
        let Some(key) = &self.key else { return Ok(()) };
        if !words.is_empty() {
            let message = "bad number of arguments (found conflicting environment key)";
            return Err(Failure::args(message));
        }
        words.push(key.clone());
        words.extend(self.range_end.clone());
        Ok(())
    }
}

fn no_command() -> Failure {
    Failure::args("bad number of arguments (found separator --, but no commands)")
}

/// Reads lines until stdin ends, which ends everything.
async fn interact(client: Client, printer: Printer, environment: &Environment) -> Result<(), Failure> {
    let stream = Stream::start(client);
    let mut lines = read_lines();
    // A watch that fails ends the command: one place is enough, the first failure counts.
    let (failures, mut failed) = mpsc::channel(1);
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            Some(failure) = failed.recv() => return Err(failure),
        };
        let Some(line) = line else {
            return Err(Failure::input("error reading watch request line: EOF"));
        };
        let shown = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<OsString> = txn::words(&line)?.into_iter().map(OsString::from_vec).collect();
        match words.first().and_then(|word| word.to_str()) {
            None if words.is_empty() => {
                eprintln!("Invalid command: {shown} (watch and progress supported)");
            }
            Some("watch") if words.len() < 2 && environment.key.is_none() => {
                eprintln!("Invalid command {shown} (command type or key is not provided)");
            }
            Some("watch") => match order_of(&words[1..], environment)? {
                Ok(order) => {
                    let notices = stream.watch(order.request).await;
                    let failures = failures.clone();
                    tokio::spawn(async move {
                        if let Err(failure) = follow(notices, printer, order.command).await {
                            // Full or closed: another failure ends the command already.
                            failures.try_send(failure).ok();
                        }
                    });
                }
                Err(reason) => eprintln!("Invalid command {shown} ({reason})"),
            },
            Some("progress") => stream.request_progress().await,
            _ => eprintln!("Invalid command {shown} (only support watch)"),
        }
    }
}

/// Reads an interactive line. The outer error ends the command, the inner one only this line.
fn order_of(words: &[OsString], environment: &Environment) -> Result<Result<Order, &'static str>, Failure> {
    let (words, command) = match words.iter().position(|word| word == "--") {
        Some(at) if at + 1 == words.len() => return Err(no_command()),
        Some(at) => (&words[..at], words[at + 1..].to_vec()),
        None => (words, Vec::new()),
    };
    let mut watch = args::parse_inner::<Line>(words)?.watch;
    if watch.words.is_empty() && environment.key.is_none() && command.is_empty() {
        return Err(Failure::args("bad number of arguments"));
    }
    environment.stand_in(&mut watch.words)?;
    Ok(watch.order(command))
}

/// The lines of stdin, read by a thread of their own.
fn read_lines() -> mpsc::Receiver<Vec<u8>> {
    // A reader that is ahead waits.
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match input.read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => line.truncate(line.len() - 1),
                // The end of input, in the middle of a line or not, or an error.
                _ => return,
            }
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Prints what happens to one watch until it ends.
async fn follow(
    mut notices: mpsc::Receiver<Notice>,
    printer: Printer,
    command: Vec<OsString>,
) -> Result<(), Failure> {
    while let Some(Notice { reply, error }) = notices.recv().await {
        let revision = reply.header.map_or(0, |header| header.revision);
        if reply.canceled {
            let compacted = "etcdserver: mvcc: required revision has been compacted";
            eprintln!("watch was canceled ({})", error.as_deref().unwrap_or(compacted));
        } else if reply.events.is_empty() && revision != 0 {
            output::say(format!("progress notify: {revision}"))?;
        }
        printer.print(&Reply::Watch(&reply))?;
        if !command.is_empty() {
            for event in &reply.events {
                execute(&command, revision, event).await?;
            }
        }
    }
    Ok(())
}

/// Runs the command for an event and waits for it; its failure ends the watch.
async fn execute(command: &[OsString], revision: i64, event: &Event) -> Result<(), Failure> {
    let kv = event.kv.clone().unwrap_or_default();
    let result = tokio::process::Command::new(&command[0])
        .args(&command[1..])
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env("ETCD_WATCH_EVENT_TYPE", quote(event.r#type().as_str_name().as_bytes()))
        .env("ETCD_WATCH_KEY", quote(&kv.key))
        .env("ETCD_WATCH_VALUE", quote(&kv.value))
        .stdin(Stdio::null())
        .status()
        .await;
    let reason = match result {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => ended(status),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("exec: {}: executable file not found in $PATH", quote(command[0].as_encoded_bytes()))
        }
        Err(error) => error.to_string(),
    };
    let words: Vec<String> = command.iter().map(|word| quote(word.as_encoded_bytes())).collect();
    eprintln!("command [{}] error ({reason})", words.join(" "));
    Err(Failure::silent(exit::ERROR))
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let name = match signal {
                1 => "hangup",
                2 => "interrupt",
                3 => "quit",
                6 => "aborted",
                9 => "killed",
                11 => "segmentation fault",
                13 => "broken pipe",
                15 => "terminated",
                _ => return format!("signal: signal {signal}"),
            };
            format!("signal: {name}")
        }
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(line: &str, key: Option<&str>) -> Result<Order, String> {
        let environment = Environment { key: key.map(Into::into), range_end: None };
        let words: Vec<OsString> = line.split(' ').filter(|word| !word.is_empty()).map(Into::into).collect();
        match order_of(&words, &environment) {
            Ok(order) => order.map_err(str::to_owned),
            Err(failure) => Err(failure.message.unwrap_or_default()),
        }
    }

    #[test]
    fn interactive_lines() {
        let plain = order("--rev 3 --prev-kv a b -- echo -n --rev", None).unwrap();
        assert_eq!((&plain.request.key[..], &plain.request.range_end[..]), (&b"a"[..], &b"b"[..]));
        assert_eq!((plain.request.start_revision, plain.request.prev_kv), (3, true));
        assert_eq!(plain.command, ["echo", "-n", "--rev"]);
        assert_eq!(order("--prefix a", None).unwrap().request.range_end, &b"b"[..]);
        assert_eq!(order("-- echo", Some("k")).unwrap().request.key, &b"k"[..]);
        for (line, key, reason) in [
            ("a --", None, "bad number of arguments (found separator --, but no commands)"),
            ("a", Some("k"), "bad number of arguments (found conflicting environment key)"),
            ("--rev 1", None, "bad number of arguments"),
            ("a b --prefix", None, "`range_end` and `--prefix` are mutually exclusive"),
            ("a --nope", None, "unknown flag: --nope"),
        ] {
            assert_eq!(order(line, key).unwrap_err(), reason, "{line}");
        }
    }
}
