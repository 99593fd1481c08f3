//! What can be wrong with an image, and where.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused to read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image breaks a rule of the format.
    #[error("{path}: {problem}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which rule, and where.
        problem: Problem,
    },
}

impl Error {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}

/// A broken rule and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The page, by its number from the start of the file.
    pub page: u64,
    /// Byte offset in the file.
    pub offset: u64,
    /// The rule.
    pub damage: Damage,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {} at byte {}: {}", self.page, self.offset, self.damage)
    }
}

/// A rule of the format that does not hold.
///
/// `element` is the place in the page, from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// There is less in the file than the rule needs.
    #[error("the file has {len} bytes, and {needed} are needed")]
    Truncated {
        /// Bytes the file has.
        len: u64,
        /// Bytes it would have to have.
        needed: u64,
    },
    /// A meta does not begin as one.
    #[error("magic {found:#010x} instead of 0xed0cdaed")]
    Magic {
        /// What stands there.
        found: u32,
    },
    /// A meta is of another version of the format.
    #[error("format version {found} instead of 2")]
    Version {
        /// What stands there.
        found: u32,
    },
    /// The checksum of a meta is wrong.
    #[error("checksum {stored:#018x} of a meta whose bytes give {computed:#018x}")]
    Checksum {
        /// What stands there.
        stored: u64,
        /// What the bytes give.
        computed: u64,
    },
    /// A meta names a page size that cannot be.
    #[error("page size {found}")]
    PageSize {
        /// What stands there.
        found: u32,
    },
    /// A meta names a number of pages that cannot be.
    #[error("{found} pages")]
    Pages {
        /// What stands there.
        found: u64,
    },
    /// A page is named that cannot be there.
    #[error("refers to page {page} of {pages}")]
    PageOutOfRange {
        /// The page named.
        page: u64,
        /// Pages of the image.
        pages: u64,
    },
    /// A page has another page's number.
    #[error("says to be page {found}")]
    PageId {
        /// What stands there.
        found: u64,
    },
    /// A page is not of the kind its place asks for.
    #[error("page kind {found:#x}")]
    PageKind {
        /// What stands there.
        found: u16,
    },
    /// A page goes on beyond the end of the image.
    #[error("{overflow} pages of overflow in an image of {pages} pages")]
    Overflow {
        /// What stands there.
        overflow: u32,
        /// Pages of the image.
        pages: u64,
    },
    /// A page has no room for its elements.
    #[error("{count} elements in {len} bytes")]
    Count {
        /// Elements, or ids of a freelist.
        count: u64,
        /// Bytes of the page.
        len: u64,
    },
    /// A branch page has no children.
    #[error("a branch without children")]
    NoChildren,
    /// Key and value are not inside the page, behind its elements.
    #[error("element {element}: {len} bytes from {start} on, in a page of {page_len}")]
    ElementOutOfPage {
        /// Which element.
        element: u32,
        /// Where its key begins, counted from the page.
        start: u64,
        /// Bytes of key and value.
        len: u64,
        /// Bytes of the page.
        page_len: u64,
    },
    /// Key and value begin before those of the element before end.
    #[error("element {element} lies in the one before it")]
    Overlap {
        /// Which element.
        element: u32,
    },
    /// A key is empty.
    #[error("element {element} has an empty key")]
    EmptyKey {
        /// Which element.
        element: u32,
    },
    /// A key is longer than [`KEY_LEN_MAX`](super::KEY_LEN_MAX).
    #[error("element {element} has a key of {len} bytes")]
    LongKey {
        /// Which element.
        element: u32,
        /// Bytes of the key.
        len: u32,
    },
    /// A value is longer than [`VALUE_LEN_MAX`](super::VALUE_LEN_MAX).
    #[error("element {element} has a value of {len} bytes")]
    LongValue {
        /// Which element.
        element: u32,
        /// Bytes of the value.
        len: u32,
    },
    /// A leaf's element has flags nobody knows.
    #[error("element {element} has flags {flags:#x}")]
    ElementFlags {
        /// Which element.
        element: u32,
        /// What stands there.
        flags: u32,
    },
    /// A key is not above the one before it.
    #[error("the key of element {element} is not above the one before it")]
    Order {
        /// Which element.
        element: u32,
    },
    /// A key is not in the range that the page's parents give it.
    #[error("the key of element {element} does not belong in this page")]
    Range {
        /// Which element.
        element: u32,
    },
    /// A page is its own descendant.
    #[error("page {page} is below itself")]
    Loop {
        /// The page.
        page: u64,
    },
    /// A page is in two places.
    #[error("page {page} is used twice")]
    UsedTwice {
        /// The page.
        page: u64,
    },
    /// There are more levels than any tree has.
    #[error("more than {max} levels")]
    TooDeep {
        /// How many there may be.
        max: usize,
    },
    /// There are more buckets than [`BUCKETS_MAX`](super::BUCKETS_MAX).
    #[error("more than {max} buckets")]
    TooManyBuckets {
        /// How many there may be.
        max: usize,
    },
    /// A row stands where only buckets can.
    #[error("element {element} is no bucket")]
    NoBucket {
        /// Which element.
        element: u32,
    },
    /// A bucket stands inside a bucket.
    #[error("element {element} is a bucket in a bucket")]
    NestedBucket {
        /// Which element.
        element: u32,
    },
    /// A bucket's entry is shorter than what it must hold.
    #[error("element {element} is a bucket of {len} bytes")]
    ShortBucket {
        /// Which element.
        element: u32,
        /// Bytes of the entry.
        len: u64,
    },
    /// A page stands twice in the freelist.
    #[error("page {page} is free twice")]
    FreeTwice {
        /// The page.
        page: u64,
    },
    /// A page is used though it is in the freelist.
    #[error("free and in use")]
    FreeInUse,
    /// A page is neither used nor in the freelist.
    #[error("neither free nor in use")]
    Leaked,
}
