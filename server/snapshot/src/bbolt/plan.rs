//! Writing: two passes over the same rows, the first to learn the image's length and root.
//!
//! Pages are laid out as the rows come. A leaf page is done when the next row
//! does not fit, a branch page when its children do not, and gets its number
//! then; so a page stands behind its children, and of each level of a tree only
//! one page is held. The metas, which come first, need the root and the number
//! of pages: the first pass is the second without the bytes.
//!
//! ```text
//!   meta meta │ leaf leaf leaf … branch leaf … branch branch │ …next bucket… │ root
//! ```

use super::format::{
    BRANCH, BUCKET_FLAG, BranchElement, CHILDREN_MIN, ELEMENT_LEN, HEADER_LEN, Header, INLINE_FRACTION, LEAF,
    LeafElement, META, Meta, NO_FREELIST, bucket_bytes,
};
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
    pub fn write<S: Source>(
        &self,
        source: &S,
        out: &mut dyn FnMut(&[u8]) -> Result<(), S::Error>,
    ) -> Result<(), S::Error> {
        for id in 0..2 {
            let meta = Meta {
                page_size: PAGE_SIZE as u32,
                root: self.root,
                freelist: NO_FREELIST,
                high_water: self.pages,
                txid: TXID - id,
            };
            out(&Header { id, kind: META, count: 0, overflow: 0 }.to_bytes())?;
            let meta = meta.to_bytes();
            out(&meta)?;
            out(&ZEROS[HEADER_LEN + meta.len()..])?;
        }
        let done = Loader::new(Some(out), self.pages).load(source)?;
        if done == *self { Ok(()) } else { Err(Unwritable::Changed.into()) }
    }
}

static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

type Out<'a, E> = &'a mut (dyn FnMut(&[u8]) -> Result<(), E> + 'a);

/// The pages written so far.
struct Pages<'a, E> {
    /// Absent in the first pass.
    out: Option<Out<'a, E>>,
    next: u64,
    /// How many there may be.
    limit: u64,
    /// Header and elements of the page being written.
    head: Vec<u8>,
}

impl<E: From<Unwritable>> Pages<'_, E> {
    /// Writes a page of `used` bytes: what `head` puts there, and `rest`. Gives its number.
    fn write(
        &mut self,
        kind: u16,
        count: usize,
        used: usize,
        head: impl FnOnce(&mut Vec<u8>),
        rest: &[&[u8]],
    ) -> Result<u64, E> {
        let (id, len) = (self.next, used.div_ceil(PAGE_SIZE));
        self.next += len as u64;
        if self.next > self.limit {
            return Err(Unwritable::Changed.into());
        }
        let Some(out) = &mut self.out else { return Ok(id) };
        let count =
            u16::try_from(count).expect("an element has 16 bytes and shares at most 64 KiB and a page");
        let overflow = u32::try_from(len - 1).expect("a row has less than 2^31 + 2^15 bytes");
        self.head.clear();
        self.head.extend_from_slice(&Header { id, kind, count, overflow }.to_bytes());
        head(&mut self.head);
        out(&self.head)?;
        for piece in rest {
            out(piece)?;
        }
        out(&ZEROS[..len * PAGE_SIZE - used])?;
        Ok(id)
    }
}

/// The page at the bottom of a tree that rows go to.
#[derive(Default)]
struct Leaf {
    elements: Vec<LeafElement>,
    first_key: Vec<u8>,
    /// Keys and values; empty in the first pass.
    data: Vec<u8>,
    /// Bytes of keys and values.
    data_len: usize,
    /// Bytes the page may have: the pages that its first row needs, and so the room behind a long row is used.
    capacity: usize,
}

/// A row of at least so many bytes has a page to itself, and its bytes are not collected.
const LONG: usize = 1 << 16;

impl Leaf {
    fn used(&self) -> usize {
        HEADER_LEN + self.elements.len() * ELEMENT_LEN + self.data_len
    }

    fn push(&mut self, flags: u32, key: &[u8], value_len: usize) {
        if self.elements.is_empty() {
            self.capacity = (HEADER_LEN + ELEMENT_LEN + key.len() + value_len).next_multiple_of(PAGE_SIZE);
            self.first_key.clear();
            self.first_key.extend_from_slice(key);
        }
        // Counts from the end of the elements until it is known how many there are.
        let pos = self.data_len as u32;
        self.elements.push(LeafElement {
            flags,
            pos,
            key_len: key.len() as u32,
            value_len: value_len as u32,
        });
        self.data_len += key.len() + value_len;
    }

    /// Puts the elements behind a page's header.
    fn put_elements(&self, head: &mut Vec<u8>) {
        let mut to_end = self.elements.len() * ELEMENT_LEN;
        for element in &self.elements {
            let pos = element.pos + to_end as u32;
            head.extend_from_slice(&LeafElement { pos, ..*element }.to_bytes());
            to_end -= ELEMENT_LEN;
        }
    }

    fn clear(&mut self) {
        self.elements.clear();
        self.data.clear();
        self.data_len = 0;
    }
}

/// The page of a level above, with its children so far.
#[derive(Default)]
struct Branch {
    children: Vec<(Vec<u8>, u64)>,
    /// How many of them fit a page, at least [`CHILDREN_MIN`] if there are as many.
    fit: usize,
    /// Bytes of those, without the header.
    fit_len: usize,
}

