//! Bytes and failures on connections. Label names are capitalised, as in etcd.

metrics! {
    /// Metrics `etcd_network_*`, and those of the gRPC proxy that etcd's server carries too.
    Network {
        client_received_bytes: counter "etcd_network_client_grpc_received_bytes_total" "Bytes received from gRPC clients.";
        client_sent_bytes: counter "etcd_network_client_grpc_sent_bytes_total" "Bytes sent to gRPC clients.";
        peer_sent_bytes: counters "etcd_network_peer_sent_bytes_total" ["To"] "Bytes sent to peers.";
        peer_received_bytes: counters "etcd_network_peer_received_bytes_total" ["From"] "Bytes received from peers.";
        peer_sent_failures: counters "etcd_network_peer_sent_failures_total" ["To"] "Messages to peers that could not be sent.";
        peer_received_failures: counters "etcd_network_peer_received_failures_total" ["From"] "Messages from peers that could not be received.";
        peer_round_trip_seconds: histograms "etcd_network_peer_round_trip_time_seconds" ["To"] (0.0001, 2.0, 16) "Round trips to peers.";
        active_peers: gauges "etcd_network_active_peers" ["Local", "Remote"] "Peers connected: 1 yes, 0 no.";
        known_peers: gauges "etcd_network_known_peers" ["Local", "Remote"] "Members known; the value is 1.";
        disconnected_peers: counters "etcd_network_disconnected_peers_total" ["Local", "Remote"] "Connections to peers that were lost.";
        stream_failures: counters "etcd_network_server_stream_failures_total" ["Type", "API"] "Failures on streams of clients.";
        snapshot_send_success: counters "etcd_network_snapshot_send_success" ["To"] "Snapshots sent to peers.";
        snapshot_send_failures: counters "etcd_network_snapshot_send_failures" ["To"] "Snapshots that could not be sent.";
        snapshot_send_inflight: gauges "etcd_network_snapshot_send_inflights_total" ["To"] "Snapshots being sent.";
        snapshot_send_seconds: histograms "etcd_network_snapshot_send_total_duration_seconds" ["To"] (0.1, 2.0, 10) "Time to send a snapshot.";
        snapshot_receive_success: counters "etcd_network_snapshot_receive_success" ["From"] "Snapshots received from peers.";
        snapshot_receive_failures: counters "etcd_network_snapshot_receive_failures" ["From"] "Snapshots that could not be received.";
        snapshot_receive_inflight: gauges "etcd_network_snapshot_receive_inflights_total" ["From"] "Snapshots being received.";
        snapshot_receive_seconds: histograms "etcd_network_snapshot_receive_total_duration_seconds" ["From"] (0.1, 2.0, 10) "Time to receive a snapshot.";
        proxy_cache_hits: counter "etcd_grpc_proxy_cache_hits_total" "Counted by the gRPC proxy alone.";
        proxy_cache_keys: gauge "etcd_grpc_proxy_cache_keys_total" "Counted by the gRPC proxy alone.";
        proxy_cache_misses: counter "etcd_grpc_proxy_cache_misses_total" "Counted by the gRPC proxy alone.";
        proxy_watchers_coalescing: gauge "etcd_grpc_proxy_watchers_coalescing_total" "Counted by the gRPC proxy alone.";
        proxy_events_coalescing: counter "etcd_grpc_proxy_events_coalescing_total" "Counted by the gRPC proxy alone.";
    }
}

impl Network {
    pub(super) fn with_known_labels(&self) {
        for kind in ["receive", "send"] {
            for api in ["watch", "lease-keepalive"] {
                self.stream_failures.with_label_values(&[kind, api]);
            }
        }
    }
}
