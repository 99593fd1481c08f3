//! The search for an order that fits.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::project::{Entry, Guard, Part, Value};
use crate::history::Nanos;

/// What a search says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is an order that fits.
    Linearizable,
    /// There is none.
    Not {
        /// The operations of which none can come next in the longest order that fits.
        stuck: Vec<usize>,
        /// The state there.
        state: Value,
    },
    /// It took too many steps.
    Undecided,
}

/// Searches an order for one key.
pub fn search(part: &Part, steps_max: u64) -> Outcome {
    let mut search = Search::new(part);
    let mut stack: Vec<Frame> = Vec::new();
    let (mut state, mut steps) = (0, 0);
    let mut done = 0;
    let mut deepest = (0, Vec::new(), 0);
    let mut choices = search.choices(state);
    loop {
        if done == part.answered.len() {
            return Outcome::Linearizable;
        }
        let Some(choice) = choices.pop() else {
            if stack.is_empty() || done > deepest.0 {
                let stuck = search.open().map(|at| part.answered[at].index).take(12).collect();
                if done >= deepest.0 {
                    deepest = (done, stuck, state);
                }
            }
            let Some(frame) = stack.pop() else {
                return match search.cut {
                    true => Outcome::Undecided,
                    false => Outcome::Not { stuck: deepest.1, state: deepest.2 },
                };
            };
            search.undo(&frame.choice);
            (state, choices) = (frame.state, frame.choices);
            done -= 1;
            continue;
        };
        steps += 1;
        if steps > steps_max {
            return Outcome::Undecided;
        }
        search.apply(&choice);
        if !search.met.insert((search.hash, choice.after)) {
            search.undo(&choice);
            continue;
        }
        done += 1;
        let after = choice.after;
        stack.push(Frame { state, choices: std::mem::take(&mut choices), choice });
        state = after;
        choices = search.choices(state);
    }
}

/// An operation that comes next, after some without an answer.
#[derive(Debug, Clone)]
struct Choice {
    entry: usize,
    unheard: Vec<usize>,
    after: Value,
}

/// How a search for a state that fits got to where it is.
struct Way<'a> {
    state: Value,
    until: Nanos,
    /// What is to be reached, the last of them next.
    goals: Vec<&'a Guard>,
    /// The operations by which.
    chain: Vec<usize>,
    looks: usize,
    cut: bool,
}

struct Frame {
    state: Value,
    choices: Vec<Choice>,
    choice: Choice,
}

struct Search<'a> {
    part: &'a Part,
    /// The answered operations that are not done yet, linked in order of invocation.
    next: Vec<usize>,
    previous: Vec<usize>,
    used: Vec<bool>,
    /// Operations without an answer by the value they would leave.
    producers: HashMap<Value, Vec<usize>>,
    /// A random number for each operation; those done, all xored.
    numbers: Vec<u128>,
    hash: u128,
    met: HashSet<(u128, Value)>,
    /// Something that might have fitted was not looked at.
    cut: bool,
}

/// How many operations without an answer may be used one right after another.
const CHAIN_MAX: usize = 8;
/// How many of them are looked at for one answered operation.
const LOOKS_MAX: usize = 20_000;

impl<'a> Search<'a> {
    fn new(part: &'a Part) -> Self {
        let many = part.answered.len();
        let mut random = StdRng::seed_from_u64(0);
        let mut producers: HashMap<Value, Vec<usize>> = HashMap::new();
        for (at, entry) in part.unheard.iter().enumerate() {
            for value in entry.effects.iter().filter_map(|effect| effect.set) {
                producers.entry(value).or_default().push(at);
                if part.leased.contains(&value) {
                    producers.entry(0).or_default().push(at);
                }
            }
        }
        Self {
            part,
            // The last place is the head of the ring.
            next: (0..=many).map(|at| if at == many { 0 } else { at + 1 }).collect(),
            previous: (0..=many).map(|at| if at == 0 { many } else { at - 1 }).collect(),
            used: vec![false; part.unheard.len()],
            producers,
            numbers: (0..many + part.unheard.len()).map(|_| random.random()).collect(),
            hash: 0,
            met: HashSet::new(),
            cut: false,
        }
    }

    /// Operations that may come next: none that is not done was answered before they were asked.
    fn open(&self) -> impl Iterator<Item = usize> {
        let head = self.part.answered.len();
        let (mut at, mut first_returned) = (head, Nanos::MAX);
        std::iter::from_fn(move || {
            at = self.next[at];
            let entry = self.part.answered.get(at).filter(|entry| entry.invoked <= first_returned)?;
            first_returned = first_returned.min(entry.returned);
            Some(at)
        })
    }

