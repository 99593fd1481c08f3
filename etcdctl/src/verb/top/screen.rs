//! Figures as lines of text.
//!
//! Nothing here knows of a terminal but its width: what is wider is cut, what is longer is the caller's to cut.

use std::time::Duration;

use super::figures::{Figures, Hot, Latency, Member, Rates, Size};
use crate::go;

/// The width of text that goes elsewhere than to a terminal.
pub const WIDTH_OF_TEXT: usize = 140;
/// Lines of the lists of prefixes.
const PREFIXES_SHOWN: usize = 20;
/// Between columns.
const GAP: usize = 2;

/// A line to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its text, without control characters.
    pub text: String,
    /// Whether it stands out.
    pub bold: bool,
}

fn plain(text: impl Into<String>) -> Line {
    Line { text: text.into(), bold: false }
}

fn bold(text: impl Into<String>) -> Line {
    Line { text: text.into(), bold: true }
}

/// Everything there is to show, for a width.
pub fn lines(figures: &Figures, interval: Duration, width: usize) -> Vec<Line> {
    let mut lines = vec![bold(head(figures, interval)), plain("")];
    lines.extend(table(&MEMBER, figures.members.iter().map(member).collect(), width));
    for member in &figures.members {
        let errors = member.errors.iter().chain(&member.error);
        lines.extend(errors.map(|error| bold(format!("{}: {error}", member.endpoint))));
    }
    lines.push(plain(""));
    if let Some(rates) = &figures.rates {
        lines.push(plain(rates_line(rates)));
    }
    lines.extend(counts_line(figures).map(plain));
    if !figures.latencies.is_empty() {
        lines.push(plain(""));
        lines.extend(table(&LATENCY, figures.latencies.iter().map(latency).collect(), width));
    }
    let prefixes = prefixes(figures, width);
    if !prefixes.is_empty() {
        lines.push(plain(""));
        lines.extend(prefixes);
    }
    if !figures.left_out.is_empty() {
        lines.push(plain(""));
        lines.extend(figures.left_out.iter().map(plain));
    }
    for line in &mut lines {
        line.text = cut(&line.text, width);
    }
    lines
}

/// As many of the lines as fit; a last one says when they do not.
pub fn fit(mut lines: Vec<Line>, width: usize, height: usize) -> Vec<Line> {
    if lines.len() > height {
        let hidden = lines.len() - height.saturating_sub(1);
        lines.truncate(height.saturating_sub(1));
        lines.push(plain(cut(&format!("… {hidden} more lines"), width)));
        lines.truncate(height);
    }
    lines
}

fn head(figures: &Figures, interval: Duration) -> String {
    let growth =
        figures.revisions_per_second.map(|rate| format!(" (+{}/s)", decimal(rate))).unwrap_or_default();
    format!(
        "etcdctl top  cluster {}  revision {}{growth}  every {}  q ends",
        if figures.cluster_id.is_empty() { "?" } else { figures.cluster_id.as_str() },
        figures.revision,
        go::duration(interval)
    )
}

