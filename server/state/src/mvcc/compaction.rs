//! Deleting, in the background, what a compaction has made unreachable.
//!
//! The worker walks the records written between the last compaction and this
//! one; what each of them superseded can go. So the work is proportional to
//! what was written since, and needs no memory. A crash repeats a walk, which
//! then finds nothing left to do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use mutants::Mutant;
use parking_lot::{Condvar, Mutex};

use super::entry::{Entry, Mark};
use super::history;
use super::index::Change;
use super::state_row::put_finished;
use super::view::{Shared, decode_row};
use super::writer::key_cost;
use crate::revision::KEY_LEN;
use crate::storage::{Batch, Column};
use crate::{Fault, Options, Revision};

/// Keys that are worked on while commands wait: about a millisecond.
const KEYS_A_STEP: usize = 128;
/// How often the worker looks whether the views of before the compaction are gone.
const POLL: Duration = Duration::from_millis(5);

/// The background worker; it ends when this is dropped.
pub(super) struct Compactor {
    signal: Arc<Signal>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    wake: bool,
    stop: bool,
    /// Held by the views that may still read what is to be deleted.
    epochs: Vec<Arc<()>>,
}

impl Compactor {
    /// Starts the worker; it goes on with a compaction that a crash interrupted.
    pub(super) fn start(shared: Arc<Shared>, options: &Options) -> Result<Self, Fault> {
        let signal = Arc::new(Signal::default());
        signal.state.lock().wake = true;
        let worker = Worker {
            shared,
            signal: signal.clone(),
            rows_max: options.compaction_batch_limit.max(1),
            pause: options.compaction_sleep,
        };
        let worker = std::thread::Builder::new()
            .name("compaction".into())
            .spawn(move || worker.run())
            .map_err(|source| Fault::Io { path: options.dir.clone(), source })?;
        Ok(Self { signal, worker: Some(worker) })
    }

    /// Views that hold this epoch are waited for before anything is deleted.
    pub(super) fn wait_for(&self, epoch: Arc<()>) {
        self.signal.state.lock().epochs.push(epoch);
    }

    /// A compaction has been committed.
    pub(super) fn wake(&self) {
        self.signal.state.lock().wake = true;
        self.signal.changed.notify_one();
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.signal.state.lock().stop = true;
        self.signal.changed.notify_one();
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            tracing::error!("the compaction worker panicked");
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    signal: Arc<Signal>,
    rows_max: usize,
    pause: Duration,
}

impl Worker {
    fn run(self) {
        while self.wait() {
            if let Err(fault) = self.compact() {
                tracing::error!(error = %fault, "compaction failed, the member stops");
                std::process::abort();
            }
        }
    }

    /// Waits for something to do; false when it is time to end.
    fn wait(&self) -> bool {
        let mut state = self.signal.state.lock();
        while !state.wake && !state.stop {
            self.signal.changed.wait(&mut state);
        }
        state.wake = false;
        !state.stop
    }

    fn stopped(&self) -> bool {
        self.signal.state.lock().stop
    }

    fn sleep(&self, time: Duration) {
        let mut state = self.signal.state.lock();
        if !state.stop {
            self.signal.changed.wait_for(&mut state, time);
        }
    }