impl Branch {
    fn push(&mut self, key: Vec<u8>, page: u64) {
        self.children.push((key, page));
        self.refit();
    }

    fn refit(&mut self) {
        while let Some((key, _)) = self.children.get(self.fit) {
            let len = self.fit_len + ELEMENT_LEN + key.len();
            if self.fit >= CHILDREN_MIN && HEADER_LEN + len > PAGE_SIZE {
                break;
            }
            self.fit += 1;
            self.fit_len = len;
        }
    }

    /// Writes a page of the first `count` children; gives its key and number.
    fn write<E: From<Unwritable>>(
        &mut self,
        pages: &mut Pages<'_, E>,
        count: usize,
    ) -> Result<(Vec<u8>, u64), E> {
        let children = &self.children[..count];
        let used = HEADER_LEN + children.iter().map(|(key, _)| ELEMENT_LEN + key.len()).sum::<usize>();
        let head = |head: &mut Vec<u8>| {
            let mut pos = count * ELEMENT_LEN;
            for (key, page) in children {
                let element = BranchElement { pos: pos as u32, key_len: key.len() as u32, page: *page };
                head.extend_from_slice(&element.to_bytes());
                pos = pos + key.len() - ELEMENT_LEN;
            }
            for (key, _) in children {
                head.extend_from_slice(key);
            }
        };
        let id = pages.write(BRANCH, count, used, head, &[])?;
        let key = self.children.drain(..count).next().expect("a page has children").0;
        (self.fit, self.fit_len) = (0, 0);
        self.refit();
        Ok((key, id))
    }
}

/// A tree that grows to the right.
#[derive(Default)]
struct Tree {
    leaf: Leaf,
    /// From the leaves up.
    branches: Vec<Branch>,
    last_key: Vec<u8>,
}

impl Tree {
    /// Adds a row; `value` in pieces, none of them in the first pass.
    fn row<E: From<Unwritable>>(
        &mut self,
        pages: &mut Pages<'_, E>,
        flags: u32,
        key: &[u8],
        value_len: usize,
        value: &[&[u8]],
    ) -> Result<(), E> {
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        let len = ELEMENT_LEN + key.len() + value_len;
        let long = len >= LONG;
        if !self.leaf.elements.is_empty() && (long || self.leaf.used() + len > self.leaf.capacity) {
            self.end_leaf(pages)?;
        }
        self.leaf.push(flags, key, value_len);
        if long {
            let leaf = &self.leaf;
            let mut rest = vec![key];
            rest.extend_from_slice(value);
            let id = pages.write(LEAF, 1, leaf.used(), |head| leaf.put_elements(head), &rest)?;
            self.leaf.clear();
            return self.child(pages, 0, key.to_vec(), id);
        }
        if pages.out.is_some() {
            self.leaf.data.extend_from_slice(key);
            value.iter().for_each(|piece| self.leaf.data.extend_from_slice(piece));
        }
        Ok(())
    }

    fn end_leaf<E: From<Unwritable>>(&mut self, pages: &mut Pages<'_, E>) -> Result<(), E> {
        let leaf = &mut self.leaf;
        let head = |head: &mut Vec<u8>| leaf.put_elements(head);
        let id = pages.write(LEAF, leaf.elements.len(), leaf.used(), head, &[&leaf.data])?;
        let key = std::mem::take(&mut leaf.first_key);
        leaf.clear();
        self.child(pages, 0, key, id)
    }

    /// Adds a page to a level of branches. One is written when it holds two children more than fit: so the
    /// last page of a level has [`CHILDREN_MIN`] as well.
    fn child<E: From<Unwritable>>(
        &mut self,
        pages: &mut Pages<'_, E>,
        level: usize,
        key: Vec<u8>,
        page: u64,
    ) -> Result<(), E> {
        if level == self.branches.len() {
            self.branches.push(Branch::default());
        }
        let branch = &mut self.branches[level];
        branch.push(key, page);
        if branch.children.len() == branch.fit + CHILDREN_MIN {
            let (key, page) = branch.write(pages, branch.fit)?;
            self.child(pages, level + 1, key, page)?;
        }
        Ok(())
    }

    /// Whether no page was written and what there is may stand in the bucket's entry.
    fn is_inline(&self) -> bool {
        self.branches.is_empty() && self.leaf.used() <= PAGE_SIZE / INLINE_FRACTION
    }

    /// Writes what is left; gives the number of the root page.
    fn end<E: From<Unwritable>>(&mut self, pages: &mut Pages<'_, E>) -> Result<u64, E> {
        if self.branches.is_empty() || !self.leaf.elements.is_empty() {
            self.end_leaf(pages)?;
        }
        let mut level = 0;
        loop {
            let top = level + 1 == self.branches.len();
            let branch = &mut self.branches[level];
            if let ([(_, page)], true) = (&branch.children[..], top) {
                return Ok(*page);
            }
            // One more than fits: the pages share them.
            if branch.fit < branch.children.len() && branch.fit > CHILDREN_MIN {
                let (key, page) = branch.write(pages, branch.fit - 1)?;
                self.child(pages, level + 1, key, page)?;
            }
            let branch = &mut self.branches[level];
            let (key, page) = branch.write(pages, branch.children.len())?;
            self.child(pages, level + 1, key, page)?;
            level += 1;
        }
    }
}

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
