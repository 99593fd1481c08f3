//! What is printed for people.

use std::fmt::Display;
use std::io::Write;

/// Prints a line. Whoever listened may have gone, and a run that took hours goes on then: all it says is in files too.
pub fn say(line: impl Display) {
    writeln!(std::io::stdout().lock(), "{line}").ok();
}
