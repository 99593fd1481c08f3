//! Plots of a run over its time: how long operations took, and how many there were.
//!
//! ```text
//!            title, legend
//!   y labels │ plot, faults shaded
//!            └─ time
//!   kind     ▂▂▂   ▂▂              a strip for each kind of fault
//! ```
//!
//! SVG without scripts or anything from elsewhere, in the colours of its surroundings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::summary::end;
use super::words::{count, escape, shorten};
use crate::history::{Action, History, Nanos, Operation, Outcome, Run};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 132.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 62.0;
const HEIGHT: f64 = 320.0;
const STRIP: f64 = 18.0;
const TICKS_MAX: f64 = 10.0;
/// Points this near to each other are drawn as one.
const POINT: f64 = 2.0;
const SECOND: f64 = 1e9;
const MICROSECOND: f64 = 1e3;

const STYLE: &str = "svg{--back:#fff;--text:#222;--line:#ddd;--fault:#c60;\
--read:#2b7bba;--write:#2a8a3e;--txn:#8a4fbf;--lease:#0a8f8f;--other:#777;--refused:#d98a00;--unknown:#d0021b}\
@media(prefers-color-scheme:dark){svg{--back:#16181c;--text:#ddd;--line:#363a42;--fault:#e80;\
--read:#63b3f0;--write:#6fcf7f;--txn:#c094ee;--lease:#4fd0d0;--other:#999;--refused:#f0b040;--unknown:#ff6b78}}\
text{font:12px system-ui,sans-serif;fill:var(--text)}.title{font-size:15px;font-weight:600}.small{font-size:11px}\
.grid{stroke:var(--line);fill:none}.band{fill:var(--fault);opacity:.13}.strip{fill:var(--fault);opacity:.75}\
.read{stroke:var(--read)}.write{stroke:var(--write)}.txn{stroke:var(--txn)}.lease{stroke:var(--lease)}\
.other{stroke:var(--other)}.refused{stroke:var(--refused)}.unknown{stroke:var(--unknown)}\
.point{fill:none;stroke-width:3;stroke-linecap:round}.mark{fill:none;stroke-width:1.3}\
.curve{fill:none;stroke-width:1.6;stroke-linejoin:round}";

/// How long each operation took, on a logarithmic scale.
pub fn latency(history: &History) -> String {
    let frame = Frame::new(history);
    let latency = |operation: &Operation| {
        (operation.returned.saturating_sub(operation.invoked) as f64).max(MICROSECOND).log10()
    };
    let bounds = history.operations.iter().map(latency);
    let (low, high) = bounds.fold((f64::MAX, f64::MIN), |(low, high), at| (at.min(low), at.max(high)));
    let (low, high) = if low > high { (6.0, 7.0) } else { (low.floor(), high.ceil()) };
    let high = high.max(low + 1.0);
    let y = |at: f64| TOP + HEIGHT * (1.0 - (at - low) / (high - low));

    let mut points: BTreeMap<Class, BTreeSet<(i64, i64)>> = BTreeMap::new();
    for operation in &history.operations {
        let (x, y) = (frame.x(operation.invoked) / POINT, y(latency(operation)) / POINT);
        points.entry(Class::of(operation)).or_default().insert((x.round() as i64, y.round() as i64));
    }
    let decades = (low as i32..=high as i32).map(|decade| (y(f64::from(decade)), decade_text(decade)));
    let mut svg = frame.begin("latency", &Class::counts(history), decades);
    for (class, points) in &points {
        let (shape, stroke) = match class {
            Class::Refused => ("mark", "m-3 0h6m-3-3v6"),
            Class::Unknown => ("mark", "m-2.5-2.5l5 5m0-5l-5 5"),
            _ => ("point", "h0"),
        };
        write!(svg, "<path class=\"{shape} {}\" d=\"", class.name()).expect("text takes all");
        for (x, y) in points {
            write!(svg, "M{} {}{stroke}", x * POINT as i64, y * POINT as i64).expect("text takes all");
        }
        svg.push_str("\"/>\n");
    }
    svg + "</svg>\n"
}

/// How many operations ended in a second, over time.
pub fn rate(history: &History) -> String {
    let frame = Frame::new(history);
    let bucket = nice(frame.duration / SECOND / 150.0).max(0.1);
    let buckets = ((frame.duration / SECOND / bucket).ceil() as usize).max(1);
    let mut rates: BTreeMap<Class, Vec<f64>> = BTreeMap::new();
    for operation in &history.operations {
        let at = (operation.returned as f64 / SECOND / bucket) as usize;
        let rates = rates.entry(Class::of(operation)).or_insert_with(|| vec![0.0; buckets]);
        // What ends after the run does is not of its last moment.
        if let Some(rate) = rates.get_mut(at) {
            *rate += 1.0 / bucket;
        }
    }
    let highest = rates.values().flatten().fold(1.0_f64, |highest, &rate| rate.max(highest));
    let step = nice(highest / 5.0).max(1.0);
    let high = (highest / step).ceil() * step;
    let y = |rate: f64| TOP + HEIGHT * (1.0 - rate / high);
    let lines = (0..=(high / step) as usize).map(|number| {
        let rate = number as f64 * step;
        (y(rate), format!("{}/s", count(rate as usize)))
    });
    let mut svg = frame.begin("rate", &Class::counts(history), lines);
    for (class, rates) in &rates {
        write!(svg, "<path class=\"curve {}\" d=\"M", class.name()).expect("text takes all");
        for (number, &rate) in rates.iter().enumerate() {
            let at = ((number as f64 + 0.5) * bucket * SECOND).min(frame.duration);
            let separator = if number > 0 { "L" } else { "" };
            write!(svg, "{separator}{:.1} {:.1}", frame.x(at as Nanos), y(rate)).expect("text takes all");
        }
        svg.push_str("\"/>\n");
    }
    svg + "</svg>\n"
}

