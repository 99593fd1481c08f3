//! What can be wrong with an image, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused to read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image breaks a rule of the format.
    #[error("{path}: {problem}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which rule, and where.
        problem: Problem,
    },
}

/// A broken rule and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The page, by its number from the start of the file.
    pub page: u64,
    /// Byte offset in the file.
    pub offset: u64,
    /// The rule.
    pub damage: Damage,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {} at byte {}: {}", self.page, self.offset, self.damage)
    }
}

/// A rule of the format that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// There is less in the file than the rule needs.
    #[error("the file ends at byte {len}, {needed} are needed")]
    Truncated {
        /// Bytes the file has.
        len: u64,
        /// Bytes it would have to have.
        needed: u64,
    },
}
