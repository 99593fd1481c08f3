//! Transactions on lists, out of what clients asked and heard.

use std::collections::HashMap;

use crate::history::{
    Action, Body, History, Nanos, Operand, Operation, Outcome, Pair, Relation, Request, Txn,
};

/// Elements in their order.
pub type List = Vec<i64>;

/// A list that was put back longer.
#[derive(Debug, Clone)]
pub struct Append {
    /// Whose.
    pub key: String,
    /// As it was put.
    pub list: List,
    /// As it was before, where a compare tells.
    pub base: Option<List>,
}

impl Append {
    /// What was appended: all after the base, or only the last.
    pub fn elements(&self) -> &[i64] {
        let from = match &self.base {
            Some(base) if self.list.starts_with(base) => base.len(),
            _ => self.list.len().saturating_sub(1),
        };
        &self.list[from..]
    }
}

/// An operation as a transaction on lists.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// The operation.
    pub index: usize,
    /// Its client.
    pub client: u32,
    /// When it was asked.
    pub invoked: Nanos,
    /// When it was answered.
    pub returned: Nanos,
    /// What it read of others' work, by its answer or by compares that held.
    pub reads: Vec<(String, List)>,
    /// What it would have appended.
    pub appends: Vec<Append>,
    /// Whether it was answered, and did that.
    pub committed: bool,
    /// Whether it certainly did not append.
    pub aborted: bool,
    /// Whether its place in time is known: a serializable read may be of an old state.
    pub timed: bool,
    /// Reads that contradict its own requests before: key, what it should have been, what it was.
    pub internal: Vec<(String, List, List)>,
}

impl Transaction {
    /// Lists that certainly were, as read or as put.
    pub fn lists(&self) -> impl Iterator<Item = (&str, &List)> {
        let appends = self.appends.iter().filter(|_| self.committed);
        let reads = self.reads.iter().map(|(key, list)| (key.as_str(), list));
        reads.chain(appends.map(|append| (append.key.as_str(), &append.list)))
    }
}

/// A list for people, its middle left out where it is long.
pub fn tell(list: &[i64]) -> String {
    let words = |part: &[i64]| part.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
    match list.len() {
        0..=12 => format!("[{}]", words(list)),
        many => format!("[{} … {}]", words(&list[..3]), words(&list[many - 6..])),
    }
}

/// All of a history.
pub fn of(history: &History) -> Vec<Transaction> {
    let names = Names::of(history);
    let all = history.operations.iter().enumerate();
    all.flat_map(|(index, operation)| transactions(index, operation, &names)).collect()
}

/// A value as a list.
fn parse(value: &str) -> Option<List> {
    let elements = value.split(',').filter(|element| !element.is_empty());
    elements.map(|element| element.trim().parse().ok()).collect()
}

/// Which list a key had at the revision of a change.
struct Names(HashMap<(String, i64), List>);

impl Names {
    fn of(history: &History) -> Self {
        let mut names = Self(HashMap::new());
        for operation in &history.operations {
            let Outcome::Done(answer) = &operation.outcome else { continue };
            match (&operation.action, &answer.body) {
                (Action::Put(put), _) => names.add(&put.key, answer.revision, &put.value),
                (Action::Txn(txn), Body::Txn { succeeded, answers }) => {
                    answers.iter().for_each(|body| names.visit(body));
                    for request in branch(txn, *succeeded) {
                        if let Request::Put(put) = request {
                            names.add(&put.key, answer.revision, &put.value);
                        }
                    }
                }
                (_, body) => names.visit(body),
            }
        }
        names
    }

    fn visit(&mut self, body: &Body) {
        let pairs = match body {
            Body::Range { pairs, .. } => pairs.as_slice(),
            Body::Put { previous } => previous.as_slice(),
            _ => &[],
        };
        for Pair { key, modified, value, .. } in pairs {
            self.add(key, *modified, value);
        }
    }

    fn add(&mut self, key: &str, revision: i64, value: &str) {
        if let std::collections::hash_map::Entry::Vacant(free) = self.0.entry((key.to_string(), revision))
            && let Some(list) = parse(value)
        {
            free.insert(list);
        }
    }

    /// What a compare that holds says of its key's list.
    fn read(&self, relation: Relation, key: &str, operand: &Operand) -> Option<List> {
        match (relation, operand) {
            (Relation::Equal, Operand::Modified(0) | Operand::Created(0) | Operand::Version(0)) => {
                Some(List::new())
            }
            (Relation::Equal, Operand::Modified(revision)) => {
                self.0.get(&(key.to_string(), *revision)).cloned()
            }
            (Relation::Equal, Operand::Value(value)) => parse(value),
            _ => None,
        }
    }
}

