//! Pages in memory: loading them, changing them, letting go of them.
//!
//! A [`Slot`] is one page for as long as its bounds stand; what is in it may be
//! dropped and loaded from the `idx` column again at any time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prost::encoding::{decode_varint, encode_varint};

use super::entry::Entry;
use super::page::{KEYS_MAX, Page};
use super::table::{PageRef, Place, Table};
use crate::Fault;
use crate::storage::{Batch, Column, Storage};

/// The keys from `first` up to `end`.
pub(super) struct Slot {
    /// The smallest key that belongs here.
    pub first: Box<[u8]>,
    /// The first key of the next page.
    pub end: Option<Box<[u8]>>,
    /// No key here has changed after this main revision.
    newest: AtomicI64,
    /// How many keys are here, deleted ones with history included.
    keys: AtomicU32,
    touched: AtomicBool,
    content: Mutex<Content>,
    budget: Arc<Budget>,
}

#[derive(Default)]
struct Content {
    page: Option<Arc<Page>>,
    /// Counts the changes, so that a load that ran beside one is noticed.
    version: u64,
}

impl Slot {
    pub(super) fn newest(&self) -> i64 {
        self.newest.load(Ordering::Acquire)
    }

    pub(super) fn keys(&self) -> u32 {
        self.keys.load(Ordering::Relaxed)
    }

    fn is_loaded(&self) -> bool {
        self.content.lock().page.is_some()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(page) = self.content.get_mut().page.take() {
            self.budget.bytes.fetch_sub(page.bytes(), Ordering::Relaxed);
        }
    }
}

/// How many bytes the loaded pages take, and in which order to let go of them.
struct Budget {
    bytes: AtomicUsize,
    bytes_max: usize,
    clock: Mutex<Clock>,
}

#[derive(Default)]
struct Clock {
    slots: VecDeque<Weak<Slot>>,
    sweep_at: usize,
}

impl Budget {
    /// Counts a page that was just loaded, and drops others while there are too many.
    fn admit(&self, slot: &Arc<Slot>, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut clock = self.clock.lock();
        clock.slots.push_back(Arc::downgrade(slot));
        if clock.slots.len() > clock.sweep_at {
            clock.slots.retain(|slot| slot.strong_count() > 0);
            clock.sweep_at = (clock.slots.len() * 2).max(1024);
        }
        let mut tries = clock.slots.len() * 2;
        while self.bytes.load(Ordering::Relaxed) > self.bytes_max && tries > 0 {
            tries -= 1;
            let Some(oldest) = clock.slots.pop_front() else { return };
            let Some(oldest) = oldest.upgrade() else { continue };
            if oldest.touched.swap(false, Ordering::Relaxed) || Arc::ptr_eq(&oldest, slot) {
                clock.slots.push_back(Arc::downgrade(&oldest));
                continue;
            }
            if let Some(page) = oldest.content.lock().page.take() {
                self.bytes.fetch_sub(page.bytes(), Ordering::Relaxed);
            }
        }
    }

    fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < self.bytes_max
    }
}

/// Access to pages; clones share the budget.
#[derive(Clone)]
pub(super) struct Index {
    storage: Storage,
    budget: Arc<Budget>,
}

/// What a commit does to one key's entry.
pub(super) struct Change<'a> {
    pub key: &'a [u8],
    /// The new entry, encoded; `None` takes the key out.
    pub entry: Option<&'a [u8]>,
    /// The main revision of the change, 0 when it is not one that readers see.
    pub main: i64,
    /// Whether the index did not know the key before.
    pub new: bool,
    /// 1 when the key came alive, −1 when it was deleted.
    pub live: i64,
}

