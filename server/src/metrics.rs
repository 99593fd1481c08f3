//! Every metric of the process, under etcd's names.
//!
//! One registry, [`METRICS`]; a metric is a typed field of one of its groups,
//! so that counting is one atomic addition and a misspelt name does not
//! compile. Some gauges are called `_total`: etcd named them so, and
//! dashboards know them by it.

#[macro_use]
mod declare;
pub mod grpc;
mod network;
pub mod process;
mod server;
mod storage;

use std::sync::LazyLock;

use prometheus::{Encoder, Registry, TextEncoder};

pub use self::grpc::Grpc;
pub use self::network::Network;
pub use self::process::Process;
pub use self::server::Server;
pub use self::storage::Storage;

/// The metrics of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// All groups, and the registry they are in.
pub struct Metrics {
    registry: Registry,
    /// What the member does: elections, proposals, requests, health.
    pub server: Server,
    /// Log, disk, key space, leases.
    pub storage: Storage,
    /// Bytes and failures on connections.
    pub network: Network,
    /// One series per gRPC method.
    pub grpc: Grpc,
    /// What the kernel says about the process; read when rendered.
    pub process: Process,
}

impl Metrics {
    fn new() -> Metrics {
        let registry = Registry::new();
        let metrics = Metrics {
            server: Server::register(&registry),
            storage: Storage::register(&registry),
            network: Network::register(&registry),
            grpc: Grpc::register(&registry),
            process: Process::register(&registry),
            registry,
        };
        metrics.server.with_known_labels();
        metrics.storage.with_known_labels();
        metrics.network.with_known_labels();
        metrics.process.with_known_labels();
        metrics
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> Vec<u8> {
        self.process.refresh();
        let mut text = Vec::with_capacity(256 << 10);
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("registered metrics have names, and a Vec takes every write");
        text
    }

    /// Adds the latency histograms of `--metrics=extensive`.
    pub fn extend(&self) {
        self.grpc.with_latencies(&self.registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names, types and labels, without values. To accept a change:
    /// `UPDATE_GOLDEN=1 cargo test -p server --lib metrics`.
    #[test]
    fn names_are_golden() {
        let metrics = Metrics::new();
        let mut names: Vec<String> = metrics
            .registry
            .gather()
            .iter()
            .map(|family| {
                let mut labels: Vec<&str> =
                    family.get_metric()[0].get_label().iter().map(|l| l.name()).collect();
                labels.sort_unstable();
                format!("{} {:?} {}", family.name(), family.get_field_type(), labels.join(","))
            })
            .map(|line| line.trim_end().to_owned())
            .collect();
        names.sort();
        let names = names.join("\n") + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/metrics.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &names).expect("writing the golden file");
        }
        assert_eq!(names, std::fs::read_to_string(path).expect("the golden file"));
    }

    /// Dashboards subtract one series from another: those that never counted must be there too.
    #[test]
    fn every_grpc_series_is_there_from_the_start() {
        let text = String::from_utf8(Metrics::new().render()).unwrap();
        let series = |name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
        assert_eq!(series("grpc_server_started_total"), 45);
        assert_eq!(series("grpc_server_handled_total"), 45 * 17);
        assert!(text.contains(
            "grpc_server_started_total{grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 0"
        ));
    }

    #[test]
    fn the_kernel_is_asked() {
        let text = String::from_utf8(Metrics::new().render()).unwrap();
        for name in ["process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"] {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(value > 0.0, "{line}");
        }
    }
}
