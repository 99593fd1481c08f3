//! The connections of a client, one an endpoint at most.
//!
//! All endpoints are tried at the same time and the first that answers serves; one
//! that is down is tried again until the caller's time is up. A call therefore
//! waits for a connection instead of failing for want of one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::endpoint::Endpoint;
use super::tls;
use crate::failure::Failure;
use crate::globals::Settings;

/// Pause before a failed endpoint is tried again: doubled each time, up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// The endpoints of a cluster and the connections to them.
#[derive(Debug)]
pub struct Pool {
    endpoints: Vec<Endpoint>,
    settings: Arc<Settings>,
    tls: Option<Arc<ClientConfig>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    channels: Vec<Option<Channel>>,
    last: usize,
    last_error: Option<String>,
}

impl Pool {
    /// A pool without connections yet.
    pub fn new(endpoints: &[String], settings: Arc<Settings>) -> Result<Self, Failure> {
        let wanted = tls::wanted(&settings);
        let endpoints: Vec<Endpoint> = endpoints.iter().map(|text| Endpoint::parse(text, wanted)).collect();
        let tls = match wanted || endpoints.iter().any(Endpoint::encrypted) {
            true => Some(tls::config(&settings)?),
            false => None,
        };
        let channels = vec![None; endpoints.len()];
        let state = Arc::new(Mutex::new(State { channels, ..State::default() }));
        Ok(Self { endpoints, settings, tls, state })
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// A connection, another than that of `avoid` if any can be had. Waits until there is one.
    pub async fn pick(&self, avoid: Option<usize>) -> (usize, Channel) {
        if let Some(found) = self.connected(avoid) {
            return found;
        }
        let mut attempts = JoinSet::new();
        for (index, endpoint) in self.endpoints.iter().cloned().enumerate() {
            let (settings, tls, state) = (self.settings.clone(), self.tls.clone(), self.state.clone());
            let head_start = (Some(index) == avoid && self.len() > 1).then_some(PAUSE_MIN);
            attempts.spawn(async move {
                tokio::time::sleep(head_start.unwrap_or_default()).await;
                let mut pause = PAUSE_MIN;
                loop {
                    match endpoint.connect(&settings, tls.clone()).await {
                        Ok(channel) => return (index, channel),
                        Err(error) => lock(&state).last_error = Some(error),
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            });
        }
        let first = attempts.join_next().await.expect("a client has at least one endpoint");
        let (index, channel) = first.expect("attempts are neither cancelled nor do they panic");
        let mut state = lock(&self.state);
        state.channels[index] = Some(channel.clone());
        state.last = index;
        (index, channel)
    }

    /// Drops a connection that broke.
    pub fn forget(&self, index: usize) {
        lock(&self.state).channels[index] = None;
    }

    /// Why the last attempt to connect failed, for the log.
    pub fn last_error(&self) -> Option<String> {
        lock(&self.state).last_error.clone()
    }

    /// The next existing connection in turn.
    fn connected(&self, avoid: Option<usize>) -> Option<(usize, Channel)> {
        let mut state = lock(&self.state);
        let count = state.channels.len();
        let turn = (1..=count).map(|step| (state.last + step) % count);
        let index =
            turn.filter(|index| Some(*index) != avoid).find(|index| state.channels[*index].is_some())?;
        state.last = index;
        state.channels[index].clone().map(|channel| (index, channel))
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    // Every change is one assignment: a poisoned state is a whole one.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
