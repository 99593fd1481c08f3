//! auth, user and role, and what the tool does as a user.

use super::case::{Case, case};
use super::tables::formats;

/// auth, user and role, before authentication is on and after.
pub fn users_and_roles() -> Vec<Case> {
    let mut cases = Vec::new();
    let lines = |cases: &mut Vec<Case>, lines: &[&str]| cases.extend(lines.iter().map(|line| case(line)));
    for group in ["auth", "user", "role", "auth bogus", "user bogus", "role bogus"] {
        cases.push(case(group).own_words());
    }
    cases.extend(formats("auth status"));
    lines(
        &mut cases,
        &[
            "auth status x",
            "auth enable x",
            "auth disable x",
            "auth enable",
            "auth disable",
            "get a --user root:x",
            // Roles.
            "role add",
            "role add a b",
            "role add r1",
            "role add r1",
            "role add ''",
            "role get",
            "role get r1",
            "role get nobody",
            "role list x",
            "role delete",
            "role delete nobody",
            "role grant-permission",
            "role grant-permission r1 read",
            "role grant-permission r1 bogus a",
            "role grant-permission r1 READ a",
            "role grant-permission r1 read a",
            "role grant-permission r1 write b d",
            "role grant-permission r1 readwrite p/ --prefix",
            "role grant-permission r1 read z --from-key",
            "role grant-permission r1 read '' --prefix",
            "role grant-permission r1 read ''",
            "role grant-permission r1 read a --prefix --from-key",
            "role grant-permission r1 read '' --prefix --from-key",
            "role grant-permission r1 read a b --prefix",
            "role grant-permission r1 read a b --from-key",
            "role grant-permission nobody read a",
            "role grant-permission r1 read b a",
            "role revoke-permission",
            "role revoke-permission r1",
            "role revoke-permission r1 nokey",
            "role revoke-permission r1 b d",
            "role revoke-permission r1 z --from-key",
            "role revoke-permission r1 '' --prefix",
            "role revoke-permission r1 a b --prefix",
        ],
    );
    for line in ["role get r1", "role list", "role get root"] {
        cases.extend(formats(line));
    }
    for flags in ["", " -w json", " -w fields", " -w fields --hex", " -w protobuf", " -w table"] {
        cases.push(case(&format!("role add r2{flags}")));
        cases.push(case(&format!("role grant-permission r2 write k{flags}")));
        cases.push(case(&format!("role revoke-permission r2 k{flags}")));
        cases.push(case(&format!("role delete r2{flags}")));
    }
    // Users.
    lines(
        &mut cases,
        &[
            "user add",
            "user add a b",
            "user add :pw",
            "user add root:rootpw",
            "user add root:rootpw",
            "user add one --new-user-password pw1",
            "user add two:x --new-user-password pw2",
            "user add three --no-password",
            "user add three:x --no-password",
            "user add ''",
            "user get",
            "user get nobody",
            "user get one",
            "user get one --detail",
            "user list x",
            "user delete",
            "user delete nobody",
            "user delete two:x",
            "user grant-role one",
            "user grant-role one nobody",
            "user grant-role nobody r1",
            "user grant-role one r1",
            "user grant-role one r1",
            "user get one --detail",
            "user get one --detail -w json",
            "user get one --detail -w table",
            "user revoke-role one",
            "user revoke-role one nobody",
            "user passwd",
            "user passwd nobody --interactive=false",
        ],
    );
    cases.extend([
        case("user add four --interactive=false").stdin("  pw4  more\n"),
        case("user add five --interactive=false").stdin(""),
        case("user add six").stdin("pw6\npw6\n"),
        case("user add seven").stdin("pw6\npw7\n"),
        case("user add eight").stdin("\n"),
        case("user passwd four").stdin("new\nnew\n"),
        case("user passwd four --interactive=false").stdin("pw4"),
        case("user passwd one --interactive=false -w json").stdin("pw1"),
    ]);
    for line in ["user get one", "user list"] {
        cases.extend(formats(line));
    }
    for flags in ["", " -w json", " -w fields", " -w table"] {
        cases.push(case(&format!("user add u2:x{flags}")));
        cases.push(case(&format!("user grant-role u2 r1{flags}")));
        cases.push(case(&format!("user revoke-role u2 r1{flags}")));
        cases.push(case(&format!("user delete u2{flags}")));
    }
    // As a user.
    lines(
        &mut cases,
        &[
            "put a 1",
            "put k 1",
            "auth enable",
            "auth status",
            "get a",
            "get a --user one:pw1",
            "get a --user one --password pw1",
            "get k --user one:pw1",
            "put a 2 --user one:pw1",
            "put p/x 2 --user one:pw1",
            "get p/ --prefix --user one:pw1",
            "get '' --prefix --user one:pw1",
            "get a --user one:wrong",
            "get a --user nobody:pw",
            "get a --user one:",
            "get a --auth-jwt-token nonsense",
            "get a --user root:rootpw --auth-jwt-token nonsense",
            "get k --user root:rootpw",
            "put k 2 --user root:rootpw",
            "watch k --user one:pw1",
            "lock p/l true --user one:pw1",
            "lock l true --user one:pw1",
            "elect l me --user one:pw1",
            "member list --user one:pw1",
            "user list --user one:pw1",
            "role get r1 --user one:pw1",
            "user list --user root:rootpw",
            "auth status --user root:rootpw -w json",
            "auth disable",
            "auth disable --user one:pw1",
        ],
    );
    cases.extend([
        case("endpoint health --user one:pw1").vague(),
        case("lease list --user one:pw1").vague(),
        case("endpoint status --user one:pw1").vague(),
        case("get a --user one").stdin("pw1\n"),
        case("get a --user one").stdin("  pw1  \n"),
        case("get a --user one").stdin(""),
        case("get a").env("ETCDCTL_USER", "one:pw1"),
        case("get a").env("ETCDCTL_USER", "one").env("ETCDCTL_PASSWORD", "pw1"),
        case("get a --user one:pw1").env("ETCDCTL_USER", "one:pw1"),
        case("make-mirror 127.0.0.1:{port} --prefix a --dest-prefix p/ --user one:pw1 --dest-user one:wrong"),
        case("make-mirror 127.0.0.1:{port} --prefix a --dest-prefix n/ --user one:pw1 --dest-user one:pw1"),
        case("make-mirror 127.0.0.1:{port} --prefix a --dest-prefix n/ --user one:pw1 --dest-user one")
            .stdin("pw1\n"),
        case("auth disable --user root:rootpw"),
        case("get a"),
    ]);
    cases
}
