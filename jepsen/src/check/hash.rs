//! Whether all members are the same at the end.

use std::collections::BTreeMap;

use super::Check;
use crate::history::History;

/// At one revision, members that have compacted the same have the same hash.
pub fn check(history: &History) -> Check {
    let mut check = Check::new("hash");
    check.look("members", history.ends.len());
    let mut first: BTreeMap<i64, &crate::history::End> = BTreeMap::new();
    for end in &history.ends {
        let one = *first.entry(end.revision).or_insert(end);
        let (member, other, revision) = (one.member, end.member, end.revision);
        if one.compacted != end.compacted {
            check.add("compaction-differs", Vec::new(), || {
                format!(
                    "At revision {revision} member {member} has compacted {}, and member {other} {}.",
                    one.compacted, end.compacted
                )
            });
        } else if one.hash != end.hash {
            check.add("hash-differs", Vec::new(), || {
                format!(
                    "At revision {revision} member {member} has hash {:08x}, and member {other} {:08x}.",
                    one.hash, end.hash
                )
            });
        }
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::End;

    #[test]
    fn members_must_be_the_same() {
        let end = |member, hash, compacted| End { member, revision: 9, hash, compacted };
        let found =
            |ends| check(&History { ends, ..History::default() }).found.into_keys().collect::<Vec<_>>();
        assert_eq!(found(vec![end(0, 1, 5), end(1, 1, 5)]), Vec::<String>::new());
        assert_eq!(found(vec![end(0, 1, 5), end(1, 2, 5)]), ["hash-differs"]);
        assert_eq!(found(vec![end(0, 1, 5), end(1, 1, 5), end(2, 1, 4)]), ["compaction-differs"]);
    }
}
