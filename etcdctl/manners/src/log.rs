//! The JSON lines etcd's client writes to stderr beside its messages.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::json::push_string;

static QUIET: AtomicBool = AtomicBool::new(false);

/// Warnings are not written for as long as there is one.
#[must_use]
#[derive(Debug)]
pub struct Quiet(());

/// Keeps warnings off stderr until what this gives is dropped: for a command that shows what went wrong by itself.
pub fn quiet() -> Quiet {
    QUIET.store(true, Ordering::Relaxed);
    Quiet(())
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.store(false, Ordering::Relaxed);
    }
}

/// A warning; the command goes on.
pub fn warn(message: &str, field: &str, value: impl Display) {
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    line("warn", message, field, &value.to_string());
}

/// The last line before the program ends with status 1.
pub fn fatal(message: &str, field: &str, value: impl Display) {
    line("fatal", message, field, &value.to_string());
}

fn line(level: &str, message: &str, field: &str, value: &str) {
    let mut text = format!("{{\"level\":\"{level}\",\"ts\":\"{}\",\"msg\":", timestamp());
    push_string(&mut text, message);
    text.push(',');
    push_string(&mut text, field);
    text.push(':');
    push_string(&mut text, value);
    eprintln!("{text}}}");
}

/// Now, in UTC, to the microsecond. The calendar is Hinnant's days-to-civil computation.
fn timestamp() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = (now.as_secs(), now.subsec_micros());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * index + 2) / 5 + 1;
    let month = if index < 10 { index + 3 } else { index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}
