//! Reads the segments of an earlier run.
//!
//! A record that does not check ends the log. Whether that is a torn tail or
//! damage is told by what stands behind it: a record written when this place
//! had been synced already proves that something durable was lost.

use std::path::PathBuf;
use std::sync::Arc;

use crate::index::{Index, cut_after, next_of};
use crate::record::{ALIGNMENT, Checksum, HEADER_BYTES, Head, Kind};
use crate::segment::{Header, Segment, epoch, parse_name};
use crate::{Disk, Error, File};

/// Bytes of a file held in memory while it is scanned.
const WINDOW_BYTES: u64 = 1 << 20;

/// What the segments add up to.
pub(crate) struct Recovered {
    pub index: Index,
    pub folded: Header,
    /// Checksum of the last record.
    pub crc: u32,
    /// False: torn records stand behind the end, which must not be written among.
    pub clean_tail: bool,
}

struct Found {
    seq: u64,
    name: String,
    file: Arc<dyn File>,
    len: u64,
    /// Head and payload of the first record, if it checks.
    header: Option<(Head, Vec<u8>)>,
}

/// Reads all segments among `names`; without any, the result has none either.
pub(crate) fn recover(
    disk: &dyn Disk,
    names: &[String],
    owner: u64,
    ring_bytes: usize,
    fsync: bool,
) -> Result<Recovered, Error> {
    let mut found = open_all(disk, names)?;
    let unused = pop_unused(disk, &mut found)?;

    let mut recovered = Recovered {
        index: Index::new(ring_bytes),
        folded: Header { owner, ..Header::default() },
        crc: 0,
        clean_tail: true,
    };
    let mut replay = Replay { recovered: &mut recovered, kept_from: 0 };
    let count = found.len();
    for (at, file) in found.into_iter().enumerate() {
        let path = disk.path(&file.name);
        let Some((head, payload)) = &file.header else {
            return Err(Error::damaged(
                &path,
                0,
                "the segment's first record does not check, later segments follow",
            ));
        };
        if at == 0 {
            replay.begin(&path, owner, payload)?;
        } else if head.prev != replay.recovered.crc {
            let before = replay.recovered.index.segments.back();
            let (path, end) =
                before.map_or((path.clone(), 0), |before| (disk.path(&before.name), before.end));
            return Err(Error::damaged(&path, end, "the next segment does not follow on"));
        }
        replay.segment(path, file, at + 1 == count, fsync)?;
    }
    let (kept_from, purged) = (replay.kept_from, next_of(recovered.folded.purged));
    if kept_from > purged {
        let path = disk.path(recovered.index.segments.front().map_or("", |segment| &segment.name));
        return Err(Error::damaged(&path, 0, format!("entries {purged} to {} are missing", kept_from - 1)));
    }
    if let Some(name) = unused {
        // Only now: a folder that is refused stays as it is, and is refused again.
        let path = disk.path(&name);
        disk.remove(&name).map_err(|error| Error::io("remove", &path, error))?;
        disk.sync_dir().map_err(|error| Error::io("sync the folder of", &path, error))?;
    }
    if fsync && count > 0 {
        disk.sync_dir().map_err(|error| Error::io("sync the folder of", &disk.path(""), error))?;
    }
    let folded = &mut recovered.folded;
    folded.committed = folded.committed.min(folded.last);
    recovered.index.purged = folded.purged;
    recovered.index.last = folded.last;
    recovered.index.vote = folded.vote.clone();
    recovered.index.committed = folded.committed;
    Ok(recovered)
}

fn open_all(disk: &dyn Disk, names: &[String]) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    for name in names {
        let path = disk.path(name);
        if name.ends_with(".wal") {
            let detail = "a log of etcd itself; its data comes over by a snapshot".to_owned();
            return Err(Error::Format { path, detail });
        }
        let Some(seq) = parse_name(name) else {
            continue;
        };
        if seq >= 1 << 63 {
            let detail = "a number that leaves no room for further segments".to_owned();
            return Err(Error::Format { path, detail });
        }
        let file = disk.open(name).map_err(|error| Error::io("open", &path, error))?;
        let len = file.len().map_err(|error| Error::io("open", &path, error))?;
        if u32::try_from(len).is_err() {
            let detail = format!("{len} bytes are more than a segment has");
            return Err(Error::Format { path, detail });
        }
        let header =
            Scan::new(&*file, len, path, seq).whole(0)?.filter(|(head, _)| head.kind == Kind::Header);
        found.push(Found { seq, name: name.clone(), file, len, header });
    }
    found.sort_by_key(|found| found.seq);
    if let Some(pair) = found.windows(2).find(|pair| pair[0].seq == pair[1].seq) {
        let detail = format!("the same number as {}", pair[0].name);
        return Err(Error::Format { path: disk.path(&pair[1].name), detail });
    }
    Ok(found)
}

