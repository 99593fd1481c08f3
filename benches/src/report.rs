//! The figures of a run as a table.

use std::fmt::Write;

use crate::load::Seen;
use crate::process::Usage;

/// One turn of one case on one member.
#[derive(Debug, Clone)]
pub struct Turn {
    /// What the clients saw.
    pub seen: Seen,
    /// The member before the turn.
    pub before: Usage,
    /// The member after it.
    pub after: Usage,
}

impl Turn {
    /// Server CPU of one request, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        (self.after.cpu_s - self.before.cpu_s) * 1e6 / self.seen.requests.max(1) as f64
    }

    /// By how much resident memory grew at the most, in MiB.
    pub fn growth_mib(&self) -> f64 {
        self.after.rss_peak.saturating_sub(self.before.rss) as f64 / f64::from(1 << 20)
    }

    /// Resident memory afterwards, in MiB.
    pub fn rss_mib(&self) -> f64 {
        self.after.rss as f64 / f64::from(1 << 20)
    }

    /// Bytes written to disk for one request.
    pub fn disk_bytes(&self) -> f64 {
        (self.after.disk - self.before.disk) as f64 / self.seen.requests.max(1) as f64
    }
}

/// All turns of one case: ours and etcd's, pair by pair.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The case.
    pub case: &'static str,
    /// Ours and etcd's, in the order they ran.
    pub pairs: Vec<(Turn, Turn)>,
}

type Figure = (&'static str, fn(&Turn) -> f64);

/// The figures of a turn, in the order of the table.
pub const FIGURES: [Figure; 7] = [
    ("req/s", |t| t.seen.rate()),
    ("p50 µs", |t| t.seen.percentile(0.5)),
    ("p99 µs", |t| t.seen.percentile(0.99)),
    ("CPU µs/req", Turn::cpu_us),
    ("RSS MiB", Turn::rss_mib),
    ("growth MiB", Turn::growth_mib),
    ("disk B/req", Turn::disk_bytes),
];

impl Outcome {
    /// The median of a figure on our side and on etcd's, and the median of the ratios pair by pair.
    pub fn medians(&self, figure: fn(&Turn) -> f64) -> (f64, f64, f64) {
        let of = |value: &dyn Fn(&(Turn, Turn)) -> f64| median(self.pairs.iter().map(value).collect());
        let ratio = of(&|(ours, etcd)| figure(ours) / figure(etcd));
        (of(&|(ours, _)| figure(ours)), of(&|(_, etcd)| figure(etcd)), ratio)
    }
}

/// A Markdown table: per case and figure ours, etcd's and the ratio ours/etcd.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from("| case |");
    for (name, _) in FIGURES {
        write!(text, " {name} |").expect("a string takes everything");
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(FIGURES.len()));
    for outcome in outcomes {
        write!(text, "\n| {} |", outcome.case).expect("a string takes everything");
        for (_, figure) in FIGURES {
            let (ours, etcd, ratio) = outcome.medians(figure);
            let cell = format!(" {} / {} = **{ratio:.2}** |", short(ours), short(etcd));
            text.push_str(&cell);
        }
    }
    text.push_str("\n\nEach cell: ours / etcd = median ratio of the pairs.\n");
    text
}

fn short(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.1}k", v / 1000.0),
        v if v >= 100.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
