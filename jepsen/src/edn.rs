//! A history as files: in Jepsen's own form, EDN, and as JSON.
//!
//! EDN is one map a line for each thing that happened, in order of time, as
//! Jepsen, Knossos and Elle read it:
//!
//! ```text
//! {:index 0, :time 123, :type :invoke, :process 3, :f :txn, :value [[:append "a" 1] [:r "b" nil]], :member 0}
//! {:index 1, :time 456, :type :ok, :process 3, :f :txn, :value [[:append "a" 1] [:r "b" [7]]], :member 0, :revision 9}
//! ```
//!
//! Operations of the append workload are `:txn`, as Elle's list-append takes
//! them; those of registers are `:read`, `:write` and `:cas` of `[key value]`. A
//! workload's operation that is neither, such as a read of the past, is there in
//! full but under a process that is not a number, so that those tools leave it
//! out, as they do the nemesis, watches and members. A transaction whose
//! compares did not hold is told as what it then did: as a read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::history::{
    Action, Answer, Body, History, Nanos, Operand, Operation, Outcome, Pair, Relation, Request, Txn,
};

/// Writes `history.edn` and `history.json` into a directory.
pub fn save(history: &History, dir: &Path) -> Result<()> {
    create(&dir.join("history.edn"), |out| write(history, out))?;
    create(&dir.join("history.json"), |out| Ok(serde_json::to_writer(out, history)?))
}

/// Reads a `history.json`.
pub fn load(path: &Path) -> Result<History> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    serde_json::from_reader(io::BufReader::new(file))
        .with_context(|| format!("not a history: {}", path.display()))
}

fn create(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let why = || format!("cannot write {}", path.display());
    let mut out = BufWriter::new(File::create(path).with_context(why)?);
    fill(&mut out).and_then(|()| out.flush()).with_context(why)
}

/// Something that happened at a moment.
#[derive(Clone, Copy)]
enum Moment {
    Invoked(usize),
    Returned(usize),
    FaultBegan(usize),
    FaultEnded(usize),
    Seen(usize, usize),
    Compacted(usize),
    Ended(usize),
}

/// Writes EDN, a line at a time.
pub fn write(history: &History, out: &mut impl Write) -> io::Result<()> {
    let form = Form::of(history);
    let processes = processes(history);
    let mut moments = moments(history);
    // A client's own stay in their order: each begins only when the one before it was over.
    moments.sort_by_key(|&(time, _)| time);
    for (index, (time, moment)) in moments.into_iter().enumerate() {
        write!(out, "{{:index {index}, :time {time}, ")?;
        match moment {
            Moment::Invoked(number) => form.write_invoked(history, &processes, number, out)?,
            Moment::Returned(number) => form.write_returned(history, &processes, number, out)?,
            Moment::FaultBegan(number) | Moment::FaultEnded(number) => {
                let fault = &history.faults[number];
                let verb = if let Moment::FaultBegan(_) = moment { "start" } else { "stop" };
                let (kind, what) = (keyword(&fault.kind), text(&fault.what));
                write!(out, ":type :info, :process :nemesis, :f :{verb}-{kind}, :value {what}")?;
            }
            Moment::Compacted(number) => {
                let revision = history.compactions[number].revision;
                write!(out, ":type :info, :process :nemesis, :f :compact, :value {{:revision {revision}}}")?;
            }
            Moment::Seen(number, place) => {
                let seen = &history.watches[number].seen[place];
                let (f, value) = named(&seen.what)?;
                write!(out, ":type :info, :process :watch-{number}, :f :{f}, :value {value}")?;
                write!(out, ", :member {}, :revision {}", seen.member, seen.revision)?;
            }
            Moment::Ended(number) => {
                let end = &history.ends[number];
                let value = edn(&serde_json::to_value(end)?);
                write!(out, ":type :info, :process :member-{}, :f :hash, :value {value}", end.member)?;
            }
        }
        writeln!(out, "}}")?;
    }
    Ok(())
}

fn moments(history: &History) -> Vec<(Nanos, Moment)> {
    let mut moments = Vec::with_capacity(history.operations.len() * 2);
    for (number, operation) in history.operations.iter().enumerate() {
        moments.push((operation.invoked, Moment::Invoked(number)));
        moments.push((operation.returned, Moment::Returned(number)));
    }
    for (number, fault) in history.faults.iter().enumerate() {
        moments.push((fault.began, Moment::FaultBegan(number)));
        moments.push((fault.ended, Moment::FaultEnded(number)));
    }
    let asked = history.compactions.iter().enumerate();
    moments.extend(asked.map(|(number, one)| (one.asked, Moment::Compacted(number))));
    for (number, watch) in history.watches.iter().enumerate() {
        let seen = watch.seen.iter().enumerate();
        moments.extend(seen.map(|(place, seen)| (seen.at, Moment::Seen(number, place))));
    }
    let last = moments.iter().map(|&(time, _)| time).max().unwrap_or(0);
    moments.extend((0..history.ends.len()).map(|number| (last, Moment::Ended(number))));
    moments
}

