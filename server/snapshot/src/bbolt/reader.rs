//! Reading: positioned reads of one page at a time, every number in it doubted.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::format::{BUCKET_LEN, HEADER_LEN, META_LEN, Meta, NO_FREELIST, u64_at};
use super::node::{Element, Node, What};
use super::walk::{LEVELS_MAX, Leaf, PageSet, Walk};
use super::{Damage, Error, Problem};

/// How many buckets an image may have; etcd has ten.
pub const BUCKETS_MAX: usize = 256;

/// Pages an image may have: 16 TiB of the usual ones.
const PAGES_MAX: u64 = 1 << 32;
/// Page sizes there may be.
const PAGE_SIZES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 24;

/// An image, open for reading. The file is never written to and not locked.
#[derive(Debug)]
pub struct Database {
    file: File,
    path: PathBuf,
    meta: Meta,
    /// Bytes read from pages, for tests that bound it.
    #[cfg(test)]
    pub(crate) bytes_read: std::sync::atomic::AtomicU64,
}

impl Database {
    /// Opens an image. What stands behind it in the file, such as the digest of a snapshot, is ignored.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Damaged`] when it has no valid meta page or is
    /// shorter than its meta page says.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |e| Error::io(path, e);
        let file = File::open(path).map_err(io)?;
        let file_len = file.metadata().map_err(io)?.len();
        let damaged = |page, offset, damage| Error::Damaged {
            path: path.into(),
            problem: Problem { page, offset, damage },
        };
        let meta_at = |offset: u64| -> Result<Result<Meta, Damage>, Error> {
            let needed = offset + (HEADER_LEN + META_LEN) as u64;
            if needed > file_len {
                return Ok(Err(Damage::Truncated { len: file_len, needed }));
            }
            let mut bytes = [0; META_LEN];
            file.read_exact_at(&mut bytes, offset + HEADER_LEN as u64).map_err(io)?;
            Ok(Meta::parse(&bytes))
        };
        let first = meta_at(0)?;
        let (page, meta) = match first {
            Ok(first) => match meta_at(first.page_size.into())? {
                Ok(second) if second.txid > first.txid && second.page_size == first.page_size => (1, second),
                _ => (0, first),
            },
            // Where the second page begins, only its meta can say.
            Err(damage) => {
                let mut sizes = std::iter::successors(Some(*PAGE_SIZES.start()), |size| Some(size * 2))
                    .take_while(|size| PAGE_SIZES.contains(size));
                loop {
                    let Some(size) = sizes.next() else { return Err(damaged(0, 0, damage)) };
                    if let Ok(meta) = meta_at(size)?
                        && u64::from(meta.page_size) == size
                    {
                        break (1, meta);
                    }
                }
            }
        };
        let page_size = u64::from(meta.page_size);
        let damaged = |damage| Err(damaged(page, page * page_size, damage));
        if !page_size.is_power_of_two() || !PAGE_SIZES.contains(&page_size) {
            return damaged(Damage::PageSize { found: meta.page_size });
        }
        let pages = meta.high_water;
        if !(3..=PAGES_MAX).contains(&pages) {
            return damaged(Damage::Pages { found: pages });
        }
        if pages * page_size > file_len {
            return damaged(Damage::Truncated { len: file_len, needed: pages * page_size });
        }
        for named in [Some(meta.root), Some(meta.freelist).filter(|page| *page != NO_FREELIST)] {
            if let Some(named) = named.filter(|named| !(2..pages).contains(named)) {
                return damaged(Damage::PageOutOfRange { page: named, pages });
            }
        }
        Ok(Self {
            file,
            path: path.into(),
            meta,
            #[cfg(test)]
            bytes_read: 0.into(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes a page has.
    pub fn page_size(&self) -> u64 {
        self.meta.page_size.into()
    }

    /// Bytes of the image, all pages up to the high-water mark: the length without a digest behind it.
    pub fn image_len(&self) -> u64 {
        self.pages() * self.page_size()
    }

    /// The buckets, ascending by name.
    ///
    /// # Errors
    /// As [`Bucket::rows`]; also when there are more than [`BUCKETS_MAX`].
    pub fn buckets(&self) -> Result<Vec<Bucket<'_>>, Error> {
        let mut walk = Walk::new(self, PageSet::of(self));
        let mut buckets = Vec::new();
        walk.enter(self.meta.root, 0, 0)?;
        while let Some(leaf) = walk.next() {
            let leaf = leaf?;
            if buckets.len() == BUCKETS_MAX {
                let damage = Damage::TooManyBuckets { max: BUCKETS_MAX };
                return Err(self.damaged(leaf.page, leaf.offset, damage));
            }
            buckets.push(Bucket::of(self, leaf)?);
        }
        Ok(buckets)
    }

    /// The bucket of this name, if there is one.
    ///
    /// # Errors
    /// As [`buckets`](Self::buckets).
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'_>>, Error> {
        Ok(self.buckets()?.into_iter().find(|bucket| bucket.name == name))
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(super) fn pages(&self) -> u64 {
        self.meta.high_water
    }

    pub(super) fn damaged(&self, page: u64, offset: u64, damage: Damage) -> Error {
        Error::Damaged { path: self.path.clone(), problem: Problem { page, offset, damage } }
    }

    /// A page of a tree; `page` and `offset` are where it is named.
    fn node(&self, child: u64, page: u64, offset: u64) -> Result<Node, Error> {
        if child < 2 || child >= self.pages() {
            let damage = Damage::PageOutOfRange { page: child, pages: self.pages() };
            return Err(self.damaged(page, offset, damage));
        }
        Ok(Node::page(self, child)?.0)
    }

    /// Reads bytes that the caller knows to be in the image.
    pub(super) fn read(&self, offset: u64, len: u64) -> Result<Bytes, Error> {
        #[cfg(test)]
        self.bytes_read.fetch_add(len, std::sync::atomic::Ordering::Relaxed);
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, offset).map_err(|e| Error::io(&self.path, e))?;
        Ok(bytes.into())
    }
}

/// A bucket of an image.
#[derive(Debug, Clone)]
pub struct Bucket<'a> {
    database: &'a Database,
    name: Bytes,
    root: Root,
    /// Where its entry is.
    page: u64,
    offset: u64,
}

