//! The consistency check.

use super::format::{FREELIST, HEADER_LEN, Header, META, NO_FREELIST, u64_at};
use super::reader::Bucket;
use super::walk::{PageSet, Walk};
use super::{Damage, Database, Error, Problem};

/// How many problems a check reports before it ends.
pub const PROBLEMS_MAX: usize = 1000;

/// Bytes of a freelist that are read at once.
const CHUNK: u64 = 1 << 16;
/// Elements between two calls of the progress.
const PROGRESS_EVERY: u64 = 1 << 14;

impl Database {
    /// Looks at every page, as bbolt 1.5's `Tx.Check` does: each page in one place, of a fitting type, its keys
    /// in order and within the range its parent gives it; with a stored freelist, each page used or free.
    /// Buckets inside their entries, which bbolt passes over, are looked at too.
    ///
    /// It goes on after a problem with what does not depend on it, and ends after [`PROBLEMS_MAX`] of them.
    /// `progress` hears how many bytes of how many are done. Memory: one or two bits a page, and as
    /// [`Bucket::rows`].
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read.
    pub fn check(&self, progress: &mut impl FnMut(u64, u64)) -> Result<Vec<Problem>, Error> {
        let mut check = Check { database: self, problems: Vec::new() };
        let ended = check.run(progress);
        match ended {
            Err(Stop::Io(error)) => Err(error),
            Ok(()) | Err(Stop::Enough) => Ok(check.problems),
        }
    }
}

/// Why a check ends early.
enum Stop {
    Io(Error),
    /// There are problems enough.
    Enough,
}

struct Check<'a> {
    database: &'a Database,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    fn run(&mut self, progress: &mut impl FnMut(u64, u64)) -> Result<(), Stop> {
        let database = self.database;
        let len = database.image_len();
        let mut used = PageSet::of(database);
        for page in 0..2 {
            let header = self.header(page, META).map(drop);
            self.note(header)?;
            used.insert(page);
        }
        let freelist = database.meta().freelist;
        let mut free = None;
        if freelist != NO_FREELIST {
            let ids = self.freelist(freelist, &mut used);
            free = self.note(ids)?;
        }
        let mut root = Walk::new(database, used);
        let entered = root.enter(database.meta().root, 0, 0);
        self.note(entered)?;
        while let Some(leaf) = root.next() {
            let Some(leaf) = self.note(leaf)? else { continue };
            let bucket = Bucket::of(database, leaf);
            let Some(bucket) = self.note(bucket)? else { continue };
            let mut rows = Walk::new(database, std::mem::take(&mut root.entered));
            let entered = bucket.enter(&mut rows);
            let walked = self.note(entered).and_then(|_| self.rows(&mut rows, progress));
            root.entered = rows.entered;
            walked?;
        }
        if let Some(free) = &free {
            self.compare(&root.entered, free)?;
        }
        progress(len, len);
        Ok(())
    }

    fn rows(&mut self, rows: &mut Walk<'a>, progress: &mut impl FnMut(u64, u64)) -> Result<(), Stop> {
        let (page_size, len) = (self.database.page_size(), self.database.image_len());
        let mut seen = 0_u64;
        while let Some(leaf) = rows.next() {
            seen += 1;
            if seen.is_multiple_of(PROGRESS_EVERY) {
                progress(rows.entered.len * page_size, len);
            }
            let Some(leaf) = self.note(leaf)? else { continue };
            if leaf.bucket {
                let damage = Damage::NestedBucket { element: leaf.index };
                self.problem(Problem { page: leaf.page, offset: leaf.offset, damage })?;
            }
        }
        Ok(())
    }

    /// The header of a page that must be of this kind.
    fn header(&self, page: u64, kind: u16) -> Result<Header, Error> {
        let database = self.database;
        let base = page * database.page_size();
        let bytes = database.read(base, HEADER_LEN as u64)?;
        let header = Header::parse(bytes.first_chunk().expect("so many were read"));
        if header.id != page {
            return Err(database.damaged(page, base, Damage::PageId { found: header.id }));
        }
        if header.kind != kind {
            return Err(database.damaged(page, base, Damage::PageKind { found: header.kind }));
        }
        Ok(header)
    }

    /// Reads the stored freelist, and notes its own pages as used.
    fn freelist(&mut self, page: u64, used: &mut PageSet) -> Result<PageSet, Error> {
        let (database, header) = (self.database, self.header(page, FREELIST)?);
        let (base, pages) = (page * database.page_size(), database.pages());
        let damaged = |damage| Err(database.damaged(page, base, damage));
        if u64::from(header.overflow) >= pages - page {
            return damaged(Damage::Overflow { overflow: header.overflow, pages });
        }
        for page in page..=page + u64::from(header.overflow) {
            used.insert(page);
        }
        let len = (1 + u64::from(header.overflow)) * database.page_size();
        // A count of 2^16 - 1 says that the true one stands before the ids.
        let (count, mut at) = match header.count {
            u16::MAX => {
                let count = database.read(base + HEADER_LEN as u64, 8)?;
                (u64_at(&count, 0), HEADER_LEN as u64 + 8)
            }
            count => (count.into(), HEADER_LEN as u64),
        };
        if count > (len - at) / 8 {
            return damaged(Damage::Count { count, len });
        }
        let mut free = PageSet::of(database);
        let end = at + count * 8;
        while at < end {
            let chunk = database.read(base + at, CHUNK.min(end - at))?;
            for (index, id) in chunk.chunks_exact(8).map(|id| u64_at(id, 0)).enumerate() {
                let damage = if id < 2 || id >= pages {
                    Damage::PageOutOfRange { page: id, pages }
                } else if free.insert(id) {
                    continue;
                } else {
                    Damage::FreeTwice { page: id }
                };
                let offset = base + at + index as u64 * 8;
                if self.problems.len() < PROBLEMS_MAX {
                    self.problems.push(Problem { page, offset, damage });
                }
            }
            at += chunk.len() as u64;
        }
        Ok(free)
    }

    /// With a stored freelist each page is either used or free.
    fn compare(&mut self, used: &PageSet, free: &PageSet) -> Result<(), Stop> {
        for page in 2..self.database.pages() {
            let damage = match (used.contains(page), free.contains(page)) {
                (true, true) => Damage::FreeInUse,
                (false, false) => Damage::Leaked,
                _ => continue,
            };
            self.problem(Problem { page, offset: page * self.database.page_size(), damage })?;
        }
        Ok(())
    }

    /// Notes damage and goes on.
    fn note<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Stop> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Damaged { problem, .. }) => self.problem(problem).map(|()| None),
            Err(error) => Err(Stop::Io(error)),
        }
    }

    fn problem(&mut self, problem: Problem) -> Result<(), Stop> {
        self.problems.push(problem);
        if self.problems.len() >= PROBLEMS_MAX { Err(Stop::Enough) } else { Ok(()) }
    }
}
