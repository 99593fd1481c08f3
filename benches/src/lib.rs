//! Whole members measured beside etcd: the same load, in turns, in one run.
//!
//! A figure means something only as a ratio of two neighbours in time: machines
//! are shared and noisy. So each case runs on both members alternately and is
//! reported as the median of each side and the median ratio of the pairs.

pub mod backup;
pub mod cases;
pub mod cluster;
pub mod load;
pub mod plot;
pub mod process;
pub mod report;
