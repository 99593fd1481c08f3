//! Ports nobody else uses.
//!
//! They are taken below the range from which the kernel hands out ports to
//! outgoing connections, so a port that is free now is still free when the
//! member binds it, and each is handed out once by this process.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

// etcd's own tests use ports from 20000 on.
const FIRST: u16 = 12_000;
const COUNT: u16 = 7_500;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on which nothing listens.
pub fn free_port() -> u16 {
    // Test processes that run side by side start at different places.
    let start = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
