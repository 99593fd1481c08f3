//! A consistent read: the key space as it is at one revision.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::cache::RowCache;
use super::entry::{Entry, Mark};
use super::index::Index;
use super::page::Page;
use super::query::Query;
use super::rows::{Hit, Rows};
use super::table::{PageRef, Table};
use super::writer::Core;
use super::{history, rows};
use crate::storage::{Column, Storage};
use crate::{Fault, Fingerprint, KeyRange, LogId, Refusal, Revision};

/// What writer, readers and the compaction worker share.
pub(super) struct Shared {
    pub storage: Storage,
    pub index: Index,
    pub rows: RowCache,
    pub current: ArcSwap<Snapshot>,
    /// Held by whoever changes the index: a group of commands, or a step of the compaction.
    pub core: Arc<Mutex<Core>>,
    /// The revision up to which superseded rows are gone.
    pub finished: AtomicI64,
    pub finished_changed: (Mutex<()>, Condvar),
}

/// The state after one commit.
pub(super) struct Snapshot {
    pub table: Table,
    pub revision: i64,
    pub compacted: i64,
    pub applied: LogId,
    pub fingerprint: Fingerprint,
    /// Bytes of the records and keys that are still needed.
    pub in_use: i64,
    /// All views since the last compaction; the compaction waits until those of before are gone.
    #[expect(dead_code, reason = "held, not read: the compaction counts who holds it")]
    pub epoch: Arc<()>,
}

/// Hands out views; clones are cheap.
#[derive(Clone)]
pub struct Views {
    pub(super) shared: Arc<Shared>,
}

impl Views {
    /// The newest committed state.
    pub fn view(&self) -> View {
        View { snapshot: self.shared.current.load_full(), shared: self.shared.clone() }
    }

    /// The revision up to which superseded rows have been deleted; -1 before the first compaction.
    pub fn compaction_finished(&self) -> i64 {
        self.shared.finished.load(Ordering::Acquire)
    }

    /// Blocks until the rows superseded at `revision` are deleted; false when the time ran out first.
    pub fn wait_compacted(&self, revision: i64, timeout: Duration) -> bool {
        let (lock, changed) = &self.shared.finished_changed;
        let mut guard = lock.lock();
        !changed
            .wait_while_for(&mut guard, |()| self.shared.finished.load(Ordering::Acquire) < revision, timeout)
            .timed_out()
    }

    /// Bytes of the records and keys that are still needed.
    pub fn bytes_in_use(&self) -> i64 {
        self.shared.current.load().in_use
    }
}

/// The key space at one revision, for as long as it is held.
#[derive(Clone)]
pub struct View {
    snapshot: Arc<Snapshot>,
    pub(super) shared: Arc<Shared>,
}

impl View {
    /// The main revision.
    pub fn revision(&self) -> i64 {
        self.snapshot.revision
    }

    /// The revision of the last compaction, -1 if there was none.
    pub fn compacted(&self) -> i64 {
        self.snapshot.compacted
    }

    /// The last log entry whose changes are in the view.
    pub fn applied(&self) -> LogId {
        self.snapshot.applied
    }

    /// The hash of everything applied up to that entry.
    pub fn fingerprint(&self) -> Fingerprint {
        self.snapshot.fingerprint
    }

    /// Answers a range. The rows are read as they are asked for; see [`Rows`].
    ///
    /// # Errors
    /// Refuses a revision that is compacted or in the future.
    pub fn range(&self, query: &Query) -> Result<Result<Rows, Refusal>, Fault> {
        let revision = match check_revision(query.revision, self.revision(), self.compacted()) {
            Ok(revision) => revision,
            Err(refusal) => return Ok(Err(refusal)),
        };
        rows::select(self, query, revision).map(Ok)
    }

    /// The record written at a revision, as an encoded `mvccpb.KeyValue`; `None` once it is compacted away, or when it is a delete.
    pub fn row(&self, revision: Revision) -> Result<Option<Bytes>, Fault> {
        if let Some(row) = self.shared.rows.get(revision) {
            return Ok(Some(row));
        }
        self.shared.storage.get(Column::Rev, revision.to_key(false).as_ref())
    }

    /// The record of a key that stood before the main revision `before`, if the key existed then.
    pub fn previous(&self, key: &[u8], before: i64) -> Result<Option<Bytes>, Fault> {
        match self.shared.find(&self.snapshot.table, key, before - 1)? {
            Some(hit) => self.row(hit.revision),
            None => Ok(None),
        }
    }

    /// All records from the main revision `from` on, in order: revision, whether it is a delete, and the encoded
    /// `mvccpb.KeyValue` (of a delete it holds the key alone).
    pub fn scan_revisions(&self, from: i64) -> impl Iterator<Item = Result<(Revision, bool, Bytes), Fault>> {
        let from = Revision { main: from.max(0), sub: 0 }.to_key(false);
        let to = Revision { main: self.revision() + 1, sub: 0 }.to_key(false);
        self.shared.storage.scan(Column::Rev, from.as_ref(), Some(to.as_ref())).map(|row| {
            let (key, value) = row?;
            let (revision, tombstone) = Revision::from_key(&key)?;
            Ok((revision, tombstone, value))
        })
    }

    /// How many keys are live.
    pub fn keys(&self) -> u64 {
        self.snapshot.table.live()
    }

    pub(super) fn table(&self) -> &Table {
        &self.snapshot.table
    }

