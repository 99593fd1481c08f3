//! A key and its value as a document.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value as Json;

use crate::envelope::{Decoded, Form, decode};
use crate::wire::DecodeError;
use crate::yaml;

/// A key as a member or a snapshot file has it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The revision at which it was created.
    pub create_revision: i64,
    /// The revision of its last change.
    pub mod_revision: i64,
    /// How often it was changed since it was created, its creation included.
    pub version: i64,
    /// Its lease; 0 if it has none.
    pub lease: i64,
    /// The value.
    pub value: &'a [u8],
}

/// What is shown of an object.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether `metadata.managedFields` is.
    pub managed_fields: bool,
}

/// A line of JSON; its names are those of etcd's JSON where etcd has one.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// Of a key that is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    #[serde(skip_serializing_if = "is_zero")]
    lease: i64,
    stored_as: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption: Option<Encryption<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<&'a Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Encryption<'a> {
    provider: &'a str,
    version: &'a str,
    key: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Entry<'_> {
    /// The object as a YAML document, below comments that say what key it is. Ends with a line feed;
    /// what separates documents is left to the caller.
    ///
    /// A value that cannot be read is shown in base64, and the reason given beside the text.
    pub fn yaml(&self, options: Options) -> (String, Option<DecodeError>) {
        let lease = if self.lease == 0 { String::new() } else { format!(", lease {:x}", self.lease) };
        let mut head = format!(
            "# {}\n# create_revision {}, mod_revision {}, version {}{lease}\n",
            printable(self.key),
            self.create_revision,
            self.mod_revision,
            self.version,
        );
        let (body, error) = self.yaml_value(options);
        head.push_str(&body);
        (head, error)
    }

    /// The object as a YAML document without the key.
    pub fn yaml_value(&self, options: Options) -> (String, Option<DecodeError>) {
        let decoded = self.read(options);
        let length = self.value.len();
        let comment = match decoded.as_ref().map(|decoded| &decoded.form) {
            Ok(Form::Protobuf | Form::Json | Form::Text) => String::new(),
            Ok(Form::ProtobufOfUnknownKind) => {
                "# protobuf of a kind that is not known here: fields by number\n".into()
            }
            Ok(Form::Encrypted { provider, version, key }) => {
                format!("# encrypted by {provider} {version} with the key {key}: {length} bytes\n")
            }
            Ok(Form::Cbor) => format!("# CBOR, {length} bytes in base64\n"),
            Ok(Form::Bytes) => format!("# {length} bytes in base64\n"),
            Err(error) => format!("# not readable: {error}; {length} bytes in base64\n"),
        };
        let body = match &decoded {
            Ok(Decoded { form: Form::Encrypted { .. }, .. }) => String::new(),
            Ok(Decoded { form: Form::Text, .. }) => {
                yaml::document(&String::from_utf8_lossy(self.value).into())
            }
            Ok(Decoded { form: Form::Cbor | Form::Bytes, .. }) | Err(_) => {
                yaml::document(&STANDARD.encode(self.value).into())
            }
            Ok(Decoded { object, .. }) => yaml::document(object),
        };
        (comment + &body, decoded.err())
    }

    /// The key, its revisions and the object as one line of JSON, which ends with a line feed.
    pub fn json(&self, options: Options) -> (String, Option<DecodeError>) {
        let decoded = self.read(options);
        let key = std::str::from_utf8(self.key).ok();
        let mut line = Line {
            key,
            key_base64: key.is_none().then(|| STANDARD.encode(self.key)),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
            stored_as: "damaged",
            encryption: None,
            object: None,
            text: None,
            bytes: None,
            error: None,
        };
        match &decoded {
            Ok(Decoded { form, object }) => {
                line.stored_as = form.name();
                match form {
                    Form::Protobuf | Form::ProtobufOfUnknownKind | Form::Json => line.object = Some(object),
                    Form::Encrypted { provider, version, key } => {
                        line.encryption = Some(Encryption { provider, version, key });
                    }
                    Form::Text => line.text = std::str::from_utf8(self.value).ok(),
                    Form::Cbor | Form::Bytes => line.bytes = Some(STANDARD.encode(self.value)),
                }
            }
            Err(error) => {
                line.error = Some(error.to_string());
                line.bytes = Some(STANDARD.encode(self.value));
            }
        }
        let mut text = serde_json::to_string(&line).expect("text and numbers have a form in JSON");
        text.push('\n');
        (text, decoded.err())
    }

    fn read(&self, options: Options) -> Result<Decoded, DecodeError> {
        let mut decoded = decode(self.value)?;
        if !options.managed_fields
            && let Some(Json::Object(metadata)) = decoded.object.get_mut("metadata")
        {
            metadata.remove("managedFields");
        }
        Ok(decoded)
    }
}

