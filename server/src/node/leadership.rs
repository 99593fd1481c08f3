//! Why a stream has to end before its client wants it to.
//!
//! A request is refused at once when there is no leader and its client asked to
//! be told (`hasleader`). A stream is worth more: it ends only when three looks
//! in a row, an election timeout apart, have found none. And all streams end
//! when the member stops.

use tokio::sync::watch;

use super::{Node, stopped};
use crate::error::Unavailable;

/// Looks without a leader after which streams end.
const LOOKS_MAX: u32 = 3;

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// How often the leader has been away for too long.
    losses: u64,
    stopping: bool,
}

/// Tells streams when they have to end.
pub struct Monitor {
    state: watch::Sender<State>,
}

impl Monitor {
    /// A monitor that has seen nothing yet.
    pub fn new() -> Self {
        Self { state: watch::Sender::new(State::default()) }
    }

    /// For one stream: whether it is to end when the leader goes.
    pub fn subscribe(&self, wants_leader: bool) -> Cut {
        Cut { state: self.state.subscribe(), wants_leader }
    }
}

/// When one stream has to end.
pub struct Cut {
    state: watch::Receiver<State>,
    wants_leader: bool,
}

impl Cut {
    /// Returns when the stream has to end, with the reason.
    pub async fn wait(mut self) -> Unavailable {
        let losses = self.state.borrow_and_update().losses;
        let wants_leader = self.wants_leader;
        let ends = |state: &State| state.stopping || wants_leader && state.losses != losses;
        match self.state.wait_for(ends).await {
            Ok(state) if !state.stopping => Unavailable::NoLeader,
            _ => Unavailable::Stopped,
        }
    }
}

/// Looks once per election timeout.
pub(super) async fn run(node: Node, mut stop: watch::Receiver<bool>) {
    let state = &node.shared.leadership.state;
    let mut looks = 0;
    let mut ticks = tokio::time::interval(node.settings().election_timeout);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stopped(&mut stop) => break,
        }
        looks = if node.status().leader == 0 { looks + 1 } else { 0 };
        if looks == LOOKS_MAX {
            state.send_modify(|state| state.losses += 1);
        }
    }
    state.send_modify(|state| state.stopping = true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_those_who_asked_are_told_that_the_leader_is_gone() {
        let monitor = Monitor::new();
        let asked = monitor.subscribe(true);
        let other = tokio::spawn(monitor.subscribe(false).wait());
        let waiting = tokio::spawn(asked.wait());
        tokio::task::yield_now().await;
        monitor.state.send_modify(|state| state.losses += 1);
        assert_eq!(waiting.await.expect("no panic"), Unavailable::NoLeader);
        assert!(!other.is_finished());
        monitor.state.send_modify(|state| state.stopping = true);
        assert_eq!(other.await.expect("no panic"), Unavailable::Stopped);
    }
}
