//! A script that teaches a shell the commands and flags of a tool.

use std::ffi::OsString;

use clap_complete::{Shell, generate};

use crate::failure::Failure;
use crate::{Tool, go, output};

/// Writes the script for the shell that the words of a command line name.
pub fn run(tool: &Tool, words: &[OsString]) -> Result<(), Failure> {
    let [shell] = words else {
        return Err(Failure::general(format!("accepts 1 arg(s), received {}", words.len())));
    };
    let shell = match shell.to_str() {
        Some("bash") => Shell::Bash,
        Some("zsh") => Shell::Zsh,
        Some("fish") => Shell::Fish,
        Some("powershell") => Shell::PowerShell,
        _ => {
            let (shell, name) = (go::quote(shell.as_encoded_bytes()), tool.name);
            return Err(Failure::general(format!("invalid argument {shell} for \"{name} completion\"")));
        }
    };
    let mut script = Vec::new();
    generate(shell, &mut (tool.command)(), tool.name, &mut script);
    output::write(&script)
}