fn branch(txn: &Txn, succeeded: bool) -> &[Request] {
    if succeeded { &txn.then } else { &txn.otherwise }
}

/// An operation is one, or two: where compares failed, what the other list would have appended must
/// never be seen, and what was read instead is a transaction of its own.
fn transactions(index: usize, operation: &Operation, names: &Names) -> Vec<Transaction> {
    let (txn, timed) = match &operation.action {
        Action::Range(range) if range.revision != 0 || range.limit != 0 => return Vec::new(),
        Action::Range(range) => (alone(Request::Range(range.clone())), !range.serializable),
        Action::Put(put) => (alone(Request::Put(put.clone())), true),
        Action::Txn(txn) => (txn.clone(), true),
        _ => return Vec::new(),
    };
    let new = || Transaction {
        index,
        client: operation.client,
        invoked: operation.invoked,
        returned: operation.returned,
        reads: Vec::new(),
        appends: Vec::new(),
        committed: false,
        aborted: false,
        timed,
        internal: Vec::new(),
    };
    let bases: HashMap<&str, List> = txn
        .compares
        .iter()
        .filter_map(|compare| {
            let list = names.read(compare.relation, &compare.key, &compare.operand)?;
            Some((compare.key.as_str(), list))
        })
        .collect();
    let mut made = new();
    let Outcome::Done(answer) = &operation.outcome else {
        made.aborted = matches!(operation.outcome, Outcome::Refused(_));
        add_appends(&mut made, &txn.then, &bases);
        return if made.appends.is_empty() { Vec::new() } else { vec![made] };
    };
    let (succeeded, bodies) = match &answer.body {
        Body::Txn { succeeded, answers } => (*succeeded, answers.as_slice()),
        body => (true, std::slice::from_ref(body)),
    };
    made.committed = true;
    if succeeded {
        made.reads.extend(bases.iter().map(|(key, list)| (key.to_string(), list.clone())));
        add_appends(&mut made, &txn.then, &bases);
        add_reads(&mut made, &txn.then, bodies, bases);
        made.reads.sort();
        return vec![made];
    }
    let mut aborted = Transaction { aborted: true, ..new() };
    add_appends(&mut aborted, &txn.then, &bases);
    add_appends(&mut made, &txn.otherwise, &HashMap::new());
    add_reads(&mut made, &txn.otherwise, bodies, HashMap::new());
    vec![made, aborted]
}

fn alone(request: Request) -> Txn {
    Txn { then: vec![request], ..Txn::default() }
}

fn add_appends(made: &mut Transaction, requests: &[Request], bases: &HashMap<&str, List>) {
    for request in requests {
        if let Request::Put(put) = request
            && let Some(list) = parse(&put.value)
        {
            let base = bases.get(put.key.as_str()).cloned();
            made.appends.push(Append { key: put.key.clone(), list, base });
        }
    }
}

/// Reads of what was there before; others, after an own write or a compare, must agree with that.
fn add_reads<'a>(
    made: &mut Transaction,
    requests: &'a [Request],
    bodies: &'a [Body],
    mut known: HashMap<&'a str, List>,
) {
    for (request, body) in requests.iter().zip(bodies) {
        let found: Vec<(&str, Option<&Pair>)> = match (request, body) {
            (Request::Range(range), Body::Range { pairs, more: false, .. }) if range.revision == 0 => {
                if range.keys.end.is_empty() {
                    vec![(&range.keys.key, pairs.first())]
                } else {
                    pairs.iter().map(|pair| (pair.key.as_str(), Some(pair))).collect()
                }
            }
            (Request::Put(put), Body::Put { previous }) if put.previous => {
                vec![(&put.key, previous.as_ref())]
            }
            _ => Vec::new(),
        };
        for (key, pair) in found {
            let Some(list) = pair.map_or(Some(List::new()), |pair| parse(&pair.value)) else { continue };
            match known.get(key) {
                Some(expected) if *expected != list => {
                    made.internal.push((key.to_string(), expected.clone(), list));
                }
                Some(_) => {}
                None => {
                    made.reads.push((key.to_string(), list.clone()));
                    known.insert(key, list);
                }
            }
        }
        if let Request::Put(put) = request
            && let Some(list) = parse(&put.value)
        {
            known.insert(&put.key, list);
        }
    }
}
