//! Every byte that leaves a process: etcd's client API, the commands in the
//! Raft log, the messages between members.
//!
//! The modules carry the names of the protobuf packages. Keys and values are
//! [`bytes::Bytes`], slices of the buffer they were read from.

#![allow(missing_docs, reason = "generated from the schema, which says what each message is")]
#![allow(clippy::all, reason = "generated")]

/// Records and events of the revisioned key space.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Users, roles and permissions.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// The v3 client API.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// The lock service.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// The election service.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// Leases as a snapshot file holds them.
pub mod leasepb {
    tonic::include_proto!("leasepb");
}

/// Commands in the Raft log.
pub mod command {
    tonic::include_proto!("command");
}

/// What a member sees of its load.
pub mod insight {
    tonic::include_proto!("quorate");
}

/// What members say to each other.
pub mod peer {
    tonic::include_proto!("peer");
}

/// The gRPC health service.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
