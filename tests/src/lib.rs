//! Starts real members, ours and etcd's own, and talks to them as a client does.
//!
//! Everything here works on processes: a [`Member`] is a program on free ports
//! with a directory of its own, and it dies with the test that started it.
//! A [`Cluster`] is some of them, on request with a [`Network`] between them that fails when told to.
//! What is tested stands in `it/`, one file an area.
//!
//! | variable | meaning |
//! |---|---|
//! | `ETCD_BIN` | our server; without it, cargo builds one |
//! | `REAL_ETCD_BIN` | etcd's own server, for comparisons; without it, they are skipped loudly |

mod client;
mod cluster;
mod http;
mod member;
mod network;
mod ports;
mod program;
mod tls;

pub use client::Client;
pub use cluster::{Cluster, Places, Shape, eventually};
pub use http::http;
pub use member::{Member, Options};
pub use network::{Network, Way};
pub use ports::free_port;
pub use program::Program;
pub use tls::{Authority, KeyPair};

/// Says that a test, or a part of one, did not run and why, so that nobody takes silence for success.
pub fn skipped(what: &str, why: &str) {
    eprintln!("SKIPPED {what}: {why}");
}
