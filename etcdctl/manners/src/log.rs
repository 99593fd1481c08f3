//! The lines that etcd's tools write to stderr beside their messages: `etcdctl` in JSON, `etcdutl` for people.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::json::{object, push_string};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Warnings are not written for as long as there is one.
#[must_use]
#[derive(Debug)]
pub struct Quiet(());

/// Keeps warnings off stderr until what this gives is dropped: for a command that shows what went wrong by itself.
pub fn quiet() -> Quiet {
    QUIET.store(true, Ordering::Relaxed);
    Quiet(())
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.store(false, Ordering::Relaxed);
    }
}

/// A JSON line about what goes on.
pub fn info(message: &str, fields: &[(&str, &dyn Display)]) {
    line("info", message, fields);
}

/// A JSON line: a warning; the command goes on.
pub fn warn(message: &str, field: &str, value: impl Display) {
    if !QUIET.load(Ordering::Relaxed) {
        line("warn", message, &[(field, &value)]);
    }
}

/// The last JSON line before the program ends with status 1.
pub fn fatal(message: &str, field: &str, value: impl Display) {
    line("fatal", message, &[(field, &value)]);
}

fn line(level: &str, message: &str, fields: &[(&str, &dyn Display)]) {
    let mut text = String::new();
    object(&mut text, |o| {
        o.string("level", level);
        o.string("ts", &timestamp(SystemTime::now(), true));
        o.string("msg", message);
        for (name, value) in fields {
            o.string(name, &value.to_string());
        }
    });
    eprintln!("{text}");
}

/// A value of a [`console`] line.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Text, in quotes.
    Text(&'a str),
    /// A list of texts.
    Texts(&'a [String]),
    /// A number.
    Number(u64),
    /// A difference.
    Signed(i64),
    /// Yes or no.
    Flag(bool),
}

/// A line as zap's console encoder writes it: time, level, message and fields, with tabs between.
/// etcd 3.7: `etcdutl`'s logger; it also names the line of source, which means nothing here.
pub fn console(level: &str, message: &str, fields: &[(&str, Value<'_>)]) {
    eprintln!("{}", console_line(level, message, fields, SystemTime::now()));
}

fn console_line(level: &str, message: &str, fields: &[(&str, Value<'_>)], now: SystemTime) -> String {
    let mut text = format!("{}\t{level}\t{message}", timestamp(now, false));
    let mut before = "\t{";
    for (name, value) in fields {
        text.push_str(before);
        before = ", ";
        push_string(&mut text, name);
        text.push_str(": ");
        match value {
            Value::Text(value) => push_string(&mut text, value),
            Value::Texts(values) => {
                text.push('[');
                for (at, value) in values.iter().enumerate() {
                    text.push_str(if at > 0 { ", " } else { "" });
                    push_string(&mut text, value);
                }
                text.push(']');
            }
            Value::Number(value) => text.push_str(&value.to_string()),
            Value::Signed(value) => text.push_str(&value.to_string()),
            Value::Flag(value) => text.push_str(&value.to_string()),
        }
    }
    if !fields.is_empty() {
        text.push('}');
    }
    text
}

/// A time in UTC as RFC 3339 has it, to the microsecond or to the second.
/// The calendar is Hinnant's days-to-civil computation.
pub fn timestamp(time: SystemTime, fraction: bool) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = (since.as_secs(), since.subsec_micros());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * index + 2) / 5 + 1;
    let month = if index < 10 { index + 3 } else { index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = if fraction { format!(".{micros:06}") } else { String::new() };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_console_line() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_247_995);
        let urls = ["http://a:1".to_owned(), "http://b:1".to_owned()];
        let fields = [
            ("path", Value::Text("a\"b")),
            ("urls", Value::Texts(&urls)),
            ("size", Value::Number(5)),
            ("diff", Value::Signed(-5)),
            ("learner", Value::Flag(false)),
        ];
        assert_eq!(
            console_line("info", "restored snapshot", &fields, now),
            "2026-11-21T07:59:55Z\tinfo\trestored snapshot\t{\"path\": \"a\\\"b\", \
             \"urls\": [\"http://a:1\", \"http://b:1\"], \"size\": 5, \"diff\": -5, \"learner\": false}"
        );
        assert_eq!(console_line("warn", "x", &[], now), "2026-11-21T07:59:55Z\twarn\tx");
    }
}
