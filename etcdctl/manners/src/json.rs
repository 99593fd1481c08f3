//! JSON in the form that Go's `encoding/json` gives it.
//!
//! Integers are numbers whatever their size, bytes are base64, `<`, `>` and `&` are escaped.

use std::fmt::{Display, Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A JSON object being written. The `some` methods leave a zero value out.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut String,
    empty: bool,
}

/// Appends an object that `fill` fills.
pub fn object(out: &mut String, fill: impl FnOnce(&mut Object<'_>)) {
    out.push('{');
    fill(&mut Object { out, empty: true });
    out.push('}');
}

/// A list of objects; Go writes an empty slice that was never made as `null`.
pub fn array<T>(out: &mut String, items: &[T], fill: impl Fn(&mut Object<'_>, &T)) {
    if items.is_empty() {
        out.push_str("null");
        return;
    }
    push_list(out, items, |out, item| object(out, |o| fill(o, item)));
}

/// Appends a list; `push` appends one item.
pub fn push_list<T>(out: &mut String, items: &[T], push: impl Fn(&mut String, &T)) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push(out, item);
    }
    out.push(']');
}

impl Object<'_> {
    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(',');
        }
        push_string(self.out, name);
        self.out.push(':');
    }

    /// A value as its text stands.
    pub fn value(&mut self, name: &str, value: impl Display) {
        self.name(name);
        write!(self.out, "{value}").expect("writing to a String does not fail");
    }

    /// A value, unless it is zero.
    pub fn some<T: Display + Default + PartialEq>(&mut self, name: &str, value: T) {
        if value != T::default() {
            self.value(name, value);
        }
    }

    /// `true`, or nothing.
    pub fn some_true(&mut self, name: &str, value: bool) {
        if value {
            self.value(name, value);
        }
    }

    /// A string.
    pub fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        push_string(self.out, value);
    }

    /// A string, unless it is empty.
    pub fn some_string(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.string(name, value);
        }
    }

    /// Bytes, unless there are none.
    pub fn some_bytes(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            self.name(name);
            push_bytes(self.out, value);
        }
    }

    /// An object that `fill` fills.
    pub fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        object(self.out, fill);
    }

    /// A list; `push` appends one item.
    pub fn list<T>(&mut self, name: &str, items: &[T], push: impl Fn(&mut String, &T)) {
        self.name(name);
        push_list(self.out, items, push);
    }

    /// A list of objects.
    pub fn objects<T>(&mut self, name: &str, items: &[T], fill: impl Fn(&mut Object<'_>, &T)) {
        self.list(name, items, |out, item| object(out, |o| fill(o, item)));
    }

    /// A list of objects, unless it is empty.
    pub fn some_objects<T>(&mut self, name: &str, items: &[T], fill: impl Fn(&mut Object<'_>, &T)) {
        if !items.is_empty() {
            self.objects(name, items, fill);
        }
    }

    /// A list of strings, unless it is empty.
    pub fn some_strings(&mut self, name: &str, items: &[String]) {
        if !items.is_empty() {
            self.list(name, items, |out, item| push_string(out, item));
        }
    }
}

/// Appends bytes as a string in base64.
pub fn push_bytes(out: &mut String, bytes: &[u8]) {
    out.push('"');
    STANDARD.encode_string(bytes, out);
    out.push('"');
}

/// Appends a JSON string, escaped as Go does it: safe inside HTML too.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..' ' => {
                write!(out, "\\u{:04x}", c as u32).expect("writing to a String does not fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut out = String::new();
        push_string(&mut out, "a<b>&\"\\\n\u{1}\u{7f}é\u{2028}");
        assert_eq!(out, "\"a\\u003cb\\u003e\\u0026\\\"\\\\\\n\\u0001\u{7f}é\\u2028\"");
    }
}
