//! A page that shows what is wrong: the operations of each anomaly, among what was near them.
//!
//! ```text
//!   time ──►   12.1 s          12.2 s        ╱╱╱ nothing for 3 s ╱╱╱
//!   faults     [kill leader ]
//!   watch 1          [k = v]  [lost]
//!   client 0   [put k = v → @7 ]      [read k → v @7]
//!   client 3        [put k = w → unknown         ]
//! ```
//!
//! Time goes from left to right but not evenly: each box gets room for its
//! words, and where nothing is shown time is cut short. One file without
//! anything from elsewhere; all is in it without its script, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::words::{self, count, duration, escape, seconds, shorten};
use crate::check::Anomaly;
use crate::history::{
    Action, Answer, History, Keys, Nanos, Notice, Operation, Outcome, Request, Run, Seen, Watch,
};

/// How many anomalies are drawn; of the others only the words are there.
const DRAWN_MAX: usize = 20;
/// How many operations of an anomaly are drawn.
const OPERATIONS_MAX: usize = 40;
/// How many operations before, after and beside each are drawn with it, among how many.
const NEAR: usize = 6;
const NEAR_WITHIN: usize = 500;
/// How many notices before and after one are drawn with it, and how many at most.
const NOTICES_NEAR: usize = 3;
const NOTICES_MAX: usize = 60;
/// How much of a request or an answer is told.
const DETAIL_MAX: usize = 2_000;

const GUTTER: f64 = 108.0;
const BOX_WIDTH_MIN: f64 = 150.0;
const STEP_MIN: f64 = 4.0;
const STEP_MAX: f64 = 90.0;
const STEP: f64 = 24.0;
/// From how many usual steps on a time without anything is marked as cut short.
const SKIP: f64 = 20.0;
const TICK_EVERY: f64 = 104.0;
const ROW: f64 = 30.0;
const AXIS: f64 = 22.0;

/// The whole page.
pub fn page(history: &History, anomalies: &[Anomaly]) -> String {
    let Run { workload, nemesis, .. } = &history.run;
    let title = escape(&format!("{} anomalies: {workload} under {nemesis}", count(anomalies.len())));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        include_str!("timeline.css")
    );
    page.push_str(&head(&history.run));
    page.push_str(&index(anomalies));
    for (number, anomaly) in anomalies.iter().enumerate() {
        let (name, checker) = (escape(&anomaly.name), escape(&anomaly.checker));
        write!(
            page,
            "<section id=\"a{number}\">\n<h2>{name} <small>{checker}</small></h2>\n<p class=\"why\">{}</p>\n",
            escape(&anomaly.explanation)
        )
        .expect("text takes all");
        if number < DRAWN_MAX {
            page.push_str(&Chart::new(history, anomaly).draw());
            page.push_str(&table(history, anomaly));
        }
        page.push_str("</section>\n");
    }
    page.push_str("<pre id=\"detail\" hidden></pre>\n<script>\n");
    page.push_str(include_str!("timeline.js"));
    page.push_str("</script>\n</body>\n</html>\n");
    page
}

fn head(run: &Run) -> String {
    let of = [
        ("program", format!("{}, {} members", run.program, run.members)),
        ("seed", run.seed.to_string()),
        ("again", run.command.clone()),
        ("clients", seconds(run.duration)),
    ];
    let rows: String =
        of.iter().map(|(name, text)| format!("<dt>{name}</dt><dd>{}</dd>\n", escape(text))).collect();
    format!(
        "<dl>\n{rows}</dl>\n<p class=\"key\"><span class=\"done\">answered</span>\
         <span class=\"refused\">certainly not done</span><span class=\"unknown\">unknown</span>\
         <span class=\"seen\">came to a watcher</span><span class=\"fault\">fault</span>\
         <span class=\"bad\">part of the anomaly</span></p>\n"
    )
}

