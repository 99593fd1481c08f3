//! What may have been compacted, and when.

use crate::history::{Action, History, Nanos, Outcome};

/// Every compaction that was asked for and not refused, by clients and the nemesis, and what members did by themselves.
#[derive(Debug, Default)]
pub struct Compactions {
    asked: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    at: Nanos,
    revision: i64,
    by: Option<usize>,
}

impl Compactions {
    /// Those of a history.
    pub fn of(history: &History) -> Compactions {
        let mut asked = Vec::new();
        for (index, operation) in history.operations.iter().enumerate() {
            if let (Action::Compact { revision }, Outcome::Done(_) | Outcome::Unknown(_)) =
                (&operation.action, &operation.outcome)
            {
                asked.push(Asked { at: operation.invoked, revision: *revision, by: Some(index) });
            }
        }
        let of_nemesis =
            |one: &crate::history::Compaction| Asked { at: one.asked, revision: one.revision, by: None };
        asked.extend(history.compactions.iter().map(of_nemesis));
        // What nobody had asked for, members did by themselves at some time.
        let most = asked.iter().map(|one| one.revision).max().unwrap_or(0);
        let last = history.ends.iter().map(|end| end.compacted).max().unwrap_or(0);
        if last > most {
            asked.push(Asked { at: 0, revision: last, by: None });
        }
        Compactions { asked }
    }

    /// Whether a revision may have been compacted away by some time.
    pub fn may_reach(&self, revision: i64, by: Nanos) -> bool {
        self.asked.iter().any(|one| one.at <= by && one.revision >= revision)
    }

    /// As [`Compactions::may_reach`], by any other operation than this one.
    pub fn may_reach_without(&self, operation: usize, revision: i64, by: Nanos) -> bool {
        let others = self.asked.iter().filter(|one| one.by != Some(operation));
        others.into_iter().any(|one| one.at <= by && one.revision >= revision)
    }
}