/// The process of each operation: a client's number, until nobody knows the end of one of its
/// operations. That may still be under way, so what the client does then is another process's.
fn processes(history: &History) -> Vec<u32> {
    let clients = history.operations.iter().map(|operation| operation.client);
    let mut free = clients.max().map_or(0, |last| last + 1);
    let mut now: HashMap<u32, u32> = HashMap::new();
    let mut processes = Vec::with_capacity(history.operations.len());
    for operation in &history.operations {
        let process = *now.get(&operation.client).unwrap_or(&operation.client);
        processes.push(process);
        if let Outcome::Unknown(_) = operation.outcome {
            now.insert(operation.client, free);
            free += 1;
        }
    }
    processes
}

/// In which words a workload's operations are told.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Register,
    Append,
    Plain,
}

/// An operation in its workload's words.
struct Told {
    f: &'static str,
    asked: String,
    /// What came of it, if it was answered.
    came: Option<String>,
    /// Whether it was answered, but with the answer that nothing was done.
    failed: bool,
}

impl Form {
    fn of(history: &History) -> Form {
        match history.run.workload.as_str() {
            "register" => Form::Register,
            "append" => Form::Append,
            _ => Form::Plain,
        }
    }

    fn tell(self, operation: &Operation) -> Option<Told> {
        match self {
            Form::Register => register(operation),
            Form::Append => append(operation),
            Form::Plain => None,
        }
    }

    fn write_invoked(
        self,
        history: &History,
        processes: &[u32],
        number: usize,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let operation = &history.operations[number];
        let (process, member) = (processes[number], operation.member);
        match self.tell(operation) {
            Some(Told { f, asked, .. }) => {
                write!(out, ":type :invoke, :process {process}, :f :{f}, :value {asked}")?;
            }
            None => {
                let (f, value) = named(&operation.action)?;
                let aside = self.aside();
                write!(out, ":type :invoke, :process {aside}{process}, :f :{f}, :value {value}")?;
            }
        }
        write!(out, ", :member {member}")
    }

    fn write_returned(
        self,
        history: &History,
        processes: &[u32],
        number: usize,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let operation = &history.operations[number];
        let (process, member) = (processes[number], operation.member);
        let told = self.tell(operation);
        let (ending, error) = match &operation.outcome {
            Outcome::Done(_) if told.as_ref().is_some_and(|told| told.failed) => ("fail", None),
            Outcome::Done(_) => ("ok", None),
            Outcome::Refused(why) => ("fail", Some(why)),
            Outcome::Unknown(why) => ("info", Some(why)),
        };
        match told {
            Some(Told { f, asked, came, .. }) => {
                let value = came.unwrap_or(asked);
                write!(out, ":type :{ending}, :process {process}, :f :{f}, :value {value}")?;
            }
            None => {
                let (f, asked) = named(&operation.action)?;
                let value = match &operation.outcome {
                    Outcome::Done(answer) => named(&answer.body)?.1,
                    _ => asked,
                };
                let aside = self.aside();
                write!(out, ":type :{ending}, :process {aside}{process}, :f :{f}, :value {value}")?;
            }
        }
        write!(out, ", :member {member}")?;
        if let Outcome::Done(answer) = &operation.outcome {
            write!(out, ", :revision {}", answer.revision)?;
        }
        match error {
            Some(why) => write!(out, ", :error {}", text(why)),
            None => Ok(()),
        }
    }

    /// What makes a process's number a name where an operation is not in the workload's words.
    fn aside(self) -> &'static str {
        if self == Form::Plain { "" } else { ":aside-" }
    }
}

/// `:read`, `:write` and `:cas` of `[key value]`; a deleted key's value is `nil`.
fn register(operation: &Operation) -> Option<Told> {
    let answer = answer(operation);
    let tuple = |key: &str, value: &str| format!("[{} {value}]", text(key));
    let write = |key: &str, value: String| {
        let asked = tuple(key, &value);
        Told { f: "write", came: answer.map(|_| asked.clone()), asked, failed: false }
    };
    match &operation.action {
        Action::Put(put) => Some(write(&put.key, scalar(&put.value))),
        Action::Delete(delete) if delete.keys.end.is_empty() => {
            Some(write(&delete.keys.key, "nil".to_owned()))
        }
        Action::Range(range) if range.keys.end.is_empty() && range.revision == 0 && !range.serializable => {
            let key = &range.keys.key;
            let came = answer.map(|answer| {
                let value = pairs(&answer.body).first().map_or("nil".to_owned(), |pair| scalar(&pair.value));
                tuple(key, &value)
            });
            Some(Told { f: "read", asked: tuple(key, "nil"), came, failed: false })
        }
        Action::Txn(txn) => cas(txn, answer, tuple),
        _ => None,
    }
}

