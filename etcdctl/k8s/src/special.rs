//! Types whose JSON is not that of their fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value as Json, json};

use crate::object::Reader;
use crate::schema::Type;
use crate::time;
use crate::wire::{self, DecodeError, Value};

/// A value of a special type in the message of these bytes; of `None`, the type's zero.
pub fn value(reader: Reader<'_>, of: Type, message: Option<&[u8]>) -> Result<Json, DecodeError> {
    let bytes = message.unwrap_or_default();
    Ok(match of {
        // To Go, a time of no bytes is the zero time, and one at second 0 is 1970.
        Type::Time | Type::MicroTime if bytes.is_empty() => Json::Null,
        Type::Time => time::rfc3339(wire::last_int(bytes, 1)?, None).into(),
        Type::MicroTime => {
            let micros = wire::last_int(bytes, 2)? / 1_000;
            time::rfc3339(wire::last_int(bytes, 1)?, Some(micros)).into()
        }
        // As it was written: an apiserver writes quantities in their canonical form only.
        Type::Quantity => message.map_or(Ok("0".into()), |message| text(message, 1))?,
        Type::IntOrString => match wire::last_int(bytes, 1)? {
            0 => wire::last_int(bytes, 2)?.into(),
            _ => text(bytes, 3)?,
        },
        Type::Json => embedded(wire::last_bytes(bytes, 1)?),
        Type::Strings => match list(bytes, 1, |text| Ok(String::from_utf8_lossy(text).into()))? {
            Json::Null if message.is_some() => Vec::<Json>::new().into(),
            list => list,
        },
        Type::SchemaOrArray(schema) => {
            match list(bytes, 2, |item| reader.object(schema, item).map(Json::from))? {
                Json::Null => schema_in(reader, schema, bytes, 1)?,
                list => list,
            }
        }
        Type::SchemaOrBool(schema) => match schema_in(reader, schema, bytes, 2)? {
            Json::Null => (wire::last_int(bytes, 1)? != 0).into(),
            schema => schema,
        },
        Type::SchemaOrStrings(schema) => {
            match list(bytes, 2, |text| Ok(String::from_utf8_lossy(text).into()))? {
                Json::Null => schema_in(reader, schema, bytes, 1)?,
                list => list,
            }
        }
        Type::String | Type::Int | Type::Bool | Type::Double | Type::Bytes | Type::Message(_) => {
            reader.one(of, message.map(Value::Bytes))?
        }
    })
}

fn text(message: &[u8], number: u32) -> Result<Json, DecodeError> {
    Ok(String::from_utf8_lossy(wire::last_bytes(message, number)?).into())
}

/// What a field repeats; null where it is not there.
fn list(
    message: &[u8],
    number: u32,
    item: impl Fn(&[u8]) -> Result<Json, DecodeError>,
) -> Result<Json, DecodeError> {
    let mut items = Vec::new();
    for field in wire::fields(message) {
        if let (found, Value::Bytes(bytes)) = field?
            && found == number
        {
            items.push(item(bytes)?);
        }
    }
    Ok(if items.is_empty() { Json::Null } else { items.into() })
}

/// The schema in a field; null where there is none.
fn schema_in(reader: Reader<'_>, schema: &str, message: &[u8], number: u32) -> Result<Json, DecodeError> {
    for field in wire::fields(message) {
        if let (found, Value::Bytes(bytes)) = field?
            && found == number
        {
            return Ok(reader.object(schema, bytes)?.into());
        }
    }
    Ok(Json::Null)
}

/// JSON inside an object, as it is; base64 under `$bytes` where it is none.
fn embedded(raw: &[u8]) -> Json {
    if raw.is_empty() {
        return Json::Null;
    }
    match serde_json::from_slice(raw) {
        Ok(value) => whole_numbers(value),
        Err(_) => json!({ "$bytes": STANDARD.encode(raw) }),
    }
}

/// Numbers as Go writes them: without a fraction where they have none.
pub fn whole_numbers(mut value: Json) -> Json {
    match &mut value {
        Json::Number(written) if written.is_f64() => {
            return written.as_f64().map_or(Json::Null, number);
        }
        Json::Array(items) => items.iter_mut().for_each(|item| *item = whole_numbers(item.take())),
        Json::Object(fields) => fields.values_mut().for_each(|item| *item = whole_numbers(item.take())),
        _ => {}
    }
    value
}

/// A number in JSON. What JSON has no number for (infinity) becomes null.
pub fn number(value: f64) -> Json {
    /// Up to here each whole number has a double of its own.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
        return (value as i64).into();
    }
    Number::from_f64(value).into()
}

/// Appends the numbers of a packed list.
pub fn unpack(of: Type, packed: &[u8], list: &mut Vec<Json>) -> Result<(), DecodeError> {
    if of == Type::Double {
        let (numbers, rest) = packed.as_chunks();
        list.extend(numbers.iter().map(|bytes| number(f64::from_le_bytes(*bytes))));
        return if rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Truncated { at: packed.len() - rest.len() })
        };
    }
    for found in wire::varints(packed) {
        let found = found?;
        list.push(if of == Type::Bool { (found != 0).into() } else { found.cast_signed().into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_does() {
        for (value, text) in
            [(1e3, "1000"), (-0.5, "-0.5"), (0.0, "0"), (2.5e-3, "0.0025"), (f64::INFINITY, "null")]
        {
            assert_eq!(number(value).to_string(), text);
        }
        assert_eq!(
            whole_numbers(json!({"a": [1.0, {"b": 2e2}], "c": "1.0"})).to_string(),
            r#"{"a":[1,{"b":200}],"c":"1.0"}"#
        );
    }

    #[test]
    fn packed_lists_are_taken_apart() {
        let mut list = Vec::new();
        unpack(Type::Int, b"\x01\x96\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &mut list).unwrap();
        unpack(Type::Bool, b"\x00\x01", &mut list).unwrap();
        unpack(Type::Double, &1.5f64.to_le_bytes(), &mut list).unwrap();
        assert_eq!(Json::from(list).to_string(), "[1,150,-1,false,true,1.5]");
        assert!(unpack(Type::Double, b"1234567", &mut Vec::new()).is_err());
    }
}