/// Takes away a last segment that was named but whose first group never became durable; gives its name.
fn pop_unused(disk: &dyn Disk, found: &mut Vec<Found>) -> Result<Option<String>, Error> {
    let Some(last) = found.pop_if(|last| last.header.is_none()) else {
        return Ok(None);
    };
    let path = disk.path(&last.name);
    if Scan::new(&*last.file, last.len, path.clone(), last.seq).tail(0)? == Tail::Damaged {
        let detail = "the segment's first record does not check, valid records follow";
        return Err(Error::damaged(&path, 0, detail));
    }
    Ok(Some(last.name))
}

struct Replay<'a> {
    recovered: &'a mut Recovered,
    /// First index whose entry the segments could still hold.
    kept_from: u64,
}

impl Replay<'_> {
    /// Starts from what the oldest segment says was before it.
    fn begin(&mut self, path: &std::path::Path, owner: u64, header: &[u8]) -> Result<(), Error> {
        let header =
            Header::decode(header).map_err(|detail| Error::Format { path: path.to_path_buf(), detail })?;
        if header.owner != owner {
            let detail = format!("the log of member {:x}, this is member {owner:x}", header.owner);
            return Err(Error::Format { path: path.to_path_buf(), detail });
        }
        self.kept_from = next_of(header.last);
        self.recovered.folded = header;
        Ok(())
    }

    fn segment(&mut self, path: PathBuf, found: Found, last: bool, fsync: bool) -> Result<(), Error> {
        let mut scan = Scan::new(&*found.file, found.len, path.clone(), found.seq);
        self.recovered.index.segments.push_back(Segment {
            seq: found.seq,
            name: found.name.clone(),
            file: found.file.clone(),
            len: found.len,
            first: 0,
            offsets: Vec::new(),
            end: 0,
        });
        let mut offset = 0;
        let mut synced = 0;
        while let Some(head) = scan.check(offset)? {
            if offset > 0 && head.prev != self.recovered.crc {
                break;
            }
            self.record(&mut scan, &path, offset, head)?;
            self.recovered.crc = head.crc;
            synced = u64::from(head.synced);
            offset += head.size();
        }
        if let Some(segment) = self.recovered.index.segments.back_mut() {
            segment.end = offset;
        }
        if last {
            match scan.tail(offset)? {
                Tail::Clean => {}
                Tail::Torn => self.recovered.clean_tail = false,
                Tail::Damaged => {
                    return Err(Error::damaged(
                        &path,
                        offset,
                        "the record does not check, valid records follow",
                    ));
                }
            }
            if fsync {
                scan.rewrite(synced, offset)?;
            }
        }
        Ok(())
    }

    fn record(
        &mut self,
        scan: &mut Scan<'_>,
        path: &std::path::Path,
        offset: u64,
        head: Head,
    ) -> Result<(), Error> {
        let Recovered { index, folded, .. } = &mut *self.recovered;
        if head.log_id.index == u64::MAX {
            return Err(Error::damaged(path, offset, "an index that cannot be"));
        }
        match head.kind {
            Kind::Header if offset == 0 => {}
            Kind::Header => return Err(Error::damaged(path, offset, "a second segment header")),
            Kind::Entry => {
                let expected = next_of(folded.last);
                if folded.last.is_none() {
                    index.begin = head.log_id.index;
                } else if head.log_id.index != expected {
                    let detail = format!("entry {} where {expected} must be", head.log_id.index);
                    return Err(Error::damaged(path, offset, detail));
                }
                index.place(head.log_id.index, offset as u32);
                folded.last = Some(head.log_id);
            }
            Kind::Vote => folded.set_vote(scan.payload(offset, head)?),
            Kind::Truncate => {
                let after = (head.tag == 1).then_some(head.log_id);
                let after = cut_after(after, folded.purged, folded.last);
                index.placed_truncation(next_of(after));
                folded.last = after;
                self.kept_from = self.kept_from.min(next_of(folded.last));
            }
            Kind::Committed => folded.committed = folded.committed.max(Some(head.log_id)),
            Kind::Purged => {
                // The files stay: which of them are unneeded is looked at once the log is open.
                index.placed_purge_keeping(head.log_id.index);
                folded.purge(head.log_id);
            }
        }
        Ok(())
    }
}

/// What stands behind the last record.
#[derive(Debug, PartialEq, Eq)]
enum Tail {
    /// No record of this segment.
    Clean,
    /// Records of the last group, which was never durable.
    Torn,
    /// A record written after this place had been durable.
    Damaged,
}

