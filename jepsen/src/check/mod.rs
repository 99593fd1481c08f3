//! What must hold of a history, one file a promise.
//!
//! Checkers are functions of a [`History`]: they ask no cluster and no clock.
//!
//! | checker | believes | finds |
//! |---|---|---|
//! | `timeline` | the observer and answers | what they contradict each other in, what nobody asked for |
//! | `linearizable` | revisions | answers that are not the model's, time, lost writes, leases, compactions, refusals |
//! | `wgl` | nothing | keys whose operations no order fits |
//! | `append` | lists | Elle's anomalies |
//! | `set` | nothing | what was acknowledged and is not there |
//! | `serializable` | revisions | old reads that never were so, members that go back |
//! | `lease` | the run's clock | leases that end early or late or are not there, locks held by two |
//! | `watch` | revisions | what watchers were not told, told twice, too early or untrue |
//! | `hash` | members | members that differ |

mod anomaly;
pub mod append;
pub mod availability;
mod compactions;
pub mod hash;
pub mod lease;
pub mod linearizable;
pub mod model;
pub mod serializable;
pub mod set;
pub mod timeline;
pub mod watch;
pub mod wgl;

use std::time::Instant;

use crate::history::History;
pub use anomaly::{Anomaly, Check, TOLD_MAX, Verdict};
use timeline::Timeline;

/// Asks all checkers.
pub fn all(history: &History) -> Verdict {
    let began = Instant::now();
    let timeline = Timeline::of(history);
    let mut contradictions = Check::new("timeline");
    contradictions.look("revisions", timeline.revisions().count());
    let missing: i64 = timeline.missing().iter().map(|(from, to)| to - from + 1).sum();
    contradictions.look("revisions that nobody tells of", missing as usize);
    timeline.anomalies().iter().for_each(|anomaly| contradictions.take(anomaly.clone()));
    contradictions.took = began.elapsed();
    let mut checks = vec![contradictions];
    let mut ask = |checker: &dyn Fn() -> Check| {
        let began = Instant::now();
        let mut check = checker();
        check.took = began.elapsed();
        checks.push(check);
    };
    ask(&|| linearizable::check(history, &timeline));
    ask(&|| wgl::check(history));
    if append::is_append(history) {
        ask(&|| append::check(history));
    }
    ask(&|| set::check(history));
    ask(&|| serializable::check(history, &timeline));
    ask(&|| lease::check(history, &timeline, lease::SLACK));
    ask(&|| watch::check(history));
    ask(&|| hash::check(history));
    Verdict { checks, availability: availability::measure(history) }
}

#[cfg(test)]
mod tests;
