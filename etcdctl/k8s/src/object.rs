//! Makes the object of a message, by the table of its type's fields.
//!
//! What comes out is what Go's JSON encoder makes of the object that the bytes decode to: fields that are
//! not on the wire are zero, and whether a zero is shown is each field's own affair.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

use crate::schema::{Field, Holds, Schema, Type};
use crate::special;
use crate::wire::{self, DecodeError, Value};
use crate::{DEPTH_MAX, dump};

/// Where fields stand that the table does not know: those of a Kubernetes newer than the table.
const UNKNOWN: &str = "$unknownFields";

/// Reads messages by one table.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// The table.
    pub schema: &'a Schema,
    /// How deep messages are inside each other so far.
    pub depth: usize,
}

impl Reader<'_> {
    /// The object that a message of this type holds.
    pub fn object(self, type_name: &str, message: &[u8]) -> Result<Map<String, Json>, DecodeError> {
        let mut object = Map::new();
        self.add(type_name, message, &mut object)?;
        Ok(object)
    }

    /// Puts the fields of a message into an object.
    fn add(
        mut self,
        type_name: &str,
        message: &[u8],
        object: &mut Map<String, Json>,
    ) -> Result<(), DecodeError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        let fields = self.schema.fields(type_name);
        let mut found = vec![Vec::new(); fields.len()];
        let mut unknown = Map::new();
        for field in wire::fields(message) {
            let (number, value) = field?;
            match fields.iter().position(|field| field.number == number && fits(field.holds, value)) {
                Some(index) => found[index].push(value),
                None => dump::add(&mut unknown, number, value, self.depth),
            }
        }
        for (field, values) in fields.iter().zip(found) {
            self.add_field(field, &values, object)?;
        }
        if !unknown.is_empty() {
            object.insert(UNKNOWN.to_owned(), unknown.into());
        }
        Ok(())
    }

    fn add_field(
        self,
        field: &Field,
        values: &[Value<'_>],
        object: &mut Map<String, Json>,
    ) -> Result<(), DecodeError> {
        let Some(name) = field.name else {
            let Holds::One(Type::Message(inner)) = field.holds else { return Ok(()) };
            return self.add(inner, bytes(values.last().copied()), object);
        };
        let (shown, empty) = match field.holds {
            Holds::One(of) => {
                let shown = self.one(of, values.last().copied())?;
                let empty = match of {
                    Type::String => shown == "",
                    Type::Int | Type::Double => shown == 0,
                    Type::Bool => shown == false,
                    Type::Bytes => shown.is_null() || shown == "",
                    Type::Strings => shown.as_array().is_none_or(Vec::is_empty),
                    // Structs are never empty to Go's encoder.
                    _ => false,
                };
                (shown, empty)
            }
            Holds::Optional(of) => match values.last() {
                Some(value) => (self.one(of, Some(*value))?, false),
                None => (Json::Null, true),
            },
            Holds::List(of) => {
                let mut list = Vec::with_capacity(values.len());
                for value in values {
                    match *value {
                        Value::Bytes(packed) if matches!(of, Type::Int | Type::Bool | Type::Double) => {
                            special::unpack(of, packed, &mut list)?;
                        }
                        value => list.push(self.one(of, Some(value))?),
                    }
                }
                let empty = list.is_empty();
                (if empty { Json::Null } else { list.into() }, empty)
            }
            Holds::Map(of) => {
                let mut map = Map::new();
                for value in values {
                    let (key, value) = self.map_entry(of, bytes(Some(*value)))?;
                    map.insert(key, value);
                }
                let empty = map.is_empty();
                (if empty { Json::Null } else { map.into() }, empty)
            }
        };
        let left_out = field.omit_empty && empty || field.omit_zero && shown.is_null();
        if !left_out {
            object.insert(name.to_owned(), shown);
        }
        Ok(())
    }

    /// The key and the value of an entry of a map, which is a message of the two.
    fn map_entry(self, of: Type, entry: &[u8]) -> Result<(String, Json), DecodeError> {
        let (mut key, mut value) = (String::new(), None);
        for field in wire::fields(entry) {
            match field? {
                (1, Value::Bytes(text)) => key = String::from_utf8_lossy(text).into_owned(),
                (2, found) if type_fits(of, found) => value = Some(found),
                _ => {}
            }
        }
        // A map's values are there when their key is, also those that take no bytes.
        let none = matches!(of, Type::Bytes).then_some(Value::Bytes(b""));
        Ok((key, self.one(of, value.or(none))?))
    }

    /// One value of a type; of none, the type's zero.
    pub fn one(self, of: Type, value: Option<Value<'_>>) -> Result<Json, DecodeError> {
        let number = match value {
            Some(Value::Varint(number) | Value::Fixed64(number)) => number,
            Some(Value::Fixed32(number)) => number.into(),
            Some(Value::Bytes(_)) | None => 0,
        };
        Ok(match of {
            Type::String => String::from_utf8_lossy(bytes(value)).into(),
            Type::Int => number.cast_signed().into(),
            Type::Bool => (number != 0).into(),
            Type::Double => special::number(f64::from_bits(number)),
            Type::Bytes => value.map(|value| STANDARD.encode(bytes(Some(value)))).into(),
            Type::Message(inner) => self.object(inner, bytes(value))?.into(),
            special => special::value(self, special, value.map(|value| bytes(Some(value))))?,
        })
    }
}

/// Whether a value's wire type is one that the field is written in.
fn fits(holds: Holds, value: Value<'_>) -> bool {
    match holds {
        Holds::One(of) | Holds::Optional(of) => type_fits(of, value),
        // Lists of numbers may be packed.
        Holds::List(of) => type_fits(of, value) || matches!(value, Value::Bytes(_)),
        Holds::Map(_) => matches!(value, Value::Bytes(_)),
    }
}

fn type_fits(of: Type, value: Value<'_>) -> bool {
    match of {
        Type::Int | Type::Bool => matches!(value, Value::Varint(_)),
        Type::Double => matches!(value, Value::Fixed64(_)),
        _ => matches!(value, Value::Bytes(_)),
    }
}

fn bytes(value: Option<Value<'_>>) -> &[u8] {
    match value {
        Some(Value::Bytes(bytes)) => bytes,
        _ => b"",
    }
}
