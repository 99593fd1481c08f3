//! Files of a stopped member in which bits are flipped or sectors torn.
//!
//! The member may refuse to start, or mend itself from the others; what it must
//! not do is serve what is wrong. It is replaced at the end, as an operator
//! would. Files of the state take turns by their kind, so that each is met in a
//! short run too. The last quarter of a log is left alone: one that ends in a broken
//! record cannot be told from one whose last write never came.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use proto::etcdserverpb::DefragmentRequest;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::timeout;

use super::whom::one_of;
use super::{Harm, Nemesis};
use crate::cluster::Cluster;

const SECTOR: usize = 512;
/// How long a member may take to find that its files are broken.
const START_MAX: Duration = Duration::from_secs(15);
/// How long it may take to write its state to files before.
const FLUSH_MAX: Duration = Duration::from_secs(10);

/// Which files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// The Raft log.
    Log,
    /// The state.
    Data,
}

/// The kinds of files of a state, by how their names begin or end.
const KINDS: [&str; 4] = [".sst", "MANIFEST-", "CURRENT", "OPTIONS-"];

/// Breaks files of this kind, of one member at a time.
pub struct Corrupt {
    files: Files,
    hit: Option<usize>,
    /// Counts through the kinds, and with each round changes from one way to the other.
    turn: Option<usize>,
}

impl Corrupt {
    pub fn new(files: Files) -> Corrupt {
        Corrupt { files, hit: None, turn: None }
    }

    /// What is broken this time: the segments of a log, or one file of the kind whose turn it is.
    fn choose(&mut self, data_dir: &Path, rng: &mut StdRng) -> Result<(Vec<PathBuf>, bool)> {
        let member = data_dir.join("member");
        let mut found = Vec::new();
        if self.files == Files::Log {
            walk(&member.join("wal"), &mut found)?;
            found.retain(|path| path.extension().is_some_and(|end| end == "log" || end == "wal"));
            found.sort();
            return Ok((found, rng.random_bool(0.5)));
        }
        walk(&member.join("snap"), &mut found)?;
        found.sort();
        let turn = self.turn.get_or_insert_with(|| rng.random_range(0..KINDS.len()));
        for _ in KINDS {
            let (kind, torn) = (KINDS[*turn % KINDS.len()], (*turn / KINDS.len()) % 2 == 1);
            *turn += 1;
            let is_one = |path: &&PathBuf| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(kind) || name.ends_with(kind)
            };
            let of_kind: Vec<PathBuf> = found.iter().filter(is_one).cloned().collect();
            if !of_kind.is_empty() {
                return Ok((vec![one_of(&of_kind, rng).clone()], torn));
            }
        }
        Ok((Vec::new(), false))
    }

    /// Flips a bit, or tears a sector, where there is something; says which.
    fn harm(&self, path: &Path, torn: bool, rng: &mut StdRng) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        File::open(path)?.read_to_end(&mut bytes)?;
        let mut sectors: Vec<Range<usize>> = Vec::new();
        for start in (0..bytes.len()).step_by(SECTOR) {
            let sector = start..bytes.len().min(start + SECTOR);
            if bytes[sector.clone()].iter().any(|byte| *byte != 0) {
                sectors.push(sector);
            }
        }
        if self.files == Files::Log {
            sectors.truncate(sectors.len() * 3 / 4);
        }
        if sectors.is_empty() {
            return Ok(None);
        }
        let file = File::options().write(true).open(path).with_context(|| path.display().to_string())?;
        let sector = one_of(&sectors, rng).clone();
        let start = sector.start;
        if torn {
            file.write_all_at(&vec![0; sector.len()], start as u64)?;
            return Ok(Some(format!("sector at {start} zeroed")));
        }
        let set: Vec<usize> = sector.filter(|&at| bytes[at] != 0).collect();
        let (at, bit) = (*one_of(&set, rng), rng.random_range(0..8));
        file.write_all_at(&[bytes[at] ^ (1 << bit)], at as u64)?;
        Ok(Some(format!("bit {bit} of byte {at} flipped")))
    }
}

#[async_trait]
impl Nemesis for Corrupt {
    fn unfit(&self, cluster: &Cluster) -> Option<String> {
        if cluster.len() < 3 {
            return Some("nobody could replace what is broken".to_owned());
        }
        let unchecked = self.files == Files::Data && !cluster.program().is_ours();
        unchecked.then(|| "etcd's pages carry no checksums".to_owned())
    }

    async fn begin(&mut self, cluster: &mut Cluster, rng: &mut StdRng) -> Result<Harm> {
        let at = *one_of(&cluster.all(), rng);
        self.hit = Some(at);
        if self.files == Files::Data {
            // What is only in memory cannot be broken. One that does not answer is broken as it is.
            timeout(FLUSH_MAX, write_files(cluster, at)).await.ok();
        }
        cluster.kill(at).await?;
        let mut broken = Vec::new();
        let (paths, torn) = self.choose(&cluster.data_dir(at), rng)?;
        for path in paths {
            if let Some(how) = self.harm(&path, torn, rng)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                broken.push(format!("{name}: {how}"));
            }
        }
        anyhow::ensure!(!broken.is_empty(), "member {at} has nothing that could be broken");
        let started = match cluster.try_start(at, START_MAX).await? {
            Some(why) => format!("it refuses: {why}"),
            None => "it starts".to_owned(),
        };
        let kind = match self.files {
            Files::Log => "corrupt-log",
            Files::Data => "corrupt-data",
        };
        Ok(Harm::new(kind, format!("member {at}, {}; {started}", broken.join(", "))))
    }

    async fn end(&mut self, cluster: &mut Cluster) -> Result<()> {
        let Some(at) = self.hit.take() else { return Ok(()) };
        cluster.remove(at).await?;
        cluster.replace(at, false).await
    }
}

/// Has one of our members write its state to files; that goes on after the answer.
async fn write_files(cluster: &Cluster, at: usize) -> Result<()> {
    let finished = || cluster.member(at).log().matches("finished defragment").count();
    let before = finished();
    cluster.client(at).maintenance.defragment(DefragmentRequest {}).await?;
    while finished() == before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => walk(&path, found)?,
            false => found.push(path),
        }
    }
    Ok(())
}
