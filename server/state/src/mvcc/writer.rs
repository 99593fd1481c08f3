//! The one writer: stages the changes of a group of commands and commits them together.

pub(crate) mod take_over;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use arc_swap::ArcSwap;
use bytes::Bytes;
use mutants::Mutant;
use parking_lot::{ArcMutexGuard, Condvar, Mutex, RawMutex};
use prost::Message;
use proto::mvccpb::KeyValue;

use super::cache::RowCache;
use super::compaction::Compactor;
use super::entry::Entry;
use super::history;
use super::index::{Change, Index};
use super::query::{Query, Selection};
use super::rows::{Found, Hit, walk};
use super::state_row::{StateRow, finished};
use super::table::Table;
use super::view::{Shared, Snapshot, Views, check_revision, decode_row};
use crate::revision::KEY_LEN;
use crate::storage::{Batch, Column, Storage};
use crate::{Block, Event, Fault, Fingerprint, KeyRange, LogId, Options, Refusal, Revision};

/// The newest live record of a key, as far as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When it was written.
    pub modified: Revision,
    /// The main revision at which the key came into being.
    pub created: i64,
    /// How many puts there have been since, with that one.
    pub version: i64,
    /// The lease it is attached to, 0 for none.
    pub lease: i64,
    /// Bytes of the value.
    pub value_len: u32,
}

/// What only one may change at a time: a group of commands, or a step of the compaction.
pub(super) struct Core {
    pub table: Table,
    pub revision: i64,
    pub compacted: i64,
    pub applied: LogId,
    pub fingerprint: Fingerprint,
    /// Bytes of records and keys that are still needed.
    pub in_use: i64,
    /// Rows that go with the next batch: pages that split or went after the last one.
    pub next: Batch,
    pub epoch: Arc<()>,
}

impl Core {
    /// Writes a batch with the state row, makes its changes in the index, and lets readers see them.
    pub(super) fn commit(
        &mut self,
        shared: &Shared,
        mut batch: Batch,
        changes: &[Change<'_>],
    ) -> Result<(), Fault> {
        shared.index.count(&mut batch, &self.table, changes);
        StateRow {
            revision: self.revision,
            compacted: self.compacted,
            applied: self.applied,
            in_use: self.in_use,
            fingerprint: self.fingerprint,
        }
        .put(&mut batch);
        shared.storage.write(batch)?;
        self.next = shared.storage.batch();
        shared.index.install(&mut self.next, &mut self.table, changes)?;
        shared.current.store(Arc::new(Snapshot {
            table: self.table.clone(),
            revision: self.revision,
            compacted: self.compacted,
            applied: self.applied,
            fingerprint: self.fingerprint,
            in_use: self.in_use,
            epoch: self.epoch.clone(),
        }));
        Ok(())
    }

    /// The batch that what comes next is put into.
    pub(super) fn take_batch(&mut self, storage: &Storage) -> Batch {
        std::mem::replace(&mut self.next, storage.batch())
    }
}

struct Staged {
    core: ArcMutexGuard<RawMutex, Core>,
    batch: Batch,
    entries: BTreeMap<Bytes, StagedEntry>,
    rows: HashMap<Revision, Bytes>,
}

struct StagedEntry {
    entry: Entry,
    /// Whether the index did not know the key before this group.
    new: bool,
    was_live: bool,
}

impl Staged {
    /// Stages a record in front of what is known of its key.
    fn add(&mut self, key: &[u8], known: &mut StagedEntry, newest: Entry, row: &[u8]) -> Result<(), Fault> {
        let (revision, delete) = (newest.modified, newest.tombstone);
        self.batch.put(Column::Rev, revision.to_key(delete).as_ref(), row);
        self.core.in_use += (KEY_LEN + usize::from(delete) + row.len()) as i64;
        if known.entry.modified.main == 0 {
            self.core.in_use += key_cost(key);
            known.entry = newest;
        } else {
            known.entry.push(key.len(), newest);
        }
        history::spill(&mut self.batch, key, &mut known.entry)
    }
}

/// The writing side of the key space.
pub struct Mvcc {
    shared: Arc<Shared>,
    compactor: Compactor,
    revision: i64,
    compacted: i64,
    applied: LogId,
    fingerprint: Fingerprint,
    /// The changes of the running command.
    events: Vec<Event>,
    staged: Option<Staged>,
}

impl Mvcc {
    /// Opens the key space in a database.
    pub(crate) fn open(storage: &Storage, options: &Options) -> Result<(Self, Views), Fault> {
        let StateRow { mut revision, compacted, applied, in_use, fingerprint } = StateRow::read(storage)?;
        if mutants::on(Mutant::RevisionBack) && compacted > 0 {
            revision -= 1;
        }
        let finished = finished(storage)?;
        let (index, table) = Index::open(storage, options.memory_budget / 4, revision)?;
        let epoch = Arc::new(());
        let core = Core {
            table: table.clone(),
            revision,
            compacted,
            applied,
            fingerprint,
            in_use,
            next: storage.batch(),
            epoch: epoch.clone(),
        };
        let shared = Arc::new(Shared {
            storage: storage.clone(),
            index,
            rows: RowCache::new(options.memory_budget / 4),
            current: ArcSwap::from_pointee(Snapshot {
                table,
                revision,
                compacted,
                applied,
                fingerprint,
                in_use,
                epoch,
            }),
            core: Arc::new(Mutex::new(core)),
            finished: AtomicI64::new(finished),
            finished_changed: (Mutex::new(()), Condvar::new()),
        });
        let compactor = Compactor::start(shared.clone(), options)?;
        let views = Views { shared: shared.clone() };
        let mvcc = Self {
            shared,
            compactor,
            revision,
            compacted,
            applied,
            fingerprint,
            events: Vec::new(),
            staged: None,
        };
        Ok((mvcc, views))
    }

