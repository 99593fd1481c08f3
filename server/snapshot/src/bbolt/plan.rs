//! Writing: two passes over the same rows, the first to learn the image's length and root.
//!
//! Pages are laid out as the rows come, and get their numbers then. The metas,
//! which come first, need the root's number and how many pages there are: the
//! first pass is the second without the bytes.
//!
//! ```text
//!   meta meta │ leaf leaf leaf … branch leaf … branch branch │ …next bucket… │ root
//! ```

use super::format::{BUCKET_FLAG, Header, LEAF, META, Meta, NO_FREELIST, bucket_bytes};
use super::tree::{Out, Pages, Tree};
use super::{KEY_LEN_MAX, PAGE_SIZE, VALUE_LEN_MAX};

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
    /// A key is longer than [`KEY_LEN_MAX`].
    #[error("a key of {len} bytes in bucket {bucket:?}")]
    LongKey {
        /// The bucket; empty when it is the bucket's own name.
        bucket: String,
        /// Bytes of the key.
        len: usize,
    },
    /// A value is longer than [`VALUE_LEN_MAX`].
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
pub struct Plan {
    root: u64,
    pages: u64,
    /// CRC-32C of names, keys and lengths.
    told: u32,
}

/// The transaction the metas name; the second one that before it.
const TXID: u64 = 2;

impl Plan {
    /// The first pass: works out the layout. Memory: as for [`write`](Self::write), without the values.
    ///
    /// # Errors
    /// The source's own; [`Unwritable`] when bbolt could not hold a row.
    pub fn of<S: Source>(source: &S) -> Result<Self, S::Error> {
        Loader::new(None, u64::MAX).load(source)
    }

    /// Bytes of the image: a multiple of [`PAGE_SIZE`].
    #[expect(clippy::len_without_is_empty, reason = "an image is never empty")]
    pub fn len(&self) -> u64 {
        self.pages * PAGE_SIZE as u64
    }

    /// The second pass: hands the image to `out`, in order and in pieces of any size.
    ///
    /// Memory: for each level of a tree a page and a key, at most 64 KiB of rows that share a page, and a
    /// quarter page for each bucket small enough to stand in its entry. Longer rows go through uncopied.
    ///
    /// # Errors
    /// The source's and `out`'s own; [`Unwritable::Changed`] when the rows are not those of the first pass. After
    /// an error what `out` got is no image.
    pub fn write<S: Source>(&self, source: &S, out: Out<'_, S::Error>) -> Result<(), S::Error> {
        out(&self.metas())?;
        let done = Loader::new(Some(out), self.pages).load(source)?;
        if done == *self { Ok(()) } else { Err(Unwritable::Changed.into()) }
    }

    /// Both passes in one, for an image that `place` can write at any offset. Gives its layout. Memory: as for
    /// [`write`](Self::write).
    ///
    /// # Errors
    /// The source's and `place`'s own. After an error what `place` got is no image.
    pub fn write_at_once<S: Source>(source: &S, place: Place<'_, S::Error>) -> Result<Self, S::Error> {
        let mut at = 2 * PAGE_SIZE as u64;
        let mut out = |piece: &[u8]| {
            place(at, piece)?;
            at += piece.len() as u64;
            Ok(())
        };
        let plan = Loader::new(Some(&mut out), u64::MAX).load(source)?;
        place(0, &plan.metas())?;
        Ok(plan)
    }

    /// The first two pages.
    fn metas(&self) -> Vec<u8> {
        let mut pages = Vec::with_capacity(2 * PAGE_SIZE);
        for id in 0..2 {
            let meta = Meta {
                page_size: PAGE_SIZE as u32,
                root: self.root,
                freelist: NO_FREELIST,
                high_water: self.pages,
                txid: TXID - id,
            };
            pages.extend_from_slice(&Header { id, kind: META, count: 0, overflow: 0 }.to_bytes());
            pages.extend_from_slice(&meta.to_bytes());
            pages.resize((id as usize + 1) * PAGE_SIZE, 0);
        }
        pages
    }
}