/// What operations are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Read,
    Write,
    Txn,
    Lease,
    Other,
    Refused,
    Unknown,
}

impl Class {
    fn of(operation: &Operation) -> Class {
        match (&operation.outcome, &operation.action) {
            (Outcome::Refused(_), _) => Class::Refused,
            (Outcome::Unknown(_), _) => Class::Unknown,
            (Outcome::Done(_), Action::Range(_)) => Class::Read,
            (Outcome::Done(_), Action::Put(_) | Action::Delete(_)) => Class::Write,
            (Outcome::Done(_), Action::Txn(_)) => Class::Txn,
            (Outcome::Done(_), Action::Compact { .. }) => Class::Other,
            (Outcome::Done(_), _) => Class::Lease,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Class::Read => "read",
            Class::Write => "write",
            Class::Txn => "txn",
            Class::Lease => "lease",
            Class::Other => "other",
            Class::Refused => "refused",
            Class::Unknown => "unknown",
        }
    }

    fn counts(history: &History) -> BTreeMap<Class, usize> {
        let mut counts = BTreeMap::new();
        for operation in &history.operations {
            *counts.entry(Class::of(operation)).or_default() += 1;
        }
        counts
    }
}

/// What both plots have: time from left to right, and the faults.
struct Frame<'a> {
    history: &'a History,
    duration: f64,
    kinds: BTreeSet<&'a str>,
}

impl<'a> Frame<'a> {
    fn new(history: &'a History) -> Frame<'a> {
        let duration = (end(history) as f64).max(1.0);
        let kinds = history.faults.iter().map(|fault| fault.kind.as_str()).collect();
        Frame { history, duration, kinds }
    }

    fn x(&self, time: Nanos) -> f64 {
        let part = (time as f64 / self.duration).min(1.0);
        LEFT + (WIDTH - LEFT - RIGHT) * part
    }

    /// Everything but what is plotted; `lines` are heights and their texts.
    fn begin(
        &self,
        what: &str,
        classes: &BTreeMap<Class, usize>,
        lines: impl Iterator<Item = (f64, String)>,
    ) -> String {
        let bottom = TOP + HEIGHT;
        let height = bottom + 32.0 + STRIP * self.kinds.len() as f64 + 8.0;
        let Run { workload, nemesis, program, seed, .. } = &self.history.run;
        let title = escape(&format!("{what}: {workload} under {nemesis}, {program}, seed {seed}"));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" style=\"fill:var(--back)\"/>\n"
        );
        let heading =
            escape(&shorten(&format!("{what}: {workload} under {nemesis}, {program}, seed {seed}"), 110));
        svg.push_str(&format!("<text class=\"title\" x=\"12\" y=\"24\">{heading}</text>\n"));
        self.legend(&mut svg, classes);
        self.faults(&mut svg);
        for (y, text) in lines {
            svg.push_str(&format!(
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{}\"/>\
                 <text class=\"small\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{text}</text>\n",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0
            ));
        }
        let step = nice(self.duration / SECOND / TICKS_MAX);
        let ticks = (self.duration / SECOND / step + 1e-9) as usize;
        for tick in 0..=ticks {
            let seconds = tick as f64 * step;
            let x = self.x((seconds * SECOND) as Nanos);
            let digits = if step < 1.0 { (-step.log10()).ceil() as usize } else { 0 };
            svg.push_str(&format!(
                "<path class=\"grid\" d=\"M{x:.1} {bottom}v5\"/>\
                 <text class=\"small\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{seconds:.digits$} s</text>\n",
                bottom + 18.0
            ));
        }
        svg
    }

    fn legend(&self, svg: &mut String, classes: &BTreeMap<Class, usize>) {
        let mut x = LEFT;
        for (class, &number) in classes {
            let text = format!("{} {}", class.name(), count(number));
            svg.push_str(&format!(
                "<path class=\"{}\" stroke-width=\"8\" d=\"M{x:.0} 44h8\"/>\
                 <text x=\"{:.0}\" y=\"48\">{text}</text>\n",
                class.name(),
                x + 13.0
            ));
            x += 13.0 + 7.0 * text.len() as f64 + 16.0;
        }
    }

