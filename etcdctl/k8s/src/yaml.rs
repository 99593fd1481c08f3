//! Writes YAML that every reader takes for the same thing, those of YAML 1.1 (`kubectl`) too.
//!
//! Maps and lists are in block style, text is plain where it can be taken for nothing else, several lines
//! are a literal block; all other text is in double quotes.

use std::fmt::Write as _;

use serde_json::Value;

/// The value as a document that ends with a line feed.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => block(&mut out, value, 0),
        Value::Array(items) if !items.is_empty() => block(&mut out, value, 0),
        scalar => {
            write_scalar(&mut out, scalar, 1);
            out.push('\n');
        }
    }
    out
}

/// The lines of a map or a list that has something in it, where the first is indented already.
fn block(out: &mut String, value: &Value, indent: usize) {
    let mut first = true;
    let mut line = |out: &mut String| {
        if !std::mem::take(&mut first) {
            out.push_str(&"  ".repeat(indent));
        }
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                line(out);
                push_word(out, name);
                out.push(':');
                // A list stands as far left as the name it belongs to.
                member(out, value, indent, if value.is_array() { indent } else { indent + 1 });
            }
        }
        Value::Array(items) => {
            for item in items {
                line(out);
                out.push('-');
                match item {
                    Value::Object(fields) if !fields.is_empty() => {
                        out.push(' ');
                        block(out, item, indent + 1);
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        out.push(' ');
                        block(out, item, indent + 1);
                    }
                    scalar => member(out, scalar, indent, indent + 1),
                }
            }
        }
        _ => {}
    }
}

/// What stands behind a name or a dash.
fn member(out: &mut String, value: &Value, indent: usize, inner: usize) {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        out.push('\n');
        out.push_str(&"  ".repeat(inner));
        block(out, value, inner);
    } else {
        out.push(' ');
        write_scalar(out, value, indent + 1);
        out.push('\n');
    }
}

fn write_scalar(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::String(text) if is_literal(text) => push_literal(out, text, indent),
        Value::String(text) => push_word(out, text),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => write!(out, "{other}").expect("writing to a String does not fail"),
    }
}

fn push_word(out: &mut String, text: &str) {
    if is_plain(text) { out.push_str(text) } else { push_quoted(out, text) }
}

/// Whether text stands well as a block of lines: printable, and no line begins or ends with white space.
fn is_literal(text: &str) -> bool {
    let body = text.trim_end_matches('\n');
    body.contains('\n')
        && !body.starts_with(char::is_whitespace)
        && text.chars().all(|c| c == '\n' || is_printable(c))
        && body.lines().all(|line| !line.ends_with(char::is_whitespace))
}

fn push_literal(out: &mut String, text: &str, indent: usize) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    // The last line feed is the caller's, as after every scalar.
    let lines = if text.len() - body.len() > 1 { &text[..text.len() - 1] } else { body };
    for line in lines.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&"  ".repeat(indent));
            out.push_str(line);
        }
    }
}

/// In double quotes, which have all of JSON's escapes.
fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c => write!(out, "\\U{:08x}", u32::from(c)).expect("writing to a String does not fail"),
        }
    }
    out.push('"');
}

/// Whether a character is what it looks like to every reader.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether text needs no quotes: neither syntax nor a boolean, null, number or date in any version of YAML.
fn is_plain(text: &str) -> bool {
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '$'));
    let number = text.starts_with(|c: char| c.is_ascii_digit()) && may_be_a_number(text);
    let inner = |c: char| c.is_ascii_alphanumeric() || " _./-:@+=,()$%;".contains(c);
    starts_well
        && text.chars().all(inner)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !is_word_of_yaml(text)
        && !number
}

fn is_word_of_yaml(text: &str) -> bool {
    ["y", "n", "yes", "no", "on", "off", "true", "false", "null"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether text that begins with a digit may be a number, a date, or minutes and seconds.
fn may_be_a_number(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = text.chars().all(|c| c.is_ascii_digit() || "_.:eE+-".contains(c));
    let address = digits && text.matches('.').count() > 1 && !text.contains(':');
    let based = |bases: &[u8]| bytes.len() > 1 && bases.contains(&bytes[1]);
    let date = bytes.len() > 4 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-';
    let hex = based(b"xX") && bytes[2..].iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'_');
    let octal_or_binary =
        based(b"oObB") && bytes[2..].iter().all(|byte| byte.is_ascii_digit() || *byte == b'_');
    digits && !address || hex || octal_or_binary || date
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn a_document_is_in_blocks() {
        let value = json!({
            "a": {"b": {}, "c": [], "empty": "", "null": null},
            "list": [1, {"x": 1, "y": [true, ["z"]]}, [[2], "s"], "one\ntwo\n"],
            "text": "one\n\n  two\n\n", "tail": "one\ntwo", "space": "one \ntwo", "key: odd": "\u{1}",
        });
        let text = "\
a:
  b: {}
  c: []
  empty: \"\"
  \"null\": null
\"key: odd\": \"\\U00000001\"
list:
- 1
- x: 1
  \"y\":
  - true
  - - z
- - - 2
  - s
- |
  one
  two
space: \"one \\ntwo\"
tail: |-
  one
  two
text: |+
  one

    two

";
        assert_eq!(document(&value), text);
        assert_eq!(serde_norway::from_str::<Value>(text).unwrap(), value);
        assert_eq!(document(&json!("a b")), "a b\n");
        assert_eq!(document(&json!({})), "{}\n");
    }

    #[test]
    fn text_that_may_be_something_else_is_quoted() {
        for plain in [
            "web-0",
            "/a/b",
            "10.0.0.1",
            "500m",
            "0b7a1d3c-6e4c",
            "a:b",
            "app (1), x=y",
            "v1",
            "k8s.io/x",
            "128Mi",
        ] {
            assert!(is_plain(plain), "{plain}");
        }
        for quoted in [
            "",
            "~",
            "yes",
            "No",
            "ON",
            "y",
            "null",
            "True",
            "1",
            "1.0",
            "1e3",
            "0x1f",
            "0o7",
            "0b1",
            "1_0",
            "12:30:45",
            "2026-02-28T12:00:59Z",
            "2026-02-28",
            "-1",
            "+1",
            ".5",
            ".inf",
            "a: b",
            "a #b",
            "a:",
            " a",
            "a ",
            "- a",
            "*",
            "&a",
            "!x",
            "{a}",
            "[a]",
            "'",
            "\"",
            "@a",
            "`",
            "|",
            ">",
            "%a",
            "ü",
            "a\tb",
            "=",
        ] {
            assert!(!is_plain(quoted), "{quoted}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ -~\n]{0,12}",
            "[0-9a-fx:._+eE-]{0,8}",
            "\\PC{0,6}",
            any::<String>(),
            "(a|b|\n| |-|#|:){0,8}"
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((text.clone(), inner), 0..4)
                    .prop_map(|fields| Value::from(fields.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in value()) {
            let text = document(&value);
            let read: Value = serde_norway::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}:\n{text}")))?;
            prop_assert_eq!(read, value, "{}", text);
        }
    }
}