    fn compact(&self) -> Result<(), Fault> {
        let from = self.shared.finished.load(Ordering::Acquire);
        let to = self.shared.current.load().compacted;
        if to <= from {
            return Ok(());
        }
        while !self.views_are_gone() {
            if self.stopped() {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        let started = std::time::Instant::now();
        let mut next = Revision { main: from.max(0), sub: 0 };
        loop {
            let (keys, resume) = self.keys_changed(next, to)?;
            for step in keys.chunks(KEYS_A_STEP) {
                self.forget(step, to)?;
                if self.stopped() {
                    return Ok(());
                }
            }
            let Some(resume) = resume else { break };
            next = resume;
            self.sleep(self.pause);
        }
        let mut core = self.shared.core.lock();
        let mut batch = core.take_batch(&self.shared.storage);
        put_finished(&mut batch, to);
        core.commit(&self.shared, batch, &[])?;
        drop(core);
        let (lock, changed) = &self.shared.finished_changed;
        let guard = lock.lock();
        self.shared.finished.store(to, Ordering::Release);
        drop(guard);
        changed.notify_all();
        tracing::info!(compact_revision = to, took = ?started.elapsed(), "finished scheduled compaction");
        Ok(())
    }

    fn views_are_gone(&self) -> bool {
        let mut state = self.signal.state.lock();
        state.epochs.retain(|epoch| Arc::strong_count(epoch) > 1);
        state.epochs.is_empty()
    }

    /// The keys of the next records from `from` up to the main revision `to`, and where to go on.
    fn keys_changed(&self, from: Revision, to: i64) -> Result<(Vec<Bytes>, Option<Revision>), Fault> {
        let end = Revision { main: to + 1, sub: 0 }.to_key(false);
        let mut keys = BTreeSet::new();
        let mut rows = self.shared.storage.scan(Column::Rev, from.to_key(false).as_ref(), Some(end.as_ref()));
        let mut resume = None;
        for row in rows.by_ref().take(self.rows_max) {
            let (key, value) = row?;
            let (revision, _) = Revision::from_key(&key)?;
            resume = Some(Revision { sub: revision.sub + 1, ..revision });
            keys.insert(Bytes::copy_from_slice(&decode_row(value)?.key));
        }
        let more = rows.next().is_some();
        Ok((keys.into_iter().collect(), resume.filter(|_| more)))
    }

    /// Deletes what these keys no longer need.
    fn forget(&self, keys: &[Bytes], compacted: i64) -> Result<(), Fault> {
        let shared = &self.shared;
        let mut core = shared.core.lock();
        let mut batch = core.take_batch(&shared.storage);
        let mut kept = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(entry) = shared.index.entry(&core.table, key)? else { continue };
            let Some((entry, freed)) = self.trim(&mut batch, key, entry, compacted)? else { continue };
            core.in_use -= freed;
            let mut row = Vec::new();
            match &entry {
                Some(entry) => {
                    entry.encode(&mut row);
                    batch.put(Column::Idx, key, &row);
                }
                None => {
                    core.in_use -= key_cost(key);
                    batch.delete(Column::Idx, key);
                }
            }
            kept.push((key, entry.map(|_| row)));
        }
        let changes: Vec<_> = kept
            .iter()
            .map(|(key, row)| Change { key, entry: row.as_deref(), main: 0, new: false, live: 0 })
            .collect();
        core.commit(shared, batch, &changes)
    }

    /// Takes the records out of an entry that a compaction makes unreachable, and deletes their rows: the entry that
    /// is left, if one is, and the bytes freed. `None` when there is nothing to take out.
    ///
    /// etcd 3.7 keeps the newest record at or before the compacted revision unless it is a delete older than that.
    fn trim(
        &self,
        batch: &mut Batch,
        key: &[u8],
        mut entry: Entry,
        compacted: i64,
    ) -> Result<Option<(Option<Entry>, i64)>, Fault> {
        let mut marks = vec![entry.mark(key.len())];
        marks.extend(entry.older().collect::<Result<Vec<_>, _>>()?);
        let inline = marks.len();
        if entry.spilled {
            marks.extend(history::all(&self.shared.storage, key)?);
        }
        let newest = marks.partition_point(|mark| mark.revision.main > compacted);
        let keeps = marks.get(newest).is_some_and(|m| !m.tombstone || m.revision.main == compacted);
        let kept = newest + usize::from(keeps);
        if kept == marks.len() {
            return Ok(None);
        }
        if mutants::on(Mutant::CompactionLosesDelete)
            && kept == 0
            && let [delete, put, ..] = marks[..]
            && !put.tombstone
            && let Some(row) = self.shared.storage.get(Column::Rev, put.revision.to_key(false).as_ref())?
        {
            let pair = decode_row(row)?;
            batch.delete(Column::Rev, delete.revision.to_key(true).as_ref());
            let (created, version, lease) = (pair.create_revision, pair.version, pair.lease);
            let value_len = pair.value.len() as u32;
            let back =
                Entry { modified: put.revision, created, version, lease, value_len, ..Entry::default() };
            return Ok(Some((Some(back), 0)));
        }
        let mut freed = 0;
        for mark in &marks[kept..] {
            batch.delete(Column::Rev, mark.revision.to_key(mark.tombstone).as_ref());
            freed += row_cost(key, mark);
        }
        if entry.spilled {
            history::replace(&self.shared.storage, batch, key, marks.get(inline..kept).unwrap_or_default())?;
            entry.spilled = kept > inline;
        }
        if kept == 0 {
            return Ok(Some((None, freed)));
        }
        entry.set_older(&marks[1..kept.min(inline)]);
        Ok(Some((Some(entry), freed)))
    }
}

/// Bytes a record takes: its revision key and its row. Of a delete the row holds the key alone.
fn row_cost(key: &[u8], mark: &Mark) -> i64 {
    let row = match mark.tombstone {
        true => super::entry::kv_len(key.len(), 0, 0, 0, 0, 0),
        false => mark.row_len as usize,
    };
    (KEY_LEN + usize::from(mark.tombstone) + row) as i64
}