    /// What may come next, the best last.
    fn choices(&mut self, state: Value) -> Vec<Choice> {
        let open: Vec<usize> = self.open().collect();
        let mut choices = Vec::new();
        let until = open.iter().map(|at| self.part.answered[*at].returned).min().unwrap_or(Nanos::MAX);
        for entry in open {
            let part = self.part;
            let effect = &part.answered[entry].effects[0];
            if part.fits(&effect.guard, state) {
                let after = effect.set.unwrap_or(state);
                let choice = Choice { entry, unheard: Vec::new(), after };
                // It only looks, whenever it comes.
                if effect.set.is_none() || (after == state && exact(&effect.guard) == Some(state)) {
                    return vec![choice];
                }
                choices.push(choice);
                continue;
            }
            let mut way = Way { state, until, goals: Vec::new(), chain: Vec::new(), looks: 0, cut: false };
            let reached = self.reach(&effect.guard, &mut way);
            self.cut |= way.cut;
            for (before, unheard) in reached {
                choices.push(Choice { entry, unheard, after: effect.set.unwrap_or(before) });
            }
        }
        let rank = |choice: &Choice| {
            let Entry { revision, returned, .. } = self.part.answered[choice.entry];
            (revision, choice.unheard.len(), returned)
        };
        choices.sort_by_key(|choice| Reverse(rank(choice)));
        choices
    }

    /// States that fit, by what may have happened unheard: operations, or the end of a lease.
    fn reach(&self, guard: &'a Guard, way: &mut Way<'a>) -> Vec<(Value, Vec<usize>)> {
        let mut found = Vec::new();
        let fits = |value| self.part.fits(guard, value);
        let leased = |value| self.part.leased.contains(&value);
        if leased(way.state) && fits(0) {
            found.push((0, Vec::new()));
        }
        let all;
        let producers: &[usize] = match exact(guard) {
            Some(value) => self.producers.get(&value).map_or(&[], Vec::as_slice),
            None => {
                all = (0..self.part.unheard.len()).collect::<Vec<_>>();
                &all
            }
        };
        way.goals.push(guard);
        for at in producers {
            let entry = &self.part.unheard[*at];
            if self.used[*at] || way.chain.contains(at) || entry.invoked > way.until {
                continue;
            }
            for effect in &entry.effects {
                let Some(value) = effect.set else { continue };
                let ends = if fits(value) {
                    value
                } else if leased(value) && fits(0) {
                    0
                } else {
                    continue;
                };
                way.looks += 1;
                if self.part.fits(&effect.guard, way.state) {
                    found.push((ends, vec![*at]));
                    continue;
                }
                // What leads there by way of there is a detour.
                if way.goals.contains(&&effect.guard) {
                    continue;
                }
                if way.chain.len() == CHAIN_MAX - 1 || way.looks > LOOKS_MAX {
                    way.cut = true;
                    continue;
                }
                way.chain.push(*at);
                for (_, mut before) in self.reach(&effect.guard, way) {
                    before.push(*at);
                    found.push((ends, before));
                }
                way.chain.pop();
            }
        }
        way.goals.pop();
        found
    }

    fn apply(&mut self, choice: &Choice) {
        let (before, after) = (self.previous[choice.entry], self.next[choice.entry]);
        self.next[before] = after;
        self.previous[after] = before;
        self.flip(choice, true);
    }

    fn undo(&mut self, choice: &Choice) {
        let (before, after) = (self.previous[choice.entry], self.next[choice.entry]);
        self.next[before] = choice.entry;
        self.previous[after] = choice.entry;
        self.flip(choice, false);
    }

    fn flip(&mut self, choice: &Choice, used: bool) {
        self.hash ^= self.numbers[choice.entry];
        for at in &choice.unheard {
            self.used[*at] = used;
            self.hash ^= self.numbers[self.part.answered.len() + at];
        }
    }
}

/// The only value that fits, where that is plain.
fn exact(guard: &Guard) -> Option<Value> {
    match guard {
        Guard::Is(value) => Some(*value),
        Guard::Stands(crate::history::Relation::Equal, value) => Some(*value),
        Guard::All(guards) => guards.iter().find_map(exact),
        Guard::Not(_) | Guard::Stands(..) | Guard::NotAll(_) => None,
    }
}
