//! `version`.

use crate::failure::Failure;
use crate::output;
use crate::{API_VERSION, VERSION};

/// Prints the version of etcd's tool that this one stands in for, and that of the API.
pub fn run() -> Result<(), Failure> {
    output::say(format!("etcdctl version: {VERSION}\nAPI version: {API_VERSION}"))
}
