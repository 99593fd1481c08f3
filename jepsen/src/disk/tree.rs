//! Directories and files by number, with the names that are there and those
//! that would be there after a crash.
//!
//! A change of names waits until it is synced. Changes of one directory are
//! synced in their order, and one that concerns two directories, as a rename
//! may, is synced in both at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::SystemTime;

use fuser::Errno;
use rand::RngExt;
use rand::rngs::StdRng;

use super::content::Content;
use super::{Loss, Lost, Names};

/// The number of the root.
pub const ROOT: u64 = 1;

/// All of a disk.
#[derive(Debug)]
pub struct Tree {
    store: PathBuf,
    rule: Names,
    nodes: BTreeMap<u64, Node>,
    /// Not synced yet, in their order.
    changes: Vec<Change>,
    last: u64,
}

/// A file or a directory.
#[derive(Debug)]
pub struct Node {
    /// Which of both, and what is in it.
    pub kind: Kind,
    /// Permissions.
    pub mode: u32,
    /// Its owner and group.
    pub owner: (u32, u32),
    /// When it was last changed.
    pub changed: SystemTime,
    /// How many names it has.
    pub links: u32,
    /// How often it is open.
    pub opens: u32,
}

/// What a node is.
#[derive(Debug)]
pub enum Kind {
    /// A file.
    File(Content),
    /// A directory.
    Directory(Directory),
}

/// Names and the nodes they stand for.
#[derive(Debug, Default)]
pub struct Directory {
    /// The directory it is in.
    pub parent: u64,
    /// As they are.
    pub names: BTreeMap<OsString, u64>,
    synced: BTreeMap<OsString, u64>,
}

/// Entries that change at once: directory, name, and for what it stands from then on.
type Change = Vec<(u64, OsString, Option<u64>)>;

type Result<T> = std::result::Result<T, Errno>;

impl Tree {
    pub fn new(store: PathBuf, rule: Names) -> Tree {
        let mut tree = Tree { store, rule, nodes: BTreeMap::new(), changes: Vec::new(), last: ROOT };
        let root = Kind::Directory(Directory { parent: ROOT, ..Directory::default() });
        tree.nodes.insert(ROOT, Node::new(root, 0o755, (0, 0)));
        tree
    }

    pub fn node(&self, number: u64) -> Result<&Node> {
        self.nodes.get(&number).ok_or(Errno::ESTALE)
    }

    pub fn node_mut(&mut self, number: u64) -> Result<&mut Node> {
        self.nodes.get_mut(&number).ok_or(Errno::ESTALE)
    }