fn index(anomalies: &[Anomaly]) -> String {
    let mut names: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (number, anomaly) in anomalies.iter().enumerate() {
        names.entry(&anomaly.name).or_insert((number, 0)).1 += 1;
    }
    let item = |(name, (first, times)): (&str, (usize, usize))| {
        format!("<li><a href=\"#a{first}\">{}</a>: {}</li>\n", escape(name), count(times))
    };
    format!("<ul>\n{}</ul>\n", names.into_iter().map(item).collect::<String>())
}

/// The operations of an anomaly in words.
fn table(history: &History, anomaly: &Anomaly) -> String {
    let mut text = "<details><summary>In words</summary>\n<table>\n<tr><th>operation<th>client<th>member\
                    <th>sent<th>took<th>what</tr>\n"
        .to_owned();
    for (number, operation) in offending(history, anomaly) {
        writeln!(
            text,
            "<tr><td>{number}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            operation.client,
            operation.member,
            seconds(operation.invoked),
            duration(operation.returned.saturating_sub(operation.invoked)),
            escape(&shorten(&words::operation(operation), DETAIL_MAX))
        )
        .expect("text takes all");
    }
    text + "</table></details>\n"
}

fn offending<'a>(history: &'a History, anomaly: &Anomaly) -> BTreeMap<usize, &'a Operation> {
    let there = |&number: &usize| Some((number, history.operations.get(number)?));
    anomaly.operations.iter().filter_map(there).take(OPERATIONS_MAX).collect()
}

/// Something that is drawn as a box.
struct Item {
    lane: Lane,
    begin: Nanos,
    end: Nanos,
    class: String,
    text: String,
    detail: String,
    left: f64,
    right: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Watch(usize),
    Client(u32),
}

/// The boxes of one anomaly, and where time is.
struct Chart<'a> {
    history: &'a History,
    items: Vec<Item>,
    /// Where some times are, from left to right.
    times: Vec<(Nanos, f64)>,
    /// Where time is cut short, and by how much.
    skips: Vec<(f64, f64, Nanos)>,
}

