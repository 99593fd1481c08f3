//! etcd's snapshot file: reading, writing and judging it.
//!
//! A file is a [`bbolt`] image followed by the SHA-256 of the image ([`mod@file`]).
//! The image holds ten buckets whose rows [`schema`] names and encodes. What
//! etcd's own tools say about a file, [`status`] and [`hash_kv`] say alike;
//! [`verify`] looks at everything. A [`directory`] is what a restore makes of it.
//!
//! ```text
//!   file     ┌────────┬────────┬─────────────────────────────┬─────────┐
//!            │ meta 0 │ meta 1 │ pages of the trees          │ SHA-256 │
//!            └────────┴────────┴─────────────────────────────┴─────────┘
//!            ◄──────────── image, whole pages ──────────────►◄ 32 bytes ►
//! ```
//!
//! Invariants
//!  1. Nothing here writes to a file it reads.
//!  2. No content of a file makes this crate panic, loop, or hold more memory
//!     than its documentation says.
//!  3. Clocks, sockets and tasks are the caller's: all calls block.

pub mod bbolt;
pub mod directory;
mod error;
#[cfg(test)]
mod etcd;
pub mod file;
mod fingerprint;
#[cfg(test)]
mod fuzz;
pub mod hash_kv;
pub mod keys;
#[cfg(test)]
mod sample;
pub mod schema;
pub mod status;
pub mod verify;

pub use error::Error;
