//! A disk in memory that behaves as badly as real ones may.
//!
//! Until a file is synced, a power cut may keep any subset of the 512-byte
//! sectors written to it, in any order. A failed sync drops some of them for
//! good although reads go on seeing them. A failed write has written a part.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::{Disk, File};

const SECTOR: usize = 512;

/// What happens to the operation a fault is armed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with EIO, once.
    Io,
    /// It fails with ENOSPC if it needs space (a creation, a reservation, a write), else goes through.
    Full,
    /// The process dies in the middle of it: it is done in part, and nothing works any more.
    Death,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The process is gone, the machine runs on: what was written is there.
    Kill,
    /// The machine is gone: what was not synced is there in part.
    PowerCut,
}

/// The disk; clones are the same one.
#[derive(Clone)]
pub struct FakeDisk {
    state: Arc<Mutex<State>>,
    /// Which run of the process holds this handle; handles of earlier ones do not work.
    run: u64,
}

struct State {
    random: StdRng,
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    names_durable: BTreeMap<String, usize>,
    names_pending: Vec<NameChange>,
    fault: Option<(u64, Fault)>,
    dead: bool,
    run: u64,
    /// The longest read so far.
    read_max: usize,
}

#[derive(Default)]
struct Node {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
}

struct Write {
    offset: usize,
    bytes: Vec<u8>,
}

enum NameChange {
    Add(String, usize),
    Remove(String),
    Rename(String, String),
}

struct FakeFile {
    disk: FakeDisk,
    node: usize,
}

impl FakeDisk {
    /// An empty disk whose misbehaviour follows from the seed.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: StdRng::seed_from_u64(seed),
            nodes: Vec::new(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            names_pending: Vec::new(),
            fault: None,
            dead: false,
            run: 0,
            read_max: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), run: 0 }
    }

    /// Lets the fault happen at the operation that many operations from now.
    pub fn arm(&self, after: u64, fault: Fault) {
        self.state.lock().fault = Some((after, fault));
    }

    /// Takes an armed fault back; false if the process has died of one.
    pub fn disarm(&self) -> bool {
        let mut state = self.state.lock();
        state.fault = None;
        !state.dead
    }

    /// Ends the run and gives the disk as the next one finds it.
    pub fn restart(&self, end: End) -> Self {
        let mut state = self.state.lock();
        state.run += 1;
        state.dead = false;
        state.fault = None;
        if end == End::PowerCut {
            state.cut_power();
        }
        Self { state: self.state.clone(), run: state.run }
    }

    /// Changes one byte on the disk.
    pub fn flip(&self, name: &str, offset: usize, mask: u8) {
        let mut state = self.state.lock();
        let node = state.names[name];
        state.nodes[node].current[offset] ^= mask;
        state.nodes[node].durable = state.nodes[node].current.clone();
    }

    /// Puts a file there, in the place of another one of this name, as nobody would who writes a log.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        let node = state.nodes.len();
        state.nodes.push(Node { current: bytes.clone(), durable: bytes, pending: Vec::new() });
        state.names.insert(name.to_owned(), node);
        state.names_durable.insert(name.to_owned(), node);
    }

    /// What is in a file.
    pub fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state.lock();
        state.nodes[state.names[name]].current.clone()
    }

    /// Bytes of the longest read there was.
    pub fn read_max(&self) -> usize {
        self.state.lock().read_max
    }

    /// Names and lengths of all files.
    pub fn files(&self) -> Vec<(String, usize)> {
        let state = self.state.lock();
        state.names.iter().map(|(name, node)| (name.clone(), state.nodes[*node].current.len())).collect()
    }

    fn with<T>(
        &self,
        needs_space: bool,
        action: impl FnOnce(&mut State, bool) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state.lock();
        if state.dead || state.run != self.run {
            return Err(io::Error::other("the process is dead"));
        }
        let due = match &mut state.fault {
            Some((0, fault)) => {
                let fault = *fault;
                state.fault = None;
                Some(fault)
            }
            Some((after, _)) => {
                *after -= 1;
                None
            }
            None => None,
        };
        let error = match due {
            None => return action(&mut state, true),
            Some(Fault::Full) if !needs_space => return action(&mut state, true),
            Some(Fault::Full) => io::Error::from_raw_os_error(28),
            Some(Fault::Io) => io::Error::from_raw_os_error(5),
            Some(Fault::Death) => {
                state.dead = true;
                io::Error::other("the process died")
            }
        };
        action(&mut state, false)?;
        Err(error)
    }
}

