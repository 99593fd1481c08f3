//! What the kernel asks, answered from the tree.
//!
//! One thread serves all requests. What a hanging disk does not answer waits
//! aside, so that reads go on.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, OFlags};

use super::Shared;
use super::tree::{Kind, Node, Tree};

/// Nobody but the kernel changes anything, so what it knows stays true.
const TTL: Duration = Duration::from_secs(3600);
const PERMISSIONS: u32 = 0o7777;
const BLOCK: u32 = 4096;
/// What is told of the size of the disk: nobody counts.
const BLOCKS: u64 = 64 << 20;

/// The file system of a disk, from one crash to the next.
pub struct Served {
    shared: Arc<Shared>,
    /// What readers of directories saw when they began.
    listings: Mutex<HashMap<u64, Listing>>,
    handles: AtomicU64,
}

/// The numbers, kinds and names of a directory.
type Listing = Vec<(u64, FileType, OsString)>;

type Result<T> = std::result::Result<T, Errno>;

impl Served {
    pub fn new(shared: Arc<Shared>) -> Served {
        Served { shared, listings: Mutex::default(), handles: AtomicU64::new(1) }
    }

    /// What needs no disk, as it is in memory.
    fn look<T>(&self, look: impl FnOnce(&mut Tree) -> Result<T>) -> Result<T> {
        self.shared.look(look)
    }

    /// What writes or syncs: it waits while the disk hangs, and a failing disk does not do it.
    fn write<T: 'static>(
        &self,
        change: impl FnOnce(&Shared, &mut Tree) -> Result<T> + Send + 'static,
        answer: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let shared = Arc::clone(&self.shared);
        self.shared.switches.when_not_hanging(move || {
            let result = match shared.switches.is_failing() {
                true => {
                    shared.switches.refuse();
                    Err(Errno::EIO)
                }
                false => shared.look(|tree| change(&shared, tree)),
            };
            answer(result);
        });
    }

    fn make(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        is_directory: bool,
        mode: u32,
        answer: impl FnOnce(Result<FileAttr>) + Send + 'static,
    ) {
        let (name, owner) = (name.to_owned(), (request.uid(), request.gid()));
        self.write(
            move |shared, tree| {
                shared.needs_space()?;
                let number = tree.make(parent.0, &name, is_directory, mode & PERMISSIONS, owner)?;
                attributes(tree, number)
            },
            answer,
        );
    }
}

impl Shared {
    fn look<T>(&self, look: impl FnOnce(&mut Tree) -> Result<T>) -> Result<T> {
        self.tree().as_mut().ok_or(Errno::EIO).and_then(look)
    }

