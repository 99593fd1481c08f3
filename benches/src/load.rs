//! Closed-loop load: so many clients, each with one request under way.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tonic::transport::{Channel, Endpoint};

/// What the clients saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Requests answered.
    pub requests: u64,
    /// From the first request to the last answer.
    pub wall: Duration,
    /// All latencies, ascending, in microseconds.
    pub latencies_us: Vec<u32>,
}

impl Seen {
    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.wall.as_secs_f64()
    }

    /// The latency that this share of the requests did not exceed, in microseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get((last as f64 * share) as usize).copied().map_or(0.0, f64::from)
    }
}

/// Connections to one member.
///
/// # Errors
/// When the member does not answer.
pub async fn connect(url: &str, connections: usize) -> Result<Vec<Channel>> {
    let mut channels = Vec::with_capacity(connections);
    for _ in 0..connections {
        let endpoint = Endpoint::from_shared(url.to_owned())?
            .tcp_nodelay(true)
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(16 << 20);
        channels.push(endpoint.connect().await?);
    }
    Ok(channels)
}

/// Runs `requests` requests through `clients` clients; `request` gets the client's number and the request's.
///
/// # Errors
/// The first request that fails.
pub async fn closed_loop<F, R>(clients: usize, requests: u64, request: F) -> Result<Seen>
where
    F: Fn(usize, u64) -> R + Send + Sync + 'static,
    R: Future<Output = Result<()>> + Send,
{
    let next = Arc::new(AtomicU64::new(0));
    let request = Arc::new(request);
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (next, request) = (next.clone(), request.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return Ok::<_, anyhow::Error>(latencies);
                    }
                    let sent = Instant::now();
                    request(client, number).await?;
                    latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
            })
        })
        .collect();
    let mut seen = Seen { requests, ..Seen::default() };
    for task in tasks {
        seen.latencies_us.extend(task.await.map_err(|e| anyhow!("a client died: {e}"))??);
    }
    seen.wall = start.elapsed();
    seen.latencies_us.sort_unstable();
    Ok(seen)
}
