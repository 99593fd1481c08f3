//! Tries clusters under faults, and checks what clients saw.
//!
//! ```text
//!   workload ─► clients ─┐                       ┌─► checkers ─► anomalies
//!                        ├─► cluster ─► history ─┤
//!   nemesis ─► faults ───┘                       └─► report
//! ```
//!
//! A run is one workload under one nemesis on one cluster, ours or etcd's, and
//! everything random in it comes from one seed. What clients asked and heard
//! becomes a [`history::History`]; checkers see nothing else.

pub mod cell;
pub mod check;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod driver;
pub mod edn;
pub mod generate;
pub mod history;
pub mod matrix;
pub mod nemesis;
pub mod net;
pub mod report;
pub mod run;
mod say;
pub mod stopwatch;
pub mod trials;
pub mod watcher;
pub mod wire;
pub mod workload;

pub use say::say;
