//! The way between members, on the peer port.
//!
//! ```text
//!   raft ──► dial ──► TLS ──►  listen ──► gRPC: raft's own service
//!                                     └► else: http (/members, /version)
//! ```

pub mod dial;
pub mod http;
pub mod listen;
pub mod service;
pub mod timed;
