//! A message without a table: its fields by number, and what their bytes look like.
//!
//! ```text
//!   {"1": ["web-0"], "4": [7, 8], "9": [{"1": ["a"]}], "12": [{"$bytes": "gIA="}]}
//! ```
//!
//! Whether bytes are text or a message, the wire does not say: what begins with a printable character and
//! is text throughout is taken for text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};

use crate::DEPTH_MAX;
use crate::wire::{self, DecodeError, Value};

/// The fields of a message by number, each with all its values.
pub fn message(message: &[u8], depth: usize) -> Result<Map<String, Json>, DecodeError> {
    if depth > DEPTH_MAX {
        return Err(DecodeError::TooDeep);
    }
    let mut fields = Map::new();
    for field in wire::fields(message) {
        let (number, value) = field?;
        add(&mut fields, number, value, depth);
    }
    Ok(fields)
}

/// Adds a field's value to those of its number.
pub fn add(fields: &mut Map<String, Json>, number: u32, value: Value<'_>, depth: usize) {
    let shown = match value {
        Value::Varint(number) => number.cast_signed().into(),
        Value::Fixed64(number) => number.into(),
        Value::Fixed32(number) => number.into(),
        Value::Bytes(bytes) => guess(bytes, depth),
    };
    let values = fields.entry(number.to_string()).or_insert_with(|| json!([]));
    if let Json::Array(values) = values {
        values.push(shown);
    }
}

fn guess(bytes: &[u8], depth: usize) -> Json {
    let text = std::str::from_utf8(bytes).ok();
    let text = text.filter(|text| text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t' | '\r')));
    match text {
        Some(text) if !text.starts_with(|c: char| c.is_control()) => return text.into(),
        _ => {}
    }
    match (message(bytes, depth + 1), text) {
        (Ok(fields), _) => fields.into(),
        (Err(_), Some(text)) => text.into(),
        (Err(_), None) => json!({ "$bytes": STANDARD.encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_by_how_they_look() {
        let bytes = b"\x0a\x05web-0\x20\x07\x20\x08\x4a\x03\x0a\x01a\x62\x02\x80\x80\x6a\x00\x72\x02\n\n";
        let shown = json!({
            "1": ["web-0"], "4": [7, 8], "9": [{"1": ["a"]}], "12": [{"$bytes": "gIA="}], "13": [""], "14": ["\n\n"],
        });
        assert_eq!(Json::from(message(bytes, 0).unwrap()), shown);
        assert!(message(b"\x0a\x05web", 0).is_err());
    }
}