/// A window over a segment's file.
struct Scan<'a> {
    file: &'a dyn File,
    len: u64,
    path: PathBuf,
    epoch: u32,
    window: Vec<u8>,
    start: u64,
}

impl<'a> Scan<'a> {
    fn new(file: &'a dyn File, len: u64, path: PathBuf, seq: u64) -> Self {
        Self { file, len, path, epoch: epoch(seq), window: Vec::new(), start: 0 }
    }

    /// The bytes there; `None` where the file ends before.
    fn bytes(&mut self, offset: u64, count: u64) -> Result<Option<&[u8]>, Error> {
        if offset.checked_add(count).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        if offset < self.start || offset + count > self.start + self.window.len() as u64 {
            let size = count.max(WINDOW_BYTES).min(self.len - offset);
            self.window.clear();
            self.window.resize(size as usize, 0);
            self.start = offset;
            self.file
                .read_at(&mut self.window, offset)
                .map_err(|error| Error::io("read", &self.path, error))?;
        }
        let at = (offset - self.start) as usize;
        Ok(Some(&self.window[at..at + count as usize]))
    }

    /// The head of the record there, if the whole record checks.
    fn check(&mut self, offset: u64) -> Result<Option<Head>, Error> {
        let epoch = self.epoch;
        let Some(bytes) = self.bytes(offset, HEADER_BYTES as u64)? else {
            return Ok(None);
        };
        let Some(head) = Head::parse(bytes.try_into().expect("as many bytes as asked for"), epoch) else {
            return Ok(None);
        };
        let end = offset + head.size();
        if end > self.len {
            return Ok(None);
        }
        // A length that is damaged must not say how much is held in memory.
        let mut checksum = Checksum::default();
        let mut at = offset;
        while at < end {
            let count = (end - at).min(WINDOW_BYTES);
            let Some(bytes) = self.bytes(at, count)? else {
                return Ok(None);
            };
            checksum.update(bytes);
            at += count;
        }
        Ok((checksum.finish() == head.crc).then_some(head))
    }

    fn payload(&mut self, offset: u64, head: Head) -> Result<&[u8], Error> {
        let record = self.bytes(offset, head.size())?;
        Ok(record.map_or(&[], |record| &record[HEADER_BYTES..HEADER_BYTES + head.len as usize]))
    }

    /// A record with its payload.
    fn whole(&mut self, offset: u64) -> Result<Option<(Head, Vec<u8>)>, Error> {
        let Some(head) = self.check(offset)? else {
            return Ok(None);
        };
        let payload = self.payload(offset, head)?.to_vec();
        Ok(Some((head, payload)))
    }

    /// Makes durable what was only read. A sync alone would not do: the run before may have ended on a failed one,
    /// after which the page cache shows bytes that are not on disk and counts them as written.
    fn rewrite(&mut self, start: u64, end: u64) -> Result<(), Error> {
        let mut offset = start;
        while offset < end {
            let count = (end - offset).min(WINDOW_BYTES);
            let file = self.file;
            let Some(bytes) = self.bytes(offset, count)? else {
                break;
            };
            file.write_at(bytes, offset).map_err(|error| Error::io("write", &self.path, error))?;
            offset += count;
        }
        self.file.sync().map_err(|error| Error::io("sync", &self.path, error))
    }

    /// Looks at everything behind the end of the log.
    fn tail(&mut self, end: u64) -> Result<Tail, Error> {
        let epoch = self.epoch.to_le_bytes();
        let mut tail = Tail::Clean;
        let mut offset = end.next_multiple_of(ALIGNMENT);
        while offset + HEADER_BYTES as u64 <= self.len {
            // One look at the window instead of one call for each place in it.
            let count = (self.len - offset).min(WINDOW_BYTES);
            let Some(bytes) = self.bytes(offset, count)? else {
                break;
            };
            let candidates: Vec<u64> = bytes
                .chunks_exact(ALIGNMENT as usize)
                .zip((offset..).step_by(ALIGNMENT as usize))
                .filter(|(chunk, _)| chunk[4..8] == epoch)
                .map(|(_, at)| at)
                // The epoch stands in the second word of a head.
                .filter_map(|at| at.checked_sub(ALIGNMENT))
                .filter(|at| *at >= end)
                .collect();
            for at in candidates {
                match self.check(at)? {
                    Some(head) if u64::from(head.synced) > end => return Ok(Tail::Damaged),
                    Some(_) => tail = Tail::Torn,
                    None => {}
                }
            }
            offset += count.next_multiple_of(ALIGNMENT);
        }
        Ok(tail)
    }
}
