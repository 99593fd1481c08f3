//! One log line, as JSON or for a console.

use std::fmt;
use std::time::SystemTime;

use tracing::Metadata;
use tracing::field::{Field, Visit};

use crate::clock;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Tabs between level, caller, message and a JSON object with the fields.
    Console,
}

/// What is to be said.
pub struct Line {
    /// zap's name of the level.
    pub level: &'static str,
    caller: String,
    message: String,
    /// `"name":value` pairs, each behind a comma.
    fields: String,
}

impl Line {
    /// A line without fields.
    pub fn new(level: &'static str, caller: &str, message: &str) -> Line {
        Line { level, caller: caller.to_owned(), message: message.to_owned(), fields: String::new() }
    }

    /// Adds a field of text.
    pub fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        quote(&mut self.fields, value);
    }

    fn raw(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        self.fields += &value.to_string();
    }

    fn name(&mut self, name: &str) {
        self.fields.push(',');
        quote(&mut self.fields, &name.trim_start_matches("r#").replace('_', "-"));
        self.fields.push(':');
    }

    /// The text with its line end.
    pub fn render(&self, format: Format) -> String {
        let timestamp = clock::timestamp(SystemTime::now());
        let Line { level, caller, message, fields } = self;
        let mut text = String::with_capacity(96 + caller.len() + message.len() + fields.len());
        match format {
            Format::Json => {
                text += "{\"level\":\"";
                text += level;
                text += "\",\"ts\":\"";
                text += &timestamp;
                text += "\",\"caller\":";
                quote(&mut text, caller);
                text += ",\"msg\":";
                quote(&mut text, message);
                text += fields;
                text += "}\n";
            }
            Format::Console => {
                text = format!("{timestamp}\t{level}\t{caller}\t{message}");
                if !fields.is_empty() {
                    text += "\t{";
                    text += &fields[1..];
                    text.push('}');
                }
                text.push('\n');
            }
        }
        text
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.text(field.name(), &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.text(field.name(), value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.raw(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.raw(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.raw(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.raw(field.name(), value);
        } else {
            self.text(field.name(), &value.to_string());
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field.name(), &value.to_string());
    }
}

/// Where a line comes from, as zap's short caller: the directory and the file.
pub fn caller(metadata: &Metadata<'_>) -> String {
    let path = metadata.file().unwrap_or("unknown");
    let mut parts = path.rsplit('/');
    let file = parts.next().unwrap_or(path);
    let directory = match parts.next() {
        Some("src") => parts.next(),
        other => other,
    };
    format!("{}/{file}:{}", directory.unwrap_or("src"), metadata.line().unwrap_or(0))
}

fn quote(into: &mut String, text: &str) {
    into.push('"');
    for c in text.chars() {
        match c {
            '"' => *into += "\\\"",
            '\\' => *into += "\\\\",
            '\n' => *into += "\\n",
            '\r' => *into += "\\r",
            '\t' => *into += "\\t",
            c if c < ' ' => *into += &format!("\\u{:04x}", c as u32),
            c => into.push(c),
        }
    }
    into.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_zap() {
        let mut line = Line::new("info", "server/main.rs:7", "say \"hi\"\u{1}");
        line.text("member_id", "8e9e05c52164694d");
        line.raw("took", 5);
        let text = line.render(Format::Json);
        let keys = ["\"level\":", "\"ts\":", "\"caller\":", "\"msg\":", "\"member-id\":", "\"took\":5"];
        let places: Vec<usize> = keys.iter().map(|key| text.find(key).expect(key)).collect();
        assert!(places.is_sorted(), "{text}");
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["msg"], "say \"hi\"\u{1}");
        assert!(
            line.render(Format::Console).ends_with("\t{\"member-id\":\"8e9e05c52164694d\",\"took\":5}\n")
        );
    }
}