/// The heads of a table's columns; those with a minus sign stand to the left.
type Head = [&'static str];

const MEMBER: [&str; 12] = [
    "-ENDPOINT",
    "-ID",
    "-NAME",
    "-ROLE",
    "-VERSION",
    "DB SIZE",
    "IN USE",
    "QUOTA",
    "TERM",
    "INDEX",
    "APPLIED",
    "LAG",
];

fn member(member: &Member) -> Vec<String> {
    if member.error.is_some() {
        return [member.endpoint.clone()]
            .into_iter()
            .chain((1..MEMBER.len()).map(|_| "-".to_owned()))
            .collect();
    }
    let size = |bytes: i64| bytes_of(bytes.max(0) as f64);
    vec![
        member.endpoint.clone(),
        member.id.clone(),
        member.name.clone(),
        member.role.to_owned(),
        member.version.clone(),
        size(member.db_size),
        size(member.db_size_in_use),
        if member.db_size_quota == 0 { "-".to_owned() } else { size(member.db_size_quota) },
        member.raft_term.to_string(),
        member.raft_index.to_string(),
        member.raft_applied_index.to_string(),
        member.lag.to_string(),
    ]
}

fn rates_line(rates: &Rates) -> String {
    let parts = [
        ("puts", rates.puts),
        ("ranges", rates.ranges),
        ("deletes", rates.deletes),
        ("txns", rates.txns),
        ("lease grants", rates.lease_grants),
        ("keep-alives", rates.lease_keepalives),
        ("watch events", rates.watch_events),
        ("failed", rates.failed),
        ("keys changed", rates.keys_changed),
    ];
    let parts: Vec<String> = parts.iter().map(|(name, rate)| format!("{name} {}", decimal(*rate))).collect();
    format!("per second: {}", parts.join(", "))
}

fn counts_line(figures: &Figures) -> Option<String> {
    let (keys, leases) = figures.keys.zip(figures.leases)?;
    let (watchers, streams) = figures.watchers.zip(figures.watch_streams)?;
    let slow = figures.slow_watchers.filter(|slow| *slow > 0).map(|slow| format!(" ({slow} behind)"));
    let slow = slow.unwrap_or_default();
    Some(format!("now: keys {keys}, leases {leases}, watchers {watchers}{slow} on {streams} streams"))
}

const LATENCY: [&str; 4] = ["-LATENCY", "PER SECOND", "P50", "P99"];

fn latency(latency: &Latency) -> Vec<String> {
    let Latency { what, per_second, p50_seconds, p99_seconds } = latency;
    vec![what.clone(), decimal(*per_second), seconds(*p50_seconds), seconds(*p99_seconds)]
}

/// The three lists of prefixes, beside each other where there is room.
fn prefixes(figures: &Figures, width: usize) -> Vec<Line> {
    let changed = figures.changed.iter().take(PREFIXES_SHOWN).map(hot).collect();
    let read = figures.read.iter().take(PREFIXES_SHOWN).map(|read| hot(read)[..2].to_vec()).collect();
    let largest = figures.largest.iter().take(PREFIXES_SHOWN).map(size).collect();
    let lists: [(&Head, Vec<Vec<String>>); 3] = [
        (&["-CHANGED MOST", "PER SECOND", "BYTES"], changed),
        (&["-READ MOST", "PER SECOND"], read),
        (&["-MOST KEYS", "KEYS", "~BYTES"], largest),
    ];
    let lists: Vec<_> = lists.into_iter().filter(|(_, rows)| !rows.is_empty()).collect();
    if lists.is_empty() {
        return Vec::new();
    }
    let column = width.saturating_sub(GAP * (lists.len() - 1)) / lists.len();
    if column < 36 {
        let stacked = lists.into_iter().flat_map(|(head, rows)| table(head, rows, width));
        return stacked.collect();
    }
    let blocks: Vec<Vec<Line>> = lists.into_iter().map(|(head, rows)| table(head, rows, column)).collect();
    let height = blocks.iter().map(Vec::len).max().unwrap_or(0);
    let row = |at: usize| {
        let cells = blocks.iter().map(|block| block.get(at).map_or("", |line| line.text.as_str()));
        let cells: Vec<String> = cells.map(|text| format!("{text:column$}")).collect();
        Line { text: cells.join(&" ".repeat(GAP)), bold: at == 0 }
    };
    (0..height).map(row).collect()
}

fn hot(hot: &Hot) -> Vec<String> {
    let bytes = hot.bytes_per_second.map_or_else(String::new, bytes_of);
    vec![prefix(&hot.prefix), decimal(hot.per_second), bytes]
}

fn size(size: &Size) -> Vec<String> {
    let mark = if size.undivided { "…" } else { "" };
    vec![
        format!("{}{mark}", prefix(&size.prefix)),
        size.keys.to_string(),
        bytes_of(size.bytes_estimate as f64),
    ]
}

fn prefix(text: &str) -> String {
    if text.is_empty() { "(no prefix)".to_owned() } else { text.to_owned() }
}

/// A head and rows, as wide as they are: where that is more than the width, the first column gives way.
fn table(head: &Head, rows: Vec<Vec<String>>, width: usize) -> Vec<Line> {
    if rows.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = head.iter().map(|name| name.trim_start_matches('-')).collect();
    let width_of = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([names[column].chars().count()]).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..head.len()).map(width_of).collect();
    let rest: usize = widths[1..].iter().map(|width| width + GAP).sum();
    widths[0] = widths[0].min(width.saturating_sub(rest).max(8));
    let row = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            let cell = if column == 0 { middle_out(cell, width) } else { (*cell).to_owned() };
            if head[column].starts_with('-') { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join(&" ".repeat(GAP))
    };
    let mut lines = vec![bold(row(names.clone()))];
    lines.extend(rows.iter().map(|cells| plain(row(cells.iter().map(String::as_str).collect()))));
    lines
}

/// Text of at most this width.
fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

/// Text of at most this width, without its middle: prefixes differ at both ends.
fn middle_out(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width || width == 0 {
        return cut(text, width);
    }
    let head = (width - 1) / 2;
    let tail = width - 1 - head;
    text.chars().take(head).chain(['…']).chain(text.chars().skip(length - tail)).collect()
}

/// A number with three digits or a little more: 0.5, 12, 3.4k.
fn decimal(number: f64) -> String {
    match number {
        n if n < 0.05 => "0".to_owned(),
        n if n < 9.95 => format!("{n:.1}"),
        n if n < 9_999.5 => format!("{n:.0}"),
        n if n < 999_950.0 => format!("{:.1}k", n / 1e3),
        n if n < 999_950_000.0 => format!("{:.1}M", n / 1e6),
        n => format!("{:.1}G", n / 1e9),
    }
}

