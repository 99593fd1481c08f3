//! The page table: which page holds which keys, and how many of them are live.
//!
//! Two levels of copy-on-write vectors. A clone is one reference count, so each
//! view has the table of its revision; a change copies the chunk it touches.

use std::sync::Arc;

use super::index::Slot;

/// A chunk with more pages than this is split.
const PAGES_MAX: usize = 128;

/// A page, and how many of its keys are live at the table's revision.
#[derive(Clone)]
pub(super) struct PageRef {
    pub slot: Arc<Slot>,
    pub live: u32,
}

#[derive(Clone, Default)]
struct Chunk {
    pages: Vec<PageRef>,
    live: u64,
}

impl Chunk {
    fn new(pages: Vec<PageRef>) -> Self {
        let live = pages.iter().map(|page| u64::from(page.live)).sum();
        Self { pages, live }
    }

    fn first(&self) -> &[u8] {
        &self.pages[0].slot.first
    }
}

/// Where a page stands in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    chunk: usize,
    page: usize,
}

/// All pages in key order; there is always one, and the first begins at the empty key.
#[derive(Clone)]
pub(super) struct Table {
    chunks: Arc<Vec<Arc<Chunk>>>,
}

impl Table {
    /// A table of these pages, which are in key order and not empty.
    pub(super) fn new(pages: Vec<PageRef>) -> Self {
        let chunks = pages.chunks(PAGES_MAX / 2).map(|pages| Arc::new(Chunk::new(pages.to_vec())));
        Self { chunks: Arc::new(chunks.collect()) }
    }

    /// The page that holds a key if it exists.
    pub(super) fn locate(&self, key: &[u8]) -> Place {
        let chunk = self.chunks.partition_point(|chunk| chunk.first() <= key) - 1;
        let page = self.chunks[chunk].pages.partition_point(|page| &page.slot.first[..] <= key) - 1;
        Place { chunk, page }
    }

    /// The page at a place.
    pub(super) fn page(&self, place: Place) -> &PageRef {
        &self.chunks[place.chunk].pages[place.page]
    }

    /// The last page.
    pub(super) fn last(&self) -> Place {
        let chunk = self.chunks.len() - 1;
        Place { chunk, page: self.chunks[chunk].pages.len() - 1 }
    }

    /// The place behind this one.
    pub(super) fn next(&self, place: Place) -> Option<Place> {
        let next = Place { page: place.page + 1, ..place };
        if next.page < self.chunks[place.chunk].pages.len() {
            return Some(next);
        }
        (place.chunk + 1 < self.chunks.len()).then_some(Place { chunk: place.chunk + 1, page: 0 })
    }

    /// The place before this one.
    pub(super) fn previous(&self, place: Place) -> Option<Place> {
        if place.page > 0 {
            return Some(Place { page: place.page - 1, ..place });
        }
        let chunk = place.chunk.checked_sub(1)?;
        Some(Place { chunk, page: self.chunks[chunk].pages.len() - 1 })
    }

    /// How many live keys stand on the pages from `from` up to and not including `to`.
    pub(super) fn live_between(&self, from: Place, to: Place) -> u64 {
        let pages = |chunk: usize, range: std::ops::Range<usize>| -> u64 {
            self.chunks[chunk].pages[range].iter().map(|page| u64::from(page.live)).sum()
        };
        if from.chunk == to.chunk {
            return pages(from.chunk, from.page..to.page);
        }
        pages(from.chunk, from.page..self.chunks[from.chunk].pages.len())
            + self.chunks[from.chunk + 1..to.chunk].iter().map(|chunk| chunk.live).sum::<u64>()
            + pages(to.chunk, 0..to.page)
    }

    /// How many keys are live.
    pub(super) fn live(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.live).sum()
    }

    /// Adds to the live keys of a page.
    pub(super) fn add_live(&mut self, place: Place, delta: i64) {
        let chunk = self.chunk_mut(place);
        let page = &mut chunk.pages[place.page];
        page.live = page.live.checked_add_signed(delta as i32).expect("a page loses only keys it has");
        chunk.live = chunk.live.checked_add_signed(delta).expect("a chunk loses only keys it has");
    }

    /// Puts other pages where one was; none removes it.
    pub(super) fn replace(&mut self, place: Place, pages: Vec<PageRef>) {
        let chunk = self.chunk_mut(place);
        chunk.pages.splice(place.page..=place.page, pages);
        *chunk = Chunk::new(std::mem::take(&mut chunk.pages));
        let len = chunk.pages.len();
        if len == 0 {
            Arc::make_mut(&mut self.chunks).remove(place.chunk);
        } else if len > PAGES_MAX {
            let upper = chunk.pages.split_off(len / 2);
            *chunk = Chunk::new(std::mem::take(&mut chunk.pages));
            Arc::make_mut(&mut self.chunks).insert(place.chunk + 1, Arc::new(Chunk::new(upper)));
        }
    }

    fn chunk_mut(&mut self, place: Place) -> &mut Chunk {
        Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[place.chunk])
    }
}
