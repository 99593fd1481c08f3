//! The bytes of one file: as they are, and as they were when last synced.
//!
//! The file at `path` has them as they are. Before a page is first changed
//! after a sync, what it was is kept in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Result;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rand::RngExt;
use rand::rngs::StdRng;

use super::Loss;

const PAGE: u64 = 4096;
/// What a disk writes wholly or not at all.
const SECTOR: usize = 512;

/// One file.
#[derive(Debug)]
pub struct Content {
    path: PathBuf,
    size: u64,
    synced_size: u64,
    /// What changed pages were when last synced; empty for one that lay behind the end.
    synced: BTreeMap<u64, Vec<u8>>,
}

impl Content {
    /// An empty file. Even that is nothing until it is synced.
    pub fn create(path: PathBuf) -> Result<Content> {
        File::create(&path)?;
        Ok(Content { path, size: 0, synced_size: 0, synced: BTreeMap::new() })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let length = length.min(self.size.saturating_sub(offset));
        let mut bytes = vec![0; length as usize];
        File::open(&self.path)?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let file = self.open()?;
        self.keep(&file, offset, offset + bytes.len() as u64)?;
        file.write_all_at(bytes, offset)?;
        self.size = self.size.max(offset + bytes.len() as u64);
        Ok(())
    }

    pub fn resize(&mut self, size: u64) -> Result<()> {
        let file = self.open()?;
        self.keep(&file, size, self.size)?;
        file.set_len(size)?;
        self.size = size;
        Ok(())
    }

    /// Makes a part of it zeros.
    pub fn zero(&mut self, offset: u64, length: u64) -> Result<()> {
        let end = (offset + length).min(self.size);
        let mut at = offset;
        while at < end {
            let some = (end - at).min(1 << 20);
            self.write(at, &vec![0; some as usize])?;
            at += some;
        }
        Ok(())
    }

    pub fn sync(&mut self) {
        self.synced.clear();
        self.synced_size = self.size;
    }

    /// Goes back to what was synced, or to some of it; tells whether anything was lost.
    pub fn crash(&mut self, loss: Loss, rng: &mut StdRng) -> Result<bool> {
        if self.synced.is_empty() && self.size == self.synced_size {
            return Ok(false);
        }
        let file = self.open()?;
        let synced = std::mem::take(&mut self.synced);
        let size = match loss {
            Loss::All => self.synced_size,
            Loss::Torn => *super::tree::one_of(&[self.synced_size, self.size], rng),
        };
        file.set_len(self.size.max(self.synced_size))?;
        // Some crashes take much of it and some little.
        let kept = *super::tree::one_of(&[0.0, 0.5, 0.95], rng);
        for (page, mut bytes) in synced {
            bytes.resize(PAGE as usize, 0);
            for (at, sector) in bytes.chunks(SECTOR).enumerate() {
                let offset = page * PAGE + (at * SECTOR) as u64;
                if loss == Loss::All || !rng.random_bool(kept) {
                    file.write_all_at(sector, offset)?;
                }
            }
        }
        file.set_len(size)?;
        (self.size, self.synced_size) = (size, size);
        Ok(true)
    }

    /// Keeps the pages that will change, where they are still as they were when synced.
    fn keep(&mut self, file: &File, from: u64, to: u64) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        for page in from / PAGE..to.div_ceil(PAGE) {
            if self.synced.contains_key(&page) {
                continue;
            }
            let start = page * PAGE;
            let length = self.synced_size.saturating_sub(start).min(PAGE);
            let mut bytes = vec![0; length as usize];
            file.read_exact_at(&mut bytes, start)?;
            self.synced.insert(page, bytes);
        }
        Ok(())
    }

    fn open(&self) -> Result<File> {
        File::options().read(true).write(true).open(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// Against a copy that is made at every sync.
    #[test]
    fn a_crash_brings_back_what_was_synced() -> Result<()> {
        let dir = tempfile::tempdir()?;
        for seed in 0..60 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut content = Content::create(dir.path().join(seed.to_string()))?;
            let (mut now, mut synced) = (Vec::new(), Vec::new());
            for _ in 0..rng.random_range(1..60) {
                match rng.random_range(0..6) {
                    0 => {
                        content.sync();
                        synced.clone_from(&now);
                    }
                    1 => {
                        let size = rng.random_range(0..20_000);
                        content.resize(size as u64)?;
                        now.resize(size, 0);
                    }
                    2 => {
                        content.crash(Loss::All, &mut rng)?;
                        now.clone_from(&synced);
                    }
                    _ => {
                        let (at, length) = (rng.random_range(0..16_000), rng.random_range(1..9_000));
                        let bytes = vec![rng.random::<u8>(); length];
                        content.write(at as u64, &bytes)?;
                        now.resize(now.len().max(at + length), 0);
                        now[at..at + length].copy_from_slice(&bytes);
                    }
                }
                assert_eq!(content.read(0, 1 << 20)?, now, "seed {seed}");
            }
            content.crash(Loss::All, &mut rng)?;
            assert_eq!(content.read(0, 1 << 20)?, synced, "seed {seed}");
        }
        Ok(())
    }

    #[test]
    fn a_torn_write_keeps_whole_sectors_and_what_was_synced() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let mut kept = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut content = Content::create(dir.path().join(seed.to_string()))?;
            content.write(0, &[1; 8192])?;
            content.sync();
            content.write(1024, &[2; 4096])?;
            assert!(content.crash(Loss::Torn, &mut rng)?);
            let bytes = content.read(0, 1 << 20)?;
            assert_eq!(bytes.len(), 8192);
            assert!(bytes.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            assert!(bytes[..1024].iter().chain(&bytes[5120..]).all(|byte| *byte == 1));
            kept.insert(bytes.iter().filter(|byte| **byte == 2).count() / SECTOR);
        }
        assert!(kept.len() > 4 && kept.contains(&0), "{kept:?}");
        Ok(())
    }
}
