//! A set of keys, as requests name it.

use bytes::Bytes;

/// One key, or all keys from one up to another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyRange {
    /// Exactly this key.
    Single(Bytes),
    /// `start` ≤ key < `end`; nothing when `end` ≤ `start`.
    Span {
        /// The first key that may be in it.
        start: Bytes,
        /// The first key behind it.
        end: Bytes,
    },
    /// All keys ≥ this one.
    From(Bytes),
}

impl KeyRange {
    /// etcd 3.7: an empty `range_end` means one key, one zero byte means no end.
    pub fn parse(key: Bytes, range_end: Bytes) -> Self {
        match &range_end[..] {
            [] => Self::Single(key),
            [0] => Self::From(key),
            _ => Self::Span { start: key, end: range_end },
        }
    }

    /// The first key that may be in the set.
    pub fn start(&self) -> &Bytes {
        match self {
            Self::Single(key) | Self::From(key) | Self::Span { start: key, .. } => key,
        }
    }

    /// Whether the set has this key.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start()[..] && !self.is_before(key)
    }

    /// Whether the set has all keys ≥ `first` and, where there is an `end`, < `end`.
    pub(crate) fn covers(&self, first: &[u8], end: Option<&[u8]>) -> bool {
        match self {
            Self::Single(_) => false,
            Self::Span { start, end: own } => &start[..] <= first && end.is_some_and(|end| end <= &own[..]),
            Self::From(start) => &start[..] <= first,
        }
    }

    /// Leaves out all keys up to this one.
    pub(crate) fn begin_after(&mut self, key: &[u8]) {
        let after: Bytes = [key, &[0]].concat().into();
        match self {
            Self::Single(_) => *self = Self::Span { start: after.clone(), end: after },
            Self::From(start) | Self::Span { start, .. } => *start = after,
        }
    }

    /// Whether the whole set lies before this key.
    pub fn is_before(&self, key: &[u8]) -> bool {
        match self {
            Self::Single(only) => key > &only[..],
            Self::Span { end, .. } => key >= &end[..],
            Self::From(_) => false,
        }
    }
}
