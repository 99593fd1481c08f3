//! Reads the values that Kubernetes keeps in etcd, and shows them as Kubernetes does.
//!
//! [`decode`] tells what a value is and, where it can, makes the object of it; [`Entry`] is a key with
//! its value, as a YAML document or a line of JSON. Neither knows where the bytes come from: a member
//! or a snapshot file.
//!
//! ```text
//!   "k8s\0" + Unknown { apiVersion, kind, raw }   what an apiserver writes of built-in kinds   envelope
//!   raw + table of the kind's fields              ─► the object as Kubernetes' JSON has it     object, special
//!   raw without such a table                      ─► its fields by number                      dump
//!   "{…"                                          custom resources: JSON already
//!   "k8s:enc:" + provider, key                    encrypted: nothing but that is known
//! ```
//!
//! Whatever bytes it is given, it ends with a document or a [`DecodeError`]: input is bounded in depth,
//! and nothing is allocated that the input does not have.

mod dump;
mod entry;
mod envelope;
mod object;
mod schema;
mod special;
mod time;
mod wire;
mod yaml;

pub use self::entry::{Entry, Options};
pub use self::envelope::{Decoded, Form, decode};
pub use self::wire::DecodeError;

/// How deep messages may be inside each other. Kubernetes' own stay far below.
const DEPTH_MAX: usize = 64;
