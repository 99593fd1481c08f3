//! The only place that names RocksDB.
//!
//! The Raft log is the write-ahead log, so RocksDB runs without its own: a
//! crash loses what was not flushed, and replaying the log brings it back.
//! `atomic_flush` makes what survives a prefix of the batches, never a mixture.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBIteratorWithThreadMode,
    Direction, FlushOptions, IteratorMode, ReadOptions, ReadTier, Snapshot, WriteBatch, WriteBufferManager,
    WriteOptions, checkpoint::Checkpoint,
};

use crate::{Fault, home};

/// Bytes read ahead where everything is read once and in order.
const READ_AHEAD: usize = 2 << 20;
/// How often a database that was replaced is asked whether it is still in use.
const RETIRE_POLL: Duration = Duration::from_millis(50);

/// The column families, each a key space of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// Revision key → encoded `mvccpb.KeyValue`.
    Rev,
    /// User key → its newest record and the older ones not compacted yet.
    Idx,
    /// Older records that no longer fit into the `Idx` row.
    History,
    /// First key of an index page → how much is on it.
    Pages,
    /// Leases and the keys attached to them.
    Lease,
    /// Users and roles.
    Auth,
    /// Everything there is one of, by name.
    Meta,
}

const COLUMNS: [(Column, &str); 7] = [
    (Column::Rev, "rev"),
    (Column::Idx, "idx"),
    (Column::History, "history"),
    (Column::Pages, "pages"),
    (Column::Lease, "lease"),
    (Column::Auth, "auth"),
    (Column::Meta, "meta"),
];

/// The database; clones share it.
#[derive(Clone)]
pub(crate) struct Storage {
    inner: Arc<Inner>,
}

struct Inner {
    db: DB,
    dir: PathBuf,
    write_options: WriteOptions,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("dir", &self.inner.dir).finish()
    }
}

/// The memory that databases share, while one takes the place of another and there are two, and how both are kept.
#[derive(Clone)]
pub(crate) struct Memory {
    rocksdb_compaction: bool,
    cache: Cache,
    buffers: WriteBufferManager,
}

impl Memory {
    /// Block cache and memtables, out of a budget that they share with others.
    pub(crate) fn new(budget: usize, rocksdb_compaction: bool) -> Self {
        let cache = Cache::new_lru_cache(budget * 3 / 8);
        let buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(budget / 4, false, cache.clone());
        Self { rocksdb_compaction, cache, buffers }
    }
}

impl Storage {
    /// Opens the database in a directory, or creates it.
    pub(crate) fn open(dir: &Path, create: bool, memory: &Memory) -> Result<Self, Fault> {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(create);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_write_buffer_manager(&memory.buffers);
        options.set_max_background_jobs(2);
        options.set_bytes_per_sync(1 << 20);
        options.set_max_open_files(512);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(4 << 20);
        options.set_stats_dump_period_sec(0);
        options.set_paranoid_checks(true);
        let db = DB::open_cf_descriptors(&options, dir, columns(&memory.cache, memory.rocksdb_compaction));
        Self::over(db, dir)
    }

    /// Opens the files in a directory without changing anything there.
    pub(crate) fn open_read_only(dir: &Path) -> Result<Self, Fault> {
        let mut options = rocksdb::Options::default();
        options.set_max_open_files(16);
        let cache = Cache::new_lru_cache(1 << 20);
        Self::over(DB::open_cf_descriptors_read_only(&options, dir, columns(&cache, true), false), dir)
    }

    fn over(db: Result<DB, rocksdb::Error>, dir: &Path) -> Result<Self, Fault> {
        let dir = dir.to_owned();
        let db = db.map_err(|source| Fault::Storage { path: dir.clone(), source })?;
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        Ok(Self { inner: Arc::new(Inner { db, dir, write_options }) })
    }

