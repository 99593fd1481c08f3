//! Whether reads that an old state will do for are of one that was.
//!
//! Such a read is of the state at its header's revision, which may be old but
//! not torn, and not of the future (that is among what `linearizable` looks at,
//! as for every answer). What one client hears from one member never goes back,
//! unless the member may have been stopped in between: it then starts from what
//! it had on disk, and says so before it has caught up, in etcd too.

use std::collections::HashMap;

use super::linearizable::is_serializable_read;
use super::{Check, linearizable};
use crate::check::timeline::Timeline;
use crate::history::{Action, Body, Fault, History, Nanos, Outcome};

/// Checks them.
pub fn check(history: &History, timeline: &Timeline) -> Check {
    let mut check = Check::new("serializable");
    for (index, operation) in history.operations.iter().enumerate() {
        let (Action::Range(range), Outcome::Done(answer)) = (&operation.action, &operation.outcome) else {
            continue;
        };
        let Body::Range { pairs, count, more } = &answer.body else { continue };
        if range.serializable {
            let got = linearizable::Got { pairs, count: *count, more: *more };
            linearizable::check_range(timeline, &mut check, index, range, answer.revision, &got);
        }
    }
    check_order(history, &mut check);
    check
}

fn check_order(history: &History, check: &mut Check) {
    let stops: Vec<&Fault> = history.faults.iter().filter(|fault| stops(fault)).collect();
    let mut last: HashMap<(u32, usize), (usize, i64, Nanos)> = HashMap::new();
    let mut order: Vec<usize> = (0..history.operations.len()).collect();
    order.sort_by_key(|index| history.operations[*index].invoked);
    for index in order {
        let operation = &history.operations[index];
        let Outcome::Done(answer) = &operation.outcome else { continue };
        // Others are looked at in order of time, whoever answered; leases' headers are the leader's.
        let read = is_serializable_read(&operation.action);
        if !read && !linearizable::is_linearizable(&operation.action) {
            continue;
        }
        let heard = last.entry((operation.client, operation.member)).or_insert((
            index,
            answer.revision,
            operation.returned,
        ));
        let (before, revision, returned) = *heard;
        if revision <= answer.revision {
            *heard = (index, answer.revision, operation.returned);
            continue;
        }
        if !read || operation.invoked < returned {
            continue;
        }
        if stops.iter().any(|fault| {
            fault.began <= operation.returned && fault.ended >= history.operations[before].invoked
        }) {
            check.look("reads that went back over a restart", 1);
            *heard = (index, answer.revision, operation.returned);
            continue;
        }
        check.add("revision-back", vec![before, index], || {
            format!(
                "Operation {index} was answered as of revision {}, after the same member had told the same client of \
                 {revision} (operation {before}).",
                answer.revision
            )
        });
    }
    check.look("clients with a member", last.len());
}

/// Whether a fault may stop a process.
fn stops(fault: &Fault) -> bool {
    const KINDS: [&str; 9] =
        ["kill", "unsynced", "corrupt", "snapshot", "disk", "member", "crash", "restart", "stop"];
    KINDS.iter().any(|kind| fault.kind.contains(kind))
}