impl State {
    fn cut_power(&mut self) {
        let kept = self.random.random_range(0..=self.names_pending.len());
        let mut names = std::mem::take(&mut self.names_durable);
        for change in self.names_pending.drain(..).take(kept) {
            change.apply(&mut names);
        }
        self.names = names.clone();
        self.names_durable = names;
        let likely = [0.0, 0.5, 0.9, 1.0][self.random.random_range(0..4)];
        for node in &mut self.nodes {
            node.cut_power(likely, &mut self.random);
        }
    }
}

impl Node {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if self.current.len() < offset + bytes.len() {
            self.current.resize(offset + bytes.len(), 0);
        }
        self.current[offset..offset + bytes.len()].copy_from_slice(bytes);
        // Kept by sector: each is written whole or not at all.
        let mut at = 0;
        while at < bytes.len() {
            let count = (SECTOR - (offset + at) % SECTOR).min(bytes.len() - at);
            self.pending.push(Write { offset: offset + at, bytes: bytes[at..at + count].to_vec() });
            at += count;
        }
    }

    fn cut_power(&mut self, likely: f64, random: &mut StdRng) {
        if self.current.len() > self.durable.len() && random.random_bool(likely) {
            self.durable.resize(self.current.len(), 0);
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|_| random.random_bool(likely));
        while !pending.is_empty() {
            let Write { offset, bytes } = pending.swap_remove(random.random_range(0..pending.len()));
            if let Some(sector) = self.durable.get_mut(offset..offset + bytes.len()) {
                sector.copy_from_slice(&bytes);
            }
        }
        self.current = self.durable.clone();
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Add(name, node) => {
                names.insert(name, node);
            }
            Self::Remove(name) => {
                names.remove(&name);
            }
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(&from) {
                    names.insert(to, node);
                }
            }
        }
    }
}

impl Disk for FakeDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.with(false, |state, _| Ok(state.names.keys().cloned().collect()))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.with(true, |state, whole| {
            if state.names.contains_key(name) {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            let node = state.nodes.len();
            if whole {
                state.nodes.push(Node::default());
                state.names.insert(name.to_owned(), node);
                state.names_pending.push(NameChange::Add(name.to_owned(), node));
            }
            Ok(Arc::new(FakeFile { disk: self.clone(), node }) as Arc<dyn File>)
        })
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.with(false, |state, _| {
            let node = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
            Ok(Arc::new(FakeFile { disk: self.clone(), node }) as Arc<dyn File>)
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(false, |state, whole| {
            if whole {
                let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
                state.names.insert(to.to_owned(), node);
                state.names_pending.push(NameChange::Rename(from.to_owned(), to.to_owned()));
            }
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(false, |state, whole| {
            if whole {
                state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
                state.names_pending.push(NameChange::Remove(name.to_owned()));
            }
            Ok(())
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.with(false, |state, whole| {
            if whole {
                for change in state.names_pending.drain(..) {
                    change.apply(&mut state.names_durable);
                }
            }
            Ok(())
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("fake").join(name)
    }
}

impl File for FakeFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.with(false, |state, _| Ok(state.nodes[self.node].current.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.with(false, |state, _| {
            state.read_max = state.read_max.max(buffer.len());
            let offset = offset as usize;
            let bytes = state.nodes[self.node].current.get(offset..offset + buffer.len());
            buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.with(true, |state, whole| {
            let count = if whole { bytes.len() } else { state.random.random_range(0..=bytes.len()) };
            state.nodes[self.node].write(offset as usize, &bytes[..count]);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.with(false, |state, whole| {
            let State { nodes, random, .. } = state;
            let node = &mut nodes[self.node];
            if whole {
                // Only what is pending: sectors an earlier failed sync dropped stay dropped.
                node.durable.resize(node.current.len(), 0);
                for Write { offset, bytes } in node.pending.drain(..) {
                    node.durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
            } else {
                node.pending.retain(|_| random.random_bool(0.5));
            }
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.with(true, |state, whole| {
            let node = &mut state.nodes[self.node];
            if whole && node.current.len() < len as usize {
                node.current.resize(len as usize, 0);
            }
            Ok(())
        })
    }
}
