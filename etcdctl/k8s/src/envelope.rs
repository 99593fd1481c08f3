//! What a value is, by how it begins.

use serde_json::{Map, Value as Json, json};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::object::Reader;
use crate::wire::{self, DecodeError};
use crate::{dump, schema, special};

/// Begins what an apiserver writes in protobuf.
const PROTOBUF: &[u8] = b"k8s\0";
/// Begins what an apiserver has encrypted.
const ENCRYPTED: &[u8] = b"k8s:enc:";
/// Begins CBOR that says so: a tag without other meaning.
const CBOR: &[u8] = b"\xd9\xd9\xf7";

/// A value that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// What it was stored as.
    pub form: Form,
    /// The object, with its keys in order; null where the form has none.
    pub object: Json,
}

/// What a value can be stored as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Protobuf of a kind that the table knows.
    Protobuf,
    /// Protobuf of another kind: the object has `apiVersion`, `kind`, and under `$fields` the fields by number.
    ProtobufOfUnknownKind,
    /// A JSON object.
    Json,
    /// Encrypted: there is no object.
    Encrypted {
        /// Which provider has encrypted it, as in `EncryptionConfiguration`: `aescbc`, `aesgcm`, `secretbox`, `kms`.
        provider: String,
        /// The version of the provider's format.
        version: String,
        /// The name of its key, or of its KMS plugin.
        key: String,
    },
    /// CBOR, which is not read: there is no object.
    Cbor,
    /// Text, which Kubernetes writes under few keys: there is no object.
    Text,
    /// Something else: there is no object.
    Bytes,
}

/// Reads a value as an apiserver stores it.
///
/// Fails only where the value says what it is and then is something else; what is not Kubernetes' is
/// [`Form::Text`] or [`Form::Bytes`].
pub fn decode(value: &[u8]) -> Result<Decoded, DecodeError> {
    if let Some(envelope) = value.strip_prefix(PROTOBUF) {
        return unknown(envelope);
    }
    let without = |form| Ok(Decoded { form, object: Json::Null });
    if let Some(rest) = value.strip_prefix(ENCRYPTED) {
        return without(encrypted(rest));
    }
    if value.starts_with(CBOR) {
        return without(Form::Cbor);
    }
    if value.trim_ascii_start().starts_with(b"{")
        && let Ok(object) = serde_json::from_slice(value)
    {
        return Ok(Decoded { form: Form::Json, object: special::whole_numbers(object) });
    }
    let is_text = std::str::from_utf8(value)
        .is_ok_and(|text| text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t' | '\r')));
    without(if is_text { Form::Text } else { Form::Bytes })
}

/// Reads the message that is around every object: `runtime.Unknown`.
fn unknown(envelope: &[u8]) -> Result<Decoded, DecodeError> {
    let type_meta = wire::last_bytes(envelope, 1)?;
    let text = |message, number| Ok(String::from_utf8_lossy(wire::last_bytes(message, number)?).into_owned());
    let (api_version, kind) = (text(type_meta, 1)?, text(type_meta, 2)?);
    let raw = wire::last_bytes(envelope, 2)?;
    let (encoding, content): (String, String) = (text(envelope, 3)?, text(envelope, 4)?);
    let (form, mut object) = if !encoding.is_empty() {
        // Apiservers write none; to be sure not to read one thing for another.
        let raw = json!({ "$contentEncoding": encoding, "$bytes": STANDARD.encode(raw) });
        (Form::ProtobufOfUnknownKind, raw)
    } else if content == "application/json" {
        let object = serde_json::from_slice(raw).map_err(|error| DecodeError::Json(error.to_string()))?;
        (Form::Json, special::whole_numbers(object))
    } else {
        let schema = schema::builtin();
        match schema.kind(&api_version, &kind) {
            Some(name) => (Form::Protobuf, Reader { schema, depth: 0 }.object(name, raw)?.into()),
            None => (Form::ProtobufOfUnknownKind, json!({ "$fields": dump::message(raw, 0)? })),
        }
    };
    let fields: Option<&mut Map<_, _>> = object.as_object_mut();
    if let Some(fields) = fields {
        for (name, value) in [("apiVersion", api_version), ("kind", kind)] {
            if !value.is_empty() {
                fields.insert(name.to_owned(), value.into());
            }
        }
    }
    Ok(Decoded { form, object })
}

/// `provider:version:key:` and what nobody reads without the key.
fn encrypted(rest: &[u8]) -> Form {
    let mut words = rest.splitn(4, |byte| *byte == b':');
    let mut word = || {
        // The last word, if there are fewer than four, is not one of them.
        let word = words.next().filter(|word| word.iter().all(u8::is_ascii_graphic));
        word.map_or_else(String::new, |word| String::from_utf8_lossy(word).into_owned())
    };
    Form::Encrypted { provider: word(), version: word(), key: word() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(value: &[u8]) -> Form {
        decode(value).unwrap().form
    }

    #[test]
    fn forms_are_told_apart() {
        assert_eq!(form(b"{\"kind\":\"Gizmo\"}\n"), Form::Json);
        assert_eq!(form(b"{\"kind\":"), Form::Text);
        assert_eq!(form(b"17"), Form::Text);
        assert_eq!(form(b""), Form::Text);
        assert_eq!(form(b"\xd9\xd9\xf7\xa0"), Form::Cbor);
        assert_eq!(form(b"a\0"), Form::Bytes);
        assert_eq!(form(b"k8s\0"), Form::ProtobufOfUnknownKind);
    }

    #[test]
    fn who_has_encrypted_is_said() {
        let of = |provider: &str, version: &str, key: &str| Form::Encrypted {
            provider: provider.into(),
            version: version.into(),
            key: key.into(),
        };
        assert_eq!(form(b"k8s:enc:aescbc:v1:key1:\x17::\xff"), of("aescbc", "v1", "key1"));
        assert_eq!(form(b"k8s:enc:kms:v2:vault:\n\x01"), of("kms", "v2", "vault"));
        assert_eq!(form(b"k8s:enc:\xff"), of("", "", ""));
    }

    #[test]
    fn an_unknown_kind_is_shown_by_number() {
        let value = b"k8s\0\x0a\x0b\x0a\x02x/\x12\x05Gizmo\x12\x07\x0a\x03abc\x10\x01\x1a\0\"\0";
        let decoded = decode(value).unwrap();
        assert_eq!(decoded.form, Form::ProtobufOfUnknownKind);
        assert_eq!(
            decoded.object,
            json!({"apiVersion": "x/", "kind": "Gizmo", "$fields": {"1": ["abc"], "2": [1]}})
        );
    }

    #[test]
    fn what_is_damaged_is_refused() {
        assert_eq!(decode(b"k8s\0\x0a\x05"), Err(DecodeError::Truncated { at: 0 }));
    }
}
