//! A page of a tree, and its elements one by one.
//!
//! Of a page at most [`WINDOW`] bytes are held, whatever it says its length is.
//! A page up to that length is read at once, and its keys and values are slices
//! of it.

use bytes::Bytes;

use super::format::{BRANCH, BUCKET_FLAG, BranchElement, ELEMENT_LEN, HEADER_LEN, Header, LEAF, LeafElement};
use super::{Damage, Database, Error, KEY_LEN_MAX, VALUE_LEN_MAX};

/// Bytes of a page that are held.
const WINDOW: u64 = 1 << 16;

/// A branch or leaf page, or the leaf inside a bucket's entry.
#[derive(Debug)]
pub(super) struct Node {
    /// The number of the page; for an inline leaf, of the page it is in.
    pub(super) page: u64,
    /// Where it begins in the file.
    base: u64,
    /// Bytes it has, with its overflow.
    len: u64,
    pub(super) branch: bool,
    pub(super) count: u32,
    /// Where the window begins, counted from `base`.
    from: u64,
    window: Bytes,
    /// Where the key and value of the element read last end, counted from `base`.
    end: u64,
}

/// An element and where it is.
#[derive(Debug)]
pub(super) struct Element {
    pub(super) index: u32,
    /// In the file.
    pub(super) offset: u64,
    pub(super) key: Bytes,
    pub(super) what: What,
}

/// What stands under a key.
#[derive(Debug)]
pub(super) enum What {
    /// In a branch: the child.
    Child(u64),
    /// In a leaf.
    Value {
        bucket: bool,
        /// Where the value begins in the file.
        offset: u64,
        value: Value,
    },
}

/// A value, as far as it is read yet.
#[derive(Debug)]
pub(super) enum Value {
    Here(Bytes),
    /// In the file from the first of these on, as many bytes as the second.
    There(u64, u64),
}

impl Value {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::There(_, len) => *len,
        }
    }

    pub(super) fn read(self, database: &Database) -> Result<Bytes, Error> {
        match self {
            Self::Here(bytes) => Ok(bytes),
            Self::There(offset, len) => database.read(offset, len),
        }
    }

    /// Its first bytes; `len` must not be more than it has.
    pub(super) fn head(&self, database: &Database, len: usize) -> Result<Bytes, Error> {
        match self {
            Self::Here(bytes) => Ok(bytes.slice(..len)),
            Self::There(offset, _) => database.read(*offset, len as u64),
        }
    }
}

impl Node {
    /// The page of this number, which the caller knows to be in the image. Also gives its overflow.
    pub(super) fn page(database: &Database, page: u64) -> Result<(Self, u32), Error> {
        let (base, page_size) = (page * database.page_size(), database.page_size());
        let mut window = database.read(base, page_size)?;
        let header = header(&window);
        let damaged = |damage| Err(database.damaged(page, base, damage));
        if header.id != page {
            return damaged(Damage::PageId { found: header.id });
        }
        if header.kind != BRANCH && header.kind != LEAF {
            return damaged(Damage::PageKind { found: header.kind });
        }
        if u64::from(header.overflow) >= database.pages() - page {
            return damaged(Damage::Overflow { overflow: header.overflow, pages: database.pages() });
        }
        let len = (1 + u64::from(header.overflow)) * page_size;
        if len > page_size && page_size < WINDOW {
            window = database.read(base, len.min(WINDOW))?;
        }
        Ok((Self::new(database, page, base, len, header, window)?, header.overflow))
    }

    /// The leaf inside the entry of a bucket, `len` bytes from `base` on; the caller knows that they are inside
    /// `page` and enough for a header.
    pub(super) fn inline(database: &Database, page: u64, base: u64, len: u64) -> Result<Self, Error> {
        let window = database.read(base, len.min(WINDOW))?;
        let header = header(&window);
        let damaged = |damage| Err(database.damaged(page, base, damage));
        if header.id != 0 {
            return damaged(Damage::PageId { found: header.id });
        }
        if header.kind != LEAF {
            return damaged(Damage::PageKind { found: header.kind });
        }
        if header.overflow != 0 {
            return damaged(Damage::Overflow { overflow: header.overflow, pages: 0 });
        }
        Self::new(database, page, base, len, header, window)
    }

