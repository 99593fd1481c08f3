//! Tests of whole members, from outside.

mod bad_input;
mod basics;
mod cluster;
mod crash;
mod decode;
mod differential;
mod directory;
mod disk_full;
mod downgrade;
mod election;
mod flags;
mod http;
mod insight;
mod lease;
mod lock;
mod raw;
mod script;
mod snapshot;
mod square;
mod tls;
mod watch;

use tests::Program;

/// Our server; or, to test the tests, etcd's own in its place.
fn program() -> Program {
    match std::env::var_os("TEST_THE_TESTS") {
        Some(_) => Program::etcd().expect("TEST_THE_TESTS needs REAL_ETCD_BIN"),
        None => Program::ours(),
    }
}