impl<'a> Chart<'a> {
    fn new(history: &'a History, anomaly: &Anomaly) -> Chart<'a> {
        let bad = offending(history, anomaly);
        let mut items: Vec<Item> = with_near(history, &bad)
            .into_iter()
            .map(|number| Item::of_operation(history, number, bad.contains_key(&number)))
            .collect();
        let observer = history.watches.iter().position(|watch| watch.observer);
        let watches: BTreeSet<usize> = anomaly.watch.into_iter().chain(anomaly.watch.and(observer)).collect();
        for number in watches {
            let Some(watch) = history.watches.get(number) else { continue };
            let notices = notices(watch, &bad).into_iter();
            items.extend(notices.map(|(seen, is_of_bad)| Item::of_notice(number, seen, is_of_bad)));
        }
        items.sort_by_key(|item| (item.begin, item.lane));
        let mut chart = Chart { history, items, times: Vec::new(), skips: Vec::new() };
        chart.lay_out();
        chart
    }

    /// Gives each begin and end its place: in order, a box never less wide than its words need.
    fn lay_out(&mut self) {
        let items = self.items.iter().enumerate();
        let mut points: Vec<(Nanos, usize, bool)> = items
            .flat_map(|(number, item)| {
                [(item.begin, number, true), (item.end.max(item.begin), number, false)]
            })
            .collect();
        points.sort_by_key(|&(time, ..)| time);
        let mut steps: Vec<Nanos> =
            points.windows(2).map(|pair| pair[1].0 - pair[0].0).filter(|&step| step > 0).collect();
        steps.sort_unstable();
        let usual = steps.get(steps.len() / 2).copied().unwrap_or(1) as f64;
        let mut x = GUTTER + 6.0;
        let mut before = points.first().map_or(0, |&(time, ..)| time);
        for (time, number, begins) in points {
            let step = time - before;
            let part = step as f64 / usual;
            if step > 0 {
                let from = x;
                x += (STEP * part).clamp(STEP_MIN, STEP_MAX);
                if part > SKIP {
                    self.skips.push((from, x, step));
                }
            }
            let item = &mut self.items[number];
            if begins {
                item.left = x;
            } else {
                x = x.max(item.left + BOX_WIDTH_MIN);
                item.right = x;
            }
            self.times.push((time, x));
            before = time;
        }
    }

    /// Where a time is, also one between those that are shown.
    fn x(&self, time: Nanos) -> f64 {
        let after = self.times.partition_point(|&(other, _)| other < time);
        match (after.checked_sub(1).map(|before| self.times[before]), self.times.get(after)) {
            (None, _) => GUTTER,
            (Some((_, x)), None) => x + BOX_WIDTH_MIN / 2.0,
            (Some((earlier, left)), Some(&(later, right))) => {
                left + (right - left) * (time - earlier) as f64 / (later - earlier).max(1) as f64
            }
        }
    }

    fn draw(&self) -> String {
        if self.items.is_empty() {
            return "<p>It names no operation to draw.</p>\n".to_owned();
        }
        let width = self.times.last().map_or(GUTTER, |&(_, x)| x) + BOX_WIDTH_MIN / 2.0;
        let lanes: BTreeSet<Lane> = self.items.iter().map(|item| item.lane).collect();
        let (faults, fault_rows) = self.faults();
        let rows = fault_rows + lanes.len();
        let height = AXIS + ROW * rows as f64;
        let mut html = format!(
            "<div class=\"chart\" tabindex=\"0\"><div class=\"area\" style=\"width:{width:.0}px;height:{height:.0}px\">\n"
        );
        self.axis(&mut html);
        for row in 0..fault_rows {
            let name = if row == 0 { "faults" } else { "" };
            html.push_str(&lane(
                row,
                name,
                faults.iter().filter(|fault| fault.0 == row).map(|fault| &fault.1),
            ));
        }
        for (_, _, left, right) in &faults {
            let top = AXIS + ROW * fault_rows as f64;
            let width = right - left;
            html.push_str(&format!(
                "<div class=\"band\" style=\"left:{left:.0}px;width:{width:.0}px;top:{top:.0}px\"></div>\n"
            ));
        }
        for (row, of) in lanes.into_iter().enumerate() {
            let name = match of {
                Lane::Client(number) => format!("client {number}"),
                Lane::Watch(number) if self.history.watches[number].observer => format!("{number}: observer"),
                Lane::Watch(number) => format!("watch {number}"),
            };
            let boxes: Vec<String> =
                self.items.iter().filter(|item| item.lane == of).map(Item::draw).collect();
            html.push_str(&lane(fault_rows + row, &name, boxes.iter()));
        }
        html + "</div></div>\n"
    }

    fn axis(&self, html: &mut String) {
        for (left, right, time) in &self.skips {
            let width = right - left;
            html.push_str(&format!(
                "<div class=\"skip\" style=\"left:{left:.0}px;width:{width:.0}px;top:{AXIS}px\" title=\"{}\"></div>\n",
                duration(*time)
            ));
        }
        let mut free = GUTTER;
        let mut before = None;
        for (time, x) in &self.times {
            // Where boxes need room, time stands still: it is told once.
            if *x >= free && before != Some(time) {
                html.push_str(&format!(
                    "<div class=\"tick\" style=\"left:{x:.0}px;top:2px\">{}</div>\n",
                    seconds(*time)
                ));
                free = x + TICK_EVERY;
            }
            before = Some(time);
        }
    }

    /// Of each fault within these times its row, its box, and from where to where it goes; and how many rows.
    fn faults(&self) -> (Vec<(usize, String, f64, f64)>, usize) {
        let begin = self.times.first().map_or(0, |&(time, _)| time);
        let end = self.times.last().map_or(0, |&(time, _)| time);
        let mut faults = Vec::new();
        let mut free: Vec<f64> = Vec::new();
        for fault in self.history.faults.iter().filter(|fault| fault.began <= end && fault.ended >= begin) {
            let left = self.x(fault.began);
            let right = self.x(fault.ended).max(left + 8.0);
            let row = free.iter().position(|&until| until <= left).unwrap_or_else(|| {
                free.push(0.0);
                free.len() - 1
            });
            free[row] = right;
            let text = format!("{} {}", fault.kind, fault.what);
            let detail = format!("{text}\nfrom {} to {}", seconds(fault.began), seconds(fault.ended));
            faults.push((row, draw_box("fault", left, right, &text, &detail), left, right));
        }
        (faults, free.len())
    }
}

fn lane<'a>(row: usize, name: &str, boxes: impl Iterator<Item = &'a String>) -> String {
    let top = AXIS + ROW * row as f64;
    let boxes: String = boxes.map(String::as_str).collect();
    format!(
        "<div class=\"lane\" style=\"top:{top:.0}px;height:{ROW}px\"><b>{}</b>\n{boxes}</div>\n",
        escape(name)
    )
}

