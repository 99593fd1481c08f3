//! bbolt's file format, version 2: a distrustful reader and a streaming writer.
//!
//! A file is an array of pages. The first two are metas, of which the valid one
//! with the larger transaction id counts. It names the root page of a B+tree
//! whose entries are the buckets; a bucket is a tree of its own or, when it is
//! small, a leaf page inside its entry. Buckets in buckets, which etcd has no use
//! for, are refused by the reader.
//!
//! Numbers are little endian. The rules are those of bbolt 1.5.

mod check;
mod error;
mod format;
mod node;
mod plan;
mod reader;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

pub use check::PROBLEMS_MAX;
pub use error::{Damage, Error, Problem};
pub use format::{KEY_LEN_MAX, MAGIC, PAGE_SIZE, VALUE_LEN_MAX};
pub use plan::{Place, Plan, Source, Unwritable, Visitor};
pub use reader::{BUCKETS_MAX, Bucket, Database, Rows};
pub use tree::Out;
