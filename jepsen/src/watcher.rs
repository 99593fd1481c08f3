//! A watcher that writes down what it was told.
//!
//! Where its connection is lost, or silent for too long, it goes on at another
//! member with the revision after the last one it was told of. What it heard
//! before and after is one [`Watch`].
//!
//! Observers watch all keys from revision 1 on and go on until they have been
//! told everything there is; from them the checkers know what happened. There
//! is one for each member, where it begins: what one of them misses, because it
//! was compacted while its member was away, another one was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use proto::etcdserverpb as pb;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::{Endpoints, another, connect};
use crate::history::{Keys, Notice, Seen, Watch};
use crate::stopwatch::Stopwatch;
use crate::wire::bytes;

/// How often progress is asked for.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// A stream that owes progress and says nothing for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(4);
const CREATE_TIME_MAX: Duration = Duration::from_secs(3);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What a watcher is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is watched.
    pub keys: Keys,
    /// From which revision on; 0 for what comes next.
    pub start: i64,
    /// Whether the pairs before are asked for.
    pub previous: bool,
    /// Whether progress is asked for.
    pub progress: bool,
    /// After how long it ends; with the run, where that is earlier.
    pub life: Option<Duration>,
    /// After how long it gives up each connection by itself.
    pub reconnect: Option<Duration>,
}

/// How far observers are, for those who want to know what revisions there are.
#[derive(Debug, Clone, Default)]
pub struct Observed(Arc<AtomicI64>);

impl Observed {
    /// The last revision of which one of them was told.
    pub fn revision(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When watchers are to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Not yet.
    Further,
    /// Observers once they were told of this revision, all others now.
    Revision(i64),
    /// All.
    Now,
}

/// Someone who watches.
pub struct Watcher {
    endpoints: Endpoints,
    clock: Stopwatch,
    rng: StdRng,
    until: watch::Receiver<Until>,
    observed: Option<Observed>,
    member: usize,
    plan: Plan,
    record: Watch,
    /// From which revision on it was not told anything yet; 0 where it does not matter.
    next: i64,
}

/// Why a stream is over.
enum End {
    /// The watcher has done its work.
    Finished,
    /// The stream is of no more use: another one.
    Again,
    /// The server will not serve this watcher.
    Cancelled,
}

impl Watcher {
    /// One that does as planned.
    pub fn new(
        client: u32,
        plan: Plan,
        endpoints: Endpoints,
        clock: Stopwatch,
        mut rng: StdRng,
        until: watch::Receiver<Until>,
    ) -> Watcher {
        let member = rng.random_range(0..endpoints.len());
        let record = Watch {
            client,
            keys: plan.keys.clone(),
            start: plan.start,
            previous: plan.previous,
            progress: plan.progress,
            ..Watch::default()
        };
        Watcher { endpoints, clock, rng, until, observed: None, member, next: plan.start, plan, record }
    }

    /// One of the run's own, of all keys from revision 1 on, first at this member; `observed` tells how far it is.
    pub fn observer(
        client: u32,
        member: usize,
        observed: Observed,
        endpoints: Endpoints,
        clock: Stopwatch,
        rng: StdRng,
        until: watch::Receiver<Until>,
    ) -> Watcher {
        let plan = Plan { keys: everything(), start: 1, previous: true, progress: true, ..Plan::default() };
        let mut watcher = Watcher::new(client, plan, endpoints, clock, rng, until);
        watcher.record.observer = true;
        watcher.observed = Some(observed);
        watcher.member = member;
        watcher
    }

    /// Watches until its end, and gives what came.
    pub async fn run(mut self) -> Watch {
        let ends = self.plan.life.map(|life| Instant::now() + life);
        let mut member = self.member;
        loop {
            let (mut until, observes) = (self.until.clone(), self.observed.is_some());
            let end = tokio::select! {
                end = self.stream(member) => end,
                () = over(&mut until, observes) => End::Finished,
                () = sleep_until(ends.unwrap_or_else(Instant::now)), if ends.is_some() => End::Finished,
            };
            match end {
                End::Finished => return self.record,
                // Who was cancelled is not told why it would go better elsewhere; an observer has to go on.
                End::Cancelled if self.observed.is_none() => return self.record,
                End::Cancelled | End::Again => {}
            }
            member = another(member, self.endpoints.len(), &mut self.rng);
            sleep(RETRY_PAUSE).await;
        }
    }