    /// Closes the database and removes its files as soon as nobody uses it any more.
    pub(crate) fn retire(self) {
        // On a thread of its own: closing writes, and whoever happens to be the last should not wait for that.
        let dir = self.inner.dir.clone();
        let retired = std::thread::Builder::new().name("state-retire".into()).spawn(move || {
            while Arc::strong_count(&self.inner) > 1 {
                std::thread::sleep(RETIRE_POLL);
            }
            let dir = self.inner.dir.clone();
            drop(self);
            home::remove(&dir);
        });
        if let Err(error) = retired {
            tracing::warn!(dir = %dir.display(), %error, "the files of the state before stay until the next start");
        }
    }

    /// Links the files of all that was written by now into a new directory.
    pub(crate) fn checkpoint(&self, dir: &Path) -> Result<(), Fault> {
        let taken = Checkpoint::new(&self.inner.db).and_then(|checkpoint| checkpoint.create_checkpoint(dir));
        taken.map_err(|source| Fault::Storage { path: dir.to_owned(), source })
    }

    pub(crate) fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let found = self.inner.db.get_pinned_cf(self.handle(column), key).map_err(|e| self.fault(e))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// All columns as they are now, for as long as it is held: one state, between two batches. It holds up no write
    /// and no flush; what is deleted or replaced meanwhile keeps its room on disk.
    pub(crate) fn frozen(&self) -> Frozen<'_> {
        Frozen { snapshot: self.inner.db.snapshot(), storage: self }
    }

    /// As [`Storage::get`], but only what would survive a crash now.
    pub(crate) fn get_persisted(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        let found =
            self.inner.db.get_pinned_cf_opt(self.handle(column), key, &options).map_err(|e| self.fault(e))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Many keys at once; they must be in ascending order.
    pub(crate) fn get_sorted<K: AsRef<[u8]>>(
        &self,
        column: Column,
        keys: &[K],
    ) -> Result<Vec<Option<Bytes>>, Fault> {
        let keys = keys.iter().map(AsRef::as_ref);
        let found = self.inner.db.batched_multi_get_cf(self.handle(column), keys, true);
        found
            .into_iter()
            .map(|value| Ok(value.map_err(|e| self.fault(e))?.map(|value| Bytes::copy_from_slice(&value))))
            .collect()
    }

    /// Rows with `from` ≤ key < `to`, ascending; `to` = `None` means to the end.
    pub(crate) fn scan(&self, column: Column, from: &[u8], to: Option<&[u8]>) -> Scan<'_> {
        let mode = IteratorMode::From(from, Direction::Forward);
        Scan { rows: self.inner.db.iterator_cf_opt(self.handle(column), up_to(to), mode), storage: self }
    }

    /// Rows with key ≤ `from`, descending, down to and including `down_to`.
    pub(crate) fn scan_back(&self, column: Column, from: &[u8], down_to: &[u8]) -> Scan<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(down_to);
        let mode = IteratorMode::From(from, Direction::Reverse);
        Scan { rows: self.inner.db.iterator_cf_opt(self.handle(column), options, mode), storage: self }
    }

    /// An empty batch.
    pub(crate) fn batch(&self) -> Batch {
        Batch { storage: self.clone(), writes: WriteBatch::default() }
    }

    /// Writes the whole batch or nothing of it. What it wrote is safe once a flush has covered it.
    pub(crate) fn write(&self, batch: Batch) -> Result<(), Fault> {
        self.inner.db.write_opt(batch.writes, &self.inner.write_options).map_err(|e| self.fault(e))
    }

    /// Writes all that is in memory to disk; returns when it is there.
    pub(crate) fn flush(&self) -> Result<(), Fault> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let columns: Vec<_> = COLUMNS.iter().map(|(column, _)| self.handle(*column)).collect();
        self.inner.db.flush_cfs_opt(&columns, &options).map_err(|e| self.fault(e))
    }

    /// Rewrites the files without what has been deleted. Takes its time; reads and writes go on meanwhile.
    pub(crate) fn rocksdb_compaction(&self) {
        for (column, _) in COLUMNS {
            self.inner.db.compact_range_cf(self.handle(column), None::<&[u8]>, None::<&[u8]>);
        }
    }

    /// Bytes of all files of the database.
    pub(crate) fn size_on_disk(&self) -> Result<u64, Fault> {
        let mut total = 0;
        for (column, _) in COLUMNS {
            let size = self
                .inner
                .db
                .property_int_value_cf(self.handle(column), rocksdb::properties::TOTAL_SST_FILES_SIZE)
                .map_err(|e| self.fault(e))?;
            total += size.unwrap_or(0);
        }
        Ok(total)
    }

    fn handle(&self, column: Column) -> &rocksdb::ColumnFamily {
        let (_, name) = COLUMNS[column as usize];
        self.inner.db.cf_handle(name).expect("open creates every column family")
    }

    fn fault(&self, source: rocksdb::Error) -> Fault {
        Fault::Storage { path: self.inner.dir.clone(), source }
    }
}

