//! What the property tests share: a naive model, a source of commands, and a state that can crash.

#![allow(dead_code, reason = "each test uses its own part")]

pub mod generate;
pub mod naive;
pub mod world;

/// Paste the seed of a failed run here to see it again.
const SEED: Option<u64> = None;

/// Runs a test with some seeds, a new one each time; says which one failed.
pub fn with_seeds(runs: usize, test: impl Fn(u64)) {
    let seeds: Vec<u64> = match SEED {
        Some(seed) => vec![seed],
        None => (0..runs).map(|_| rand::random()).collect(),
    };
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| test(seed));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("failed with seed {seed}: paste it into SEED in tests/support/mod.rs");
            std::panic::resume_unwind(panic);
        }
    }
}
