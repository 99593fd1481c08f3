//! A run of neighbouring keys and their index entries, packed.
//!
//! The prefix that all keys of a page share is kept once. A record is
//! `varint(suffix length) suffix entry`; it ends where the next one begins.

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};

use super::entry::is_tombstone;

/// A page with more keys than this is split …
pub(super) const KEYS_MAX: usize = 128;
/// … and so is one with more bytes than this.
const BYTES_MAX: usize = 32 << 10;

/// The packed entries of a run of keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    prefix: Vec<u8>,
    starts: Vec<u32>,
    data: Vec<u8>,
}

impl Page {
    /// How many keys are on the page, deleted ones with history included.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Bytes the page takes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.prefix.capacity() + self.starts.capacity() * 4 + self.data.capacity()
    }

    /// Whether the page has grown beyond its limits and can be split.
    pub(super) fn is_full(&self) -> bool {
        self.len() > KEYS_MAX || self.data.len() > BYTES_MAX && self.len() > 1
    }

    /// The key at a position.
    pub(super) fn key(&self, at: usize) -> Bytes {
        let (suffix, _) = self.record(at);
        let mut key = Vec::with_capacity(self.prefix.len() + suffix.len());
        key.extend_from_slice(&self.prefix);
        key.extend_from_slice(suffix);
        key.into()
    }

    /// The entry at a position, encoded.
    pub(super) fn entry(&self, at: usize) -> &[u8] {
        self.record(at).1
    }

    /// Where the key stands, or where it would.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let shared = &self.prefix[..self.prefix.len().min(key.len())];
        match key[..shared.len()].cmp(shared) {
            std::cmp::Ordering::Less => return Err(0),
            std::cmp::Ordering::Greater => return Err(self.len()),
            std::cmp::Ordering::Equal if key.len() < self.prefix.len() => return Err(0),
            std::cmp::Ordering::Equal => {}
        }
        let suffix = &key[self.prefix.len()..];
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.record(middle).0.cmp(suffix) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// The entry of a key, encoded.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.search(key).ok().map(|at| self.entry(at))
    }

    /// Sets the entry of a key; true when the key is new on the page.
    pub(super) fn set(&mut self, key: &[u8], entry: &[u8]) -> bool {
        if !key.starts_with(&self.prefix) {
            self.shorten_prefix(key);
        }
        match self.search(key) {
            Ok(at) => {
                let (_, to) = self.bounds(at);
                self.splice(to - self.entry(at).len(), to, entry, at + 1);
                false
            }
            Err(at) => {
                if self.starts.is_empty() {
                    self.prefix = key.to_vec();
                }
                let suffix = &key[self.prefix.len()..];
                let mut record = Vec::with_capacity(suffix.len() + entry.len() + 2);
                encode_varint(suffix.len() as u64, &mut record);
                record.extend_from_slice(suffix);
                record.extend_from_slice(entry);
                let from = self.starts.get(at).map_or(self.data.len(), |start| *start as usize);
                self.starts.insert(at, from as u32);
                self.splice(from, from, &record, at + 1);
                true
            }
        }
    }

    /// Takes a key off the page; true when it was there.
    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        let Ok(at) = self.search(key) else { return false };
        let (from, to) = self.bounds(at);
        self.starts.remove(at);
        self.splice(from, to, &[], at);
        true
    }

    /// Into how many pages this one should be split once it is full.
    pub(super) fn parts(&self) -> usize {
        let by_keys = self.len().div_ceil(KEYS_MAX * 3 / 4);
        by_keys.max(self.data.len().div_ceil(BYTES_MAX * 3 / 4)).clamp(2, self.len().max(2))
    }

    /// How many keys are live.
    pub(super) fn live(&self) -> u32 {
        (0..self.len()).map(|at| u32::from(!is_tombstone(self.entry(at)))).sum()
    }

    /// Gives back memory that a load left over.
    pub(super) fn shrink(&mut self) {
        self.starts.shrink_to_fit();
        self.data.shrink_to_fit();
    }

    /// A page of the keys at positions `from..to`.
    pub(super) fn slice(&self, from: usize, to: usize) -> Page {
        let mut page = Page::default();
        if from == to {
            return page;
        }
        let (first, last) = (self.key(from), self.key(to - 1));
        let shared = first.iter().zip(last.iter()).take_while(|(a, b)| a == b).count();
        page.prefix = first[..shared].to_vec();
        for at in from..to {
            let key = self.key(at);
            page.starts.push(page.data.len() as u32);
            encode_varint((key.len() - shared) as u64, &mut page.data);
            page.data.extend_from_slice(&key[shared..]);
            page.data.extend_from_slice(self.entry(at));
        }
        page
    }

    fn shorten_prefix(&mut self, key: &[u8]) {
        let shared = self.prefix.iter().zip(key).take_while(|(a, b)| a == b).count();
        let moved = self.prefix[shared..].to_vec();
        let mut data = Vec::with_capacity(self.data.len() + self.len() * (moved.len() + 1));
        let mut starts = Vec::with_capacity(self.len() + 1);
        for at in 0..self.len() {
            let (suffix, entry) = self.record(at);
            starts.push(data.len() as u32);
            encode_varint((moved.len() + suffix.len()) as u64, &mut data);
            data.extend_from_slice(&moved);
            data.extend_from_slice(suffix);
            data.extend_from_slice(entry);
        }
        self.prefix.truncate(shared);
        (self.data, self.starts) = (data, starts);
    }

    fn bounds(&self, at: usize) -> (usize, usize) {
        let to = self.starts.get(at + 1).map_or(self.data.len(), |start| *start as usize);
        (self.starts[at] as usize, to)
    }

    fn record(&self, at: usize) -> (&[u8], &[u8]) {
        let (from, to) = self.bounds(at);
        let mut record = &self.data[from..to];
        let suffix = decode_varint(&mut record).expect("set wrote the length") as usize;
        record.split_at(suffix)
    }

    /// Replaces bytes `from..to` and moves the starts from position `behind` on.
    fn splice(&mut self, from: usize, to: usize, with: &[u8], behind: usize) {
        if to - from == with.len() {
            self.data[from..to].copy_from_slice(with);
            return;
        }
        self.data.splice(from..to, with.iter().copied());
        for start in &mut self.starts[behind..] {
            *start = (*start as usize + with.len() + from - to) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn entry(byte: u8, len: usize) -> Vec<u8> {
        vec![byte; len]
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(
            changes in prop::collection::vec(("[ab]{0,5}", any::<u8>(), 0..40usize, any::<bool>()), 1..200),
            cut in 0..100usize,
        ) {
            let mut page = Page::default();
            let mut map = BTreeMap::new();
            for (key, byte, len, keep) in changes {
                if keep {
                    let new = page.set(key.as_bytes(), &entry(byte, len));
                    prop_assert_eq!(new, map.insert(key, entry(byte, len)).is_none());
                } else {
                    prop_assert_eq!(page.remove(key.as_bytes()), map.remove(&key).is_some());
                }
            }
            let read = |page: &Page| -> Vec<_> {
                (0..page.len()).map(|at| (page.key(at).to_vec(), page.entry(at).to_vec())).collect()
            };
            let expected: Vec<_> = map.iter().map(|(k, v)| (k.clone().into_bytes(), v.clone())).collect();
            prop_assert_eq!(read(&page), expected.clone());
            for (key, value) in &map {
                prop_assert_eq!(page.get(key.as_bytes()), Some(&value[..]));
            }
            let cut = cut.min(page.len());
            let (low, high) = (page.slice(0, cut), page.slice(cut, page.len()));
            prop_assert_eq!([read(&low), read(&high)].concat(), expected);
        }
    }
}
