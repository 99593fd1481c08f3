//! The `etcd` binary.

use std::process::ExitCode;

/// For the storage engine's C++ too; `decisions/0001-allocator.md` says why.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Few arenas, since the threads are few; freed pages go back after a second.
#[expect(unsafe_code, reason = "this is the name under which jemalloc looks for its settings")]
#[unsafe(export_name = "malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 72] =
    b"narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:false\0\0";

fn main() -> ExitCode {
    eprintln!("etcd: the server does not start yet");
    ExitCode::FAILURE
}