    fn new(
        database: &Database,
        page: u64,
        base: u64,
        len: u64,
        header: Header,
        window: Bytes,
    ) -> Result<Self, Error> {
        let (branch, count) = (header.kind == BRANCH, u32::from(header.count));
        let end = HEADER_LEN as u64 + u64::from(count) * ELEMENT_LEN as u64;
        if end > len {
            return Err(database.damaged(page, base, Damage::Count { count: count.into(), len }));
        }
        if branch && count == 0 {
            return Err(database.damaged(page, base, Damage::NoChildren));
        }
        Ok(Self { page, base, len, branch, count, from: 0, window, end })
    }

    /// The element of this index, which must be below the count. Elements are asked for in order.
    pub(super) fn element(&mut self, database: &Database, index: u32) -> Result<Element, Error> {
        let at = HEADER_LEN as u64 + u64::from(index) * ELEMENT_LEN as u64;
        if self.slice(at, ELEMENT_LEN as u64).is_none() {
            self.from = at;
            self.window = database.read(self.base + at, (self.len - at).min(WINDOW))?;
        }
        let bytes = self.slice(at, ELEMENT_LEN as u64).expect("the window begins there");
        let bytes = bytes[..].try_into().expect("a slice of that length");
        let (pos, key_len, value_len, flags, child) = if self.branch {
            let element = BranchElement::parse(bytes);
            (element.pos, element.key_len, 0, 0, Some(element.page))
        } else {
            let element = LeafElement::parse(bytes);
            (element.pos, element.key_len, element.value_len, element.flags, None)
        };
        let offset = self.base + at;
        let damaged = |damage| Err(database.damaged(self.page, offset, damage));
        let element = index;
        if key_len == 0 {
            return damaged(Damage::EmptyKey { element });
        }
        if key_len as usize > KEY_LEN_MAX {
            return damaged(Damage::LongKey { element, len: key_len });
        }
        if value_len as usize > VALUE_LEN_MAX {
            return damaged(Damage::LongValue { element, len: value_len });
        }
        if flags & !BUCKET_FLAG != 0 {
            return damaged(Damage::ElementFlags { element, flags });
        }
        let (start, len) = (at + u64::from(pos), u64::from(key_len) + u64::from(value_len));
        let head = HEADER_LEN as u64 + u64::from(self.count) * ELEMENT_LEN as u64;
        if start < head || start + len > self.len {
            return damaged(Damage::ElementOutOfPage { element, start, len, page_len: self.len });
        }
        // Without this, each of 65535 elements could be the whole page.
        if start < self.end {
            return damaged(Damage::Overlap { element });
        }
        self.end = start + len;
        let key = match self.slice(start, key_len.into()) {
            Some(key) => key,
            None => database.read(self.base + start, key_len.into())?,
        };
        let what = match child {
            Some(child) => What::Child(child),
            None => {
                let (at, len) = (start + u64::from(key_len), u64::from(value_len));
                let value = match self.slice(at, len) {
                    Some(value) => Value::Here(value),
                    None => Value::There(self.base + at, len),
                };
                What::Value { bucket: flags & BUCKET_FLAG != 0, offset: self.base + at, value }
            }
        };
        Ok(Element { index, offset, key, what })
    }

    /// Bytes of the page, if they are in the window.
    fn slice(&self, at: u64, len: u64) -> Option<Bytes> {
        let start = at.checked_sub(self.from)?;
        let end = start + len;
        (end <= self.window.len() as u64).then(|| self.window.slice(start as usize..end as usize))
    }
}

fn header(window: &Bytes) -> Header {
    Header::parse(window.first_chunk().expect("a page is longer than its header"))
}
