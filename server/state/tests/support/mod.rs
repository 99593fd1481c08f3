//! What the property tests share: a naive model, a source of commands, and a state that can crash.

#![allow(dead_code, reason = "each test uses its own part")]

pub mod digest;
pub mod generate;
pub mod naive;
pub mod world;

/// Runs a test with some seeds, always the same ones; says which one failed. `STATE_SEED` in the environment
/// is another first seed, `STATE_RUNS` another number of them.
pub fn with_seeds(runs: u64, test: impl Fn(u64)) {
    let setting = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = setting("STATE_SEED").unwrap_or(1);
    for seed in first..first + setting("STATE_RUNS").unwrap_or(runs) {
        let run = std::panic::AssertUnwindSafe(|| test(seed));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("failed with seed {seed}: STATE_SEED={seed} STATE_RUNS=1 shows it again");
            std::panic::resume_unwind(panic);
        }
    }
}
