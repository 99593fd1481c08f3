//! Protobuf's wire format: a message as its fields, one after the other.

/// Why bytes are not what they should be. Positions count from the start of the message that was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("the value ends inside the field that begins at byte {at}")]
    Truncated {
        /// Where the field begins.
        at: usize,
    },
    /// A number takes more than ten bytes.
    #[error("at byte {at} is a number that has no end")]
    Overlong {
        /// Where the number begins.
        at: usize,
    },
    /// No field begins so.
    #[error("at byte {at} begins no field: {tag} is not a field's number and type")]
    BadTag {
        /// Where it stands.
        at: usize,
        /// What stands there.
        tag: u64,
    },
    /// Messages are nested deeper than anything that Kubernetes writes.
    #[error("messages are nested more than {} deep", crate::DEPTH_MAX)]
    TooDeep,
    /// The value says that it is JSON and is not.
    #[error("the value is not the JSON it should be: {0}")]
    Json(String),
}

/// What a field holds, as far as the wire tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A number, a boolean.
    Varint(u64),
    /// Eight bytes: a double.
    Fixed64(u64),
    /// Four bytes.
    Fixed32(u32),
    /// Text, bytes, a message, or a packed list.
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order in which they stand.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The fields of the message in these bytes.
pub fn fields(bytes: &[u8]) -> Fields<'_> {
    Fields { bytes, at: 0 }
}

/// The numbers of a packed list.
pub fn varints(bytes: &[u8]) -> impl Iterator<Item = Result<u64, DecodeError>> {
    let mut list = fields(bytes);
    std::iter::from_fn(move || {
        if list.at >= bytes.len() {
            return None;
        }
        let number = list.varint(list.at);
        if number.is_err() {
            list.at = bytes.len();
        }
        Some(number)
    })
}

impl<'a> Fields<'a> {
    fn varint(&mut self, field: usize) -> Result<u64, DecodeError> {
        let start = self.at;
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(DecodeError::Truncated { at: field })?;
            self.at += 1;
            // Of the tenth byte one bit counts; Go drops the others too.
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Overlong { at: start })
    }

    fn take(&mut self, count: u64, field: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let taken = taken.ok_or(DecodeError::Truncated { at: field })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: usize) -> Result<[u8; N], DecodeError> {
        let taken = self.take(N as u64, field)?;
        Ok(taken.try_into().expect("as many were asked for"))
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), DecodeError> {
        let at = self.at;
        let tag = self.varint(at)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or(DecodeError::BadTag { at, tag })?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint(at)?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array(at)?)),
            2 => {
                let length = self.varint(at)?;
                Value::Bytes(self.take(length, at)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array(at)?)),
            // Groups, which nothing here writes, and types that do not exist.
            _ => return Err(DecodeError::BadTag { at, tag }),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

/// The last value of a field of type string or bytes; empty where there is none.
pub fn last_bytes(message: &[u8], number: u32) -> Result<&[u8], DecodeError> {
    let mut last: &[u8] = &[];
    for field in fields(message) {
        if let (found, Value::Bytes(bytes)) = field?
            && found == number
        {
            last = bytes;
        }
    }
    Ok(last)
}

/// The last value of a field of a number's type; 0 where there is none.
pub fn last_int(message: &[u8], number: u32) -> Result<i64, DecodeError> {
    let mut last = 0;
    for field in fields(message) {
        if let (found, Value::Varint(value)) = field?
            && found == number
        {
            last = value.cast_signed();
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>, DecodeError> {
        fields(bytes).collect()
    }

    #[test]
    fn every_type_is_read() {
        let bytes = b"\x08\x96\x01\x11\x01\0\0\0\0\0\0\0\x1a\x02hi\x25\x02\0\0\0";
        let found = [
            (1, Value::Varint(150)),
            (2, Value::Fixed64(1)),
            (3, Value::Bytes(b"hi")),
            (4, Value::Fixed32(2)),
        ];
        assert_eq!(read(bytes).unwrap(), found);
    }

    #[test]
    fn what_is_damaged_says_where() {
        assert_eq!(read(b"\x08\x01\x1a\x05hi"), Err(DecodeError::Truncated { at: 2 }));
        assert_eq!(read(b"\x08\x01\x80"), Err(DecodeError::Truncated { at: 2 }));
        assert_eq!(
            read(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            Err(DecodeError::Overlong { at: 1 })
        );
        assert_eq!(read(b"\x0b"), Err(DecodeError::BadTag { at: 0, tag: 11 }));
        assert_eq!(read(b"\x00\x01"), Err(DecodeError::BadTag { at: 0, tag: 0 }));
        assert_eq!(
            read(b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            Err(DecodeError::Truncated { at: 0 })
        );
    }
}
