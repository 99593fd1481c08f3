//! The way through a tree, from its first element to its last.
//!
//! A walk goes on after damage with what does not depend on it: who reads stops
//! at the first error, who checks collects them. It ends in any case, as each
//! page is entered once.

use bytes::Bytes;

use super::node::{Element, Node, Value, What};
use super::{Damage, Database, Error};

/// Levels a tree may have: with two children a page, more than there are pages.
pub(super) const LEVELS_MAX: usize = 64;

/// Pages, one bit each.
#[derive(Debug, Default)]
pub(super) struct PageSet {
    bits: Vec<u64>,
    pub(super) len: u64,
}

impl PageSet {
    pub(super) fn of(database: &Database) -> Self {
        Self { bits: vec![0; database.pages().div_ceil(64) as usize], len: 0 }
    }

    pub(super) fn contains(&self, page: u64) -> bool {
        self.bits[(page / 64) as usize] & 1 << (page % 64) != 0
    }

    /// Puts a page in; false if it is in already.
    pub(super) fn insert(&mut self, page: u64) -> bool {
        let new = !self.contains(page);
        self.bits[(page / 64) as usize] |= 1 << (page % 64);
        self.len += u64::from(new);
        new
    }
}

/// An element of a leaf.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) page: u64,
    pub(super) offset: u64,
    pub(super) index: u32,
    pub(super) key: Bytes,
    pub(super) bucket: bool,
    pub(super) value: Value,
    /// Where the value begins in the file.
    pub(super) value_offset: u64,
}

#[derive(Debug)]
pub(super) struct Walk<'a> {
    database: &'a Database,
    /// From the root down to where the walk is.
    path: Vec<Step>,
    /// The last key of a leaf, of the whole tree.
    last: Option<Bytes>,
    pub(super) entered: PageSet,
}

#[derive(Debug)]
struct Step {
    node: Node,
    /// The element to come.
    next: u32,
    /// That element, if it was looked at already.
    peeked: Option<Result<Element, Error>>,
    /// The key of the element before it.
    last: Option<Bytes>,
    /// Keys of the page are not below this, and below that.
    low: Option<Bytes>,
    high: Option<Bytes>,
}

impl Step {
    fn new(node: Node, low: Option<Bytes>, high: Option<Bytes>) -> Self {
        Self { node, next: 0, peeked: None, last: None, low, high }
    }

    fn next(&mut self, database: &Database) -> Option<Result<Element, Error>> {
        if self.next >= self.node.count {
            return None;
        }
        let element = self.peeked.take().unwrap_or_else(|| self.node.element(database, self.next));
        self.next += 1;
        Some(element)
    }

    /// The key of the element to come: the end of the range of the one before it.
    fn peek(&mut self, database: &Database) -> Option<Bytes> {
        if self.next >= self.node.count {
            return self.high.clone();
        }
        let (node, next) = (&mut self.node, self.next);
        let peeked = self.peeked.get_or_insert_with(|| node.element(database, next));
        peeked.as_ref().map_or(self.high.clone(), |element| Some(element.key.clone()))
    }
}

impl<'a> Walk<'a> {
    /// A walk that has yet to enter a tree. Pages that are `entered` already count as used.
    pub(super) fn new(database: &'a Database, entered: PageSet) -> Self {
        Self { database, path: Vec::new(), last: None, entered }
    }

    /// Enters the leaf inside a bucket's entry.
    pub(super) fn enter_inline(&mut self, node: Node) {
        self.path.push(Step::new(node, None, None));
    }

    /// Enters a page; `page` and `offset` are where it is named.
    pub(super) fn enter(&mut self, child: u64, page: u64, offset: u64) -> Result<(), Error> {
        self.enter_range(child, page, offset, None, None)
    }

    fn enter_range(
        &mut self,
        child: u64,
        page: u64,
        offset: u64,
        low: Option<Bytes>,
        high: Option<Bytes>,
    ) -> Result<(), Error> {
        let database = self.database;
        let damaged = |damage| Err(database.damaged(page, offset, damage));
        if child < 2 || child >= database.pages() {
            return damaged(Damage::PageOutOfRange { page: child, pages: database.pages() });
        }
        if self.path.iter().any(|step| step.node.page == child) {
            return damaged(Damage::Loop { page: child });
        }
        if self.entered.contains(child) {
            return damaged(Damage::UsedTwice { page: child });
        }
        if self.path.len() == LEVELS_MAX {
            return damaged(Damage::TooDeep { max: LEVELS_MAX });
        }
        let (node, overflow) = Node::page(database, child)?;
        let mut twice = None;
        for page in child..=child + u64::from(overflow) {
            if !self.entered.insert(page) {
                twice = twice.or(Some(page));
            }
        }
        if let Some(page) = twice {
            return damaged(Damage::UsedTwice { page });
        }
        self.path.push(Step::new(node, low, high));
        Ok(())
    }

    /// The next element of a leaf. After damage the one after it.
    pub(super) fn next(&mut self) -> Option<Result<Leaf, Error>> {
        let database = self.database;
        loop {
            let step = self.path.last_mut()?;
            let element = match step.next(database) {
                Some(Ok(element)) => element,
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.path.pop();
                    continue;
                }
            };
            let page = step.node.page;
            let Element { index, offset, key, what } = element;
            let first = step.last.is_none();
            let disorder = !first && (step.last.as_ref() >= Some(&key) || self.last.as_ref() >= Some(&key));
            let low = first && step.low.as_ref().is_some_and(|low| key < low);
            let high = step.high.as_ref().is_some_and(|high| key >= high);
            step.last = Some(key.clone());
            let damage = if disorder {
                Some(Damage::Order { element: index })
            } else {
                (low || high).then_some(Damage::Range { element: index })
            };
            match what {
                What::Child(child) => {
                    let high = step.peek(database);
                    let entered = self.enter_range(child, page, offset, Some(key), high);
                    if let Some(damage) = damage {
                        return Some(Err(database.damaged(page, offset, damage)));
                    }
                    if let Err(error) = entered {
                        return Some(Err(error));
                    }
                }
                What::Value { bucket, offset: value_offset, value } => {
                    // The first key of a page against the last of the page before.
                    let disorder = first && self.last.as_ref().is_some_and(|last| *last >= key);
                    let damage = damage.or(disorder.then_some(Damage::Order { element: index }));
                    if let Some(damage) = damage {
                        return Some(Err(database.damaged(page, offset, damage)));
                    }
                    self.last = Some(key.clone());
                    return Some(Ok(Leaf { page, offset, index, key, bucket, value, value_offset }));
                }
            }
        }
    }
}
