//! `/debug/vars`: the shape Go's `expvar` gives, with what exists here.

use serde_json::json;

use crate::metrics::METRICS;

/// The variables as JSON.
pub fn render() -> String {
    METRICS.process.refresh();
    let resident = METRICS.process.resident_bytes.get();
    let document = json!({
        "cmdline": std::env::args().collect::<Vec<_>>(),
        "file_descriptor_limit": METRICS.process.fds_limit.get(),
        "memstats": { "Sys": METRICS.process.virtual_bytes.get(), "Alloc": resident, "HeapAlloc": resident },
    });
    format!("{document:#}\n")
}
