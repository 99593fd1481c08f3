//! What `etcdutl` does, for `etcdctl snapshot` too: work on files, without a cluster.
//!
//! | command | module | what it does with its files |
//! |---|---|---|
//! | `snapshot status`, `snapshot verify` | [`snapshot`] | reads |
//! | `snapshot restore` | [`restore`] | makes a data directory |
//! | `hashkv` | [`hashkv`] | reads |
//! | `defrag` | [`defrag`] | rewrites a data directory |
//! | `migrate` | [`migrate`] | changes a data directory's storage version |
//!
//! Flags, stdout, the text after `Error: ` and exit statuses are those of etcd's
//! `etcdutl`. What is not: a file that is read is never changed.

pub mod cli;
mod console;
pub mod defrag;
pub mod directory;
pub mod file;
pub mod hashkv;
pub mod migrate;
pub mod print;
pub mod restore;
pub mod snapshot;
pub mod verify;

use std::time::Duration;

/// The settings that every command takes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The value of `--write-out`, as given: a command without output looks at none.
    pub write_out: String,
    /// How long to wait for a file or directory that another process has; `None` for as long as it takes.
    pub lock_timeout: Option<Duration>,
}

impl Default for Settings {
    /// What holds where nothing is said: `simple`, ten seconds.
    fn default() -> Self {
        Self { write_out: "simple".to_owned(), lock_timeout: Some(Duration::from_secs(10)) }
    }
}