fn columns(cache: &Cache, compaction: bool) -> impl Iterator<Item = ColumnFamilyDescriptor> {
    COLUMNS.iter().map(move |(column, name)| {
        let mut options = column_options(*column, cache);
        options.set_disable_auto_compactions(!compaction);
        ColumnFamilyDescriptor::new(*name, options)
    })
}

fn column_options(column: Column, cache: &Cache) -> rocksdb::Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(6);
    table.set_block_size(if column == Column::Rev { 8 << 10 } else { 4 << 10 });
    if column != Column::Rev {
        table.set_bloom_filter(10.0, false);
        table.set_optimize_filters_for_memory(true);
    }
    let mut options = rocksdb::Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(32 << 20);
    options.set_max_write_buffer_number(3);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.add_compact_on_deletion_collector_factory(10_000, 5_000, 0.5);
    options
}

/// What rows can be read from: the database as it is, or as it was.
pub(crate) trait Read {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// Rows with `from` ≤ key < `to`, ascending; `to` = `None` means to the end.
    fn scan(&self, column: Column, from: &[u8], to: Option<&[u8]>) -> Scan<'_>;
}

impl Read for Storage {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Self::get(self, column, key)
    }

    fn scan(&self, column: Column, from: &[u8], to: Option<&[u8]>) -> Scan<'_> {
        Self::scan(self, column, from, to)
    }
}

/// All columns as they were at one moment.
pub(crate) struct Frozen<'a> {
    snapshot: Snapshot<'a>,
    storage: &'a Storage,
}

impl Frozen<'_> {
    /// Tells all rows of a column in order, up to one that fails. They are read once and leave no trace in the
    /// block cache.
    pub(crate) fn each<E: From<Fault>>(
        &self,
        column: Column,
        mut tell: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(READ_AHEAD);
        let mut rows = self.snapshot.raw_iterator_cf_opt(self.storage.handle(column), options);
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            tell(key, value)?;
            rows.next();
        }
        rows.status().map_err(|e| self.storage.fault(e).into())
    }
}

impl Read for Frozen<'_> {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let found = self.snapshot.get_pinned_cf(self.storage.handle(column), key);
        let found = found.map_err(|e| self.storage.fault(e))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, column: Column, from: &[u8], to: Option<&[u8]>) -> Scan<'_> {
        let mode = IteratorMode::From(from, Direction::Forward);
        let rows = self.snapshot.iterator_cf_opt(self.storage.handle(column), up_to(to), mode);
        Scan { rows, storage: self.storage }
    }
}

fn up_to(end: Option<&[u8]>) -> ReadOptions {
    let mut options = ReadOptions::default();
    if let Some(end) = end {
        options.set_iterate_upper_bound(end);
    }
    options
}

/// Rows to be written together.
pub(crate) struct Batch {
    storage: Storage,
    writes: WriteBatch,
}

impl Batch {
    pub(crate) fn put(&mut self, column: Column, key: &[u8], value: &[u8]) {
        self.writes.put_cf(self.storage.handle(column), key, value);
    }

    pub(crate) fn delete(&mut self, column: Column, key: &[u8]) {
        self.writes.delete_cf(self.storage.handle(column), key);
    }
}

/// Rows in order.
pub(crate) struct Scan<'a> {
    rows: DBIteratorWithThreadMode<'a, DB>,
    storage: &'a Storage,
}

impl Iterator for Scan<'_> {
    type Item = Result<(Bytes, Bytes), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        Some(row.map(|(key, value)| (key.into(), value.into())).map_err(|e| self.storage.fault(e)))
    }
}