    fn faults(&self, svg: &mut String) {
        let first = TOP + HEIGHT + 32.0;
        for (row, kind) in self.kinds.iter().enumerate() {
            let y = first + STRIP * row as f64;
            let text = escape(&shorten(kind, 17));
            let x = LEFT - 8.0;
            svg.push_str(&format!(
                "<text class=\"small\" text-anchor=\"end\" x=\"{x}\" y=\"{:.1}\">{text}</text>\n",
                y + 11.0
            ));
        }
        for fault in &self.history.faults {
            let x = self.x(fault.began);
            // What is over at once must be seen too.
            let width = (self.x(fault.ended) - x).max(1.5);
            let row = self.kinds.iter().take_while(|&&kind| kind != fault.kind).count();
            let y = first + STRIP * row as f64;
            let text = escape(&format!("{} {}", fault.kind, fault.what));
            svg.push_str(&format!(
                "<rect class=\"band\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{HEIGHT}\"/>\
                 <rect class=\"strip\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{}\">\
                 <title>{text}</title></rect>\n",
                y + 2.0,
                STRIP - 5.0
            ));
        }
    }
}

/// The next larger of 1, 2, 5, 10, 20 and so on.
fn nice(value: f64) -> f64 {
    let decade = 10_f64.powf(value.max(1e-3).log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * decade >= value - 1e-12);
    digit.unwrap_or(10.0) * decade
}

fn decade_text(decade: i32) -> String {
    let number = 10_i32.pow(decade.rem_euclid(3).unsigned_abs());
    match decade.div_euclid(3) {
        0 => format!("{number} ns"),
        1 => format!("{number} µs"),
        2 => format!("{number} ms"),
        _ => format!("{} s", 10_i64.pow(decade.unsigned_abs() - 9)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// Numbers of every attribute of this name, or of every such start of a path.
    fn numbers(svg: &str, before: &str) -> Vec<f64> {
        let starts = svg.split(before).skip(1);
        starts.map(|rest| rest.split(['"', ' ', 'h', 'm']).next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn everything_is_within_the_picture() {
        let history = sample::history();
        for svg in [latency(&history), rate(&history)] {
            let xs: Vec<f64> = numbers(&svg, " x=\"").into_iter().chain(numbers(&svg, "M")).collect();
            assert!(xs.len() > 30);
            assert!(xs.iter().all(|&x| (0.0..=WIDTH).contains(&x)), "{xs:?}");
            let height = numbers(&svg, "viewBox=\"0 0 1000 ")[0];
            assert!(numbers(&svg, " y=\"").iter().all(|&y| (0.0..=height).contains(&y)));
        }
    }

    /// Y labels, time labels, legend: no two of a row are closer than their text is long.
    #[test]
    fn texts_do_not_overlap() {
        let history = sample::history();
        for svg in [latency(&history), rate(&history)] {
            let mut texts: Vec<(f64, f64, f64)> = Vec::new();
            for piece in svg.split("<text ").skip(1) {
                let x = numbers(piece, "x=\"")[0];
                let y = numbers(piece, "y=\"")[0];
                let text = piece.split_once('>').unwrap().1.split_once("</text>").unwrap().0;
                let long = text.chars().count() as f64 * if piece.contains("title") { 8.2 } else { 6.6 };
                let begin = match piece {
                    _ if piece.contains("\"end\"") => x - long,
                    _ if piece.contains("\"middle\"") => x - long / 2.0,
                    _ => x,
                };
                assert!(begin >= 0.0 && begin + long <= WIDTH + 12.0, "{text} at {begin}");
                texts.push((y, begin, begin + long));
            }
            for (number, one) in texts.iter().enumerate() {
                for other in &texts[number + 1..] {
                    let apart = (one.0 - other.0).abs() >= 11.0 || one.2 <= other.1 || other.2 <= one.1;
                    assert!(apart, "{one:?} {other:?}\n{svg}");
                }
            }
        }
    }

    #[test]
    fn many_operations_make_a_small_picture() {
        let mut history = sample::history();
        let some = history.operations.clone();
        for round in 0..2_000 {
            let again = some.iter().cloned().map(|operation| {
                let invoked = operation.invoked + round * 1_000;
                Operation { invoked, returned: operation.returned + round * 1_700, ..operation }
            });
            history.operations.extend(again);
        }
        assert!(history.operations.len() > 50_000);
        assert!(latency(&history).len() < 500_000);
        assert!(rate(&history).len() < 50_000);
    }

    #[test]
    fn an_empty_history_has_plots_too() {
        let history = History::default();
        for svg in [latency(&history), rate(&history)] {
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
        }
    }

    #[test]
    fn steps_are_easy_to_read() {
        let steps = [0.013, 0.1, 0.3, 1.0, 1.2, 4.0, 6.0, 18.0, 70.0].map(nice);
        for (step, expected) in steps.into_iter().zip([0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 100.0]) {
            assert!((step - expected).abs() < 1e-9, "{step} {expected}");
        }
        assert_eq!([3, 5, 6, 9, 11].map(decade_text), ["1 µs", "100 µs", "1 ms", "1 s", "100 s"]);
    }
}
