//! From a client's bytes to a log entry, decoded once.
//!
//! A request message on the wire is, byte for byte, a field of
//! [`proto::command::Command`]. So its bytes are copied once, behind the
//! field's tag and length, and the request that is checked is decoded from that
//! very command: what was checked is what every member will apply.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use proto::command::{Command, command::Op};

use super::Invalid;

/// Bytes that etcd adds to a request in its log (a header with the request's id): part of its size limit.
const ENVELOPE: usize = 14;

/// The requests that are wrapped as they come.
#[derive(Debug, Clone, Copy)]
pub enum Field {
    /// [`Op::Put`].
    Put = 1,
    /// [`Op::DeleteRange`].
    DeleteRange = 2,
    /// [`Op::Txn`].
    Txn = 3,
}

/// An encoded command, ready to be proposed.
#[derive(Debug, Clone)]
pub struct Encoded(Bytes);

impl Encoded {
    /// Encodes a command that this member thought of, or changed.
    pub fn new(op: Op) -> Self {
        Self(Command { op: Some(op) }.encode_to_vec().into())
    }

    /// Wraps the bytes of a client's request and reads them.
    ///
    /// # Errors
    /// [`Invalid::Malformed`] when the bytes are not the message they should be.
    pub fn wrap(field: Field, request: &[u8]) -> Result<(Self, Op), Invalid> {
        let len = request.len();
        let mut bytes = BytesMut::with_capacity(1 + encoded_len_varint(len as u64) + len);
        encode_key(field as u32, WireType::LengthDelimited, &mut bytes);
        encode_varint(len as u64, &mut bytes);
        bytes.put_slice(request);
        let bytes = bytes.freeze();
        let command =
            Command::decode(bytes.clone()).map_err(|error| Invalid::Malformed(error.to_string()))?;
        let op = command.op.ok_or_else(|| Invalid::Malformed("empty".to_owned()))?;
        Ok((Self(bytes), op))
    }

    /// The length that counts against the limit for requests.
    pub fn size(&self) -> usize {
        self.0.len() + ENVELOPE
    }

    /// The bytes of the log entry.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proto::etcdserverpb as pb;

    use super::*;

    #[test]
    fn a_wrapped_request_is_the_command_with_that_request() {
        let put = pb::PutRequest { key: "k".into(), value: "v".into(), lease: 7, ..Default::default() };
        let (wrapped, op) = Encoded::wrap(Field::Put, &put.encode_to_vec()).expect("well formed");
        assert_eq!(op, Op::Put(put.clone()));
        assert_eq!(wrapped.into_bytes(), Encoded::new(Op::Put(put)).into_bytes());
    }

    #[test]
    fn an_empty_request_is_a_command_too() {
        let (_, op) = Encoded::wrap(Field::Txn, b"").expect("well formed");
        assert_eq!(op, Op::Txn(pb::TxnRequest::default()));
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        assert!(matches!(Encoded::wrap(Field::Put, &[0x0a, 9, 1]), Err(Invalid::Malformed(_))));
    }

    /// etcd 3.7 takes a value of 1,572,764 bytes under a short key and refuses one of 1,572,864.
    #[test]
    fn the_size_is_what_etcd_counts() {
        let size = |len: usize| {
            let put = pb::PutRequest { key: "k".into(), value: vec![0; len].into(), ..Default::default() };
            Encoded::new(Op::Put(put)).size()
        };
        assert!(size(1_572_764) <= 1_572_864);
        assert!(size(1_572_864) > 1_572_864);
    }
}
