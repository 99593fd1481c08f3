#![doc = include_str!("../ARCHITECTURE.md")]

pub mod clock;
pub mod config;
pub mod datadir;
pub mod error;
pub mod http;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod raft;
pub mod tls;
pub mod watch;