impl Index {
    /// Opens the index: reads the page table, no page.
    pub(super) fn open(storage: &Storage, bytes_max: usize, revision: i64) -> Result<(Self, Table), Fault> {
        let budget = Budget { bytes: AtomicUsize::new(0), bytes_max, clock: Mutex::default() };
        let index = Self { storage: storage.clone(), budget: Arc::new(budget) };
        let mut rows = Vec::new();
        for row in storage.scan(Column::Pages, b"", None) {
            let (first, counts) = row?;
            let mut bytes = &counts[..];
            let mut next = || {
                decode_varint(&mut bytes)
                    .map_err(|_| Fault::Corrupt { what: "page row", detail: format!("{counts:02x?}") })
            };
            rows.push((first, next()? as u32, next()? as u32));
        }
        if rows.first().is_none_or(|(first, ..)| !first.is_empty()) {
            rows.insert(0, (bytes::Bytes::new(), 0, 0));
        }
        let mut pages = Vec::with_capacity(rows.len());
        for (at, (first, live, keys)) in rows.iter().enumerate() {
            let end = rows.get(at + 1).map(|(end, ..)| end[..].into());
            let slot = index.slot(first[..].into(), end, *keys, revision, None);
            pages.push(PageRef { slot, live: *live });
        }
        Ok((index, Table::new(pages)))
    }

    /// The page of a slot, loaded if need be. It is as new as the last commit, or newer than the table it was found in.
    pub(super) fn page(&self, slot: &Arc<Slot>) -> Result<Arc<Page>, Fault> {
        slot.touched.store(true, Ordering::Relaxed);
        loop {
            let version = {
                let content = slot.content.lock();
                if let Some(page) = &content.page {
                    return Ok(page.clone());
                }
                content.version
            };
            let page = Arc::new(self.load(slot)?);
            let mut content = slot.content.lock();
            if content.version != version {
                continue;
            }
            if let Some(page) = &content.page {
                return Ok(page.clone());
            }
            content.page = Some(page.clone());
            drop(content);
            self.budget.admit(slot, page.bytes());
            return Ok(page);
        }
    }

    /// The entry of a key; a key on a page that is not loaded and would displace others is read on its own.
    pub(super) fn entry(&self, table: &Table, key: &[u8]) -> Result<Option<Entry>, Fault> {
        let slot = &table.page(table.locate(key)).slot;
        if slot.keys() == 0 {
            return Ok(None);
        }
        if slot.is_loaded() || self.budget.has_room() {
            return self.page(slot)?.get(key).map(Entry::decode).transpose();
        }
        self.storage.get(Column::Idx, key)?.as_deref().map(Entry::decode).transpose()
    }

