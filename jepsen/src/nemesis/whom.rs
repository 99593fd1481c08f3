//! To which members something is done.

use anyhow::Result;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::cluster::Cluster;

/// A choice of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// Any one.
    One,
    /// The leader; any one where nobody leads.
    Leader,
    /// So many that the others are no quorum, but not all.
    Majority,
    /// Everyone.
    All,
}

impl Whom {
    pub fn name(self) -> &'static str {
        match self {
            Whom::One => "one",
            Whom::Leader => "leader",
            Whom::Majority => "majority",
            Whom::All => "all",
        }
    }

    /// Chooses.
    pub async fn choose(self, cluster: &Cluster, rng: &mut StdRng) -> Result<Vec<usize>> {
        let mut all = cluster.all();
        let count = match self {
            Whom::One => 1,
            Whom::Leader => match cluster.leader().await {
                Some(leader) => return Ok(vec![leader]),
                None => 1,
            },
            Whom::Majority => cluster.minority() + 1,
            Whom::All => all.len(),
        };
        all.shuffle(rng);
        all.truncate(count);
        all.sort_unstable();
        Ok(all)
    }
}

/// One of several.
pub fn one_of<'a, T>(some: &'a [T], rng: &mut StdRng) -> &'a T {
    &some[rng.random_range(0..some.len())]
}

/// For people.
pub fn list(some: &[usize]) -> String {
    let names: Vec<String> = some.iter().map(usize::to_string).collect();
    match some.len() {
        1 => format!("member {}", names[0]),
        _ => format!("members {}", names.join(", ")),
    }
}
