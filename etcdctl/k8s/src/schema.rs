//! What Kubernetes' built-in kinds are made of: number, name and type of every field.
//!
//! The table is text that `tests/kube/schema` writes from Kubernetes' Go types, read once when it is first
//! needed. A line of a field is its number, its name in JSON, and what it holds:
//!
//! ```text
//!   kind apps/v1 Deployment apps/v1.Deployment
//!   type core/v1.Volume
//!   1 name string
//!   2 . core/v1.VolumeSource                 `.`   its fields stand among those of the outer type
//!   type meta/v1.ObjectMeta
//!   8 creationTimestamp?0 @time              `?`   left out when empty   `0`  or null
//!   10 deletionGracePeriodSeconds? *int      `*`   may be absent
//!   13 ownerReferences? []meta/v1.…          `[]`  a list   `map:` by strings
//! ```

use std::collections::HashMap;
use std::sync::OnceLock;

/// The kinds and types of one version of Kubernetes.
#[derive(Debug)]
pub struct Schema {
    kinds: HashMap<(&'static str, &'static str), &'static str>,
    types: HashMap<&'static str, Vec<Field>>,
}

/// A field of a type.
#[derive(Debug)]
pub struct Field {
    /// Its number in protobuf.
    pub number: u32,
    /// Its name in JSON; `None`: its own fields stand in its place.
    pub name: Option<&'static str>,
    /// Not shown when it is absent, or a scalar that is zero, or a list or map without anything in it.
    pub omit_empty: bool,
    /// Not shown when it is null. Only special types are so: the table's writer sees to it.
    pub omit_zero: bool,
    /// What it holds.
    pub holds: Holds,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// One, always there.
    One(Type),
    /// One, or none.
    Optional(Type),
    /// A list.
    List(Type),
    /// A map by strings.
    Map(Type),
}

/// The type of what a field holds, or of what a list or a map is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Text.
    String,
    /// An integer of 32 or 64 bits.
    Int,
    /// True or false.
    Bool,
    /// A floating point number.
    Double,
    /// Bytes, base64 in JSON.
    Bytes,
    /// A message with fields of its own.
    Message(&'static str),
    /// A point in time, to the second.
    Time,
    /// A point in time, to the microsecond.
    MicroTime,
    /// A quantity such as `500m`.
    Quantity,
    /// A number or a text.
    IntOrString,
    /// JSON as it is.
    Json,
    /// A list of strings, as a message of its own.
    Strings,
    /// A JSON schema, or a list of them.
    SchemaOrArray(&'static str),
    /// A JSON schema, or whether anything is allowed.
    SchemaOrBool(&'static str),
    /// A JSON schema, or a list of names.
    SchemaOrStrings(&'static str),
}

/// The table this program was built with.
pub fn builtin() -> &'static Schema {
    static BUILTIN: OnceLock<Schema> = OnceLock::new();
    BUILTIN.get_or_init(|| {
        Schema::parse(include_str!("schema.txt")).expect("the table is read by this file's tests")
    })
}

impl Schema {
    fn parse(text: &'static str) -> Option<Self> {
        let mut schema = Self { kinds: HashMap::new(), types: HashMap::new() };
        let mut fields = None;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split(' ');
            match words.next()? {
                "kind" => {
                    schema.kinds.insert((words.next()?, words.next()?), words.next()?);
                }
                "type" => fields = Some(schema.types.entry(words.next()?).or_default()),
                number => {
                    let field = field(number.parse().ok()?, words.next()?, words.next()?)?;
                    fields.as_mut()?.push(field);
                }
            }
        }
        Some(schema)
    }

    /// The type of a kind's objects.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<&'static str> {
        self.kinds.get(&(api_version, kind)).copied()
    }

    /// The fields of a type.
    pub fn fields(&self, type_name: &str) -> &[Field] {
        self.types.get(type_name).map_or(&[], Vec::as_slice)
    }
}

fn field(number: u32, name: &'static str, holds: &'static str) -> Option<Field> {
    let (name, omit_zero) =
        name.strip_suffix('0').filter(|rest| rest.ends_with('?')).map_or((name, false), |rest| (rest, true));
    let (name, omit_empty) = name.strip_suffix('?').map_or((name, false), |rest| (rest, true));
    let holds = match (holds.strip_prefix('*'), holds.strip_prefix("[]"), holds.strip_prefix("map:")) {
        (Some(inner), _, _) => Holds::Optional(Type::parse(inner)?),
        (_, Some(inner), _) => Holds::List(Type::parse(inner)?),
        (_, _, Some(inner)) => Holds::Map(Type::parse(inner)?),
        _ => Holds::One(Type::parse(holds)?),
    };
    Some(Field { number, name: (name != ".").then_some(name), omit_empty, omit_zero, holds })
}

impl Type {
    fn parse(text: &'static str) -> Option<Self> {
        let (name, inner) = match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
            Some((name, inner)) => (name, inner),
            None => (text, ""),
        };
        Some(match name {
            "string" => Self::String,
            "int" => Self::Int,
            "bool" => Self::Bool,
            "double" => Self::Double,
            "bytes" => Self::Bytes,
            "@time" => Self::Time,
            "@microtime" => Self::MicroTime,
            "@quantity" => Self::Quantity,
            "@intorstring" => Self::IntOrString,
            "@json" => Self::Json,
            "@strings" => Self::Strings,
            "@schemaorarray" => Self::SchemaOrArray(inner),
            "@schemaorbool" => Self::SchemaOrBool(inner),
            "@schemaorstrings" => Self::SchemaOrStrings(inner),
            name if name.contains('.') && !name.starts_with(['@', '*', '[']) => Self::Message(name),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let schema = builtin();
        assert!(schema.kinds.len() > 150);
        assert!(schema.kinds.values().all(|name| schema.types.contains_key(name)));
        for field in schema.types.values().flatten() {
            let (Holds::One(holds) | Holds::Optional(holds) | Holds::List(holds) | Holds::Map(holds)) =
                field.holds;
            if let Type::Message(name)
            | Type::SchemaOrArray(name)
            | Type::SchemaOrBool(name)
            | Type::SchemaOrStrings(name) = holds
            {
                assert!(schema.types.contains_key(name), "{name}");
            }
        }
    }

    #[test]
    fn a_line_says_what_a_field_is() {
        let field = field(8, "creationTimestamp?0", "@time").unwrap();
        assert_eq!((field.name, field.omit_empty, field.omit_zero), (Some("creationTimestamp"), true, true));
        assert_eq!(super::field(2, ".", "a/v1.B").unwrap().name, None);
        assert_eq!(super::field(2, "x10", "map:bytes").unwrap().holds, Holds::Map(Type::Bytes));
        assert!(super::field(2, "x", "map:[]bytes").is_none());
    }
}