/// Writes a piece of an image at an offset.
pub type Place<'a, E> = &'a mut (dyn FnMut(u64, &[u8]) -> Result<(), E> + 'a);

/// One pass.
struct Loader<'a, E> {
    pages: Pages<'a, E>,
    /// The buckets' entries.
    root: Tree,
    /// The bucket that is open; its name is the root's last key.
    bucket: Option<Tree>,
    name: Vec<u8>,
    told: u32,
}

impl<'a, E: From<Unwritable>> Loader<'a, E> {
    fn new(out: Option<Out<'a, E>>, limit: u64) -> Self {
        Self {
            pages: Pages { out, next: 2, limit, head: Vec::new() },
            root: Tree::default(),
            bucket: None,
            name: Vec::new(),
            told: 0,
        }
    }

    fn load<S: Source<Error = E>>(mut self, source: &S) -> Result<Plan, E> {
        source.visit(&mut self)?;
        self.end_bucket()?;
        let root = self.root.end(&mut self.pages)?;
        Ok(Plan { root, pages: self.pages.next, told: self.told })
    }

    fn end_bucket(&mut self) -> Result<(), E> {
        let Some(mut tree) = self.bucket.take() else { return Ok(()) };
        if !tree.is_inline() {
            let entry = bucket_bytes(tree.end(&mut self.pages)?);
            return self.root.row(&mut self.pages, BUCKET_FLAG, &self.name, entry.len(), &[&entry]);
        }
        let leaf = &tree.leaf;
        let mut entry = bucket_bytes(0).to_vec();
        let value_len = entry.len() + leaf.used();
        let count = leaf.elements.len() as u16;
        entry.extend_from_slice(&Header { id: 0, kind: LEAF, count, overflow: 0 }.to_bytes());
        leaf.put_elements(&mut entry);
        self.root.row(&mut self.pages, BUCKET_FLAG, &self.name, value_len, &[&entry, &leaf.data])
    }

    /// Notes what was told, for the other pass to be compared with.
    fn tell(&mut self, kind: u8, key: &[u8], value_len: usize) {
        let mut lens = [kind; 13];
        lens[1..5].copy_from_slice(&(key.len() as u32).to_le_bytes());
        lens[5..].copy_from_slice(&(value_len as u64).to_le_bytes());
        self.told = crc32c::crc32c_append(crc32c::crc32c_append(self.told, &lens), key);
    }
}

impl<E: From<Unwritable>> Visitor<E> for Loader<'_, E> {
    fn bucket(&mut self, name: &[u8]) -> Result<(), E> {
        self.end_bucket()?;
        fits(&[], name, &self.name)?;
        self.tell(0, name, 0);
        self.name = name.to_vec();
        self.bucket = Some(Tree::default());
        Ok(())
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), E> {
        self.tell(1, key, value.len());
        let Some(tree) = &mut self.bucket else { return Err(Unwritable::NoBucket.into()) };
        fits(&self.name, key, &tree.last_key)?;
        if value.len() > VALUE_LEN_MAX {
            return Err(Unwritable::LongValue { bucket: text(&self.name), len: value.len() }.into());
        }
        tree.row(&mut self.pages, 0, key, value.len(), &[value])
    }
}

/// Whether a key may follow the one before it, which is empty if there is none.
fn fits(bucket: &[u8], key: &[u8], last: &[u8]) -> Result<(), Unwritable> {
    if key.is_empty() {
        return Err(Unwritable::EmptyKey { bucket: text(bucket) });
    }
    if key.len() > KEY_LEN_MAX {
        return Err(Unwritable::LongKey { bucket: text(bucket), len: key.len() });
    }
    if key <= last {
        return Err(Unwritable::Order { bucket: text(bucket), key: key.into() });
    }
    Ok(())
}

fn text(bucket: &[u8]) -> String {
    String::from_utf8_lossy(bucket).into_owned()
}