fn draw_box(class: &str, left: f64, right: f64, text: &str, detail: &str) -> String {
    format!(
        "<button class=\"box {class}\" style=\"left:{left:.0}px;width:{:.0}px;top:3px\" data-detail=\"{}\">{}</button>\n",
        right - left - 2.0,
        escape(detail),
        escape(&shorten(text, 120))
    )
}

impl Item {
    fn of_operation(history: &History, number: usize, bad: bool) -> Item {
        let operation = &history.operations[number];
        let Operation { client, member, invoked, returned, action, outcome } = operation;
        let class = match outcome {
            Outcome::Done(_) => "done",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown(_) => "unknown",
        };
        let detail = format!(
            "operation {number}, client {client}, member {member}\nfrom {} to {} ({})\n{}\n{}",
            seconds(*invoked),
            seconds(*returned),
            duration(returned.saturating_sub(*invoked)),
            words::operation(operation),
            serde_json::json!({ "asked": action, "came": outcome })
        );
        Item {
            lane: Lane::Client(*client),
            begin: *invoked,
            end: *returned,
            class: format!("{class}{}", if bad { " bad" } else { "" }),
            text: words::operation(operation),
            detail: shorten(&detail, DETAIL_MAX),
            left: 0.0,
            right: 0.0,
        }
    }

    fn of_notice(watch: usize, seen: &Seen, bad: bool) -> Item {
        let text = words::notice(seen.revision, &seen.what);
        let detail = format!(
            "watch {watch}, from member {} at {}, header {}\n{text}\n{}",
            seen.member,
            seconds(seen.at),
            seen.revision,
            serde_json::json!(seen.what)
        );
        Item {
            lane: Lane::Watch(watch),
            begin: seen.at,
            end: seen.at,
            class: format!("seen{}", if bad { " bad" } else { "" }),
            text,
            detail: shorten(&detail, DETAIL_MAX),
            left: 0.0,
            right: 0.0,
        }
    }

    fn draw(&self) -> String {
        draw_box(&self.class, self.left, self.right, &self.text, &self.detail)
    }
}

/// Some operations, and those near them that touch the same.
fn with_near(history: &History, bad: &BTreeMap<usize, &Operation>) -> BTreeSet<usize> {
    let all = &history.operations;
    let touched: Vec<Keys> = bad.values().flat_map(|operation| touches(&operation.action)).collect();
    let shares = |number: &usize| {
        let theirs = touches(&all[*number].action);
        touched.is_empty() || theirs.iter().any(|one| touched.iter().any(|other| overlap(one, other)))
    };
    let mut near: BTreeSet<usize> = bad.keys().copied().collect();
    for (&number, operation) in bad {
        let before = number.saturating_sub(NEAR_WITHIN)..number;
        let beside = |number: &usize| all[*number].returned >= operation.invoked;
        near.extend(before.clone().rev().filter(shares).take(NEAR));
        near.extend(before.rev().filter(beside).filter(shares).take(NEAR));
        let after = number + 1..(number + NEAR_WITHIN).min(all.len());
        near.extend(after.filter(shares).take(NEAR));
    }
    near
}

