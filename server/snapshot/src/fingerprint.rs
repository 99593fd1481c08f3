//! Telling keys apart without holding them.

use std::hash::{BuildHasher, RandomState};

/// 128 bits that stand for a key. Two keys of one file share them with a probability below 10⁻¹⁸, however
/// the keys were chosen: the hash has secret seeds, new ones in each run.
pub(crate) type Fingerprint = [u64; 2];

/// Makes fingerprints.
#[derive(Debug, Default)]
pub(crate) struct Fingerprints([RandomState; 2]);

impl Fingerprints {
    pub(crate) fn of(&self, key: &[u8]) -> Fingerprint {
        self.0.each_ref().map(|seed| seed.hash_one(key))
    }
}
