//! How long nothing could be written. A measure, not an anomaly.

use serde::{Deserialize, Serialize};

use super::timeline::changed;
use crate::history::{History, Nanos, Outcome};

const SECOND: Nanos = 1_000_000_000;

/// How long nothing could be written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Availability {
    /// Seconds of the run, the last one maybe not whole.
    pub seconds: u64,
    /// Seconds in which no write was answered.
    pub unavailable: u64,
    /// The longest time between two answered writes, or between one and an end of the run.
    pub longest: Nanos,
    /// How many writes were answered.
    pub writes: u64,
}

/// Measures it, from the beginning of the run to the end of its duration.
pub fn measure(history: &History) -> Availability {
    let mut times: Vec<Nanos> = history
        .operations
        .iter()
        .filter(|operation| match &operation.outcome {
            Outcome::Done(answer) => changed(&operation.action, &answer.body),
            _ => false,
        })
        .map(|operation| operation.returned)
        .filter(|at| *at <= history.run.duration)
        .collect();
    times.sort_unstable();
    let seconds = history.run.duration.div_ceil(SECOND);
    let mut writing: Vec<Nanos> =
        times.iter().map(|at| (at / SECOND).min(seconds.saturating_sub(1))).collect();
    writing.dedup();
    let ends = times.iter().copied().chain([history.run.duration]);
    let longest = ends.scan(0, |last, at| Some(at - std::mem::replace(last, at))).max().unwrap_or(0);
    Availability {
        seconds,
        unavailable: seconds - (writing.len() as u64).min(seconds),
        longest,
        writes: times.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, Answer, Body, Operation, Put, Run};

    #[test]
    fn seconds_without_an_answered_write_count() {
        let write = |at: u64, outcome| Operation {
            client: 0,
            member: 0,
            invoked: 0,
            returned: at * SECOND / 10,
            action: Action::Put(Put::default()),
            outcome,
        };
        let done = || Outcome::Done(Answer { revision: 2, body: Body::Put { previous: None } });
        let operations = vec![
            write(5, done()),
            write(9, done()),
            write(25, Outcome::Unknown("".into())),
            write(41, done()),
        ];
        let run = Run { duration: 5 * SECOND, ..Run::default() };
        let measured = measure(&History { run, operations, ..History::default() });
        let longest = 32 * SECOND / 10;
        assert_eq!(measured, Availability { seconds: 5, unavailable: 3, longest, writes: 3 });
    }
}
