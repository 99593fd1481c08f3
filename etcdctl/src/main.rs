//! `etcdctl`: the command line of the cluster, in the words and bytes of etcd's own.
//!
//! A command is read by [`cli`], settles its flags and environment ([`globals`]), calls
//! the cluster through [`client`], and prints one reply ([`output`]). What a script
//! can see is etcd's: flags, stdout, exit statuses, the text after `Error: `.

mod cli;
mod client;
mod globals;
mod help;
mod output;
mod verb;

use std::process::ExitCode;

use manners::{API_VERSION, VERSION, failure, go, log};

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(cli::run(std::env::args_os().collect()));
            // A stdin that is still being read must not keep the process.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(failure::Failure::general(error)),
    };
    failure::end(result)
}