    /// The revision after the last command that changed something.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// As [`Mvcc::revision`], with the running command counted once it has changed something.
    pub fn pending_revision(&self) -> i64 {
        self.revision + i64::from(!self.events.is_empty())
    }

    /// The revision of the last compaction, -1 if there was none.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The last log entry committed.
    pub fn applied(&self) -> LogId {
        self.applied
    }

    /// The fingerprint as of the last log entry committed.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Rows of other tables that go with what is staged.
    pub(crate) fn batch(&mut self) -> &mut Batch {
        &mut self.stage().batch
    }

    /// The newest live record of a key.
    pub fn lookup(&mut self, key: &[u8]) -> Result<Option<Record>, Fault> {
        self.stage();
        let staged = self.staged.as_ref().expect("just staged");
        if let Some(staged) = staged.entries.get(key) {
            return Ok(record(&staged.entry));
        }
        Ok(self.shared.index.entry(&staged.core.table, key)?.as_ref().and_then(record))
    }

    /// The live keys of a range in order.
    pub fn live(&mut self, range: &KeyRange) -> Result<Vec<(Bytes, Record)>, Fault> {
        if let KeyRange::Single(key) = range {
            return Ok(self.lookup(key)?.map(|record| (key.clone(), record)).into_iter().collect());
        }
        let hits = self.hits(range, i64::MAX, usize::MAX)?;
        Ok(hits.into_iter().map(|hit| (hit.key.clone(), hit.record())).collect())
    }

    /// The record written at a revision, as an encoded `mvccpb.KeyValue`.
    pub fn row(&self, revision: Revision) -> Result<Bytes, Fault> {
        if let Some(row) = self.staged.as_ref().and_then(|staged| staged.rows.get(&revision)) {
            return Ok(row.clone());
        }
        Ok(self.shared.fetch(&[revision])?.remove(0))
    }

    /// Writes a record; gives the one it replaced.
    pub fn put(&mut self, key: Bytes, value: Bytes, lease: i64) -> Result<Option<Record>, Fault> {
        let before = self.take(&key)?;
        let previous = record(&before.entry);
        let modified = self.next_revision();
        let (created, version) = match previous {
            Some(record) => (record.created, record.version + 1),
            None => (modified.main, 1),
        };
        let entry =
            Entry { modified, created, version, lease, value_len: value.len() as u32, ..Entry::default() };
        let kv = KeyValue {
            key: key.clone(),
            create_revision: created,
            mod_revision: modified.main,
            version,
            value,
            lease,
        };
        let row: Bytes = kv.encode_to_vec().into();
        self.write(key, before, entry, row.clone(), row)?;
        Ok(previous)
    }

