//! Read indexes, shared by those who wait on one thread.
//!
//! Consensus shares its rounds already. What is shared here is the way there and
//! back: a round costs two wake-ups across threads, and with this all requests
//! of a thread that came in the meantime pay for them together.
//!
//! A request joins the next round, never the one under way: that one may have
//! begun before something that the request has to see.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::once_led;
use crate::error::Unavailable;
use crate::raft::Raft;

type Waiter = oneshot::Sender<Result<(), Unavailable>>;

/// The rounds of one thread. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Reads(Arc<Mutex<Rounds>>);

#[derive(Default)]
struct Rounds {
    under_way: bool,
    // Bounded by the requests that wait, each on a stream of its own.
    next: Vec<Waiter>,
}

impl Reads {
    /// Returns once this member has applied all that was acknowledged before the call.
    pub(super) async fn wait(&self, raft: &Raft) -> Result<(), Unavailable> {
        let (waiter, answer) = oneshot::channel();
        let first = {
            let mut rounds = self.0.lock();
            rounds.next.push(waiter);
            !std::mem::replace(&mut rounds.under_way, true)
        };
        if first {
            // A task of its own: a request that is given up must not end the round of others.
            tokio::spawn(self.clone().run(raft.clone()));
        }
        answer.await.unwrap_or(Err(Unavailable::Stopped))
    }

    async fn run(self, raft: Raft) {
        let mut waiting = Vec::new();
        loop {
            {
                let mut rounds = self.0.lock();
                std::mem::swap(&mut rounds.next, &mut waiting);
                if waiting.is_empty() {
                    rounds.under_way = false;
                    return;
                }
            }
            let result = round(&raft).await;
            for waiter in waiting.drain(..) {
                // Whoever waited may have given up.
                waiter.send(result).ok();
            }
        }
    }
}

async fn round(raft: &Raft) -> Result<(), Unavailable> {
    let index = match raft.read_index().await {
        Err(Unavailable::NoLeader | Unavailable::NotLeader { .. }) => {
            Box::pin(once_led(raft, || raft.read_index())).await?
        }
        index => index?,
    };
    raft.wait_applied(index).await
}
