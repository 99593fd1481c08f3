//! Who came before whom, and the cycles in it.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::{Transaction, Versions};
use crate::check::Check;
use crate::history::Nanos;

/// Why one came before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    Ww,
    Wr,
    Rw,
    Process,
    Realtime,
}

/// A step: to whom, why, and by which key and element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    pub to: usize,
    pub why: Why,
    pub told: Option<(String, i64)>,
}

/// Transactions that happened, and the steps between them.
pub struct Graph {
    pub edges: Vec<Vec<Edge>>,
}

impl Graph {
    pub fn of(transactions: &[Transaction], versions: &Versions) -> Self {
        let mut graph = Self { edges: vec![Vec::new(); transactions.len()] };
        for (key, list) in versions.order() {
            for pair in list.windows(2) {
                if let (Some(one), Some(other)) =
                    (versions.writer(key, pair[0]), versions.writer(key, pair[1]))
                {
                    graph.add(one, other, Why::Ww, Some((key.clone(), pair[1])));
                }
            }
        }
        for (at, transaction) in transactions.iter().enumerate() {
            for (key, list) in &transaction.reads {
                let last = list.last().copied();
                if let Some(writer) = last.and_then(|last| versions.writer(key, last)) {
                    graph.add(writer, at, Why::Wr, Some((key.clone(), last.unwrap_or(0))));
                }
                if let Some(next) = versions.after(key, last)
                    && let Some(writer) = versions.writer(key, next)
                {
                    graph.add(at, writer, Why::Rw, Some((key.clone(), next)));
                }
            }
        }
        graph.add_process(transactions);
        graph.add_realtime(transactions);
        graph
    }

    fn add(&mut self, from: usize, to: usize, why: Why, told: Option<(String, i64)>) {
        if from != to {
            self.edges[from].push(Edge { to, why, told });
        }
    }

    fn add_process(&mut self, transactions: &[Transaction]) {
        let mut last: HashMap<u32, usize> = HashMap::new();
        for (at, transaction) in
            transactions.iter().enumerate().filter(|(_, transaction)| happened(transaction))
        {
            if let Some(before) = last.remove(&transaction.client) {
                self.add(before, at, Why::Process, None);
            }
            if transaction.committed {
                last.insert(transaction.client, at);
            }
        }
    }

    /// From each to those asked after it was answered, left out where others between say the same.
    fn add_realtime(&mut self, transactions: &[Transaction]) {
        let mut order: Vec<usize> =
            (0..transactions.len()).filter(|at| happened(&transactions[*at])).collect();
        order.sort_by_key(|at| transactions[*at].invoked);
        let mut returns: BTreeSet<(Nanos, usize)> = BTreeSet::new();
        let mut frontier: Vec<usize> = Vec::new();
        for at in order {
            let asked = transactions[at].invoked;
            while let Some((_, done)) = returns.first().copied().filter(|(returned, _)| *returned < asked) {
                returns.pop_first();
                frontier.retain(|before| transactions[*before].returned >= transactions[done].invoked);
                frontier.push(done);
            }
            for before in &frontier {
                self.edges[*before].push(Edge { to: at, why: Why::Realtime, told: None });
            }
            if transactions[at].committed {
                returns.insert((transactions[at].returned, at));
            }
        }
    }
}

fn happened(transaction: &Transaction) -> bool {
    transaction.timed && !transaction.aborted
}

const LAYERS: [(&str, &[Why]); 3] =
    [("", &[]), ("-process", &[Why::Process]), ("-realtime", &[Why::Process, Why::Realtime])];

/// Looks for cycles, first without time, then with it. A group of transactions that has one is not
/// looked at again, so each name is the plainest that fits.
pub fn check(graph: &Graph, transactions: &[Transaction], check: &mut Check) {
    let steps: usize = graph.edges.iter().map(Vec::len).sum();
    check.look("steps between transactions", steps);
    let mut told: HashSet<usize> = HashSet::new();
    for (suffix, time) in LAYERS {
        let allowed = |why: Why| matches!(why, Why::Ww | Why::Wr | Why::Rw) || time.contains(&why);
        for group in groups(graph, &allowed) {
            if group.iter().any(|at| told.contains(at)) {
                continue;
            }
            if let Some((name, cycle)) = worst(graph, &group, time) {
                told.extend(&group);
                let operations = cycle.iter().map(|(from, _)| transactions[*from].index).collect();
                check.add(&format!("{name}{suffix}"), operations, || explain(&cycle, transactions));
            }
        }
    }
}

/// Steps, each with where it goes from, that end where they began.
type Cycle<'a> = Vec<(usize, &'a Edge)>;

