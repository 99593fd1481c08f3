//! Clients and watchers at work, until they are told to stop.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::client::{Client, Endpoints};
use crate::history::{Action, Operation, Outcome, Watch};
use crate::stopwatch::Stopwatch;
use crate::watcher::{Observed, Until, Watcher};
use crate::workload::{Numbers, Script, Step, Workload, World};

/// The numbers of observers as clients, by their members.
const OBSERVERS: u32 = 1_000_000;
/// The numbers of other watchers, by the clients that start them.
const WATCHERS: u32 = 2_000_000;
/// How many watchers a client may start in a run.
const WATCHERS_MAX: u32 = 10_000;
/// How long observers may take for what is left, once all members are healthy.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);
/// How often a final read is tried again.
const FINAL_ATTEMPTS: u32 = 20;

/// How clients work.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// How many clients.
    pub clients: u32,
    /// Requests in a second, of all clients together.
    pub rate: f64,
    /// How long a client waits for an answer.
    pub patience: Duration,
}

/// Everybody who is at work.
pub struct Driver {
    load: Load,
    endpoints: Endpoints,
    clock: Stopwatch,
    rng: StdRng,
    until: watch::Sender<Until>,
    stop: watch::Sender<bool>,
    clients: JoinSet<(Vec<Operation>, JoinSet<Watch>)>,
    observers: JoinSet<Watch>,
    operations: Vec<Operation>,
    watchers: Vec<JoinSet<Watch>>,
}

impl Driver {
    /// Starts the observers and all clients.
    pub fn start(
        workload: &dyn Workload,
        load: Load,
        endpoints: Endpoints,
        clock: Stopwatch,
        mut rng: StdRng,
    ) -> Driver {
        let (until, _) = watch::channel(Until::Further);
        let (stop, _) = watch::channel(false);
        let (observed, numbers) = (Observed::default(), Numbers::default());
        let (mut clients, mut observers) = (JoinSet::new(), JoinSet::new());
        for (number, member) in (OBSERVERS..).zip(0..endpoints.len()) {
            let (endpoints, rng) = (endpoints.clone(), split(&mut rng));
            let until = until.subscribe();
            let watcher = Watcher::observer(number, member, observed.clone(), endpoints, clock, rng, until);
            observers.spawn(watcher.run());
        }
        for number in 0..load.clients {
            let client = Client::new(
                number,
                load.clients + 1,
                endpoints.clone(),
                load.patience,
                clock,
                split(&mut rng),
            );
            let worker = Worker {
                number,
                client,
                script: workload.script(number),
                rng: split(&mut rng),
                period: Duration::from_secs_f64(f64::from(load.clients) / load.rate),
                endpoints: endpoints.clone(),
                clock,
                observed: observed.clone(),
                numbers: numbers.clone(),
                until: until.clone(),
                watchers: JoinSet::new(),
            };
            clients.spawn(worker.run(stop.subscribe()));
        }
        let (operations, watchers) = (Vec::new(), Vec::new());
        Driver { load, endpoints, clock, rng, until, stop, clients, observers, operations, watchers }
    }

    /// Waits until all clients have ended what they are at. Watchers go on.
    pub async fn stop(&mut self) {
        self.stop.send_replace(true);
        while let Some(done) = self.clients.join_next().await {
            let (operations, watchers) = done.expect("clients do not panic");
            self.operations.extend(operations);
            self.watchers.push(watchers);
        }
    }

    /// What is read at the end, of every member that answers: by a client of its own.
    pub async fn finish(&mut self, actions: &[Action]) {
        let number = self.load.clients;
        let mut client = Client::new(
            number,
            number + 1,
            self.endpoints.clone(),
            self.load.patience,
            self.clock,
            split(&mut self.rng),
        );
        for member in 0..self.endpoints.len() {
            for action in actions {
                for _ in 0..FINAL_ATTEMPTS {
                    client.turn_to(member);
                    let operation = client.execute(action.clone()).await;
                    if matches!(operation.outcome, Outcome::Done(_)) {
                        break;
                    }
                    sleep(Duration::from_millis(250)).await;
                }
            }
        }
        self.operations.extend(client.into_operations());
    }

    /// Ends all watchers, and observers once they were told of the last revision.
    ///
    /// The flag tells whether all of them were.
    pub async fn end(mut self, last: i64) -> (Vec<Operation>, Vec<Watch>, bool) {
        self.stop().await;
        self.until.send_replace(Until::Revision(last));
        let mut watches = Vec::new();
        let complete = timeout(DRAIN_TIME_MAX, async {
            while let Some(watch) = self.observers.join_next().await {
                watches.push(watch.expect("observers do not panic"));
            }
        });
        let complete = complete.await.is_ok();
        self.until.send_replace(Until::Now);
        watches.extend(self.observers.join_all().await);
        watches.sort_by_key(|watch| watch.client);
        for watchers in self.watchers {
            watches.extend(watchers.join_all().await);
        }
        self.operations.sort_by_key(|operation| operation.invoked);
        (self.operations, watches, complete)
    }
}

/// A source of chance of its own.
pub fn split(rng: &mut StdRng) -> StdRng {
    StdRng::seed_from_u64(rng.random())
}

/// A client and its script.
struct Worker {
    number: u32,
    client: Client,
    script: Box<dyn Script>,
    rng: StdRng,
    period: Duration,
    endpoints: Endpoints,
    clock: Stopwatch,
    observed: Observed,
    numbers: Numbers,
    until: watch::Sender<Until>,
    watchers: JoinSet<Watch>,
}

impl Worker {
    async fn run(mut self, stop: watch::Receiver<bool>) -> (Vec<Operation>, JoinSet<Watch>) {
        // Not all at once.
        let mut due = Instant::now() + self.period.mul_f64(self.rng.random_range(0.0..1.0));
        let mut started = 0;
        while !*stop.borrow() {
            sleep_until(due.into()).await;
            // Who is late is not in a hurry for it.
            due = Instant::now().max(due + self.period);
            let elapsed = self.clock.began().elapsed();
            let mut world = World::new(&mut self.rng, self.observed.revision(), elapsed, &self.numbers);
            match self.script.next(&mut world) {
                Step::Ask(action) => self.script.heard(self.client.execute(action).await),
                Step::Wait(time) => {
                    let mut stopped = stop.clone();
                    let ended = stopped.wait_for(|stop| *stop);
                    // Either the time is over or the run is.
                    timeout(time, ended).await.ok();
                }
                Step::Watch(plan) => {
                    let client = WATCHERS + self.number * WATCHERS_MAX + started;
                    started = (started + 1) % WATCHERS_MAX;
                    let rng = split(&mut self.rng);
                    let until = self.until.subscribe();
                    let watcher = Watcher::new(client, plan, self.endpoints.clone(), self.clock, rng, until);
                    self.watchers.spawn(watcher.run());
                }
            }
        }
        (self.client.into_operations(), self.watchers)
    }
}
