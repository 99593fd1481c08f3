//! The `etcd` binary.

/// jemalloc gives memory back after a load; `decisions/0001-allocator.md` says why.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    eprintln!("etcd: the server does not start yet");
    std::process::ExitCode::FAILURE
}