    /// How many keys of a range are live at a revision.
    pub(super) fn count(&self, range: &KeyRange, revision: i64) -> Result<u64, Fault> {
        let table = self.table();
        let (start, end) = match range {
            KeyRange::Single(key) => return Ok(u64::from(self.shared.find(table, key, revision)?.is_some())),
            KeyRange::Span { start, end } if start >= end => return Ok(0),
            KeyRange::Span { start, end } => (start, Some(end)),
            KeyRange::From(start) => (start, None),
        };
        let first = table.locate(start);
        let last = end.map_or_else(|| table.last(), |end| table.locate(end));
        let current = revision >= self.revision();
        let mut count = self.count_page(table.page(first), range, revision)?;
        if first == last {
            return Ok(count);
        }
        count += self.count_page(table.page(last), range, revision)?;
        let mut place = table.next(first).expect("the last page is behind the first");
        if current {
            return Ok(count + table.live_between(place, last));
        }
        while place != last {
            count += self.count_page(table.page(place), range, revision)?;
            place = table.next(place).expect("the last page is behind this one");
        }
        Ok(count)
    }

    fn count_page(&self, page: &PageRef, range: &KeyRange, revision: i64) -> Result<u64, Fault> {
        let slot = &page.slot;
        let unchanged = revision >= self.revision() || slot.newest() <= revision;
        if unchanged && range.covers(&slot.first, slot.end.as_deref()) {
            return Ok(u64::from(page.live));
        }
        let page = self.shared.index.page(slot)?;
        let mut count = 0;
        for at in positions(&page, range) {
            let entry = Entry::decode(page.entry(at))?;
            count += u64::from(self.shared.at_revision(&entry, revision, || page.key(at))?.is_some());
        }
        Ok(count)
    }
}

impl Shared {
    /// The live record of a key at a revision.
    pub(super) fn find(&self, table: &Table, key: &[u8], revision: i64) -> Result<Option<Hit>, Fault> {
        let Some(entry) = self.index.entry(table, key)? else { return Ok(None) };
        let key = Bytes::copy_from_slice(key);
        match self.at_revision(&entry, revision, || key.clone())? {
            Some(mark) => self.hit(key, &entry, mark).map(Some),
            None => Ok(None),
        }
    }

    /// The record of an entry that is live at a revision.
    pub(super) fn at_revision(
        &self,
        entry: &Entry,
        revision: i64,
        key: impl Fn() -> Bytes,
    ) -> Result<Option<Mark>, Fault> {
        let live = |mark: Mark| (!mark.tombstone).then_some(mark);
        if entry.modified.main <= revision {
            if entry.tombstone {
                return Ok(None);
            }
            return Ok(live(Mark { revision: entry.modified, tombstone: false, row_len: 0 }));
        }
        for mark in entry.older() {
            let mark = mark?;
            if mark.revision.main <= revision {
                return Ok(live(mark));
            }
        }
        if !entry.spilled {
            return Ok(None);
        }
        Ok(history::find(&self.storage, &key(), revision)?.and_then(live))
    }

    /// What a range needs to know of a record: from the index if it is the newest, else from its row.
    pub(super) fn hit(&self, key: Bytes, entry: &Entry, mark: Mark) -> Result<Hit, Fault> {
        if mark.revision == entry.modified {
            return Ok(Hit {
                key,
                revision: mark.revision,
                created: entry.created,
                version: entry.version,
                lease: entry.lease,
                value_len: entry.value_len as usize,
            });
        }
        let row = self.fetch(&[mark.revision])?.remove(0);
        let kv = decode_row(row)?;
        Ok(Hit {
            key,
            revision: mark.revision,
            created: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
            value_len: kv.value.len(),
        })
    }

    /// The rows at these revisions, in the same order.
    pub(super) fn fetch(&self, revisions: &[Revision]) -> Result<Vec<Bytes>, Fault> {
        let mut rows = vec![Bytes::new(); revisions.len()];
        let mut missing = Vec::new();
        for (at, revision) in revisions.iter().enumerate() {
            match self.rows.get(*revision) {
                Some(row) => rows[at] = row,
                None => missing.push((*revision, at)),
            }
        }
        if missing.is_empty() {
            return Ok(rows);
        }
        missing.sort_unstable();
        let found = if let [(revision, _)] = missing[..] {
            vec![self.storage.get(Column::Rev, revision.to_key(false).as_ref())?]
        } else {
            let keys: Vec<_> = missing.iter().map(|(revision, _)| revision.to_key(false)).collect();
            self.storage.get_sorted(Column::Rev, &keys)?
        };
        for ((revision, at), row) in missing.into_iter().zip(found) {
            let row = row.ok_or_else(|| Fault::Corrupt {
                what: "index",
                detail: format!("it names revision {}.{}, which has no row", revision.main, revision.sub),
            })?;
            self.rows.insert(revision, row.clone());
            rows[at] = row;
        }
        Ok(rows)
    }
}

/// Which revision a range reads at, or why it can't.
pub(super) fn check_revision(asked: i64, current: i64, compacted: i64) -> Result<i64, Refusal> {
    if asked > current {
        return Err(Refusal::FutureRevision);
    }
    if asked > 0 && asked < compacted {
        return Err(Refusal::Compacted);
    }
    Ok(if asked <= 0 { current } else { asked })
}

/// Where the keys of a range stand on a page.
pub(super) fn positions(page: &Page, range: &KeyRange) -> std::ops::Range<usize> {
    let position = |key: &[u8]| page.search(key).unwrap_or_else(|at| at);
    let from = position(range.start());
    let to = match range {
        KeyRange::Single(key) => from + usize::from(page.search(key).is_ok()),
        KeyRange::Span { end, .. } => position(end),
        KeyRange::From(_) => page.len(),
    };
    from..to.max(from)
}

pub(super) fn decode_row(row: Bytes) -> Result<proto::mvccpb::KeyValue, Fault> {
    prost::Message::decode(row).map_err(|e| Fault::Corrupt { what: "record", detail: e.to_string() })
}
