//! The segmented Raft log.