/// What of a watch is of some operations or near them, and whether it is of them.
fn notices<'a>(watch: &'a Watch, bad: &BTreeMap<usize, &Operation>) -> Vec<(&'a Seen, bool)> {
    let revisions: BTreeSet<i64> = bad
        .values()
        .filter_map(|operation| match &operation.outcome {
            Outcome::Done(Answer { revision, .. }) => Some(*revision),
            _ => None,
        })
        .collect();
    let is_of = |seen: &Seen| match &seen.what {
        Notice::Events(events) => events.iter().any(|event| revisions.contains(&event.pair.modified)),
        _ => false,
    };
    let of = watch.seen.iter().enumerate().filter(|(_, seen)| is_of(seen)).map(|(place, _)| place);
    // What never came would have come about when its writer was answered.
    let due = bad.values().map(|operation| watch.seen.partition_point(|seen| seen.at < operation.returned));
    let mut middles: Vec<usize> = of.chain(due).collect();
    if middles.is_empty() {
        middles.push(watch.seen.len());
    }
    let near =
        |place: usize| place.saturating_sub(NOTICES_NEAR)..(place + NOTICES_NEAR + 1).min(watch.seen.len());
    let places: BTreeSet<usize> = middles.into_iter().flat_map(near).collect();
    places
        .into_iter()
        .take(NOTICES_MAX)
        .map(|place| (&watch.seen[place], is_of(&watch.seen[place])))
        .collect()
}

/// The keys that a request reads or writes, and its lease as if it were one.
fn touches(action: &Action) -> Vec<Keys> {
    let lease = |id: i64| Keys { key: format!("\u{1}lease {id}"), end: String::new() };
    let put = |put: &crate::history::Put| {
        let keys = Keys { key: put.key.clone(), end: String::new() };
        std::iter::once(keys).chain((put.lease != 0).then(|| lease(put.lease)))
    };
    match action {
        Action::Range(range) => vec![range.keys.clone()],
        Action::Put(one) => put(one).collect(),
        Action::Delete(delete) => vec![delete.keys.clone()],
        Action::Txn(txn) => {
            let mut keys: Vec<Keys> = Vec::new();
            for compare in &txn.compares {
                keys.push(Keys { key: compare.key.clone(), end: String::new() });
            }
            for request in txn.then.iter().chain(&txn.otherwise) {
                match request {
                    Request::Range(range) => keys.push(range.keys.clone()),
                    Request::Put(one) => keys.extend(put(one)),
                    Request::Delete(delete) => keys.push(delete.keys.clone()),
                }
            }
            keys
        }
        Action::Compact { .. } => Vec::new(),
        Action::LeaseGrant { id, .. }
        | Action::LeaseRevoke { id }
        | Action::LeaseKeepAlive { id }
        | Action::LeaseTimeToLive { id } => vec![lease(*id)],
    }
}