impl Form {
    /// The name of the form in JSON.
    fn name(&self) -> &'static str {
        match self {
            Self::Protobuf => "protobuf",
            Self::ProtobufOfUnknownKind => "protobuf of an unknown kind",
            Self::Json => "json",
            Self::Encrypted { .. } => "encrypted",
            Self::Cbor => "cbor",
            Self::Text => "text",
            Self::Bytes => "bytes",
        }
    }
}

/// A key for a comment: on one line whatever it has in it.
fn printable(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => format!("\"{}\"", key.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Options = Options { managed_fields: true };

    fn entry(value: &[u8]) -> Entry<'_> {
        Entry { key: b"/registry/a", create_revision: 2, mod_revision: 5, version: 3, lease: 0, value }
    }

    #[test]
    fn an_object_is_a_document() {
        let value =
            br#"{"kind":"Gizmo","metadata":{"managedFields":[{}],"name":"a"},"spec":{"list":[1,"yes"]}}"#;
        let text = "# /registry/a\n# create_revision 2, mod_revision 5, version 3\nkind: Gizmo\nmetadata:\n  \
                    managedFields:\n  - {}\n  name: a\nspec:\n  list:\n  - 1\n  - \"yes\"\n";
        assert_eq!(entry(value).yaml(ALL), (text.to_owned(), None));
        let line = "{\"key\":\"/registry/a\",\"create_revision\":2,\"mod_revision\":5,\"version\":3,\"lease\":16,\
                    \"stored_as\":\"json\",\"object\":{\"kind\":\"Gizmo\",\"metadata\":{\"name\":\"a\"},\
                    \"spec\":{\"list\":[1,\"yes\"]}}}\n";
        let leased = Entry { lease: 16, ..entry(value) };
        assert_eq!(leased.json(Options { managed_fields: false }), (line.to_owned(), None));
    }

    #[test]
    fn what_has_no_object_is_said_to_have_none() {
        for (value, yaml, json) in [
            (
                &b"k8s:enc:aescbc:v1:key1:\xff"[..],
                "# encrypted by aescbc v1 with the key key1: 24 bytes\n",
                r#""stored_as":"encrypted","encryption":{"provider":"aescbc","version":"v1","key":"key1"}}"#,
            ),
            (b"17", "\"17\"\n", r#""stored_as":"text","text":"17"}"#),
            (b"\0", "# 1 bytes in base64\nAA==\n", r#""stored_as":"bytes","bytes":"AA=="}"#),
            (
                b"k8s\0\x0a\x05",
                "# not readable: the value ends inside the field that begins at byte 0; 6 bytes in base64\nazhzAAoF\n",
                r#""stored_as":"damaged","bytes":"azhzAAoF","error":"the value ends inside the field that begins at byte 0"}"#,
            ),
        ] {
            let entry = entry(value);
            assert_eq!(entry.yaml_value(ALL).0, yaml);
            let line = entry.json(ALL).0;
            assert!(line.trim_end().ends_with(json), "{line}");
        }
    }

    #[test]
    fn a_key_stays_on_its_line() {
        assert_eq!(printable("/a/ü".as_bytes()), "/a/ü");
        assert_eq!(printable(b"a\nb\xff"), "\"a\\nb\\xff\"");
    }
}