    fn needs_space(&self) -> Result<()> {
        if !self.switches.is_full() {
            return Ok(());
        }
        self.switches.refuse();
        Err(Errno::ENOSPC)
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.look(|tree| attributes(tree, tree.lookup(parent.0, name)?)) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer_attributes(self.look(|tree| attributes(tree, ino.0)), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.write(
            move |_, tree| {
                if let Some(size) = size {
                    // A longer file is a hole at first, which takes no space.
                    tree.content(ino.0)?.resize(size)?;
                    changed(tree, ino.0)?;
                }
                let node = tree.node_mut(ino.0)?;
                node.mode = mode.map_or(node.mode, |mode| mode & PERMISSIONS);
                node.owner = (uid.unwrap_or(node.owner.0), gid.unwrap_or(node.owner.1));
                match mtime {
                    Some(TimeOrNow::SpecificTime(time)) => node.changed = time,
                    Some(TimeOrNow::Now) => node.changed = SystemTime::now(),
                    None => {}
                }
                attributes(tree, ino.0)
            },
            |attributes| answer_attributes(attributes, reply),
        );
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        self.make(request, (parent, name), false, mode, |made| answer_entry(made, reply));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.make(request, (parent, name), true, mode, |made| answer_entry(made, reply));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let shared = Arc::clone(&self.shared);
        self.make(request, (parent, name), false, mode, move |made| {
            let opened = made.and_then(|made| {
                shared.look(|tree| {
                    tree.node_mut(made.ino.0)?.opens += 1;
                    Ok(made)
                })
            });
            match opened {
                Ok(made) => {
                    reply.created(&TTL, &made, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
                }
                Err(error) => reply.error(error),
            }
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.write(move |_, tree| tree.unlink(parent.0, &name, false), |done| answer(done, reply));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.write(move |_, tree| tree.unlink(parent.0, &name, true), |done| answer(done, reply));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, newname) = (name.to_owned(), newname.to_owned());
        let rename = move |_: &Shared, tree: &mut Tree| {
            if flags.contains(RenameFlags::RENAME_EXCHANGE) {
                return Err(Errno::EINVAL);
            }
            if flags.contains(RenameFlags::RENAME_NOREPLACE) && tree.lookup(newparent.0, &newname).is_ok() {
                return Err(Errno::EEXIST);
            }
            tree.rename((parent.0, &name), (newparent.0, &newname))
        };
        self.write(rename, |done| answer(done, reply));
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let newname = newname.to_owned();
        self.write(
            move |_, tree| {
                tree.link(ino.0, newparent.0, &newname)?;
                attributes(tree, ino.0)
            },
            |made| answer_entry(made, reply),
        );
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.look(|tree| {
            tree.node_mut(ino.0)?.opens += 1;
            Ok(())
        });
        match opened {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.look(|tree| Ok(tree.content(ino.0)?.read(offset, u64::from(size))?)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = data.to_vec();
        let synced = OFlags::from_bits_retain(flags.0 as u32).intersects(OFlags::DSYNC | OFlags::SYNC);
        let write = move |shared: &Shared, tree: &mut Tree| {
            if offset + data.len() as u64 > tree.content(ino.0)?.size() {
                shared.needs_space()?;
            }
            tree.content(ino.0)?.write(offset, &data)?;
            changed(tree, ino.0)?;
            if synced {
                tree.sync_file(ino.0)?;
            }
            Ok(data.len() as u32)
        };
        self.write(write, |written| match written {
            Ok(length) => reply.written(length),
            Err(error) => reply.error(error),
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let closed = self.look(|tree| {
            let node = tree.node_mut(ino.0)?;
            node.opens = node.opens.saturating_sub(1);
            Ok(())
        });
        answer(closed, reply);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.write(move |_, tree| tree.sync_file(ino.0), |done| answer(done, reply));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let sync = move |_: &Shared, tree: &mut Tree| {
            tree.sync_directory(ino.0);
            Ok(())
        };
        self.write(sync, |done| answer(done, reply));
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let listing = self.look(|tree| {
            let directory = tree.directory(ino.0)?;
            let mut listing = vec![
                (ino.0, FileType::Directory, ".".into()),
                (directory.parent, FileType::Directory, "..".into()),
            ];
            for (name, number) in &directory.names {
                listing.push((*number, file_type(tree.node(*number)?), name.clone()));
            }
            Ok(listing)
        });
        match listing {
            Ok(listing) => {
                let handle = self.handles.fetch_add(1, Ordering::Relaxed);
                self.listings.lock().expect("no panic holds it").insert(handle, listing);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listings = self.listings.lock().expect("no panic holds it");
        let Some(listing) = listings.get(&fh.0) else { return reply.error(Errno::EBADF) };
        for (at, (number, kind, name)) in listing.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*number), at as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().expect("no panic holds it").remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let free = if self.shared.switches.is_full() { 0 } else { BLOCKS / 2 };
        reply.statfs(BLOCKS, free, free, BLOCKS, free, BLOCK, 255, BLOCK);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        let allocate = move |shared: &Shared, tree: &mut Tree| {
            let content = tree.content(ino.0)?;
            let zeroes = FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
            if !(zeroes | FallocateFlags::KEEP_SIZE).contains(mode) {
                return Err(Errno::EOPNOTSUPP);
            }
            if mode.intersects(zeroes) {
                content.zero(offset, length)?;
            } else {
                shared.needs_space()?;
            }
            if !mode.contains(FallocateFlags::KEEP_SIZE) && offset + length > content.size() {
                content.resize(offset + length)?;
            }
            changed(tree, ino.0)
        };
        self.write(allocate, |done| answer(done, reply));
    }
}

fn changed(tree: &mut Tree, number: u64) -> Result<()> {
    tree.node_mut(number)?.changed = SystemTime::now();
    Ok(())
}

fn attributes(tree: &Tree, number: u64) -> Result<FileAttr> {
    let node = tree.node(number)?;
    let size = match &node.kind {
        Kind::File(content) => content.size(),
        Kind::Directory(_) => u64::from(BLOCK),
    };
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: node.changed,
        mtime: node.changed,
        ctime: node.changed,
        crtime: node.changed,
        kind: file_type(node),
        perm: node.mode as u16,
        nlink: node.links,
        uid: node.owner.0,
        gid: node.owner.1,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    })
}

fn file_type(node: &Node) -> FileType {
    match node.kind {
        Kind::File(_) => FileType::RegularFile,
        Kind::Directory(_) => FileType::Directory,
    }
}

fn answer(done: Result<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn answer_entry(made: Result<FileAttr>, reply: ReplyEntry) {
    match made {
        Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn answer_attributes(attributes: Result<FileAttr>, reply: ReplyAttr) {
    match attributes {
        Ok(attributes) => reply.attr(&TTL, &attributes),
        Err(error) => reply.error(error),
    }
}
