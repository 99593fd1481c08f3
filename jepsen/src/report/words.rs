//! Operations, times and counts in few words.

use std::fmt::Write;

use crate::history::{
    Action, Answer, Body, Compare, Event, Keys, Nanos, Notice, Operand, Operation, Outcome, Pair, Relation,
    Request,
};

/// What was asked.
pub(super) fn action(action: &Action) -> String {
    match action {
        Action::Range(range) => {
            let how = if range.serializable { "read, old will do," } else { "read" };
            let mut text = format!("{how} {}", keys(&range.keys));
            if range.revision > 0 {
                write!(text, " at {}", range.revision).expect("text takes all");
            }
            text
        }
        Action::Put(put) => format!("put {} = {}", put.key, put.value),
        Action::Delete(delete) => format!("delete {}", keys(&delete.keys)),
        Action::Txn(txn) => {
            let list = |requests: &[Request]| requests.iter().map(request).collect::<Vec<_>>().join("; ");
            let mut text = String::new();
            if !txn.compares.is_empty() {
                let compares: Vec<String> = txn.compares.iter().map(compare).collect();
                write!(text, "if {}: ", compares.join(" and ")).expect("text takes all");
            }
            text.push_str(&list(&txn.then));
            if !txn.otherwise.is_empty() {
                write!(text, " else: {}", list(&txn.otherwise)).expect("text takes all");
            }
            text
        }
        Action::Compact { revision } => format!("compact up to {revision}"),
        Action::LeaseGrant { id, ttl } => format!("grant lease {id} for {ttl} s"),
        Action::LeaseRevoke { id } => format!("revoke lease {id}"),
        Action::LeaseKeepAlive { id } => format!("keep lease {id}"),
        Action::LeaseTimeToLive { id } => format!("what is left of lease {id}"),
    }
}

/// What came of it.
pub(super) fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(Answer { revision, body }) => match body_words(body) {
            words if words.is_empty() => format!("@{revision}"),
            words => format!("{words} @{revision}"),
        },
        Outcome::Refused(why) => format!("refused: {why}"),
        Outcome::Unknown(why) => format!("unknown: {why}"),
    }
}

/// What was asked, and what came of it.
pub(super) fn operation(operation: &Operation) -> String {
    format!("{} → {}", action(&operation.action), outcome(&operation.outcome))
}

/// What came to a watcher.
pub(super) fn notice(revision: i64, notice: &Notice) -> String {
    match notice {
        Notice::Created { start } => format!("from {start} @{revision}"),
        Notice::Events(events) => events.iter().map(event).collect::<Vec<_>>().join("; "),
        Notice::Progress => format!("progress @{revision}"),
        Notice::Cancelled { reason, compacted } => format!("ended: {reason} ({compacted})"),
        Notice::Lost(why) => format!("lost: {why}"),
    }
}

/// A time as seconds, to the microsecond.
pub(super) fn seconds(time: Nanos) -> String {
    format!("{}.{:06} s", time / 1_000_000_000, time % 1_000_000_000 / 1_000)
}

/// A duration to three digits, in a unit that fits.
pub(super) fn duration(time: Nanos) -> String {
    let (size, unit) = match time {
        0..1_000 => return format!("{time} ns"),
        1_000..1_000_000 => (1e3, "µs"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let value = time as f64 / size;
    let digits = match value {
        0.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// A count with its thousands set apart.
pub(super) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Text that HTML and XML take for text, also within quotes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(char),
            // Neither takes these in any form; Unicode has pictures of them.
            '\0'..' ' => escaped.extend(char::from_u32(0x2400 + u32::from(char))),
            '\u{7f}' => escaped.push('\u{2421}'),
            '\u{fffe}' | '\u{ffff}' => escaped.push(char::REPLACEMENT_CHARACTER),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Text of at most so many characters.
pub(super) fn shorten(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(characters_max - 1).chain(['…']).collect(),
    }
}

fn keys(keys: &Keys) -> String {
    match keys.end.as_str() {
        "" => keys.key.clone(),
        "\0" => format!("{}… and all after", keys.key),
        end => format!("{} to before {end}", keys.key),
    }
}

fn request(request: &Request) -> String {
    match request {
        Request::Range(range) => action(&Action::Range(range.clone())),
        Request::Put(put) => action(&Action::Put(put.clone())),
        Request::Delete(delete) => action(&Action::Delete(delete.clone())),
    }
}

fn compare(compare: &Compare) -> String {
    let sign = match compare.relation {
        Relation::Equal => "=",
        Relation::NotEqual => "≠",
        Relation::Greater => ">",
        Relation::Less => "<",
    };
    let (what, operand) = match &compare.operand {
        Operand::Value(value) => ("", value.clone()),
        Operand::Modified(revision) => (".modified", revision.to_string()),
        Operand::Created(revision) => (".created", revision.to_string()),
        Operand::Version(version) => (".version", version.to_string()),
        Operand::Lease(id) => (".lease", id.to_string()),
    };
    format!("{}{what} {sign} {operand}", compare.key)
}

fn body_words(body: &Body) -> String {
    match body {
        Body::Range { pairs, count, .. } => match pairs.as_slice() {
            [] if *count == 0 => "nothing".to_owned(),
            [] => format!("{count} keys"),
            pairs => pairs.iter().map(pair).collect::<Vec<_>>().join(", "),
        },
        Body::Put { previous: Some(previous) } => format!("before it {}", pair(previous)),
        Body::Put { previous: None } | Body::Nothing => String::new(),
        Body::Delete { deleted, .. } => format!("{deleted} deleted"),
        Body::Txn { succeeded, answers } => {
            let words: Vec<String> =
                answers.iter().map(body_words).filter(|words| !words.is_empty()).collect();
            let held = if *succeeded { "held" } else { "did not hold" };
            if words.is_empty() { held.to_owned() } else { format!("{held}: {}", words.join("; ")) }
        }
        Body::Lease { id, ttl } => format!("lease {id}, {ttl} s"),
    }
}

fn pair(pair: &Pair) -> String {
    format!("{} = {} ({})", pair.key, pair.value, pair.modified)
}

fn event(event: &Event) -> String {
    match event.deleted {
        true => format!("{} gone ({})", event.pair.key, event.pair.modified),
        false => pair(&event.pair),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let texts = [7, 1_234, 56_780, 999_400, 12_345_678, 3_456_000_000, 125_000_000_000].map(duration);
        assert_eq!(texts, ["7 ns", "1.23 µs", "56.8 µs", "999 µs", "12.3 ms", "3.46 s", "125 s"]);
        assert_eq!(seconds(12_003_004_500), "12.003004 s");
    }

    #[test]
    fn counts_have_their_thousands_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn escaped_text_is_only_text() {
        assert_eq!(escape("<a href=\"x\">'&\0\u{1b}"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;␀␛");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten("äöüß", 3), "äö…");
    }
}