    /// Deletes a key; `None` when it did not exist, and then nothing has changed.
    pub fn delete(&mut self, key: Bytes) -> Result<Option<Record>, Fault> {
        let Some(previous) = self.lookup(&key)? else { return Ok(None) };
        let before = self.take(&key)?;
        let modified = self.next_revision();
        let entry = Entry { modified, tombstone: true, ..Entry::default() };
        let mut kv = KeyValue { key: key.clone(), ..KeyValue::default() };
        let row = kv.encode_to_vec().into();
        kv.mod_revision = modified.main;
        self.write(key, before, entry, row, kv.encode_to_vec().into())?;
        Ok(Some(previous))
    }

    /// Answers a range inside a transaction: it sees what the transaction has changed so far.
    pub fn range(&mut self, query: &Query) -> Result<Result<Selection, Refusal>, Fault> {
        let revision = match check_revision(query.revision, self.pending_revision(), self.compacted) {
            Ok(revision) => revision,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let hits = self.hits(&query.range, revision, usize::MAX)?;
        let count = hits.len() as i64;
        if query.count_only {
            return Ok(Ok(Selection { count, ..Selection::default() }));
        }
        let mut found = Vec::new();
        for hit in hits.into_iter().take(query.candidates_max()) {
            let value = match query.sorts_by_value() {
                true => decode_row(self.row(hit.revision)?)?.value,
                false => Bytes::new(),
            };
            found.push(Found { hit, value });
        }
        let more = query.choose(&mut found);
        let kvs = found.into_iter().map(|found| match query.keys_only {
            true => Ok(found.hit.bare(!query.drops_lease())),
            false => self.row(found.hit.revision),
        });
        Ok(Ok(Selection { count, more, kvs: kvs.collect::<Result<_, Fault>>()? }))
    }

    /// The revision rules of a range inside a transaction, before anything is written. Unlike a range on its own,
    /// a negative revision counts as compacted once there was a compaction (etcd 3.7: `checkRange`).
    pub fn check_range(&self, query: &Query) -> Result<(), Refusal> {
        if query.revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if query.revision != 0 && query.revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(())
    }

    /// Ends a command: if it changed something, the revision grows and its events are given.
    pub fn seal(&mut self) -> Option<Block> {
        if self.events.is_empty() {
            return None;
        }
        self.revision += 1;
        Some(Block { revision: self.revision, events: std::mem::take(&mut self.events) })
    }

    /// Forgets history: from here on reads below `revision` are refused. Superseded rows are deleted in the background once this is committed.
    pub fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        self.compacted = revision;
        Ok(())
    }

    /// Writes what is staged in one batch, together with how far the log is applied, and lets readers see it.
    pub fn commit(&mut self, applied: LogId, fingerprint: Fingerprint) -> Result<(), Fault> {
        let compacts = self.compacted > self.stage().core.compacted;
        if compacts {
            let before = std::mem::replace(&mut self.stage().core.epoch, Arc::new(()));
            self.compactor.wait_for(before);
        }
        self.write_staged(applied, fingerprint)?;
        if compacts {
            self.compactor.wake();
        }
        Ok(())
    }

    fn write_staged(&mut self, applied: LogId, fingerprint: Fingerprint) -> Result<(), Fault> {
        (self.applied, self.fingerprint) = (applied, fingerprint);
        self.stage();
        let Staged { mut core, mut batch, entries, rows: _ } = self.staged.take().expect("just staged");
        let mut encoded = Vec::with_capacity(entries.len() * 24);
        let mut bounds = Vec::with_capacity(entries.len());
        for (key, staged) in &entries {
            let from = encoded.len();
            staged.entry.encode(&mut encoded);
            bounds.push(from..encoded.len());
            batch.put(Column::Idx, key, &encoded[from..]);
        }
        let changes: Vec<_> = entries
            .iter()
            .zip(bounds)
            .map(|((key, staged), bounds)| Change {
                key,
                entry: Some(&encoded[bounds]),
                main: staged.entry.modified.main,
                new: staged.new,
                live: i64::from(!staged.entry.tombstone) - i64::from(staged.was_live),
            })
            .collect();
        (core.revision, core.compacted) = (self.revision, self.compacted);
        (core.applied, core.fingerprint) = (applied, fingerprint);
        core.commit(&self.shared, batch, &changes)
    }

