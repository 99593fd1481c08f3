//! What etcd's command-line tools have in common, for `etcdctl` and `etcdutl`.
//!
//! How a line of arguments is read ([`args`]), how help is laid out ([`help`]), how text
//! and numbers look ([`go`], [`json`], [`table`]), what a script sees of a failure
//! ([`failure`]). A tool describes itself as a [`Tool`] and brings its commands.

pub mod args;
pub mod completion;
pub mod failure;
pub mod go;
pub mod help;
pub mod json;
pub mod log;
pub mod output;
pub mod table;

use clap::Command;

/// The release of etcd's tools that these stand in for.
pub const VERSION: &str = "3.7.3";
/// The version of the API they speak.
pub const API_VERSION: &str = "3.7";

/// A tool, as its help and its mistakes are told.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// The name it is called by.
    pub name: &'static str,
    /// Its commands and flags, with [`args::manners`] applied.
    pub command: fn() -> Command,
    /// The commands of the first level by group; empty for one list of all.
    pub groups: &'static [(&'static str, &'static [&'static str])],
    /// Where help says that the flags of every command are shown; `None` to show them in place.
    pub options_hint: Option<&'static str>,
}
