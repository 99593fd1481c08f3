//! Connections to other members.

use std::time::Duration;

use anyhow::Context;
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What a peer may send before it is read.
const WINDOW: u32 = 8 << 20;

/// Makes connections to peers.
#[derive(Debug, Clone, Default)]
pub struct Dialer;

impl Dialer {
    /// A connection to a peer's URL, made when it is first used and again whenever it breaks.
    ///
    /// # Errors
    /// When the URL is not one.
    pub fn channel(&self, url: &str) -> anyhow::Result<Channel> {
        let endpoint = Endpoint::from_shared(url.to_owned()).with_context(|| format!("peer URL {url}"))?;
        Ok(endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW)
            .connect_lazy())
    }
}