/// The cycle of a group with the least that explains it: writes alone, then reads, then one
/// overtaken read, then more.
fn worst<'a>(graph: &'a Graph, group: &[usize], time: &[Why]) -> Option<(&'static str, Cycle<'a>)> {
    let members: HashSet<usize> = group.iter().copied().collect();
    let with = |base: &[Why], edge: &Edge| {
        members.contains(&edge.to) && (base.contains(&edge.why) || time.contains(&edge.why))
    };
    let writes: &[Why] = &[Why::Ww];
    let reads: &[Why] = &[Why::Ww, Why::Wr];
    let all: &[Why] = &[Why::Ww, Why::Wr, Why::Rw];
    let plans = [
        ("G0", Why::Ww, writes),
        ("G1c", Why::Wr, reads),
        ("G-single", Why::Rw, reads),
        ("G2-item", Why::Rw, all),
    ];
    for (name, first, rest) in plans {
        let mut tries = 0;
        for from in group {
            for edge in
                graph.edges[*from].iter().filter(|edge| edge.why == first && members.contains(&edge.to))
            {
                tries += 1;
                if tries > TRIES_MAX {
                    break;
                }
                if let Some(mut path) = path(graph, edge.to, *from, |step| with(rest, step)) {
                    path.insert(0, (*from, edge));
                    return Some((name, path));
                }
            }
        }
    }
    None
}

/// How many first steps are tried for a cycle in one group.
const TRIES_MAX: usize = 2_000;

/// The shortest way from one to another.
fn path(graph: &Graph, from: usize, to: usize, allowed: impl Fn(&Edge) -> bool) -> Option<Cycle<'_>> {
    let mut came: HashMap<usize, (usize, &Edge)> = HashMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(at) = queue.pop_front() {
        if at == to {
            let mut path = Vec::new();
            let mut at = to;
            while at != from {
                let (before, edge) = came[&at];
                path.push((before, edge));
                at = before;
            }
            path.reverse();
            return Some(path);
        }
        for edge in graph.edges[at].iter().filter(|edge| allowed(edge)) {
            if edge.to != from && !came.contains_key(&edge.to) {
                came.insert(edge.to, (at, edge));
                queue.push_back(edge.to);
            }
        }
    }
    None
}

/// Transactions that can all be reached from one another (Tarjan's strongly connected components),
/// where there is more than one.
fn groups(graph: &Graph, allowed: &impl Fn(Why) -> bool) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let many = graph.edges.len();
    let (mut number, mut low) = (vec![NEW; many], vec![NEW; many]);
    let mut open = vec![false; many];
    let (mut pile, mut found, mut count) = (Vec::new(), Vec::new(), 0);
    for root in 0..many {
        if number[root] != NEW {
            continue;
        }
        let mut calls = vec![(root, 0)];
        while let Some((at, next)) = calls.pop() {
            if next == 0 {
                (number[at], low[at]) = (count, count);
                count += 1;
                open[at] = true;
                pile.push(at);
            } else {
                let child = graph.edges[at][next - 1].to;
                if allowed(graph.edges[at][next - 1].why) && open[child] {
                    low[at] = low[at].min(low[child]);
                }
            }
            let rest = graph.edges[at].iter().enumerate().skip(next);
            let mut step = rest.filter(|(_, edge)| allowed(edge.why));
            let unseen = step.find(|(_, edge)| {
                if number[edge.to] != NEW && open[edge.to] {
                    low[at] = low[at].min(number[edge.to]);
                }
                number[edge.to] == NEW
            });
            if let Some((place, edge)) = unseen {
                calls.push((at, place + 1));
                calls.push((edge.to, 0));
                continue;
            }
            if low[at] == number[at] {
                let from = pile.iter().rposition(|other| *other == at).unwrap_or(0);
                let group = pile.split_off(from);
                group.iter().for_each(|member| open[*member] = false);
                if group.len() > 1 {
                    found.push(group);
                }
            }
        }
    }
    found
}

fn explain(cycle: &Cycle<'_>, transactions: &[Transaction]) -> String {
    let steps: Vec<_> = cycle
        .iter()
        .map(|(from, edge)| {
            let (one, other) = (transactions[*from].index, transactions[edge.to].index);
            match (edge.why, &edge.told) {
                (Why::Ww, Some((key, element))) => {
                    format!("{one} appended to {key} right before {other} appended {element} (ww)")
                }
                (Why::Wr, Some((key, element))) => {
                    format!("{one} appended {element} to {key}, which {other} read (wr)")
                }
                (Why::Rw, Some((key, element))) => {
                    format!("{one} read {key} without {element}, which {other} appended next (rw)")
                }
                (Why::Process, _) => format!("{one} was done before {other} by the same client (process)"),
                _ => format!("{one} was answered before {other} was asked (realtime)"),
            }
        })
        .collect();
    format!("A cycle of operations: {}.", steps.join("; "))
}