fn cas(txn: &Txn, answer: Option<&Answer>, tuple: impl Fn(&str, &str) -> String) -> Option<Told> {
    let ([compare], [Request::Put(put)]) = (txn.compares.as_slice(), txn.then.as_slice()) else {
        return None;
    };
    let reads = txn.otherwise.iter().all(|request| matches!(request, Request::Range(_)));
    if compare.key != put.key || compare.relation != Relation::Equal || !reads {
        return None;
    }
    let old = match &compare.operand {
        Operand::Value(value) => scalar(value),
        Operand::Created(0) | Operand::Version(0) | Operand::Modified(0) => "nil".to_owned(),
        _ => return None,
    };
    let asked = tuple(&put.key, &format!("[{old} {}]", scalar(&put.value)));
    let failed = answer.is_some_and(|answer| !succeeded(&answer.body));
    Some(Told { f: "cas", came: answer.map(|_| asked.clone()), asked, failed })
}

/// `:txn` of `[:r key elements]` and `[:append key element]`; a list is a value, its elements
/// separated by spaces, and is put with one more element at its end.
fn append(operation: &Operation) -> Option<Told> {
    let answer = answer(operation);
    let (requests, bodies): (Vec<Request>, &[Body]) = match (&operation.action, answer) {
        (Action::Range(range), answer) => (
            vec![Request::Range(range.clone())],
            answer.map_or(&[], |answer| std::slice::from_ref(&answer.body)),
        ),
        (Action::Txn(txn), Some(Answer { body: Body::Txn { succeeded, answers }, .. })) => {
            (if *succeeded { &txn.then } else { &txn.otherwise }.clone(), answers)
        }
        (Action::Txn(txn), _) => (txn.then.clone(), &[]),
        _ => return None,
    };
    let (mut asked, mut came) = (Vec::new(), Vec::new());
    for (place, request) in requests.iter().enumerate() {
        match request {
            Request::Put(put) => {
                let element = put.value.split(' ').next_back().map(scalar)?;
                asked.push(format!("[:append {} {element}]", text(&put.key)));
                came.push(format!("[:append {} {element}]", text(&put.key)));
            }
            Request::Range(range)
                if range.keys.end.is_empty() && range.revision == 0 && !range.serializable =>
            {
                let key = text(&range.keys.key);
                asked.push(format!("[:r {key} nil]"));
                let list = bodies.get(place).map(pairs).and_then(<[Pair]>::first);
                let elements: Vec<String> =
                    list.map(|pair| pair.value.split(' ').map(scalar).collect()).unwrap_or_default();
                came.push(format!("[:r {key} [{}]]", elements.join(" ")));
            }
            _ => return None,
        }
    }
    let of = |operations: Vec<String>| format!("[{}]", operations.join(" "));
    Some(Told { f: "txn", asked: of(asked), came: answer.map(|_| of(came)), failed: false })
}

fn answer(operation: &Operation) -> Option<&Answer> {
    match &operation.outcome {
        Outcome::Done(answer) => Some(answer),
        _ => None,
    }
}

fn succeeded(body: &Body) -> bool {
    matches!(body, Body::Txn { succeeded: true, .. })
}

fn pairs(body: &Body) -> &[Pair] {
    match body {
        Body::Range { pairs, .. } => pairs,
        _ => &[],
    }
}

/// Which variant something is, as a keyword's name, and its fields.
fn named(of: &impl Serialize) -> io::Result<(String, String)> {
    Ok(match serde_json::to_value(of)? {
        Value::Object(map) if map.len() == 1 => {
            let (name, fields) = map.into_iter().next().expect("there is one");
            (keyword(&name), edn(&fields))
        }
        Value::String(name) => (keyword(&name), "nil".to_owned()),
        other => ("value".to_owned(), edn(&other)),
    })
}

fn edn(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(string) => text(string),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(edn).collect();
            format!("[{}]", values.join(" "))
        }
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(name, value)| format!(":{} {}", keyword(name), edn(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// `LeaseGrant`, `lease_grant` and `lease grant` are all `lease-grant`.
fn keyword(name: &str) -> String {
    let mut keyword = String::new();
    for char in name.chars() {
        if char.is_uppercase() && !keyword.is_empty() && !keyword.ends_with('-') {
            keyword.push('-');
        }
        match char {
            char if char.is_alphanumeric() => keyword.extend(char.to_lowercase()),
            _ => keyword.push('-'),
        }
    }
    keyword
}

/// A number where it is one as it would be written, else text.
fn scalar(value: &str) -> String {
    match value.parse::<i64>() {
        Ok(number) if number.to_string() == value => value.to_owned(),
        _ => text(value),
    }
}

fn text(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
