//! What a state machine is opened with.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of the storage behind the state machine. None of them changes what a command does.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder RocksDB lives in; created if missing.
    pub dir: PathBuf,
    /// Bytes that block cache, memtables, index pages and rows may take together.
    pub memory_budget: usize,
    /// Keys looked at in one step of the background compaction.
    pub compaction_batch_limit: usize,
    /// The pause between two such steps.
    pub compaction_sleep: Duration,
    /// Whether RocksDB rewrites its files by itself. A simulation does without: it has to know what is on disk.
    pub rocksdb_compaction: bool,
}

impl Options {
    /// The defaults: 256 MiB of memory, etcd's pacing of compactions.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            memory_budget: 256 << 20,
            compaction_batch_limit: 1000,
            compaction_sleep: Duration::from_millis(10),
            rocksdb_compaction: true,
        }
    }
}
