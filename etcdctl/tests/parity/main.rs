//! Our `etcdctl` beside etcd's own: the same commands on identical fresh members,
//! the same stdout, messages and exit status. And our member beside etcd's own, as
//! etcd's tool sees them.
//!
//! | variable | meaning |
//! |---|---|
//! | `REAL_ETCD_BIN` | etcd's own server |
//! | `OFFICIAL_ETCDCTL_BIN` | etcd's own tool |
//! | `ETCD_BIN` | our server |

mod auth;
mod case;
mod clusters;
mod help;
mod restarts;
mod server;
mod snapshots;
mod tables;
mod turns;

use std::path::{Path, PathBuf};

use self::case::{Case, Outcome, Runner};
use self::server::{Server, Three, free_port, program, skipped};

const OURS: &str = env!("CARGO_BIN_EXE_etcdctl");

/// A member program and a tool to talk to it.
type Pair = (PathBuf, PathBuf);

/// Both tools on etcd's own member.
fn tools() -> Option<(Pair, Pair)> {
    let (etcd, official) = program("REAL_ETCD_BIN").zip(program("OFFICIAL_ETCDCTL_BIN"))?;
    Some(((etcd.clone(), official), (etcd, OURS.into())))
}

/// etcd's own tool on both members.
fn members() -> Option<(Pair, Pair)> {
    let (etcd, official) = program("REAL_ETCD_BIN").zip(program("OFFICIAL_ETCDCTL_BIN"))?;
    Some(((etcd, official.clone()), (program("ETCD_BIN")?, official)))
}

/// Runs the cases with both pairs, each on a fresh member at the same port.
fn compare(pairs: Option<(Pair, Pair)>, cases: &[Case], scheme: &str, flags: &[String]) {
    let port = free_port();
    // Terms count elections, and etcd's first member has held one more.
    let same_terms = pairs.as_ref().is_some_and(|(official, other)| official.0 == other.0);
    compare_on(pairs, cases, port, same_terms, |etcd| vec![Server::start(etcd, port, scheme, flags)]);
}

/// Runs the cases with both pairs, each on a fresh cluster of three at the same ports.
fn compare_on_three(pairs: Option<(Pair, Pair)>) {
    let three = Three::new();
    let cases = tables::three_members(&three.endpoints());
    compare_on(pairs, &cases, three.port(), false, |etcd| three.start(etcd));
}

/// Runs the cases with both pairs, each on what `start` starts.
fn compare_on(
    pairs: Option<(Pair, Pair)>,
    cases: &[Case],
    port: u16,
    same_terms: bool,
    start: impl Fn(&Path) -> Vec<Server>,
) {
    let Some((official, other)) = pairs else { return skipped() };
    let run = |(etcd, tool): &Pair| -> Vec<Outcome> {
        let _servers = start(etcd);
        let mut runner = Runner { program: Path::new(tool), port, lease: String::new() };
        cases.iter().map(|case| runner.run(case)).collect()
    };
    let (expected, found) = (run(&official), run(&other));
    let mut different = 0;
    let equal = |expected: &Outcome, found: &Outcome| match same_terms {
        true => expected == found,
        false => expected.without_term() == found.without_term(),
    };
    for ((case, expected), found) in cases.iter().zip(&expected).zip(&found) {
        if !equal(expected, found) {
            different += 1;
            println!("--- etcdctl {}\nexpected: {expected:#?}\nfound:    {found:#?}", case.args.join(" "));
        }
    }
    assert!(different == 0, "{different} of {} commands differ", cases.len());
    println!("{} commands agree", cases.len());
}

macro_rules! areas {
    ($($table:ident::$area:ident: $flags:expr;)*) => {
        mod tool {
            $(
                #[test]
                fn $area() {
                    super::compare(super::tools(), &super::$table::$area(), "http", &$flags);
                }
            )*
        }
        mod member {
            $(
                #[test]
                fn $area() {
                    super::compare(super::members(), &super::$table::$area(), "http", &$flags);
                }
            )*
        }
    };
}
areas! {
    tables::keys_and_values: [];
    tables::transactions: [];
    tables::watches: [];
    tables::leases: [];
    tables::members_and_endpoints: [];
    tables::membership_changes: [];
    tables::command_line_and_environment: [];
    tables::space_is_used_up: ["--quota-backend-bytes=100000".to_owned()];
    turns::locks: [];
    turns::elections: [];
    clusters::mirrors: [];
    clusters::downgrades: [];
    clusters::data_scale: [];
    snapshots::saves: [];
}

/// The tools only: authentication is not in our member.
#[test]
fn tool_users_and_roles() {
    compare(tools(), &auth::users_and_roles(), "http", &[]);
}

#[test]
fn every_flag_and_command_of_etcds_tool() {
    match program("OFFICIAL_ETCDCTL_BIN") {
        Some(official) => help::compare(&official, Path::new(OURS)),
        None => skipped(),
    }
}

#[test]
fn a_snapshot_shows_what_etcds_member_shows() {
    snapshots::compare_inside(program("REAL_ETCD_BIN"), Path::new(OURS));
}

#[test]
fn a_snapshot_shows_what_our_member_shows() {
    snapshots::compare_inside(program("ETCD_BIN"), Path::new(OURS));
}

#[test]
fn tool_three_members() {
    compare_on_three(tools());
}

#[test]
fn member_three_members() {
    compare_on_three(members());
}

#[test]
fn tool_encrypted_connections() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (cases, flags) = tables::encrypted_connections(folder.path());
    compare(tools(), &cases, "https", &flags);
}

#[test]
fn member_encrypted_connections() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (cases, flags) = tables::encrypted_connections(folder.path());
    compare(members(), &cases, "https", &flags);
}
