//! The `etcd` binary.

use std::collections::BTreeMap;
use std::process::ExitCode;

use server::config::{self, Stop, help};
use server::{logging, process};

/// For the storage engine's C++ too; `decisions/0001-allocator.md` says why.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Few arenas, since the threads are few; freed pages go back after a second.
#[expect(unsafe_code, reason = "this is the name under which jemalloc looks for its settings")]
#[unsafe(export_name = "malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 72] =
    b"narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:false\0\0";

fn main() -> ExitCode {
    logging::start();
    report_panics();
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    if let Some(command @ ("gateway" | "grpc-proxy")) = args.first().map(String::as_str) {
        eprintln!("etcd {command} is not supported by this release");
        return ExitCode::FAILURE;
    }
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    let config = match config::load(&args, &environment) {
        Ok(config) => config,
        Err(stop) => return explain(stop),
    };
    if let Err(error) = logging::configure(&config.flags) {
        return fail("failed to verify flags", &error);
    }
    config.notes.iter().for_each(logging::note);
    match process::run(config) {
        Ok(code) => code,
        Err(error) => fail("the member cannot run", &error),
    }
}

fn explain(stop: Stop) -> ExitCode {
    match stop {
        Stop::Help => {
            eprintln!("{}", help::USAGE);
            print!("{}", help::flags());
            ExitCode::SUCCESS
        }
        Stop::Version => {
            print!("{}", help::version());
            ExitCode::SUCCESS
        }
        Stop::Usage(message) => {
            eprintln!("{message}\n{}", help::USAGE);
            ExitCode::from(2)
        }
        Stop::Refused(reason) => {
            tracing::warn!(error = %reason, "failed to verify flags");
            ExitCode::FAILURE
        }
        Stop::Fatal { message, field, value } => {
            logging::fatal(message, &[(field, &value)]);
            ExitCode::FAILURE
        }
    }
}

fn fail(message: &str, error: &anyhow::Error) -> ExitCode {
    logging::fatal(message, &[("error", &format!("{error:#}"))]);
    ExitCode::FAILURE
}

/// A panic is a broken invariant: one line, and in a release build the process ends with it.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let text = panic.payload_as_str().unwrap_or("a panic without a message");
        logging::fatal(text, &[("panic_at", &place), ("thread", thread.name().unwrap_or("unnamed"))]);
    }));
}
