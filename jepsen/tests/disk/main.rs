//! The disk that forgets: what it does to files, and to members that live on it.

mod files;
mod members;

use jepsen::disk::{Disk, Names};
use tests::skipped;

/// An empty disk, or `None` and a loud word where FUSE is not to be had.
fn disk(names: Names) -> Option<Disk> {
    match Disk::mount(names) {
        Ok(disk) => Some(disk),
        Err(why) => {
            skipped("a disk of its own", &format!("{why:#}"));
            None
        }
    }
}
