//! Stdout carries exactly the result, in the bytes etcd's own tools would write;
//! everything else goes to stderr.

use std::io::Write as _;

use crate::failure::{Failure, exit};

/// The value of `--write-out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One line per fact, for people.
    Simple,
    /// `"Name" : value` lines.
    Fields,
    /// One line of JSON.
    Json,
    /// The message as it came over the wire.
    Protobuf,
    /// A drawn table, for members and endpoints.
    Table,
}

impl Format {
    /// The format by its name on the command line.
    pub fn parse(name: &str) -> Result<Self, Failure> {
        Ok(match name {
            "simple" => Self::Simple,
            "fields" => Self::Fields,
            "json" => Self::Json,
            "protobuf" => Self::Protobuf,
            "table" => Self::Table,
            _ => return Err(Failure::new(exit::BAD_FEATURE, "unsupported output format")),
        })
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Fields => "fields",
            Self::Json => "json",
            Self::Protobuf => "protobuf",
            Self::Table => "table",
        }
    }
}

/// Writes to stdout at once. A reader that has gone away ends the command quietly.
pub fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::silent(exit::ERROR),
        _ => Failure::general(error),
    })
}

/// Writes a line to stdout.
pub fn say(line: impl std::fmt::Display) -> Result<(), Failure> {
    write(format!("{line}\n").as_bytes())
}

/// Appends formatted text and a line feed to a buffer.
#[macro_export]
macro_rules! line {
    ($out:expr, $($text:tt)*) => {{
        $out.extend_from_slice(format!($($text)*).as_bytes());
        $out.push(b'\n');
    }};
}
pub use line;
