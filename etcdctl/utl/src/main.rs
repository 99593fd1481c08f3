//! The `etcdutl` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    manners::failure::end(etcdutl::cli::run(std::env::args_os().collect()))
}