    /// Adds the page rows that go with these changes, in key order, to the batch that carries them.
    pub(super) fn count(&self, batch: &mut Batch, table: &Table, changes: &[Change<'_>]) {
        let mut pending: Option<(Place, i64, i64)> = None;
        for change in changes.iter().filter(|change| change.keys() != 0 || change.live != 0) {
            let place = table.locate(change.key);
            match &mut pending {
                Some((at, keys, live)) if *at == place => {
                    *keys += change.keys();
                    *live += change.live;
                }
                _ => {
                    if let Some(page) = pending.replace((place, change.keys(), change.live)) {
                        put_counts(batch, table, page);
                    }
                }
            }
        }
        if let Some(page) = pending {
            put_counts(batch, table, page);
        }
    }

    /// Makes the changes in memory. Their rows are written; `next` is the batch that follows, for pages that split or go.
    pub(super) fn install(
        &self,
        next: &mut Batch,
        table: &mut Table,
        changes: &[Change<'_>],
    ) -> Result<(), Fault> {
        let mut reshape = Vec::new();
        for change in changes {
            let place = table.locate(change.key);
            let slot = &table.page(place).slot;
            slot.newest.fetch_max(change.main, Ordering::AcqRel);
            slot.keys.store(slot.keys().saturating_add_signed(change.keys() as i32), Ordering::Relaxed);
            let mut full = slot.keys() as usize > KEYS_MAX;
            {
                let mut content = slot.content.lock();
                content.version += 1;
                if let Some(page) = &mut content.page {
                    let page = Arc::make_mut(page);
                    let before = page.bytes();
                    match change.entry {
                        Some(entry) => page.set(change.key, entry),
                        None => page.remove(change.key),
                    };
                    self.budget.bytes.fetch_add(page.bytes(), Ordering::Relaxed);
                    self.budget.bytes.fetch_sub(before, Ordering::Relaxed);
                    full |= page.is_full();
                }
            }
            if full && change.new || change.entry.is_none() && slot.keys() == 0 {
                reshape.push(change.key);
            }
            if change.live != 0 {
                table.add_live(place, change.live);
            }
        }
        // Only now do all counts hold, which the rows of new pages take over.
        for key in reshape {
            let place = table.locate(key);
            if table.page(place).slot.keys() == 0 {
                self.remove(next, table, place);
            } else {
                self.split(next, table, place, key)?;
            }
        }
        Ok(())
    }

    /// Splits a page that has grown too large. Where the last key is the newest, all but the last page stay full: keys often ascend.
    fn split(&self, next: &mut Batch, table: &mut Table, place: Place, key: &[u8]) -> Result<(), Fault> {
        let slot = table.page(place).slot.clone();
        let page = self.page(&slot)?;
        if !page.is_full() {
            return Ok(());
        }
        let ascending = page.search(key) == Ok(page.len() - 1);
        let parts = page.parts();
        let step = if ascending { KEYS_MAX.min(page.len() - 1) } else { page.len().div_ceil(parts) };
        let mut pages = Vec::with_capacity(parts);
        for from in (0..page.len()).step_by(step) {
            let to = (from + step).min(page.len());
            let first = if from == 0 { slot.first.clone() } else { page.key(from)[..].into() };
            let end = if to == page.len() { slot.end.clone() } else { Some(page.key(to)[..].into()) };
            let part = page.slice(from, to);
            let (live, keys) = (part.live(), part.len() as u32);
            write_counts(next, &first, i64::from(live), i64::from(keys));
            let slot = self.slot(first, end, keys, slot.newest(), Some(Arc::new(part)));
            pages.push(PageRef { slot, live });
        }
        table.replace(place, pages);
        Ok(())
    }

    /// Gives the bounds of a page that became empty to the one before it.
    fn remove(&self, next: &mut Batch, table: &mut Table, place: Place) {
        let Some(before) = table.previous(place) else { return };
        let (gone, kept) = (table.page(place).slot.clone(), table.page(before).clone());
        let page = kept.slot.content.lock().page.clone();
        let newest = kept.slot.newest().max(gone.newest());
        let slot = self.slot(kept.slot.first.clone(), gone.end.clone(), kept.slot.keys(), newest, page);
        table.replace(place, Vec::new());
        table.replace(before, vec![PageRef { slot, live: kept.live }]);
        next.delete(Column::Pages, &gone.first);
    }

    fn slot(
        &self,
        first: Box<[u8]>,
        end: Option<Box<[u8]>>,
        keys: u32,
        newest: i64,
        page: Option<Arc<Page>>,
    ) -> Arc<Slot> {
        let bytes = page.as_ref().map(|page| page.bytes());
        let slot = Arc::new(Slot {
            first,
            end,
            newest: AtomicI64::new(newest),
            keys: AtomicU32::new(keys),
            touched: AtomicBool::new(true),
            content: Mutex::new(Content { page, version: 0 }),
            budget: self.budget.clone(),
        });
        if let Some(bytes) = bytes {
            self.budget.admit(&slot, bytes);
        }
        slot
    }

    fn load(&self, slot: &Slot) -> Result<Page, Fault> {
        let mut page = Page::default();
        for row in self.storage.scan(Column::Idx, &slot.first, slot.end.as_deref()) {
            let (key, entry) = row?;
            page.set(&key, &entry);
        }
        page.shrink();
        Ok(page)
    }
}

impl Change<'_> {
    fn keys(&self) -> i64 {
        i64::from(self.new) - i64::from(self.entry.is_none())
    }
}

fn put_counts(batch: &mut Batch, table: &Table, (place, keys, live): (Place, i64, i64)) {
    let page = table.page(place);
    write_counts(batch, &page.slot.first, i64::from(page.live) + live, i64::from(page.slot.keys()) + keys);
}

fn write_counts(batch: &mut Batch, first: &[u8], live: i64, keys: i64) {
    let mut counts = Vec::with_capacity(8);
    encode_varint(live as u64, &mut counts);
    encode_varint(keys as u64, &mut counts);
    batch.put(Column::Pages, first, &counts);
}
