//! One set of series per gRPC method: all there from the start, but those of locks and elections, which are there
//! once they were called, as in etcd.
//!
//! A request looks its [`Method`] up once by path and then only adds to atomics.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use prometheus::core::{MetricVec, MetricVecBuilder};
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

/// Those whose series are there once they count something.
const ON_DEMAND: &[(&str, &[&str])] = &[
    ("v3lockpb.Lock", &["Lock", "Unlock"]),
    ("v3electionpb.Election", &["Campaign", "Proclaim", "Leader", "Observe<", "Resign"]),
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

/// One series, made when it is first used.
type Series<T> = LazyLock<T, Box<dyn FnOnce() -> T + Send>>;

/// The series of one method.
pub struct Method {
    service: &'static str,
    name: &'static str,
    /// The shape of its calls.
    pub kind: Kind,
    /// Calls started.
    pub started: Series<IntCounter>,
    /// Messages received.
    pub received: Series<IntCounter>,
    /// Messages sent.
    pub sent: Series<IntCounter>,
    handled: [Series<IntCounter>; CODES.len()],
    from_the_start: bool,
    seconds: OnceLock<Series<Histogram>>,
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
        let from_the_start = SERVICES.iter().map(|service| (service, true));
        for ((service, names), from_the_start) in
            from_the_start.chain(ON_DEMAND.iter().map(|service| (service, false)))
        {
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
                    started: series(&started, &values),
                    received: series(&received, &values),
                    sent: series(&sent, &values),
                    handled: CODES.map(|code| series(&handled, &[values[0], values[1], values[2], code])),
                    from_the_start,
                    seconds: OnceLock::new(),
                };
                if from_the_start {
                    let all = [&method.started, &method.received, &method.sent];
                    all.into_iter().chain(&method.handled).for_each(|series| {
                        LazyLock::force(series);
                    });
                }
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
            let values = [method.kind.label(), method.service, method.name];
            let histogram = method.seconds.get_or_init(|| series(&seconds, &values));
            if method.from_the_start {
                LazyLock::force(histogram);
            }
        }
    }
}

/// The series of a family with these labels.
fn series<T: MetricVecBuilder + 'static>(family: &MetricVec<T>, values: &[&'static str]) -> Series<T::M> {
    let (family, values) = (family.clone(), values.to_vec());
    LazyLock::new(Box::new(move || family.with_label_values(&values)))
}
