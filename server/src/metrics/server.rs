//! What the member does: elections, proposals, requests, health.

metrics! {
    /// Metrics `etcd_server_*`.
    Server {
        has_leader: gauge "etcd_server_has_leader" "Whether a leader is known: 1 yes, 0 no.";
        is_leader: gauge "etcd_server_is_leader" "Whether this member leads: 1 yes, 0 no.";
        is_learner: gauge "etcd_server_is_learner" "Whether this member is a learner: 1 yes, 0 no.";
        leader_changes: counter "etcd_server_leader_changes_seen_total" "Changes of the leader seen.";
        proposals_committed: gauge "etcd_server_proposals_committed_total" "Highest committed log index.";
        proposals_applied: gauge "etcd_server_proposals_applied_total" "Highest applied log index.";
        proposals_pending: gauge "etcd_server_proposals_pending" "Proposals waiting to be committed.";
        proposals_failed: counter "etcd_server_proposals_failed_total" "Proposals that failed.";
        heartbeat_send_failures: counter "etcd_server_heartbeat_send_failures_total" "Heartbeats the leader sent too late.";
        slow_applies: counter "etcd_server_slow_apply_total" "Applies that took longer than --warning-apply-duration.";
        slow_read_indexes: counter "etcd_server_slow_read_indexes_total" "Read indexes that did not come in time.";
        read_indexes_failed: counter "etcd_server_read_indexes_failed_total" "Read indexes that failed.";
        quota_backend_bytes: gauge "etcd_server_quota_backend_bytes" "Size of the data at which the NOSPACE alarm goes up.";
        version: gauges "etcd_server_version" ["server_version"] "The server's version; the value is 1.";
        go_version: gauges "etcd_server_go_version" ["server_go_version"] "What the server was built with; the value is 1.";
        id: gauges "etcd_server_id" ["server_id"] "This member's id in hexadecimal; the value is 1.";
        cluster_version: gauges "etcd_cluster_version" ["cluster_version"] "The version the cluster agreed on; the value is 1.";
        feature_enabled: gauges "etcd_server_feature_enabled" ["name", "stage"] "Whether a feature gate is on: 1 yes, 0 no.";
        client_requests: counters "etcd_server_client_requests_total" ["type", "client_api_version"] "Client requests by version of the client.";
        request_seconds: histograms "etcd_server_request_duration_seconds" ["type", "success"] (0.001, 2.0, 14) "Time from a request's arrival to its answer.";
        apply_seconds: histograms "etcd_server_apply_duration_seconds" ["version", "op", "success"] (0.0001, 2.0, 20) "Time to apply a command.";
        range_seconds: histograms "etcd_server_range_duration_seconds" ["success"] (0.0001, 2.0, 20) "Time to read a range.";
        health_success: counter "etcd_server_health_success" "Health checks that succeeded.";
        health_failures: counter "etcd_server_health_failures" "Health checks that failed.";
        healthcheck: gauges "etcd_server_healthcheck" ["type", "name"] "Last result of a health check: 1 healthy, 0 not.";
        healthchecks: counters "etcd_server_healthchecks_total" ["type", "name", "status"] "Results of health checks.";
        learner_promote_successes: counter "etcd_server_learner_promote_successes" "Learners promoted while this member led.";
        learner_promote_failures: counters "etcd_server_learner_promote_failures" ["Reason"] "Learners not promoted while this member led.";
        snapshot_apply_in_progress: gauge "etcd_server_snapshot_apply_in_progress_total" "Whether a snapshot is being installed: 1 yes, 0 no.";
        lease_expired: counter "etcd_debugging_server_lease_expired_total" "Leases that expired.";
        alarms: gauges "etcd_debugging_server_alarms" ["server_id", "alarm_type"] "Raised alarms; the value is 1.";
        watch_stream_seconds: histogram "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds" (0.001, 2.0, 14) "Time to send one watch response.";
        watch_stream_per_event_seconds: histogram "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds" (0.001, 2.0, 14) "Time to send one watch response, per event in it.";
        watch_control_seconds: histogram "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds" (0.001, 2.0, 14) "Time to send one control response of a watch.";
        watch_progress_seconds: histogram "etcd_debugging_server_watch_send_loop_progress_duration_seconds" (0.001, 2.0, 14) "Time to send one progress notification.";
        auth_revision: gauge "etcd_debugging_auth_revision" "Revision of users and roles.";
    }
}

/// Requests that `etcd_server_request_duration_seconds` counts by name.
const REQUESTS: &[&str] =
    &["Range", "Put", "DeleteRange", "Txn", "ReadonlyTxn", "Compaction", "LeaseGrant", "LeaseRevoke"];

impl Server {
    pub(super) fn with_known_labels(&self) {
        for request in REQUESTS {
            self.request_seconds.with_label_values(&[request, "true"]);
        }
        for op in ["Put", "DeleteRange", "Txn", "Compaction"] {
            self.apply_seconds.with_label_values(&["v3", op, "true"]);
        }
        self.range_seconds.with_label_values(&["true"]);
        for kind in ["unary", "stream"] {
            self.client_requests.with_label_values(&[kind, "unknown"]);
        }
    }
}