    /// One connection, from its beginning to its end.
    async fn stream(&mut self, member: usize) -> End {
        let opened = timeout(CREATE_TIME_MAX, self.open(member)).await;
        let Ok(Some((requests, mut answers))) = opened else { return End::Again };
        let mut silent = Instant::now() + SILENCE_MAX;
        let mut ask = tokio::time::interval(PROGRESS_EVERY);
        let gives_up = self.plan.reconnect.map(|after| Instant::now() + after);
        let mut until = self.until.clone();
        loop {
            if self.is_complete() {
                return End::Finished;
            }
            tokio::select! {
                answer = answers.message() => {
                    silent = Instant::now() + SILENCE_MAX;
                    match answer {
                        Ok(Some(answer)) => {
                            if self.hear(member, answer) {
                                return End::Cancelled;
                            }
                        }
                        Ok(None) => return self.lost(member, "the stream ended".to_owned()),
                        Err(status) => {
                            let why = format!("{:?}: {}", status.code(), status.message());
                            return self.lost(member, why);
                        }
                    }
                }
                _ = ask.tick(), if self.plan.progress => {
                    let request = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                    let request = pb::WatchRequest { request_union: Some(request) };
                    // No room is as good as asked: the requests before wait for their answer.
                    requests.try_send(request).ok();
                }
                () = sleep_until(silent), if self.plan.progress => {
                    return self.lost(member, format!("silent for {SILENCE_MAX:?}"));
                }
                () = sleep_until(gives_up.unwrap_or(silent)), if gives_up.is_some() => {
                    return self.lost(member, "given up by the watcher".to_owned());
                }
                // An observer looks again whether it has everything.
                Ok(()) = until.changed() => {}
            }
        }
    }

    /// Connects and asks for the watcher; nothing where that did not go well.
    async fn open(
        &mut self,
        member: usize,
    ) -> Option<(mpsc::Sender<pb::WatchRequest>, Streaming<pb::WatchResponse>)> {
        let channel = connect(&self.endpoints[member]).await.ok()?;
        let create = pb::WatchCreateRequest {
            key: bytes(&self.plan.keys.key),
            range_end: bytes(&self.plan.keys.end),
            start_revision: self.next,
            progress_notify: self.plan.progress,
            prev_kv: self.plan.previous,
            ..pb::WatchCreateRequest::default()
        };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // More requests than these are not waiting: progress is not asked for then.
        let (requests, stream) = mpsc::channel(4);
        requests.send(request).await.ok()?;
        let mut client = WatchClient::new(channel).max_decoding_message_size(i32::MAX as usize);
        let mut answers = client.watch(ReceiverStream::new(stream)).await.ok()?.into_inner();
        let answer = answers.message().await.ok()??;
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        self.note(member, revision, Notice::Created { start: self.next });
        if answer.canceled {
            self.hear(member, answer);
            return None;
        }
        if self.next == 0 {
            self.next = revision + 1;
        }
        Some((requests, answers))
    }

    /// Takes down one response, and tells whether it was the watcher's end.
    fn hear(&mut self, member: usize, answer: pb::WatchResponse) -> bool {
        let revision = answer.header.map_or(0, |header| header.revision);
        if answer.canceled {
            let compacted = answer.compact_revision;
            self.note(member, revision, Notice::Cancelled { reason: answer.cancel_reason, compacted });
            // What was forgotten cannot be told any more, not even to an observer.
            self.next = self.next.max(compacted);
            return true;
        }
        if answer.events.is_empty() {
            self.note(member, revision, Notice::Progress);
            // Observers believe only events: what progress told too early shall still come.
            if self.observed.is_none() {
                self.next = self.next.max(revision + 1);
            }
            return false;
        }
        let events: Vec<_> = answer.events.into_iter().map(Into::into).collect();
        let last = events.iter().map(|event: &crate::history::Event| event.pair.modified).max();
        self.next = self.next.max(last.unwrap_or_default() + 1);
        self.note(member, revision, Notice::Events(events));
        if let Some(observed) = &self.observed {
            observed.0.fetch_max(self.next - 1, Ordering::Relaxed);
        }
        false
    }

    fn lost(&mut self, member: usize, why: String) -> End {
        self.note(member, 0, Notice::Lost(why));
        End::Again
    }

    fn note(&mut self, member: usize, revision: i64, what: Notice) {
        self.record.seen.push(Seen { at: self.clock.now(), member, revision, what });
    }

    /// Whether an observer has been told of the last revision.
    fn is_complete(&self) -> bool {
        match *self.until.borrow() {
            Until::Revision(last) if self.observed.is_some() => self.next > last,
            _ => false,
        }
    }
}

/// Ends when watchers do; never where nobody can say so any more.
async fn over(until: &mut watch::Receiver<Until>, observer: bool) {
    let over = |until: &Until| *until == Until::Now || (!observer && *until != Until::Further);
    if until.wait_for(over).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// All keys.
pub fn everything() -> Keys {
    Keys { key: "\0".to_owned(), end: "\0".to_owned() }
}

/// All keys that begin with a text, whose last character is not the last there is.
pub fn under(prefix: &str) -> Keys {
    let mut end = prefix.to_owned();
    let last = end.pop().expect("a prefix is not empty");
    end.push(char::from_u32(u32::from(last) + 1).expect("keys are ASCII"));
    Keys { key: prefix.to_owned(), end }
}

#[cfg(test)]
mod tests;
