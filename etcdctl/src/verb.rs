//! The commands, one file a verb.

pub mod alarm;
pub mod auth;
pub mod check;
pub mod compaction;
pub mod completion;
pub mod decode;
pub mod defrag;
pub mod del;
pub mod downgrade;
pub mod elect;
pub mod endpoint;
pub mod get;
pub mod lease;
pub mod lock;
pub mod make_mirror;
pub mod member;
pub mod move_leader;
pub mod put;
pub mod role;
pub mod snapshot;
pub mod top;
pub mod txn;
pub mod user;
pub mod version;
pub mod watch;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use bytes::Bytes;

use crate::failure::{Failure, exit};

/// An argument as the bytes it was given in.
fn bytes(word: OsString) -> Bytes {
    word.into_vec().into()
}

/// An argument that has to be text.
fn text(word: &OsString) -> String {
    word.to_string_lossy().into_owned()
}

/// The end of a range that covers every key with this prefix; one zero byte where there is none.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(b"\0"),
    }
}

/// Key and range end for the flags `--prefix` and `--from-key`; an empty key is the lowest.
fn range_of(key: Bytes, end: Option<Bytes>, prefix: bool, from_key: bool) -> (Bytes, Bytes) {
    let open_end = Bytes::from_static(b"\0");
    let lowest = Bytes::from_static(b"\0");
    match (prefix, from_key) {
        (true, _) if key.is_empty() => (lowest, open_end),
        (true, _) => {
            let end = prefix_end(&key);
            (key, end)
        }
        (_, true) => (if key.is_empty() { lowest } else { key }, open_end),
        _ => (key, end.unwrap_or_default()),
    }
}

/// Whether `--consistency` asks for a serializable read.
fn serializable(consistency: &str) -> Result<bool, Failure> {
    match consistency {
        "s" => Ok(true),
        "l" => Ok(false),
        other => Err(Failure::new(exit::BAD_FEATURE, format!("unknown consistency flag {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(prefix_end(b"a"), &b"b"[..]);
        assert_eq!(prefix_end(b"a\xff\xff"), &b"b"[..]);
        assert_eq!(prefix_end(b"\xff\xff"), &b"\0"[..]);
    }
}
