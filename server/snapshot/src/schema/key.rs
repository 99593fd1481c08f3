//! Rows of the bucket `key`: a revision, and what the key became then.

use bytes::Bytes;
use prost::Message;

use super::Malformed;

/// Bytes of a revision key; one more marks a tombstone.
const LEN: usize = 17;
const TOMBSTONE: u8 = b't';

/// When a change was made, and whether it was a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevisionKey {
    /// The revision of the command.
    pub main: i64,
    /// 0, 1, 2 … in the order of the changes of one command.
    pub sub: i64,
    /// Whether the key was deleted.
    pub tombstone: bool,
}

impl RevisionKey {
    /// etcd 3.7's `BE64(main) '_' BE64(sub)`, followed by `t` for a tombstone.
    pub fn to_bytes(self) -> RevisionBytes {
        let mut bytes = [0; LEN + 1];
        bytes[..8].copy_from_slice(&self.main.to_be_bytes());
        bytes[8] = b'_';
        bytes[9..LEN].copy_from_slice(&self.sub.to_be_bytes());
        bytes[LEN] = TOMBSTONE;
        RevisionBytes { bytes, len: LEN + usize::from(self.tombstone) }
    }

    /// Reads a revision key back.
    ///
    /// As in etcd 3.7 an 18th byte other than `t` does not count, while another length, another separator
    /// and negative numbers are refused.
    ///
    /// # Errors
    /// [`Malformed::RevisionKey`].
    pub fn parse(key: &[u8]) -> Result<Self, Malformed> {
        let (main, rest) = key.split_first_chunk().ok_or(Malformed::RevisionKey)?;
        let (separator, rest) = rest.split_first().ok_or(Malformed::RevisionKey)?;
        let (sub, mark) = rest.split_first_chunk().ok_or(Malformed::RevisionKey)?;
        let (main, sub) = (i64::from_be_bytes(*main), i64::from_be_bytes(*sub));
        if *separator != b'_' || mark.len() > 1 || main < 0 || sub < 0 {
            return Err(Malformed::RevisionKey);
        }
        Ok(Self { main, sub, tombstone: mark == [TOMBSTONE] })
    }
}

/// An encoded revision key.
#[derive(Debug, Clone, Copy)]
pub struct RevisionBytes {
    bytes: [u8; LEN + 1],
    len: usize,
}

impl AsRef<[u8]> for RevisionBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What a key became (`mvccpb.KeyValue`). That of a tombstone has nothing but the key.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeyValue {
    /// The key; empty in the row that stands for a revision bump, and nowhere else.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The revision that created the key.
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// The revision of this change.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// How many changes since the key was created, this one included.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// The lease it is attached to, 0 for none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

impl KeyValue {
    /// Decodes a row's value; what is in it are slices of `bytes`.
    ///
    /// # Errors
    /// [`Malformed::Protobuf`].
    pub fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        Self::decode(bytes)
            .map_err(|e| Malformed::Protobuf { message: "mvccpb.KeyValue", detail: e.to_string() })
    }

    /// As etcd writes it: fields in order, zero ones left out.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}
