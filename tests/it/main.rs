//! Tests of whole members, from outside.

mod basics;
mod differential;
