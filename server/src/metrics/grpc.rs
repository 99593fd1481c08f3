//! One set of series per gRPC method, all there from the start.
//!
//! A request looks its [`Method`] up once by path and then only adds to atomics.

use std::collections::HashMap;
use std::sync::OnceLock;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};
use tonic::Code;

/// The shapes of a call, as the label `grpc_type` spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One request, one response.
    Unary,
    /// One request, many responses.
    ServerStream,
    /// Many of both.
    BidiStream,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Kind::Unary => "unary",
            Kind::ServerStream => "server_stream",
            Kind::BidiStream => "bidi_stream",
        }
    }

    /// The label `type` of `etcd_server_client_requests_total`.
    pub fn request_type(self) -> &'static str {
        if self == Kind::Unary { "unary" } else { "stream" }
    }
}

/// The services whose series are there from the start, each with its methods.
/// Those that are not unary end in their kind: `<` server stream, `=` both ways.
const SERVICES: &[(&str, &[&str])] = &[
    ("etcdserverpb.KV", &["Range", "RangeStream<", "Put", "DeleteRange", "Txn", "Compact"]),
    ("etcdserverpb.Watch", &["Watch="]),
    (
        "etcdserverpb.Lease",
        &["LeaseGrant", "LeaseRevoke", "LeaseKeepAlive=", "LeaseTimeToLive", "LeaseLeases"],
    ),
    ("etcdserverpb.Cluster", &["MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"]),
    (
        "etcdserverpb.Maintenance",
        &["Alarm", "Status", "Defragment", "Hash", "HashKV", "Snapshot<", "MoveLeader", "Downgrade"],
    ),
    (
        "etcdserverpb.Auth",
        &[
            "AuthEnable",
            "AuthDisable",
            "AuthStatus",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ],
    ),
    ("grpc.health.v1.Health", &["Check", "List", "Watch<"]),
];

/// The codes in the order of their numbers, as the label `grpc_code` spells them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The series of one method.
pub struct Method {
    service: &'static str,
    name: &'static str,
    /// The shape of its calls.
    pub kind: Kind,
    /// Calls started.
    pub started: IntCounter,
    /// Messages received.
    pub received: IntCounter,
    /// Messages sent.
    pub sent: IntCounter,
    handled: [IntCounter; CODES.len()],
    seconds: OnceLock<Histogram>,
}

impl Method {
    /// Counts a call that ended with `code`.
    pub fn handled(&self, code: Code) {
        self.handled[code as usize].inc();
    }

    /// How many calls ended with an error.
    pub fn failed(&self) -> u64 {
        let ok = Code::Ok as usize;
        let codes = self.handled.iter().enumerate();
        codes.filter(|(code, _)| *code != ok).map(|(_, counter)| counter.get()).sum()
    }

    /// Whether latencies are wanted: measuring them costs two clock readings.
    pub fn wants_seconds(&self) -> bool {
        self.seconds.get().is_some()
    }

    /// Records how long a call took, if that is wanted.
    pub fn took(&self, seconds: f64) {
        if let Some(histogram) = self.seconds.get() {
            histogram.observe(seconds);
        }
    }
}

/// The series of all methods.
pub struct Grpc {
    methods: HashMap<String, Method>,
}

impl Grpc {
    /// The method of a request's path, `/etcdserverpb.KV/Range`.
    pub fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }

    pub(super) fn register(registry: &Registry) -> Grpc {
        let labels = ["grpc_type", "grpc_service", "grpc_method"];
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("valid names");
            registry.register(Box::new(counters.clone())).expect("declared once");
            counters
        };
        let started = counters("grpc_server_started_total", "RPCs started on the server.", &labels);
        let received =
            counters("grpc_server_msg_received_total", "Messages of RPCs received on the server.", &labels);
        let sent = counters("grpc_server_msg_sent_total", "Messages of RPCs sent by the server.", &labels);
        let handled = counters(
            "grpc_server_handled_total",
            "RPCs completed on the server, whether they succeeded or failed.",
            &[labels[0], labels[1], labels[2], "grpc_code"],
        );
        let mut methods = HashMap::new();
        for (service, names) in SERVICES {
            for name in *names {
                let (name, kind) = match name.as_bytes()[name.len() - 1] {
                    b'<' => (&name[..name.len() - 1], Kind::ServerStream),
                    b'=' => (&name[..name.len() - 1], Kind::BidiStream),
                    _ => (*name, Kind::Unary),
                };
                let values = [kind.label(), service, name];
                let method = Method {
                    service,
                    name,
                    kind,
                    started: started.with_label_values(&values),
                    received: received.with_label_values(&values),
                    sent: sent.with_label_values(&values),
                    handled: CODES
                        .map(|code| handled.with_label_values(&[values[0], values[1], values[2], code])),
                    seconds: OnceLock::new(),
                };
                methods.insert(format!("/{service}/{name}"), method);
            }
        }
        Grpc { methods }
    }

    pub(super) fn with_latencies(&self, registry: &Registry) {
        let options =
            HistogramOpts::new("grpc_server_handling_seconds", "Time the server took to handle RPCs.");
        let seconds =
            HistogramVec::new(options, &["grpc_type", "grpc_service", "grpc_method"]).expect("valid names");
        if registry.register(Box::new(seconds.clone())).is_err() {
            return; // extended before
        }
        for method in self.methods.values() {
            let histogram = seconds.with_label_values(&[method.kind.label(), method.service, method.name]);
            method.seconds.get_or_init(|| histogram);
        }
    }
}
