//! The network between members, and between clients and members, with faults.
//!
//! ```text
//!   namespace of member 0 ── tun ─┐          ┌─ tun ── namespace of member 1
//!                                 ├─ switch ─┤
//!   clients, in the root one ─ tun ─┘        └─ tun ── namespace of member 2
//! ```
//!
//! Each member has a network namespace of its own, with one device whose other
//! end is this process. A [`Switch`] carries every packet from one device to
//! another and does to it what the [`Link`] between the two says, so that loss,
//! delay and order come from one seed and are counted, whatever queueing
//! disciplines the kernel was built with.

mod link;
mod namespaces;
mod switch;

pub use link::{Counts, Link};
pub use namespaces::Namespaces;
pub use switch::{CLIENTS, Switch};
