//! Carries packets between devices, as the links between them say.
//!
//! One thread reads all devices, decides on each packet once, and keeps what
//! has to wait in order of its due time. It ends when the switch goes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::SyncDevice;

use super::{Counts, Link};

/// The place of all clients, beside the members with their numbers.
pub const CLIENTS: usize = usize::MAX;
/// How soon a new device, or the end, is noticed on a silent network.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a packet waits for others to overtake it, beyond what its link says.
const HELD_BACK: Duration = Duration::from_millis(20);
/// More than this does not wait; a router drops it too.
const WAITING_MAX: usize = 100_000;
/// How many packets are read from one device before the next has its turn.
const BATCH: usize = 64;

/// All devices and the links between them.
#[derive(Debug)]
pub struct Switch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    ports: Vec<Arc<Port>>,
    links: HashMap<(usize, usize), Link>,
    counts: HashMap<(usize, usize), Counts>,
}

struct Port {
    place: usize,
    address: Ipv4Addr,
    device: SyncDevice,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.address, self.place)
    }
}

impl Switch {
    /// A switch without devices; its chances come from the seed.
    pub fn start(seed: u64) -> Result<Switch> {
        let shared = Arc::<Shared>::default();
        let carrier = Carrier {
            shared: Arc::clone(&shared),
            rng: StdRng::seed_from_u64(seed),
            waiting: BinaryHeap::new(),
            latest: HashMap::new(),
            sequence: 0,
        };
        let thread = std::thread::Builder::new().name("switch".to_owned()).spawn(|| carrier.run())?;
        Ok(Switch { shared, thread: Some(thread) })
    }

    /// Adds a device, behind which this address is.
    pub fn attach(&self, place: usize, address: Ipv4Addr, device: SyncDevice) -> Result<()> {
        device.set_nonblocking(true)?;
        self.shared.state().ports.push(Arc::new(Port { place, address, device }));
        Ok(())
    }

    /// Sets one way.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.shared.state().links.insert((from, to), link);
    }

    /// Lets everything through again.
    pub fn heal(&self) {
        self.shared.state().links.clear();
    }

    /// What happened on one way since the beginning.
    pub fn counts(&self, from: usize, to: usize) -> Counts {
        self.shared.state().counts.get(&(from, to)).copied().unwrap_or_default()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of its own was printed there.
            thread.join().ok();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }
}

/// A packet that is due later. The sequence keeps the order of those due at the same time.
type Waiting = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Carrier {
    shared: Arc<Shared>,
    rng: StdRng,
    waiting: BinaryHeap<Waiting>,
    /// When the last packet in order of each link is due.
    latest: HashMap<(usize, usize), Instant>,
    sequence: u64,
}

impl Carrier {
    fn run(mut self) {
        let mut buffer = vec![0; 65_536];
        while !self.shared.stop.load(Ordering::Relaxed) {
            let ports = self.shared.state().ports.clone();
            for port in self.readable(&ports) {
                for _ in 0..BATCH {
                    match port.device.recv(&mut buffer) {
                        Ok(length) => self.decide(&ports, port, &buffer[..length]),
                        // Nothing more, or the device is gone with its namespace.
                        Err(_) => break,
                    }
                }
            }
            self.send_due(&ports);
        }
    }

    /// The devices that have packets; waits for one, or for what is due.
    fn readable<'a>(&self, ports: &'a [Arc<Port>]) -> Vec<&'a Arc<Port>> {
        let now = Instant::now();
        let due = self.waiting.peek().map(|Reverse((due, ..))| due.saturating_duration_since(now));
        let wait = due.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut asked: Vec<PollFd<'_>> =
            ports.iter().map(|port| PollFd::new(&port.device, PollFlags::IN)).collect();
        if poll(&mut asked, Some(&wait)).is_err() {
            return Vec::new();
        }
        let ready = |asked: &PollFd<'_>| asked.revents().contains(PollFlags::IN);
        ports.iter().zip(&asked).filter(|(_, asked)| ready(asked)).map(|(port, _)| port).collect()
    }

    /// What becomes of a packet: it is dropped, sent at once, or waits.
    fn decide(&mut self, ports: &[Arc<Port>], from: &Port, packet: &[u8]) {
        let Some(to) = destination(packet).and_then(|to| ports.iter().find(|port| port.address == to)) else {
            return;
        };
        let way = (from.place, to.place);
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        let link = state.links.get(&way).copied();
        let counts = state.counts.entry(way).or_default();
        let Some(link) = link else {
            counts.passed += 1;
            drop(state);
            // What was held before the link was healed may be overtaken, as when a route changes.
            to.device.send(packet).ok();
            return;
        };
        if link.cut {
            counts.cut += 1;
            return;
        }
        if self.chance(link.loss) || self.waiting.len() >= WAITING_MAX {
            counts.lost += 1;
            return;
        }
        let copies = if self.chance(link.duplicate) { 2 } else { 1 };
        counts.passed += 1;
        counts.duplicated += copies - 1;
        let jitter = link.jitter.mul_f64(self.rng.random::<f64>());
        let mut due = Instant::now() + link.delay + jitter;
        if self.chance(link.reorder) {
            counts.reordered += 1;
            due += HELD_BACK;
        } else {
            let latest = self.latest.entry(way).or_insert(due);
            *latest = due.max(*latest);
            due = *latest;
        }
        counts.delayed += u64::from(!link.delay.is_zero() || !jitter.is_zero());
        for _ in 0..copies {
            self.sequence += 1;
            self.waiting.push(Reverse((due, self.sequence, to.place, packet.to_vec())));
        }
    }

    fn send_due(&mut self, ports: &[Arc<Port>]) {
        let now = Instant::now();
        while self.waiting.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Some(Reverse((_, _, place, packet))) = self.waiting.pop() else { return };
            if let Some(to) = ports.iter().find(|port| port.place == place) {
                // A full device drops, and TCP sends again.
                to.device.send(&packet).ok();
            }
        }
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.random::<f64>() < share
    }
}

/// Where a packet of IPv4 goes.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let bytes: [u8; 4] = *header.last_chunk()?;
    (header[0] >> 4 == 4).then(|| bytes.into())
}
