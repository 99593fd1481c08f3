//! `txn`: several requests as one transaction, from stdin.
//!
//! Three paragraphs, each ended by an empty line: comparisons, the requests when all
//! of them hold, the requests when one does not. `words` and `compare` below read a line.

use std::ffi::OsString;
use std::io::BufRead;
use std::os::unix::ffi::OsStringExt as _;

use clap::Parser;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{Compare, RequestOp, TxnRequest};

use super::{del, get, put};
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::globals::Globals;
use crate::go::{self, quote};
use crate::output::{self, Reply};
use manners::args;

/// The flags of `txn`.
#[derive(Debug, clap::Args)]
#[command(long_about = "Runs the requests that it reads from stdin as one transaction.

Three paragraphs, each ended by an empty line: comparisons, the requests to run when all
of them hold, and those to run otherwise.

  mod(\"key1\") > \"0\"

  put key1 \"there was one\"

  put key1 \"there was none\"
  put key2 \"another\"

Comparisons are of version, create, mod, value or lease, by =, !=, < or >.")]
pub struct Txn {
    #[arg(short = 'i', long, help = "ask for each paragraph")]
    interactive: bool,
    #[arg(hide = true)]
    words: Vec<OsString>,
}

impl Txn {
    /// Reads, runs and prints.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        if !self.words.is_empty() {
            return Err(Failure::args("txn command does not accept argument"));
        }
        let settings = globals.settle(&[])?;
        let client = Client::open(&settings).await?;
        let mut input = std::io::stdin().lock();
        let prompt = |text| if self.interactive { output::say(text) } else { Ok(()) };
        let mut request = TxnRequest::default();
        prompt("compares:")?;
        for line in paragraph(&mut input) {
            request.compare.push(compare(&line?)?);
        }
        prompt("success requests (get, put, del):")?;
        for line in paragraph(&mut input) {
            request.success.push(operation(&line?).await?);
        }
        prompt("failure requests (get, put, del):")?;
        for line in paragraph(&mut input) {
            request.failure.push(operation(&line?).await?);
        }
        let reply = client.txn(None, request).await.map_err(Failure::general)?;
        settings.printer.print(&Reply::Txn(&reply))
    }
}

/// The trimmed lines up to an empty one; the end of input before that is an error.
fn paragraph(input: &mut impl BufRead) -> impl Iterator<Item = Result<Vec<u8>, Failure>> {
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match input.read_until(b'\n', &mut line) {
            Err(error) => Some(Err(Failure::input(error))),
            Ok(_) if !line.ends_with(b"\n") => Some(Err(Failure::input("EOF"))),
            Ok(_) => {
                Some(Ok(line.trim_ascii().to_vec())).filter(|line| line.as_ref().is_ok_and(|l| !l.is_empty()))
            }
        }
    })
}

#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
#[command(infer_subcommands = true, args_override_self = true)]
enum Operation {
    Get(get::Get),
    Put(put::Put),
    Del(del::Del),
}

/// A request line: `get`, `put` or `del` as on the command line.
async fn operation(line: &[u8]) -> Result<RequestOp, Failure> {
    let shown = String::from_utf8_lossy(line);
    let words = words(line)?;
    if words.len() < 2 {
        return Err(Failure::input(format!("invalid txn compare request: {shown}")));
    }
    let words: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
    let request = match args::parse_inner::<Operation>(&words) {
        Ok(Operation::Get(get)) => Request::RequestRange(get.request()?),
        Ok(Operation::Put(put)) => Request::RequestPut(put.request(|| None)?),
        Ok(Operation::Del(del)) => Request::RequestDeleteRange(del.request().await?),
        Err(_) => return Err(Failure::input(format!("invalid txn request: {shown}"))),
    };
    Ok(RequestOp { request: Some(request) })
}

/// Splits a line into words. A word in double quotes is unquoted as Go does it, one in
/// single quotes is taken as it is.
pub fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(&first) = rest.first() {
        let length = match first {
            b'"' => quoted_length(rest),
            b'\'' => rest[1..].iter().position(|byte| *byte == b'\'').map(|end| end + 2),
            byte if byte.is_ascii_whitespace() => None,
            _ => Some(rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len())),
        };
        // Space, or a quote that nothing closes, separates words.
        let Some(length) = length else {
            rest = &rest[1..];
            continue;
        };
        let (word, tail) = rest.split_at(length);
        rest = tail;
        words.push(match first {
            b'"' => go::unquote(word).ok_or_else(|| Failure::input("invalid syntax"))?,
            b'\'' => word[1..word.len() - 1].to_vec(),
            _ => word.to_vec(),
        });
    }
    Ok(words)
}

