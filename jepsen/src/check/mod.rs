//! What must hold of a history, one file a promise.
//!
//! Checkers are functions of a [`History`](crate::history::History): they ask no cluster and no clock.

mod anomaly;
pub mod availability;
pub mod linearizable;
pub mod model;
pub mod timeline;
pub mod watch;
pub mod wgl;

pub use anomaly::{Anomaly, Check, TOLD_MAX, Verdict};
