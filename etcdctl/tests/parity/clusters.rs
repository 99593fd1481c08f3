//! make-mirror, downgrade and check datascale.

use super::case::{Case, case, script};
use super::tables::formats;

/// make-mirror, of a member to itself under another prefix.
pub fn mirrors() -> Vec<Case> {
    let mirror = |name: &str, flags: &str, meanwhile: &str| {
        let run = format!("$TOOL make-mirror $ETCDCTL_ENDPOINTS {flags} 2> /dev/null & id=$!");
        script(name, &format!("{run}; {meanwhile}; kill $id; wait $id 2> /dev/null; echo $?"))
    };
    let there = |key: &str, value: &str| {
        format!("await '[ \"$($TOOL get {key} --print-value-only)\" = \"{value}\" ]'")
    };
    let txn = r#"printf '\nput s/4 4\ndel s/1\nput s/5 5\nput s/6 6\n\n\n\n' | $TOOL txn > /dev/null"#;
    let revisions = "grep -E '\"(Key|ModRevision|Value)'";
    let mut cases = vec![
        case("make-mirror"),
        case("make-mirror a b"),
        case("make-mirror a --max-txn-ops x"),
        case("make-mirror a --max-txn-ops -1"),
        case("make-mirror a --rev x"),
        case("make-mirror a --nope"),
        case("make-mirror a --dest-prefix x --no-dest-prefix"),
        case("make-mirror a --dest-cert no-such-file"),
        case("make-mirror a --dest-cacert no-such-file"),
        case("make-mirror a -w xml"),
        case("make-mirror ''").own_words(),
        case("put s/1 one"),
        case("put s/2 two"),
        case("put other x"),
    ];
    cases.extend([
        mirror("m1", "--prefix s/ --dest-prefix t/", &there("t/2", "two")),
        case("get t/ --prefix"),
        mirror(
            "m2",
            "--prefix s/ --dest-prefix u/",
            &format!(
                "{}; $TOOL put s/3 three; {}; $TOOL get u/ --prefix",
                there("u/2", "two"),
                there("u/3", "three")
            ),
        ),
        // A revision is a transaction there too, and can be several.
        mirror(
            "m3",
            "--prefix s/ --dest-prefix v/",
            &format!("{}; {txn}; {}; $TOOL get v/ --prefix", there("v/3", "three"), there("v/6", "6")),
        ),
        case("del s/1"),
        mirror(
            "m4",
            "--prefix s/ --dest-prefix w/ --max-txn-ops 2",
            &format!(
                "{}; {txn}; {}; $TOOL get w/4 w/7 -w fields | {revisions}",
                there("w/6", "6"),
                // Both of its transactions are there once the first one's keys have a second version.
                "await '$TOOL get w/6 -w fields | grep -q Version..:.2'"
            ),
        ),
        mirror(
            "m5",
            "--prefix s/ --no-dest-prefix",
            &format!("{}; $TOOL get 2 3 --prefix=false", there("6", "6")),
        ),
        // From a revision on, what was before is left out.
        script(
            "m6",
            &format!(
                "rev=$($TOOL put s/7 seven -w fields | sed -n 's/\"Revision\" : //p')
                 $TOOL put s/8 eight; $TOOL make-mirror $ETCDCTL_ENDPOINTS --prefix s/ --dest-prefix x/ --rev $rev &
                 {}; $TOOL get x/ --prefix; kill $!",
                there("x/8", "eight")
            ),
        ),
        case("compaction 10"),
        case("make-mirror 127.0.0.1:{port} --prefix s/ --dest-prefix y/ --rev 5"),
    ]);
    cases
}

/// downgrade.
pub fn downgrades() -> Vec<Case> {
    // Until the cluster has decided on its version.
    let decided = "await '$TOOL downgrade validate 3.6.0 > /dev/null 2>&1'";
    let mut cases = vec![
        case("downgrade").own_words(),
        case("downgrade bogus").own_words(),
        case("downgrade validate"),
        case("downgrade validate ''"),
        case("downgrade validate 3.6.0 x"),
        case("downgrade enable"),
        case("downgrade enable 3.6.0 x"),
        case("downgrade validate 3.6.0 -w xml"),
        script("d", decided),
        case("downgrade validate x"),
        case("downgrade validate 3"),
        case("downgrade validate 3.6"),
        case("downgrade validate 3.5.0"),
        case("downgrade validate 3.7.0"),
        case("downgrade validate 3.8.0"),
        case("downgrade enable 3.5.0"),
        case("downgrade enable nonsense"),
        case("downgrade cancel"),
        case("downgrade cancel x"),
    ];
    cases.extend(formats("downgrade validate 3.6.0"));
    // The version may have changed by the time of a cancellation, and changes back after it.
    for flags in ["", " -w json", " -w protobuf", " -w table", " -w fields"] {
        cases.push(case(&format!("downgrade enable 3.6.0{flags}")));
        let cancel = case(&format!("downgrade cancel{flags}"));
        cases.push(if flags == " -w protobuf" { cancel.own_words() } else { cancel.vague() });
        cases.push(script("d", decided));
    }
    cases
}

/// check datascale, and how it begins.
pub fn data_scale() -> Vec<Case> {
    vec![
        case("check datascale --load x"),
        case("check datascale --nope"),
        case("put /etcdctl-check-datascale/a b"),
        case("put mine/a b"),
        case("check datascale"),
        case("check datascale --prefix mine/ --load=small"),
        case("check datascale -w xml"),
        case("del '' --prefix"),
        // How much memory it is cannot be compared, nor whether it is more than before.
        script(
            "l",
            "$TOOL check datascale --load s --auto-compact --auto-defrag 2> /dev/null | sed 's/: -/: /'",
        )
        .vague(),
        case("get '' --prefix --keys-only"),
    ]
}
