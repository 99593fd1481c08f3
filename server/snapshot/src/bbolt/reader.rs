//! Reading: positioned reads of one page at a time, every number in it doubted.

use std::path::Path;

use bytes::Bytes;

use super::Error;

/// How many buckets an image may have; etcd has ten.
pub const BUCKETS_MAX: usize = 256;

/// An image, open for reading. The file is never written to and not locked.
#[derive(Debug)]
pub struct Database {}

impl Database {
    /// Opens an image. What stands behind it in the file, such as the digest of a snapshot, is ignored.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Damaged`] when it has no valid meta page or is
    /// shorter than its meta page says.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let _ = path;
        todo!()
    }

    /// Bytes a page has.
    pub fn page_size(&self) -> u64 {
        todo!()
    }

    /// Bytes of the image, all pages up to the high-water mark: the length without a digest behind it.
    pub fn image_len(&self) -> u64 {
        todo!()
    }

    /// The buckets, ascending by name.
    ///
    /// # Errors
    /// As [`Bucket::rows`]; also when there are more than [`BUCKETS_MAX`].
    pub fn buckets(&self) -> Result<Vec<Bucket<'_>>, Error> {
        todo!()
    }

    /// The bucket of this name, if there is one.
    ///
    /// # Errors
    /// As [`buckets`](Self::buckets).
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'_>>, Error> {
        let _ = name;
        todo!()
    }
}

/// A bucket of an image.
#[derive(Debug, Clone)]
pub struct Bucket<'a> {
    database: &'a Database,
    name: Bytes,
}

impl<'a> Bucket<'a> {
    /// Its name.
    pub fn name(&self) -> &Bytes {
        &self.name
    }

    /// Its rows, ascending by key.
    ///
    /// They are read as they are asked for. Memory: one bit a page of the image, and for each level of the tree
    /// at most 64 KiB and a key, and one row. After an error there are no more rows.
    pub fn rows(&self) -> Rows<'a> {
        let _ = self.database;
        todo!()
    }
}

/// The rows of a bucket; see [`Bucket::rows`].
#[derive(Debug)]
pub struct Rows<'a> {
    database: &'a Database,
}

impl Iterator for Rows<'_> {
    type Item = Result<(Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let _ = self.database;
        todo!()
    }
}
