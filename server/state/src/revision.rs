//! A point in the history of the key space.

use crate::Fault;

/// A revision: `main` counts the commands that changed something, `sub` the changes within one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// Grows by one with each command that changed something; the first user write has 2.
    pub main: i64,
    /// 0, 1, 2 … in the order of the changes of one command.
    pub sub: i64,
}

/// Length of a revision key; one more byte marks a tombstone.
pub const KEY_LEN: usize = 17;
const TOMBSTONE: u8 = b't';

impl Revision {
    /// etcd 3.7's revision key: `BE64(main) '_' BE64(sub)`, followed by `t` when the record is a tombstone.
    pub fn to_key(self, tombstone: bool) -> Key {
        let mut bytes = [0; KEY_LEN + 1];
        bytes[..8].copy_from_slice(&self.main.to_be_bytes());
        bytes[8] = b'_';
        bytes[9..17].copy_from_slice(&self.sub.to_be_bytes());
        bytes[17] = TOMBSTONE;
        Key { bytes, len: KEY_LEN + usize::from(tombstone) }
    }

    /// Reads a revision key back; the flag is true for a tombstone.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] when the bytes are not a revision key.
    pub fn from_key(key: &[u8]) -> Result<(Self, bool), Fault> {
        let tombstone = key.len() == KEY_LEN + 1 && key[KEY_LEN] == TOMBSTONE;
        if key.len() != KEY_LEN && !tombstone || key[8] != b'_' {
            return Err(Fault::Corrupt { what: "revision key", detail: format!("{key:02x?}") });
        }
        let number = |at: usize| i64::from_be_bytes(key[at..at + 8].try_into().expect("eight bytes"));
        Ok((Self { main: number(0), sub: number(9) }, tombstone))
    }
}

/// An encoded revision key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    bytes: [u8; KEY_LEN + 1],
    len: usize,
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
