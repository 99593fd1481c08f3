//! The methods this member knows, by path.

use std::sync::LazyLock;

use crate::metrics::METRICS;
use crate::metrics::grpc::Method as Series;
use crate::node::Invalid;

/// Declares the methods: the variant, and the service and name that make its path.
macro_rules! methods {
    ($($method:ident $service:literal $name:literal;)*) => {
        /// A method of a service, as the router tells them apart.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Method {
            $(#[doc = concat!($service, ".", $name)] $method,)*
        }

        /// Those that most requests are for come first.
        const PATHS: &[(&str, Method)] = &[$((concat!("/", $service, "/", $name), Method::$method),)*];

        /// Services that exist, whatever their methods.
        const SERVICES: &[&str] = &[$($service,)*];
    };
}

methods! {
    Put "etcdserverpb.KV" "Put";
    Range "etcdserverpb.KV" "Range";
    Txn "etcdserverpb.KV" "Txn";
    LeaseKeepAlive "etcdserverpb.Lease" "LeaseKeepAlive";
    Watch "etcdserverpb.Watch" "Watch";
    DeleteRange "etcdserverpb.KV" "DeleteRange";
    RangeStream "etcdserverpb.KV" "RangeStream";
    Compact "etcdserverpb.KV" "Compact";
    LeaseGrant "etcdserverpb.Lease" "LeaseGrant";
    LeaseRevoke "etcdserverpb.Lease" "LeaseRevoke";
    LeaseTimeToLive "etcdserverpb.Lease" "LeaseTimeToLive";
    LeaseLeases "etcdserverpb.Lease" "LeaseLeases";
    MemberAdd "etcdserverpb.Cluster" "MemberAdd";
    MemberRemove "etcdserverpb.Cluster" "MemberRemove";
    MemberUpdate "etcdserverpb.Cluster" "MemberUpdate";
    MemberList "etcdserverpb.Cluster" "MemberList";
    MemberPromote "etcdserverpb.Cluster" "MemberPromote";
    Alarm "etcdserverpb.Maintenance" "Alarm";
    Status "etcdserverpb.Maintenance" "Status";
    Defragment "etcdserverpb.Maintenance" "Defragment";
    Hash "etcdserverpb.Maintenance" "Hash";
    HashKv "etcdserverpb.Maintenance" "HashKV";
    Snapshot "etcdserverpb.Maintenance" "Snapshot";
    MoveLeader "etcdserverpb.Maintenance" "MoveLeader";
    Downgrade "etcdserverpb.Maintenance" "Downgrade";
    AuthEnable "etcdserverpb.Auth" "AuthEnable";
    AuthDisable "etcdserverpb.Auth" "AuthDisable";
    AuthStatus "etcdserverpb.Auth" "AuthStatus";
    Authenticate "etcdserverpb.Auth" "Authenticate";
    UserAdd "etcdserverpb.Auth" "UserAdd";
    UserGet "etcdserverpb.Auth" "UserGet";
    UserList "etcdserverpb.Auth" "UserList";
    UserDelete "etcdserverpb.Auth" "UserDelete";
    UserChangePassword "etcdserverpb.Auth" "UserChangePassword";
    UserGrantRole "etcdserverpb.Auth" "UserGrantRole";
    UserRevokeRole "etcdserverpb.Auth" "UserRevokeRole";
    RoleAdd "etcdserverpb.Auth" "RoleAdd";
    RoleGet "etcdserverpb.Auth" "RoleGet";
    RoleList "etcdserverpb.Auth" "RoleList";
    RoleDelete "etcdserverpb.Auth" "RoleDelete";
    RoleGrantPermission "etcdserverpb.Auth" "RoleGrantPermission";
    RoleRevokePermission "etcdserverpb.Auth" "RoleRevokePermission";
    HealthCheck "grpc.health.v1.Health" "Check";
    HealthList "grpc.health.v1.Health" "List";
    HealthWatch "grpc.health.v1.Health" "Watch";
    Lock "v3lockpb.Lock" "Lock";
    Unlock "v3lockpb.Lock" "Unlock";
    Campaign "v3electionpb.Election" "Campaign";
    Proclaim "v3electionpb.Election" "Proclaim";
    Leader "v3electionpb.Election" "Leader";
    Observe "v3electionpb.Election" "Observe";
    Resign "v3electionpb.Election" "Resign";
    Sample "quorate.Insight" "Sample";
}

/// The series of each method, in the order of the variants; Quorate's own service has none.
static SERIES: LazyLock<Vec<Option<&'static Series>>> =
    LazyLock::new(|| PATHS.iter().map(|(path, _)| METRICS.grpc.method(path)).collect());

/// All that has series, with its path.
pub fn counted() -> impl Iterator<Item = (&'static str, &'static Series)> {
    PATHS.iter().zip(SERIES.iter()).filter_map(|((path, _), series)| Some((*path, (*series)?)))
}

impl Method {
    /// The method of a request's path.
    ///
    /// # Errors
    /// The refusals of grpc-go: malformed, unknown service, unknown method.
    pub fn find(path: &str) -> Result<Self, Invalid> {
        if let Some((_, method)) = PATHS.iter().find(|(known, _)| *known == path) {
            return Ok(*method);
        }
        let Some((service, method)) = path.strip_prefix('/').unwrap_or(path).rsplit_once('/') else {
            return Err(Invalid::MalformedPath(path.to_owned()));
        };
        if SERVICES.contains(&service) {
            return Err(Invalid::UnknownMethod { service: service.to_owned(), method: method.to_owned() });
        }
        Err(Invalid::UnknownService(service.to_owned()))
    }

    /// What is counted of it.
    pub fn series(self) -> Option<&'static Series> {
        SERIES[self as usize]
    }

    /// The path it was found by.
    pub fn path(self) -> &'static str {
        PATHS[self as usize].0
    }

    /// Whether its calls are streams in either direction.
    pub fn is_stream(self) -> bool {
        use Method::{HealthWatch, LeaseKeepAlive, Observe, RangeStream, Snapshot, Watch};
        matches!(self, LeaseKeepAlive | Watch | RangeStream | Snapshot | HealthWatch | Observe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_under_its_path() {
        for (path, method) in PATHS {
            assert_eq!(Method::find(path), Ok(*method));
            assert_eq!(method.path(), *path);
        }
    }

    #[test]
    fn unknown_names_are_told_apart() {
        assert_eq!(Method::find("/foo.Bar/Baz"), Err(Invalid::UnknownService("foo.Bar".to_owned())));
        assert_eq!(
            Method::find("/etcdserverpb.KV/Nope"),
            Err(Invalid::UnknownMethod { service: "etcdserverpb.KV".to_owned(), method: "Nope".to_owned() })
        );
        assert_eq!(Method::find("/foo"), Err(Invalid::MalformedPath("/foo".to_owned())));
    }
}
