//! Our checkers against porcupine, on the same histories: of a correct store,
//! and of the same with some answers changed.
//!
//! Needs Go and its module proxy, and says so where they are missing.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jepsen::check::timeline::Timeline;
use jepsen::check::{linearizable, wgl};
use jepsen::generate::{Plan, Workload, history};
use jepsen::history::{Answer, Body, History, Operation, Outcome};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Verdict {
    keys: BTreeMap<String, String>,
    model: String,
}

struct Porcupine {
    program: PathBuf,
    _directory: tempfile::TempDir,
}

impl Porcupine {
    fn build() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let program = directory.path().join("porcupine");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("porcupine");
        let built =
            Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(source).output();
        let why = match built {
            Ok(output) if output.status.success() => return Some(Self { program, _directory: directory }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        eprintln!("SKIPPED: porcupine cannot be built here: {why}");
        None
    }

    fn ask(&self, history: &History) -> Verdict {
        let mut child = Command::new(&self.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("what was built runs");
        let text = serde_json::to_vec(history).expect("a history has a JSON form");
        child.stdin.take().expect("it was piped").write_all(&text).expect("it reads all");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).expect("a verdict")
    }
}

/// Changes one answer; whether what comes out is still right is for the checkers to say.
fn change(history: &mut History, random: &mut StdRng) {
    let values: Vec<String> = (1..=history.operations.len()).map(|value| value.to_string()).collect();
    loop {
        let index = random.random_range(0..history.operations.len());
        let Outcome::Done(answer) = &mut history.operations[index].outcome else { continue };
        if change_answer(answer, &values, random) {
            return;
        }
    }
}

fn change_answer(answer: &mut Answer, values: &[String], random: &mut StdRng) -> bool {
    if random.random_range(0..6) == 0 {
        answer.revision += if random.random() { 1 } else { -1 };
        return true;
    }
    let back = random.random_range(0..3);
    match &mut answer.body {
        Body::Range { pairs, count, .. } => match (pairs.is_empty(), random.random_range(0..3)) {
            (false, 0) => {
                pairs.pop();
                *count -= 1;
            }
            (false, 1) => pairs[0].value.clone_from(&values[random.random_range(0..values.len())]),
            (false, _) => pairs[0].modified -= back,
            (true, _) => return false,
        },
        Body::Put { previous } => match previous {
            Some(pair) => pair.value.clone_from(&values[random.random_range(0..values.len())]),
            None => return false,
        },
        Body::Delete { deleted, previous } => {
            *deleted = i64::from(*deleted == 0);
            previous.clear();
        }
        Body::Txn { succeeded, answers } if answers.is_empty() => *succeeded = !*succeeded,
        Body::Txn { answers, .. } => {
            let nested = random.random_range(0..answers.len());
            let Body::Range { pairs, count, .. } = &mut answers[nested] else { return false };
            if pairs.pop().is_none() {
                return false;
            }
            *count -= 1;
        }
        Body::Nothing | Body::Lease { .. } => return false,
    }
    true
}

#[test]
fn single_keys_have_the_same_verdict() {
    let Some(porcupine) = Porcupine::build() else { return };
    let (mut good, mut bad) = (0, 0);
    for seed in 0..40 {
        let mut plan = Plan::new(Workload::Register, seed);
        (plan.operations, plan.keys, plan.unknown) = (150, 3, 30);
        let correct = history(&plan);
        let mut random = StdRng::seed_from_u64(seed);
        for changes in 0..5 {
            let mut history = correct.clone();
            (0..changes).for_each(|_| change(&mut history, &mut random));
            let theirs = porcupine.ask(&history);
            for (key, ours) in wgl::verdicts(&history) {
                let ours = match ours {
                    wgl::Outcome::Linearizable => "Ok",
                    wgl::Outcome::Not { .. } => "Illegal",
                    wgl::Outcome::Undecided => "Unknown",
                };
                if theirs.keys[&key] == "Unknown" {
                    eprintln!(
                        "porcupine gave up {key} of seed {seed} with {changes} changes; ours says {ours}"
                    );
                    continue;
                }
                assert_eq!(
                    ours,
                    theirs.keys[&key],
                    "{key}, seed {seed}, {changes} changes: {:#?}",
                    changed(&correct, &history)
                );
                assert!(changes > 0 || ours == "Ok", "{key}, seed {seed}");
                *if ours == "Ok" { &mut good } else { &mut bad } += 1;
            }
        }
    }
    eprintln!("single keys: {good} linearizable, {bad} not, the same for both");
    assert!(good > 100 && bad > 100);
}

/// Operations that are not the same, with what was there before.
fn changed<'a>(one: &'a History, other: &'a History) -> Vec<(usize, &'a Outcome, &'a Operation)> {
    let both = one.operations.iter().zip(&other.operations).enumerate();
    both.filter(|(_, (one, other))| one != other)
        .map(|(index, (one, other))| (index, &one.outcome, other))
        .collect()
}

fn is_good(history: &History) -> bool {
    let timeline = Timeline::of(history);
    timeline.anomalies().is_empty() && linearizable::check(history, &timeline).found.is_empty()
}

#[test]
fn the_whole_store_has_the_same_verdict() {
    let Some(porcupine) = Porcupine::build() else { return };
    let (mut good, mut bad) = (0, 0);
    for seed in 0..40 {
        let mut plan = Plan::new(Workload::Mix, seed);
        (plan.operations, plan.leases, plan.unknown) = (150, false, 0);
        let mut correct = history(&plan);
        // Porcupine sees only answers, so that is all that ours gets here.
        correct.watches.clear();
        let mut random = StdRng::seed_from_u64(seed);
        for changes in 0..6 {
            let mut history = correct.clone();
            (0..changes).for_each(|_| change(&mut history, &mut random));
            let theirs = porcupine.ask(&history).model;
            let ours = if is_good(&history) { "Ok" } else { "Illegal" };
            assert_eq!(ours, theirs, "seed {seed}, {changes} changes: {:#?}", changed(&correct, &history));
            *if ours == "Ok" { &mut good } else { &mut bad } += 1;
        }
    }
    eprintln!("whole store: {good} linearizable, {bad} not, the same for both");
    assert!(good >= 40 && bad > 100);
}

/// With an observer and operations without an answer, ours knows more than porcupine: it may find
/// what porcupine cannot, and must find what porcupine does.
#[test]
fn what_porcupine_finds_is_found() {
    let Some(porcupine) = Porcupine::build() else { return };
    let (mut good, mut bad) = (0, 0);
    for seed in 100..140 {
        let mut plan = Plan::new(Workload::Mix, seed);
        (plan.operations, plan.leases, plan.unknown) = (120, false, 60);
        let correct = history(&plan);
        let mut random = StdRng::seed_from_u64(seed);
        for changes in 0..4 {
            let mut history = correct.clone();
            (0..changes).for_each(|_| change(&mut history, &mut random));
            let theirs = porcupine.ask(&history).model;
            let ours = is_good(&history);
            match theirs.as_str() {
                "Ok" => {
                    assert!(changes > 0 || ours, "seed {seed}");
                    good += 1;
                }
                "Illegal" => {
                    assert!(!ours, "seed {seed}, {changes} changes");
                    bad += 1;
                }
                other => eprintln!("porcupine says {other} for seed {seed}, {changes} changes"),
            }
        }
    }
    eprintln!("with an observer: {good} linearizable for porcupine, {bad} not");
    assert!(good >= 40 && bad > 60);
}
