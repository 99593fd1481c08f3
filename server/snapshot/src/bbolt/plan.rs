//! Writing: two passes over the same rows, the first to learn the image's length and root.

/// Rows to be written. Must tell the same ones each time it is asked.
pub trait Source {
    /// What can fail when the rows are read, and when the image is handed on.
    type Error: From<Unwritable>;

    /// Tells all buckets and rows to `visitor`, and ends when that fails.
    ///
    /// # Errors
    /// The source's own, and what the visitor gave.
    fn visit(&self, visitor: &mut dyn Visitor<Self::Error>) -> Result<(), Self::Error>;
}

/// Who hears the rows. Buckets come ascending by name, the rows of one ascending by key.
pub trait Visitor<E> {
    /// A bucket begins.
    ///
    /// # Errors
    /// When it cannot be taken; the visit ends then.
    fn bucket(&mut self, name: &[u8]) -> Result<(), E>;

    /// A row of the bucket that began last.
    ///
    /// # Errors
    /// When it cannot be taken; the visit ends then.
    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), E>;
}

/// Why rows cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unwritable {
    /// A key, or a bucket's name, is empty.
    #[error("an empty key in bucket {bucket:?}")]
    EmptyKey {
        /// The bucket; empty when it is the bucket's own name.
        bucket: String,
    },
    /// A key is longer than [`KEY_LEN_MAX`](super::KEY_LEN_MAX).
    #[error("a key of {len} bytes in bucket {bucket:?}")]
    LongKey {
        /// The bucket; empty when it is the bucket's own name.
        bucket: String,
        /// Bytes of the key.
        len: usize,
    },
    /// A value is longer than [`VALUE_LEN_MAX`](super::VALUE_LEN_MAX).
    #[error("a value of {len} bytes in bucket {bucket:?}")]
    LongValue {
        /// The bucket.
        bucket: String,
        /// Bytes of the value.
        len: usize,
    },
    /// A key is not above the one before it.
    #[error("key {key:02x?} of bucket {bucket:?} is not above the one before it")]
    Order {
        /// The bucket; empty when it is the bucket's own name.
        bucket: String,
        /// The key.
        key: Vec<u8>,
    },
    /// A row came before any bucket.
    #[error("a row before any bucket")]
    NoBucket,
    /// The source told other rows in the second pass than in the first: what was handed on is no image.
    #[error("the rows changed between the two passes")]
    Changed,
}

/// The layout of an image that is yet to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {}

impl Plan {
    /// The first pass: works out the layout. Memory: as for [`write`](Self::write), without the values.
    ///
    /// # Errors
    /// The source's own; [`Unwritable`] when bbolt could not hold a row.
    pub fn of<S: Source>(source: &S) -> Result<Self, S::Error> {
        let _ = source;
        todo!()
    }

    /// Bytes of the image: a multiple of [`PAGE_SIZE`](super::PAGE_SIZE).
    #[expect(clippy::len_without_is_empty, reason = "an image is never empty")]
    pub fn len(&self) -> u64 {
        todo!()
    }

    /// The second pass: hands the image to `out`, in order and in pieces of any size.
    ///
    /// Memory: for each level of the tree a page and a key, at most 64 KiB of rows that share a page, and a
    /// quarter page for each bucket small enough to stand in its entry. Longer rows go through uncopied.
    ///
    /// # Errors
    /// The source's and `out`'s own; [`Unwritable::Changed`] when the rows are not those of the first pass. After
    /// an error what `out` got is no image.
    pub fn write<S: Source>(
        &self,
        source: &S,
        out: &mut dyn FnMut(&[u8]) -> Result<(), S::Error>,
    ) -> Result<(), S::Error> {
        let _ = (source, out);
        todo!()
    }
}
