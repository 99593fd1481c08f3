//! Why a command ends without success, and the status a script sees.

use std::fmt;
use std::process::ExitCode;

/// Exit statuses, with the meanings scripts know from etcd.
pub mod exit {
    /// The server refused, or something general went wrong.
    pub const ERROR: u8 = 1;
    /// No usable connection, or authentication at dial failed.
    pub const BAD_CONNECTION: u8 = 2;
    /// Input on stdin, or the state it meets, is not acceptable.
    pub const INVALID_INPUT: u8 = 3;
    /// A flag has a value this program does not offer.
    pub const BAD_FEATURE: u8 = 4;
    /// The server ended what was meant to go on.
    pub const INTERRUPTED: u8 = 5;
    /// Arguments do not fit the command.
    pub const BAD_ARGS: u8 = 128;
}

/// The end of a command: a status and, unless it was said already, a message for stderr.
#[derive(Debug)]
pub struct Failure {
    /// Exit status.
    pub status: u8,
    /// Text after `Error: `; `None` when the reasons are on stderr already.
    pub message: Option<String>,
}

impl Failure {
    /// A failure with its text.
    pub fn new(status: u8, message: impl fmt::Display) -> Self {
        Self { status, message: Some(message.to_string()) }
    }

    /// Status 1, for what the server or the network said.
    pub fn general(message: impl fmt::Display) -> Self {
        Self::new(exit::ERROR, message)
    }

    /// Status 128, for arguments.
    pub fn args(message: impl fmt::Display) -> Self {
        Self::new(exit::BAD_ARGS, message)
    }

    /// Status 3, for input.
    pub fn input(message: impl fmt::Display) -> Self {
        Self::new(exit::INVALID_INPUT, message)
    }

    /// Nothing more to say.
    pub fn silent(status: u8) -> Self {
        Self { status, message: None }
    }
}

/// Tells stderr what is left to tell, and gives the exit status.
pub fn end(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message {
                eprintln!("Error: {message}");
            }
            ExitCode::from(failure.status)
        }
    }
}