/// Bytes in units of 1024.
fn bytes_of(bytes: f64) -> String {
    let mut rest = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if rest < 1023.5 {
            return if unit == "B" || rest >= 99.95 {
                format!("{rest:.0} {unit}")
            } else {
                format!("{rest:.1} {unit}")
            };
        }
        rest /= 1024.0;
    }
    format!("{rest:.1} TiB")
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::top::figures::tests::samples;

    fn shown(width: usize) -> String {
        let (before, now) = samples();
        let figures = Figures::between(Some(&before), &now);
        let lines = lines(&figures, Duration::from_secs(1), width);
        assert!(lines.iter().all(|line| line.text.chars().count() <= width), "{lines:#?}");
        lines.iter().map(|line| format!("{}\n", line.text.trim_end())).collect()
    }

    #[test]
    fn a_wide_screen() {
        let text = "\
etcdctl top  cluster c0ffee  revision 1100 (+50/s)  every 1s  q ends

ENDPOINT         ID  NAME  ROLE      VERSION  DB SIZE   IN USE    QUOTA  TERM  INDEX  APPLIED  LAG
127.0.0.1:2379   a   one   leader    3.7.3    3.0 MiB  1.0 MiB  2.0 GiB     2    600      600    0
127.0.0.1:22379  b   two   follower  3.7.3    3.0 MiB  1.0 MiB  2.0 GiB     2    600      590   10
127.0.0.1:32379  -   -     -         -              -        -        -     -      -        -    -
127.0.0.1:32379: context deadline exceeded

per second: puts 50, ranges 200, deletes 0, txns 0, lease grants 0, keep-alives 0, watch events 200, failed 1.5, keys changed 50
now: keys 1234567, leases 3, watchers 20 (1 behind) on 2 streams

LATENCY  PER SECOND     P50     P99
Put             100  1.0 ms  3.9 ms

CHANGED MOST       PER SECOND  BYTES            READ MOST       PER SECOND                     MOST KEYS           KEYS   ~BYTES
/registry/leases/          50  500 B            /registry/pods/          50                    /registry/pods/…  1000000  3.0 GiB
/registry/events/         0.5    5 B

127.0.0.1:22379 is a server without quorate.Insight: no rates, latencies, watchers, leases and prefixes of it
";
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown = shown(140);
        for (found, expected) in shown.lines().zip(text.lines()) {
            assert_eq!(squeezed(found), squeezed(expected));
        }
        assert_eq!(shown.lines().count(), text.lines().count());
        // Columns stand under their heads.
        let column = |line: &str, word: &str| {
            line.find(word).map(|at| line[..at].chars().count() + word.chars().count())
        };
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(column(lines[2], "APPLIED"), column(lines[4], " 590"));
        assert_eq!(column(lines[14], "~BYTES"), column(lines[15], "3.0 GiB"));
    }

    #[test]
    fn a_narrow_screen_has_the_lists_below_each_other() {
        let text = shown(60);
        let heads = ["CHANGED MOST", "READ MOST", "MOST KEYS"].map(|head| text.find(head).expect(head));
        assert!(heads.is_sorted());
        assert!(text.contains("\nREAD MOST") && text.contains("\nMOST KEYS"));
        shown(10);
        shown(0);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let lines: Vec<Line> = (0..10).map(|n| plain(n.to_string())).collect();
        assert_eq!(fit(lines.clone(), 80, 10), lines);
        let cut = fit(lines.clone(), 80, 4);
        assert_eq!(cut.len(), 4);
        assert_eq!(cut[3].text, "… 7 more lines");
        assert_eq!(fit(lines, 80, 0), []);
    }

    #[test]
    fn numbers_are_short() {
        let decimals =
            [(0.0, "0"), (0.5, "0.5"), (9.96, "10"), (1234.0, "1234"), (12_345.0, "12.3k"), (2.5e6, "2.5M")];
        for (number, text) in decimals {
            assert_eq!(decimal(number), text);
        }
        for (bytes, text) in
            [(0.0, "0 B"), (1023.0, "1023 B"), (1536.0, "1.5 KiB"), (3e12, "2.7 TiB"), (200e6, "191 MiB")]
        {
            assert_eq!(bytes_of(bytes), text);
        }
        assert_eq!(["a".repeat(3), "abcdefgh".into()].map(|text| middle_out(&text, 5)), ["aaa", "ab…gh"]);
        assert_eq!([0.0002, 0.0456, 2.0].map(seconds), ["200 µs", "45.6 ms", "2.0 s"]);
    }
}
