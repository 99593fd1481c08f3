//! A bar on the terminal for work that takes long: how much is done, how fast, how long it will take.
//!
//! It shows only where stderr is a terminal, and not for work that is done in a moment.
//! When the work ends, however it ends, the bar goes.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use crate::go;

/// Work that is done sooner has no bar.
const SHOWN_AFTER: Duration = Duration::from_millis(300);

/// What the bar looks like: `checking  1.2 GB of 2.0 GB [=====>   ] 310 MB/s, 3s left`.
const TEMPLATE: &str = "{msg}  {decimal_bytes} of {decimal_total_bytes} [{wide_bar}] {prefix}";

/// The progress of one piece of work, in bytes.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Of work that begins now; `what` stands before the bar.
    pub fn new(what: &'static str) -> Self {
        Self { what, start: Instant::now(), bar: None }
    }

    /// So many bytes of so many are done. With the last of them the bar goes.
    pub fn set(&mut self, done: u64, total: u64) {
        if done >= total {
            *self = Self::new(self.what);
            return;
        }
        if self.bar.is_none() && self.start.elapsed() < SHOWN_AFTER {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| bar(self.what));
        bar.set_length(total);
        bar.set_prefix(pace(done, total, self.start.elapsed()));
        bar.set_position(done);
    }
}

/// The rate since the beginning, and the time the rest takes at that.
fn pace(done: u64, total: u64, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let left = (total.saturating_sub(done) as f64 / rate.max(1.0)).ceil().min(f64::from(u32::MAX));
    format!("{}/s, {} left", go::size(rate as u64), go::duration(Duration::from_secs(left as u64)))
}

fn bar(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(TEMPLATE).expect("the template above is well formed");
    ProgressBar::new(0)
        .with_style(style.progress_chars("=> "))
        .with_message(what)
        .with_finish(ProgressFinish::AndClear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace() {
        let second = Duration::from_secs(1);
        assert_eq!(pace(50_000_000, 200_000_000, second), "50 MB/s, 3s left");
        assert_eq!(pace(10_000_000, 1_000_000_000, second), "10 MB/s, 1m39s left");
        assert_eq!(pace(0, 1_000, second), "0 B/s, 16m40s left");
        assert_eq!(pace(1_000, 1_000, Duration::ZERO).split(", ").nth(1), Some("0s left"));
    }

    #[test]
    fn the_bar_comes_late_and_goes_with_the_work() {
        let mut progress = Progress::new("checking");
        progress.set(1, 10);
        assert!(progress.bar.is_none());
        progress.start -= SHOWN_AFTER;
        progress.set(9, 10);
        let bar = progress.bar.as_ref().unwrap();
        assert_eq!((bar.position(), bar.length()), (9, Some(10)));
        progress.set(10, 10);
        assert!(progress.bar.is_none());
    }
}