fn overlap(one: &Keys, other: &Keys) -> bool {
    let begins_within = |key: &str, keys: &Keys| match keys.end.as_str() {
        "" => key <= keys.key.as_str(),
        "\0" => true,
        end => key < end,
    };
    begins_within(&one.key, other) && begins_within(&other.key, one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// Tags that are opened and closed, in their order.
    fn check_nesting(html: &str) {
        let (mut open, mut rest) = (Vec::new(), html);
        while let Some((_, after)) = rest.split_once('<') {
            let (tag, after) = after.split_once('>').expect("every tag ends");
            rest = after;
            let name = tag.split([' ', '\n']).next().unwrap();
            match name.strip_prefix('/') {
                Some(closed) => {
                    while matches!(open.last(), Some(&("td" | "th"))) {
                        open.pop();
                    }
                    assert_eq!(open.pop(), Some(closed), "{tag}");
                }
                None if matches!(name, "!doctype" | "meta") => {}
                None if matches!(name, "script" | "style") => {
                    rest = rest.split_once(&format!("</{name}>")).expect("it is closed").1;
                }
                None if matches!(open.last(), Some(&("td" | "th"))) && matches!(name, "td" | "th") => {}
                None => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn a_page_is_whole_and_takes_nothing_from_elsewhere() {
        let html = page(&sample::history(), &sample::anomalies());
        check_nesting(&html);
        for outside in ["http:", "https:", "url(", "src=", "@import", "<link"] {
            assert!(!html.contains(outside), "{outside}");
        }
        // What operations hold is only text.
        assert!(html.contains("put k&lt;2&gt;&amp;&quot;&#39; = &lt;v32&gt;"), "{html}");
        assert_eq!(html.matches("</script").count(), 1);
        assert!(!html.contains("<v3"));
    }

    #[test]
    fn an_anomaly_is_explained_drawn_and_told() {
        let html = page(&sample::history(), &sample::anomalies());
        let gap = html.split("<section").nth(1).unwrap();
        assert!(gap.contains("watch-gap <small>watch</small>"), "{gap}");
        assert!(gap.contains("revision 34 of &quot;k&lt;2&gt;&amp;&quot; never came"), "{gap}");
        assert_eq!(gap.matches("class=\"box done bad\"").count(), 1, "{gap}");
        for lane in ["<b>faults</b>", "<b>0: observer</b>", "<b>watch 1</b>", "<b>client 2</b>"] {
            assert!(gap.contains(lane), "{lane} {gap}");
        }
        assert!(gap.contains("kill leader, 2"), "{gap}");
        assert!(gap.contains("<tr><td>32<td>2<td>2<td>4.874000 s<td>600 ms<td>put "), "{gap}");
        let stale = html.split("<section").nth(2).unwrap();
        assert_eq!(stale.matches(" bad\"").count(), 3, "{stale}");
        assert!(stale.contains("box unknown bad"), "{stale}");
    }

    #[test]
    fn boxes_of_a_lane_and_ticks_do_not_overlap() {
        let history = sample::history();
        let everything = Anomaly { operations: (0..120).collect(), watch: Some(1), ..Anomaly::default() };
        let chart = Chart::new(&history, &everything);
        assert!(chart.items.len() > 60);
        let mut ends: BTreeMap<Lane, f64> = BTreeMap::new();
        for item in &chart.items {
            assert!(item.right - item.left > BOX_WIDTH_MIN - 0.1);
            let end = ends.entry(item.lane).or_default();
            assert!(item.left > *end - 0.1, "{:?} {}", item.lane, item.text);
            *end = item.right;
        }
        assert!(chart.times.is_sorted_by(|one, other| one.0 <= other.0 && one.1 <= other.1));
        let (faults, rows) = chart.faults();
        assert_eq!((faults.len(), rows), (2, 2));
    }

    #[test]
    fn time_without_anything_is_cut_short() {
        let mut history = sample::history();
        history.operations.last_mut().unwrap().invoked += 3_600_000_000_000;
        history.operations.last_mut().unwrap().returned += 3_600_000_000_000;
        let anomaly = Anomaly { operations: vec![118, 119], ..Anomaly::default() };
        let chart = Chart::new(&history, &anomaly);
        assert!(chart.skips.iter().any(|skip| skip.2 > 3_500_000_000_000), "{:?}", chart.skips);
        assert!(chart.times.last().unwrap().1 < 5_000.0);
    }

    #[test]
    fn an_anomaly_without_operations_has_its_words() {
        let anomaly = Anomaly { explanation: "hashes differ".to_owned(), ..Anomaly::default() };
        let html = page(&sample::history(), &vec![anomaly; 30]);
        check_nesting(&html);
        assert_eq!(html.matches("hashes differ").count(), 30);
        assert_eq!(html.matches("names no operation").count(), DRAWN_MAX);
    }

    #[test]
    fn keys_overlap_where_they_share_one() {
        let keys = |key: &str, end: &str| Keys { key: key.to_owned(), end: end.to_owned() };
        assert!(overlap(&keys("a", ""), &keys("a", "")));
        assert!(!overlap(&keys("a", ""), &keys("b", "")));
        assert!(overlap(&keys("b", ""), &keys("a", "c")));
        assert!(!overlap(&keys("c", ""), &keys("a", "c")));
        assert!(overlap(&keys("x", ""), &keys("a", "\0")));
        assert!(overlap(&keys("a", "c"), &keys("b", "d")));
        assert!(!overlap(&keys("a", "b"), &keys("b", "d")));
    }
}