/// Where the rows of a bucket are.
#[derive(Debug, Clone, Copy)]
enum Root {
    Page(u64),
    /// In the entry: so many bytes from this offset in the file on.
    Inline {
        base: u64,
        len: u64,
    },
}

impl<'a> Bucket<'a> {
    /// Takes an element of the root tree.
    pub(super) fn of(database: &'a Database, leaf: Leaf) -> Result<Self, Error> {
        let Leaf { page, offset, index: element, key: name, bucket, value, value_offset } = leaf;
        let damaged = |damage| Err(database.damaged(page, offset, damage));
        if !bucket {
            return damaged(Damage::NoBucket { element });
        }
        let len = value.len();
        if len < BUCKET_LEN as u64 {
            return damaged(Damage::ShortBucket { element, len });
        }
        let root = match u64_at(&value.head(database, BUCKET_LEN)?, 0) {
            0 if len < (BUCKET_LEN + HEADER_LEN) as u64 => {
                return damaged(Damage::ShortBucket { element, len });
            }
            0 => Root::Inline { base: value_offset + BUCKET_LEN as u64, len: len - BUCKET_LEN as u64 },
            page => Root::Page(page),
        };
        Ok(Self { database, name, root, page, offset })
    }

    /// Its name.
    pub fn name(&self) -> &Bytes {
        &self.name
    }

    /// Its rows, ascending by key.
    ///
    /// They are read as they are asked for. Memory: one bit a page of the image, and for each level of the tree
    /// at most 64 KiB and two keys, and one row. After an error there are no more rows.
    pub fn rows(&self) -> Rows<'a> {
        let entered = match self.root {
            Root::Page(_) => PageSet::of(self.database),
            Root::Inline { .. } => PageSet::default(),
        };
        let mut walk = Walk::new(self.database, entered);
        let failed = self.enter(&mut walk).err();
        Rows { database: self.database, walk, failed, ended: false, page: self.page }
    }

    /// The value under a key, if there is one.
    ///
    /// Reads one page of each level of the tree; not all that [`rows`](Self::rows) would find wrong is found.
    /// Memory: at most 64 KiB, and the value.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let database = self.database;
        let mut node = match self.root {
            Root::Inline { base, len } => Node::inline(database, self.page, base, len)?,
            Root::Page(root) => database.node(root, self.page, self.offset)?,
        };
        for _ in 0..LEVELS_MAX {
            let mut child = None;
            for index in 0..node.count {
                let Element { offset, key: found, what, .. } = node.element(database, index)?;
                match what {
                    What::Child(page) if found <= key || index == 0 => child = Some((page, offset)),
                    What::Value { bucket: false, value, .. } if found == key => {
                        return value.read(database).map(Some);
                    }
                    What::Value { bucket: true, .. } if found == key => {
                        let damage = Damage::NestedBucket { element: index };
                        return Err(database.damaged(node.page, offset, damage));
                    }
                    _ if found > key => break,
                    _ => {}
                }
            }
            let Some((page, offset)) = child else { return Ok(None) };
            node = database.node(page, node.page, offset)?;
        }
        Err(database.damaged(self.page, self.offset, Damage::TooDeep { max: LEVELS_MAX }))
    }

    pub(super) fn enter(&self, walk: &mut Walk<'a>) -> Result<(), Error> {
        match self.root {
            Root::Page(root) => walk.enter(root, self.page, self.offset),
            Root::Inline { base, len } => {
                walk.enter_inline(Node::inline(self.database, self.page, base, len)?);
                Ok(())
            }
        }
    }
}

/// The rows of a bucket; see [`Bucket::rows`].
#[derive(Debug)]
pub struct Rows<'a> {
    database: &'a Database,
    walk: Walk<'a>,
    /// Why the bucket could not be entered.
    failed: Option<Error>,
    ended: bool,
    page: u64,
}

impl Rows<'_> {
    /// The page that the last row is in.
    pub fn page(&self) -> u64 {
        self.page
    }

    /// Bytes of the pages read so far; none for a bucket that stands in its entry.
    pub fn bytes_read(&self) -> u64 {
        self.walk.entered.len * self.database.page_size()
    }

    fn row(&mut self) -> Option<Result<(Bytes, Bytes), Error>> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let leaf = match self.walk.next()? {
            Ok(leaf) => leaf,
            Err(error) => return Some(Err(error)),
        };
        self.page = leaf.page;
        if leaf.bucket {
            let damage = Damage::NestedBucket { element: leaf.index };
            return Some(Err(self.database.damaged(leaf.page, leaf.offset, damage)));
        }
        Some(leaf.value.read(self.database).map(|value| (leaf.key, value)))
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<(Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.row();
        self.ended = !matches!(row, Some(Ok(_)));
        row
    }
}
