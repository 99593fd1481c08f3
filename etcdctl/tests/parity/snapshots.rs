//! `snapshot save`: the commands of both tools, against one kind of member or the other.

use super::case::{Case, case, script};

/// Saves that succeed, and what a save does not take.
pub fn saves() -> Vec<Case> {
    let folder = "cd $(mktemp -d) || exit 1; trap 'rm -r $PWD' EXIT";
    let mut cases = vec![
        case("put a b"),
        script("s", &format!("{folder}; $TOOL snapshot save s.db; echo $?; stat -c %a s.db; ls")),
        script("s", &format!("{folder}; $TOOL snapshot save s.db -w json; echo $?; ls")),
        script("s", &format!("{folder}; $TOOL snapshot save ./s.db --command-timeout 20s; echo $?; ls")),
        // A file that is there is replaced, and a part that was left is.
        script(
            "s",
            &format!(
                "{folder}; echo x > s.db; echo y > s.db.part; $TOOL snapshot save s.db; tail -c +4097 s.db | head -c 8 | od -An -tx1; ls"
            ),
        ),
        case("snapshot save"),
        case("snapshot save a b"),
        case("snapshot save /nonexistent/x"),
        case("snapshot save x --endpoints 127.0.0.1:1,127.0.0.1:2"),
        case("snapshot save x --endpoints="),
        case("snapshot save x --endpoints 127.0.0.1:1 --command-timeout 1s"),
        case("snapshot save x -w bogus"),
        case("snapshot save x --nope"),
    ];
    for line in ["snapshot", "snapshot bogus", "snapshot save --help", "help snapshot save"] {
        cases.push(case(line).own_words());
    }
    cases
}