    fn next_revision(&self) -> Revision {
        Revision { main: self.revision + 1, sub: self.events.len() as i64 }
    }

    fn stage(&mut self) -> &mut Staged {
        let shared = &self.shared;
        self.staged.get_or_insert_with(|| {
            let mut core = shared.core.lock_arc();
            let batch = core.take_batch(&shared.storage);
            Staged { core, batch, entries: BTreeMap::new(), rows: HashMap::new() }
        })
    }

    /// Takes what is known of a key out of the stage, or from the index; it is put back by [`Mvcc::write`].
    fn take(&mut self, key: &Bytes) -> Result<StagedEntry, Fault> {
        self.stage();
        let staged = self.staged.as_mut().expect("just staged");
        if let Some(entry) = staged.entries.remove(key) {
            return Ok(entry);
        }
        let before = self.shared.index.entry(&staged.core.table, key)?;
        Ok(StagedEntry {
            new: before.is_none(),
            was_live: before.as_ref().is_some_and(|entry| !entry.tombstone),
            entry: before.unwrap_or_default(),
        })
    }

    /// Adds a record in front of what is known of its key.
    fn write(
        &mut self,
        key: Bytes,
        mut known: StagedEntry,
        newest: Entry,
        row: Bytes,
        event: Bytes,
    ) -> Result<(), Fault> {
        let (revision, delete) = (newest.modified, newest.tombstone);
        let previous = record(&known.entry).map(|record| record.modified);
        if !delete {
            self.shared.rows.insert(revision, row.clone());
        }
        let staged = self.stage();
        staged.add(&key, &mut known, newest, &row)?;
        if !delete {
            staged.rows.insert(revision, row);
        }
        staged.entries.insert(key.clone(), known);
        self.events.push(Event { key, kv: event, delete, previous });
        Ok(())
    }

    /// The live records of a range at a revision, staged changes included, in key order.
    fn hits(&mut self, range: &KeyRange, revision: i64, max: usize) -> Result<Vec<Hit>, Fault> {
        let shared = self.shared.clone();
        let staged = self.stage();
        let mut hits = Vec::new();
        walk(&shared, &staged.core.table, range, revision, &mut |hit| {
            if !staged.entries.contains_key(&hit.key) {
                hits.push(hit);
            }
            Ok(hits.len() < max)
        })?;
        let committed = hits.len();
        let from = staged.entries.range(range.start().clone()..);
        for (key, StagedEntry { entry, .. }) in from.take_while(|(key, _)| range.contains(key)) {
            let Some(mark) = shared.at_revision(entry, revision, || key.clone())? else { continue };
            // An older mark of a staged entry may itself be staged: its row is not on disk yet.
            let hit = match staged.rows.get(&mark.revision) {
                Some(row) => Hit::from_row(key.clone(), mark.revision, row.clone())?,
                None => shared.hit(key.clone(), entry, mark)?,
            };
            hits.push(hit);
        }
        if hits.len() > committed {
            hits.sort_by(|a, b| a.key.cmp(&b.key));
        }
        Ok(hits)
    }
}

/// Bytes the index row of a key is counted as, beside its records.
pub(super) fn key_cost(key: &[u8]) -> i64 {
    key.len() as i64 + 16
}

fn record(entry: &Entry) -> Option<Record> {
    (!entry.tombstone && entry.modified.main != 0).then_some(Record {
        modified: entry.modified,
        created: entry.created,
        version: entry.version,
        lease: entry.lease,
        value_len: entry.value_len,
    })
}

impl Hit {
    fn record(&self) -> Record {
        Record {
            modified: self.revision,
            created: self.created,
            version: self.version,
            lease: self.lease,
            value_len: self.value_len as u32,
        }
    }

    fn from_row(key: Bytes, revision: Revision, row: Bytes) -> Result<Self, Fault> {
        let kv = decode_row(row)?;
        let (created, version, lease) = (kv.create_revision, kv.version, kv.lease);
        Ok(Self { key, revision, created, version, lease, value_len: kv.value.len() })
    }
}