    pub fn directory(&self, number: u64) -> Result<&Directory> {
        match &self.node(number)?.kind {
            Kind::Directory(directory) => Ok(directory),
            Kind::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn directory_mut(&mut self, number: u64) -> Result<&mut Directory> {
        match &mut self.node_mut(number)?.kind {
            Kind::Directory(directory) => Ok(directory),
            Kind::File(_) => Err(Errno::ENOTDIR),
        }
    }

    pub fn content(&mut self, number: u64) -> Result<&mut Content> {
        match &mut self.node_mut(number)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory(_) => Err(Errno::EISDIR),
        }
    }

    pub fn lookup(&self, directory: u64, name: &OsStr) -> Result<u64> {
        self.directory(directory)?.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// Makes an empty file or directory.
    pub fn make(
        &mut self,
        parent: u64,
        name: &OsStr,
        is_directory: bool,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<u64> {
        if self.lookup(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        self.last += 1;
        let number = self.last;
        let kind = match is_directory {
            true => Kind::Directory(Directory { parent, ..Directory::default() }),
            false => Kind::File(Content::create(self.store.join(number.to_string()))?),
        };
        self.nodes.insert(number, Node::new(kind, mode, owner));
        self.change(vec![(parent, name.to_owned(), Some(number))])?;
        Ok(number)
    }

    /// Gives a file one more name.
    pub fn link(&mut self, number: u64, parent: u64, name: &OsStr) -> Result<()> {
        if self.lookup(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        self.change(vec![(parent, name.to_owned(), Some(number))])
    }

    /// Takes a name away, of a file or of an empty directory.
    pub fn unlink(&mut self, parent: u64, name: &OsStr, is_directory: bool) -> Result<()> {
        let number = self.lookup(parent, name)?;
        match &self.node(number)?.kind {
            Kind::Directory(_) if !is_directory => return Err(Errno::EISDIR),
            Kind::File(_) if is_directory => return Err(Errno::ENOTDIR),
            Kind::Directory(directory) if !directory.names.is_empty() => return Err(Errno::ENOTEMPTY),
            Kind::Directory(_) | Kind::File(_) => {}
        }
        self.change(vec![(parent, name.to_owned(), None)])
    }

    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<()> {
        let number = self.lookup(from.0, from.1)?;
        if let Ok(replaced) = self.lookup(to.0, to.1) {
            if replaced == number {
                return Ok(());
            }
            if self.directory(replaced).is_ok_and(|directory| !directory.names.is_empty()) {
                return Err(Errno::ENOTEMPTY);
            }
        }
        self.change(vec![(from.0, from.1.to_owned(), None), (to.0, to.1.to_owned(), Some(number))])?;
        if let Ok(directory) = self.directory_mut(number) {
            directory.parent = to.0;
        }
        Ok(())
    }

    /// What is in a file is safe, and under [`Names::Journal`] all names too.
    pub fn sync_file(&mut self, number: u64) -> Result<()> {
        self.content(number)?.sync();
        if self.rule == Names::Journal && !self.changes.is_empty() {
            let changes = std::mem::take(&mut self.changes);
            self.apply(changes);
        }
        Ok(())
    }

    /// The names of a directory are safe, and whatever must be with them.
    pub fn sync_directory(&mut self, number: u64) {
        let mut concerned = BTreeSet::from([number]);
        let mut synced = Vec::new();
        let mut others = Vec::new();
        // From the last to the first: what a later change needs is known before an earlier one is looked at.
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            let part = self.rule == Names::Journal || change.iter().any(|entry| concerned.contains(&entry.0));
            if part {
                concerned.extend(change.iter().map(|entry| entry.0));
                synced.push(change);
            } else {
                others.push(change);
            }
        }
        synced.reverse();
        others.reverse();
        self.changes = others;
        self.apply(synced);
    }

    /// Only what was synced stays, or some more of it; nothing is open.
    pub fn crash(&mut self, loss: Loss, rng: &mut StdRng) -> std::io::Result<Lost> {
        let mut changes = std::mem::take(&mut self.changes);
        let kept = match loss {
            Loss::All => 0,
            Loss::Torn => rng.random_range(0..=changes.len()),
        };
        let lost = changes.split_off(kept);
        self.apply(changes);
        let mut links = BTreeMap::<u64, u32>::new();
        for node in self.nodes.values_mut() {
            if let Kind::Directory(directory) = &mut node.kind {
                directory.names.clone_from(&directory.synced);
                for number in directory.names.values() {
                    *links.entry(*number).or_default() += 1;
                }
            }
        }
        let mut files = 0;
        for (number, node) in &mut self.nodes {
            node.opens = 0;
            node.links = links.get(number).copied().unwrap_or_default();
            if let Kind::File(content) = &mut node.kind {
                files += usize::from(content.crash(loss, rng)? && node.links > 0);
            }
        }
        self.set_parents();
        self.sweep();
        Ok(Lost { files, names: lost.len() })
    }

    /// Changes names now; a crash may still take it back.
    fn change(&mut self, change: Change) -> Result<()> {
        for (directory, name, number) in &change {
            let names = &mut self.directory_mut(*directory)?.names;
            let before = match number {
                Some(number) => names.insert(name.clone(), *number),
                None => names.remove(name),
            };
            self.node_mut(*directory)?.changed = SystemTime::now();
            if let Some(before) = before {
                self.node_mut(before)?.links -= 1;
            }
            if let Some(number) = number {
                self.node_mut(*number)?.links += 1;
            }
        }
        self.changes.push(change);
        Ok(())
    }

    /// Changes names for good.
    fn apply(&mut self, changes: Vec<Change>) {
        for (directory, name, number) in changes.into_iter().flatten() {
            // A directory that is gone for good needs no names.
            let Ok(directory) = self.directory_mut(directory) else { continue };
            match number {
                Some(number) => directory.synced.insert(name, number),
                None => directory.synced.remove(&name),
            };
        }
        self.sweep();
    }

    fn set_parents(&mut self) {
        let mut parents = Vec::new();
        for (number, node) in &self.nodes {
            if let Kind::Directory(directory) = &node.kind {
                parents.extend(directory.names.values().map(|child| (*child, *number)));
            }
        }
        for (child, parent) in parents {
            if let Ok(directory) = self.directory_mut(child) {
                directory.parent = parent;
            }
        }
    }

    /// Removes the nodes to which no name leads, now or after a crash, and which nobody has open.
    fn sweep(&mut self) {
        let mut needed = BTreeSet::from([ROOT]);
        needed.extend(self.changes.iter().flatten().filter_map(|entry| entry.2));
        for (number, node) in &self.nodes {
            if node.opens > 0 || node.links > 0 {
                needed.insert(*number);
            }
            if let Kind::Directory(directory) = &node.kind {
                needed.extend(directory.synced.values());
            }
        }
        let store = &self.store;
        self.nodes.retain(|number, node| {
            let stays = needed.contains(number);
            if !stays && matches!(node.kind, Kind::File(_)) {
                // What stays behind goes with the whole store.
                std::fs::remove_file(store.join(number.to_string())).ok();
            }
            stays
        });
    }
}

impl Node {
    fn new(kind: Kind, mode: u32, owner: (u32, u32)) -> Node {
        Node { kind, mode, owner, changed: SystemTime::now(), links: 0, opens: 0 }
    }
}

/// One of several.
pub fn one_of<'a, T>(some: &'a [T], rng: &mut StdRng) -> &'a T {
    &some[rng.random_range(0..some.len())]
}
