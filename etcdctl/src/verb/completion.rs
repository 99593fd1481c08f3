//! `completion`: a script that teaches a shell the commands and flags.

use std::ffi::OsString;

use clap_complete::{Shell, generate};

use super::text;
use crate::cli;
use crate::failure::Failure;
use crate::go::quote;
use crate::output;

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
        let [shell] = self.words.as_slice() else {
            return Err(Failure::general(format!("accepts 1 arg(s), received {}", self.words.len())));
        };
        let shell = match shell.to_str() {
            Some("bash") => Shell::Bash,
            Some("zsh") => Shell::Zsh,
            Some("fish") => Shell::Fish,
            Some("powershell") => Shell::PowerShell,
            _ => {
                let shell = quote(text(shell).as_bytes());
                return Err(Failure::general(format!("invalid argument {shell} for \"etcdctl completion\"")));
            }
        };
        let mut script = Vec::new();
        generate(shell, &mut cli::command(), "etcdctl", &mut script);
        output::write(&script)
    }
}
