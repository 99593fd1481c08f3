//! A tree that grows to the right, page by page.
//!
//! A leaf page is done when the next row does not fit, a branch page when its
//! children do not. It gets its number then, so a page stands behind its
//! children, and of each level only one page is held.

use super::format::{
    BRANCH, BranchElement, CHILDREN_MIN, ELEMENT_LEN, HEADER_LEN, Header, INLINE_FRACTION, LEAF, LeafElement,
};
use super::{PAGE_SIZE, Unwritable};

pub(super) static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// Takes an image, piece by piece.
pub type Out<'a, E> = &'a mut (dyn FnMut(&[u8]) -> Result<(), E> + 'a);

/// The pages written so far.
pub(super) struct Pages<'a, E> {
    /// Absent in the first pass.
    pub(super) out: Option<Out<'a, E>>,
    pub(super) next: u64,
    /// How many there may be.
    pub(super) limit: u64,
    /// Header and elements of the page being written.
    pub(super) head: Vec<u8>,
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
pub(super) struct Leaf {
    pub(super) elements: Vec<LeafElement>,
    first_key: Vec<u8>,
    /// Keys and values; empty in the first pass.
    pub(super) data: Vec<u8>,
    /// Bytes of keys and values.
    data_len: usize,
    /// Bytes the page may have: the pages that its first row needs, and so the room behind a long row is used.
    capacity: usize,
}

/// A row of at least so many bytes has a page to itself, and its bytes are not collected.
const LONG: usize = 1 << 16;

impl Leaf {
    pub(super) fn used(&self) -> usize {
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
    pub(super) fn put_elements(&self, head: &mut Vec<u8>) {
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
pub(super) struct Tree {
    pub(super) leaf: Leaf,
    /// From the leaves up.
    branches: Vec<Branch>,
    pub(super) last_key: Vec<u8>,
}

impl Tree {
    /// Adds a row; `value` in pieces, none of them in the first pass.
    pub(super) fn row<E: From<Unwritable>>(
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
    pub(super) fn is_inline(&self) -> bool {
        self.branches.is_empty() && self.leaf.used() <= PAGE_SIZE / INLINE_FRACTION
    }

    /// Writes what is left; gives the number of the root page.
    pub(super) fn end<E: From<Unwritable>>(&mut self, pages: &mut Pages<'_, E>) -> Result<u64, E> {
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
