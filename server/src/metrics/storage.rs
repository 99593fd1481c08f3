//! Log, disk, key space, leases.
//!
//! Some of etcd's metrics measure parts that do not exist here (bbolt's
//! rebalancing, the v2 store): they are there, at zero, because dashboards ask for them.

metrics! {
    /// Metrics `etcd_disk_*`, `etcd_mvcc_*`, `etcd_snap_*` and their `etcd_debugging_*` kin.
    Storage {
        wal_fsync_seconds: histogram "etcd_disk_wal_fsync_duration_seconds" (0.001, 2.0, 14) "Time of one fdatasync of the log.";
        wal_write_seconds: histogram "etcd_disk_wal_write_duration_seconds" (0.001, 2.0, 14) "Time of one write to the log.";
        wal_write_bytes: gauge "etcd_disk_wal_write_bytes_total" "Bytes written to the log.";
        backend_commit_seconds: histogram "etcd_disk_backend_commit_duration_seconds" (0.001, 2.0, 14) "Time to commit one batch to the storage engine.";
        backend_defrag_seconds: histogram "etcd_disk_backend_defrag_duration_seconds" (0.1, 2.0, 13) "Time of a defragmentation.";
        backend_snapshot_seconds: histogram "etcd_disk_backend_snapshot_duration_seconds" (0.01, 2.0, 17) "Time to send a snapshot of the data.";
        defrag_inflight: gauge "etcd_disk_defrag_inflight" "Whether a defragmentation runs: 1 yes, 0 no.";
        commit_rebalance_seconds: histogram "etcd_debugging_disk_backend_commit_rebalance_duration_seconds" (0.001, 2.0, 14) "Nothing rebalances here.";
        commit_spill_seconds: histogram "etcd_debugging_disk_backend_commit_spill_duration_seconds" (0.001, 2.0, 14) "Nothing spills here.";
        commit_write_seconds: histogram "etcd_debugging_disk_backend_commit_write_duration_seconds" (0.001, 2.0, 14) "Time to write one batch.";
        db_total_bytes: gauge "etcd_mvcc_db_total_size_in_bytes" "Bytes the data takes on disk.";
        db_in_use_bytes: gauge "etcd_mvcc_db_total_size_in_use_in_bytes" "Bytes of it that are live.";
        db_open_reads: gauge "etcd_mvcc_db_open_read_transactions" "Reads under way.";
        puts: counter "etcd_mvcc_put_total" "Puts applied.";
        deletes: counter "etcd_mvcc_delete_total" "Deletes applied.";
        ranges: counter "etcd_mvcc_range_total" "Ranges read.";
        txns: counter "etcd_mvcc_txn_total" "Transactions applied.";
        hash_seconds: histogram "etcd_mvcc_hash_duration_seconds" (0.01, 2.0, 15) "Time to hash the whole data.";
        hash_rev_seconds: histogram "etcd_mvcc_hash_rev_duration_seconds" (0.01, 2.0, 15) "Time to hash the data up to a revision.";
        keys: gauge "etcd_debugging_mvcc_keys_total" "Keys.";
        current_revision: gauge "etcd_debugging_mvcc_current_revision" "The current revision.";
        compact_revision: gauge "etcd_debugging_mvcc_compact_revision" "The compacted revision.";
        watch_streams: gauge "etcd_debugging_mvcc_watch_stream_total" "Watch streams.";
        watchers: gauge "etcd_debugging_mvcc_watcher_total" "Watchers.";
        slow_watchers: gauge "etcd_debugging_mvcc_slow_watcher_total" "Watchers that are catching up.";
        pending_events: gauge "etcd_debugging_mvcc_pending_events_total" "Events waiting to be sent.";
        put_bytes: gauge "etcd_debugging_mvcc_total_put_size_in_bytes" "Bytes of keys and values put.";
        last_compaction: gauge "etcd_debugging_mvcc_db_compaction_last" "Unix second of the last compaction.";
        events: counter "etcd_debugging_mvcc_events_total" "Events sent to watchers.";
        compacted_keys: counter "etcd_debugging_mvcc_db_compaction_keys_total" "Records deleted by compactions.";
        index_compaction_pause_ms: histogram "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds" (0.5, 2.0, 14) "Pauses for compacting the index; there are none here.";
        db_compaction_pause_ms: histogram "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds" (1.0, 2.0, 13) "Time of one step of a compaction.";
        db_compaction_ms: histogram "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds" (100.0, 2.0, 14) "Time of a whole compaction.";
        leases_granted: counter "etcd_debugging_lease_granted_total" "Leases granted.";
        leases_revoked: counter "etcd_debugging_lease_revoked_total" "Leases revoked.";
        leases_renewed: counter "etcd_debugging_lease_renewed_total" "Leases renewed.";
        lease_ttl: histogram "etcd_debugging_lease_ttl_total" (1.0, 2.0, 24) "Seconds to live of granted leases.";
        snap_fsync_seconds: histogram "etcd_snap_fsync_duration_seconds" (0.001, 2.0, 14) "Time to sync a snapshot's metadata.";
        snap_db_fsync_seconds: histogram "etcd_snap_db_fsync_duration_seconds" (0.001, 2.0, 14) "Time to sync a received snapshot.";
        snap_db_save_seconds: histogram "etcd_snap_db_save_total_duration_seconds" (0.1, 2.0, 10) "Time to save a received snapshot.";
        snap_save_seconds: histogram "etcd_debugging_snap_save_total_duration_seconds" (0.001, 2.0, 14) "Time to save a snapshot's metadata.";
        snap_marshal_seconds: histogram "etcd_debugging_snap_save_marshalling_duration_seconds" (0.001, 2.0, 14) "Time to encode a snapshot's metadata.";
        store_expires: counter "etcd_debugging_store_expires_total" "There is no v2 store.";
        store_reads: counters "etcd_debugging_store_reads_total" ["action"] "There is no v2 store.";
        store_reads_failed: counters "etcd_debugging_store_reads_failed_total" ["action"] "There is no v2 store.";
        store_writes: counters "etcd_debugging_store_writes_total" ["action"] "There is no v2 store.";
        store_writes_failed: counters "etcd_debugging_store_writes_failed_total" ["action"] "There is no v2 store.";
        store_watch_requests: counter "etcd_debugging_store_watch_requests_total" "There is no v2 store.";
        store_watchers: gauge "etcd_debugging_store_watchers" "There is no v2 store.";
    }
}

impl Storage {
    pub(super) fn with_known_labels(&self) {
        for action in ["get", "getRecursive"] {
            self.store_reads.with_label_values(&[action]);
            self.store_reads_failed.with_label_values(&[action]);
        }
        for action in ["set", "delete"] {
            self.store_writes.with_label_values(&[action]);
            self.store_writes_failed.with_label_values(&[action]);
        }
    }
}
