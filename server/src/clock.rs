//! Wall-clock time as text. Nothing is decided by it; deadlines use monotonic time.

use std::time::{SystemTime, UNIX_EPOCH};

/// A day of the calendar, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Year of the common era.
    pub year: u64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

/// The day of a Unix second.
pub fn date(unix_seconds: u64) -> Date {
    // Days since 0000-03-01, in cycles of 400 years of 146,097 days.
    let days = unix_seconds / 86_400 + 719_468;
    let (cycle, day_of_cycle) = (days / 146_097, days % 146_097);
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    Date {
        year: cycle * 400 + year_of_cycle + u64::from(month <= 2),
        month: month as u8,
        day: (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u8,
    }
}

/// A moment as RFC 3339 in UTC with microseconds, as log lines carry it.
pub fn timestamp(moment: SystemTime) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let Date { year, month, day } = date(seconds);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_and_timestamps() {
        assert_eq!(date(0), Date { year: 1970, month: 1, day: 1 });
        assert_eq!(date(951_782_400), Date { year: 2000, month: 2, day: 29 });
        assert_eq!(date(4_107_542_399), Date { year: 2100, month: 2, day: 28 });
        let moment = UNIX_EPOCH + Duration::from_micros(1_795_246_562_994_491);
        assert_eq!(timestamp(moment), "2026-11-21T07:36:02.994491Z");
    }
}
