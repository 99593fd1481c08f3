//! What `snapshot status` and `hashkv` print, in the five forms of `--write-out`.

use manners::failure::{Failure, exit};
use manners::json::object;
use manners::output::{self, Format, line};
use manners::{go, table};
use snapshot::hash_kv::HashKv;
use snapshot::status::Status;

/// Prints what is in a file; etcd 3.7: `DBStatus`.
///
/// # Errors
/// In the form of a message there is nothing to print; stdout may refuse.
pub fn status(format: Format, status: &Status) -> Result<(), Failure> {
    let row = || {
        vec![
            format!("{:x}", status.hash),
            status.revision.to_string(),
            status.total_key.to_string(),
            go::size(status.total_size),
            status.version.clone(),
        ]
    };
    let mut out = Vec::new();
    match format {
        Format::Simple => line!(out, "{}", row().join(", ")),
        Format::Table => {
            let head = ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"];
            table::draw(&mut out, &head, &[row()]);
        }
        Format::Json => json_line(&mut out, |o| {
            o.value("hash", status.hash);
            o.value("revision", status.revision);
            o.value("totalKey", status.total_key);
            o.value("totalSize", status.total_size);
            o.string("version", &status.version);
        }),
        Format::Fields => {
            line!(out, "\"Hash\" : {}", status.hash);
            line!(out, "\"Revision\" : {}", status.revision);
            line!(out, "\"Keys\" : {}", status.total_key);
            line!(out, "\"Size\" : {}", status.total_size);
            line!(out, "\"Version\" : {}", status.version);
        }
        Format::Protobuf => return Err(unsupported(format)),
    }
    output::write(&out)
}

/// Prints a hash of the history; etcd 3.7: `DBHashKV`.
///
/// # Errors
/// As [`status`].
pub fn hash_kv(format: Format, hash: &HashKv) -> Result<(), Failure> {
    let row =
        || vec![hash.hash.to_string(), hash.hash_revision.to_string(), hash.compact_revision.to_string()];
    let mut out = Vec::new();
    match format {
        Format::Simple => line!(out, "{}", row().join(", ")),
        Format::Table => table::draw(&mut out, &["HASH", "HASH REVISION", "COMPACT REVISION"], &[row()]),
        Format::Json => json_line(&mut out, |o| {
            o.value("hash", hash.hash);
            o.value("hashRevision", hash.hash_revision);
            o.value("compactRevision", hash.compact_revision);
        }),
        Format::Fields => {
            line!(out, "\"Hash\" : {}", hash.hash);
            line!(out, "\"Hash revision\" : {}", hash.hash_revision);
            line!(out, "\"Compact revision\" : {}", hash.compact_revision);
        }
        Format::Protobuf => return Err(unsupported(format)),
    }
    output::write(&out)
}

/// Appends a line of JSON.
pub(crate) fn json_line(out: &mut Vec<u8>, fill: impl FnOnce(&mut manners::json::Object<'_>)) {
    let mut text = String::new();
    object(&mut text, fill);
    line!(out, "{text}");
}

/// The failure for a form in which there is nothing to print.
pub(crate) fn unsupported(format: Format) -> Failure {
    Failure::new(exit::BAD_FEATURE, format!("{} not supported as output format", format.name()))
}