/// The length of the double-quoted string at the start, quotes included.
fn quoted_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// A comparison line: `target("key") op "value"`.
fn compare(line: &[u8]) -> Result<Compare, Failure> {
    let shown = String::from_utf8_lossy(line);
    let malformed = || format!("malformed comparison: {shown}");
    let Some(open) = line.iter().position(|byte| *byte == b'(') else {
        return Err(Failure::input(malformed()));
    };
    let target = String::from_utf8_lossy(&line[..open]);
    let mut rest = &line[open + 1..];
    let key = take_quoted(&mut rest);
    let closed = key.is_some() && rest.strip_prefix(b")").inspect(|tail| rest = tail).is_some();
    let spaced = closed && rest.first().is_some_and(u8::is_ascii_whitespace);
    let operator = if spaced { take_word(&mut rest) } else { String::new() };
    let value = if operator.is_empty() { None } else { take_quoted(&mut rest) };
    let (Some(key), Some(value)) = (key.clone(), value) else {
        let (key, op) = (quote(&key.unwrap_or_default()), &operator);
        return Err(Failure::input(format!("{}; got {target}({key}) {op} \"\"", malformed())));
    };
    let number = |base| {
        let value = String::from_utf8_lossy(&value);
        go::parse_int_base(&value, base)
            .map_err(|_| Failure::input(format!("invalid txn compare request: {shown}")))
    };
    let (target, operand) = match &*target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.into())),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        other => return Err(Failure::input(format!("{} (unknown target {other})", malformed()))),
    };
    let result = match operator.as_str() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        other => {
            return Err(Failure::new(
                exit::INVALID_INPUT,
                format!("{} (unknown operator {other})", malformed()),
            ));
        }
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(operand),
        ..Default::default()
    })
}

fn take_quoted(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let text = rest.trim_ascii_start();
    let length = match text.first()? {
        b'"' => quoted_length(text)?,
        b'`' => text[1..].iter().position(|byte| *byte == b'`')? + 2,
        _ => return None,
    };
    let (word, tail) = text.split_at(length);
    *rest = tail;
    go::unquote(word)
}

fn take_word(rest: &mut &[u8]) -> String {
    let text = rest.trim_ascii_start();
    let (word, tail) = text.split_at(text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len()));
    *rest = tail;
    String::from_utf8_lossy(word).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_line() {
        let split = |line: &str| {
            let words = words(line.as_bytes()).unwrap();
            words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            split(r#"put key "two words\n" 'as it\n is' x"y"#),
            ["put", "key", "two words\n", "as it\\n is", "x\"y"]
        );
        assert_eq!(split(r#"  put  "" 'a "#), ["put", "", "a"]);
        assert!(words(br#"put "\q""#).is_err());
    }

    #[test]
    fn comparisons() {
        let read = |line: &str| compare(line.as_bytes());
        let parsed = read(r#"mod("key1") > "0""#).unwrap();
        assert_eq!(parsed.key, &b"key1"[..]);
        assert_eq!(parsed.result(), CompareResult::Greater);
        assert_eq!(parsed.target_union, Some(TargetUnion::ModRevision(0)));
        assert_eq!(read(r#"lease("k") = "1f""#).unwrap().target_union, Some(TargetUnion::Lease(0x1f)));
        for (line, text) in [
            ("nothing", "malformed comparison: nothing"),
            (r#"bogus("foo") = "99""#, r#"malformed comparison: bogus("foo") = "99" (unknown target bogus)"#),
            (r#"mod("foo") = "x""#, r#"invalid txn compare request: mod("foo") = "x""#),
            (r#"mod("foo")="1""#, r#"malformed comparison: mod("foo")="1"; got mod("foo")  """#),
        ] {
            assert_eq!(read(line).unwrap_err().message.unwrap(), text);
        }
    }
}
