//! What must hold of a history, one file a promise.

mod anomaly;
pub mod watch;

pub use anomaly::Anomaly;
