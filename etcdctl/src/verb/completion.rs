//! `completion`: a script that teaches a shell the commands and flags.

use std::ffi::OsString;

use manners::completion;

use crate::failure::Failure;
use crate::help::TOOL;

/// The argument of `completion`.
#[derive(Debug, clap::Args)]
#[command(long_about = "Writes a completion script for a shell to stdout.

  bash         source <(etcdctl completion bash)
  zsh          etcdctl completion zsh > \"${fpath[1]}/_etcdctl\"
  fish         etcdctl completion fish | source
  powershell   etcdctl completion powershell | Out-String | Invoke-Expression")]
pub struct Completion {
    #[arg(value_name = "bash|zsh|fish|powershell")]
    words: Vec<OsString>,
}

impl Completion {
    /// Writes the script.
    pub fn run(self) -> Result<(), Failure> {
        completion::run(&TOOL, &self.words)
    }
}
