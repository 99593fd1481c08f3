//! lock and elect.

use rustix::process::Signal;

use super::case::{Case, case, script};

/// Waits, in a script, until so many keys are under a prefix.
fn until(prefix: &str, count: usize) -> String {
    format!("await '[ $($TOOL get {prefix} --prefix --keys-only | grep -c /) -eq {count} ]'")
}

/// The ids of leases differ; in hex even the bytes of their digits do, and how many there are.
fn shown(case: Case, flags: &str) -> Case {
    if flags == "--hex" { case.own_words() } else { case.vague() }
}

/// lock, with and without a command.
pub fn locks() -> Vec<Case> {
    let mut cases = vec![
        case("lock"),
        case("lock --ttl x a"),
        case("lock a --ttl"),
        case("lock a -n"),
        case("lock a --nope"),
        case("lock a echo hello"),
        case("lock a -- echo -n hello"),
        case("lock a echo -n"),
        case("lock --ttl 5 a -- sh -c 'echo $ETCD_LOCK_REV; exit 7'"),
        case("lock a -- sh -c 'echo $ETCD_LOCK_KEY'").vague(),
        case("lock a -- sh -c 'kill -9 $$'"),
        case("lock a -- sh -c 'kill -ABRT $$'"),
        case("lock a no-such-program"),
        case("lock a -- /no/such/program"),
        case("lock a -- /etc/passwd"),
        case("lock a --ttl -1 true"),
        case("lock a --ttl 9000000001 true"),
        case("lock '' true"),
        case("lock a cat").stdin("not for the child"),
        case("lock a true -w xml"),
        case("get a/ --prefix"),
    ];
    for (number, flags) in ["", "--hex", "-w json", "-w fields", "-w fields --hex"].iter().enumerate() {
        let lines = match *flags {
            "-w json" => 1,
            "-w fields" | "-w fields --hex" => 12,
            _ => 2,
        };
        let name = format!("b{number}");
        cases.push(shown(case(&format!("lock {name} {flags}")).signal(lines, Signal::INT), flags));
        cases.push(case(&format!("get {name} --prefix")));
    }
    cases.extend([
        // etcd's leaves its key behind.
        case("lock t -w table"),
        case("del t --prefix").own_words(),
        case("lock c").signal(2, Signal::TERM).vague(),
        // The next in line waits for the lock, and has it when its holder ends.
        script("d", &format!("$TOOL lock d -- echo second & {}; echo first", until("d/", 2))),
        // It can give up, and leaves nothing behind, once it has heard that its key is there: hence the second.
        script(
            "e",
            &format!(
                "$TOOL lock e & {}; sleep 1; kill $!; wait $!; echo $?; $TOOL get e/ --prefix | grep -c .",
                until("e/", 2)
            ),
        ),
        // Without its lease it has no lock.
        script(
            "f",
            "$TOOL lock g > /dev/null & id=$!
             await '[ -n \"$($TOOL get g/ --prefix)\" ]'
             key=$($TOOL get g/ --prefix --keys-only)
             $TOOL lease revoke ${key#g/} > /dev/null; wait $id; echo $?",
        ),
        // The holder's lease is renewed.
        case("lock h --ttl 2 -- sh -c 'sleep 5; $TOOL get h/ --prefix'").vague(),
        case("get '' --prefix --keys-only"),
    ]);
    cases
}

/// elect: candidates and observers.
pub fn elections() -> Vec<Case> {
    let mut cases = vec![
        case("elect"),
        case("elect a"),
        case("elect a b c"),
        case("elect a b -l"),
        case("elect a --listen=false"),
        case("elect a b -x"),
        case("elect a b -w xml"),
        case("elect -l a -w xml"),
    ];
    for (number, flags) in ["", "--hex", "-w json", "-w fields", "-w protobuf", "-w table"].iter().enumerate()
    {
        let lines = match *flags {
            "-w json" => 1,
            "-w fields" => 12,
            // These end by themselves, or end no line.
            "-w table" | "-w protobuf" => continue,
            _ => 2,
        };
        let name = format!("b{number}");
        cases.push(shown(case(&format!("elect {name} me {flags}")).signal(lines, Signal::INT), flags));
        cases.push(case(&format!("get {name} --prefix")));
        let observer = shown(case(&format!("elect {name} -l {flags}")), flags);
        cases.push(observer.signal(lines, Signal::TERM).beside(&format!("elect {name} me")));
    }
    cases.extend([
        case("elect a me -w table").vague(),
        case("elect -l c").signal(2, Signal::INT).beside("elect c you").vague(),
        // Who stands for election twice waits for himself.
        script(
            "l1",
            &format!(
                "$TOOL elect d one & one=$!; {}; $TOOL elect d two & two=$!; {}
                 kill $two; wait $two; echo $?; kill $one; wait $one; echo $?; $TOOL get d/ --prefix | grep -c .",
                until("d/", 1),
                until("d/", 2)
            ),
        )
        .vague(),
        // An observer sees who follows, and what a leader proclaims.
        script(
            "l2",
            &format!(
                "$TOOL elect e one > /dev/null & one=$!; {}; key=$($TOOL get e/ --prefix --keys-only)
                 $TOOL elect e two > /dev/null & two=$!; {}
                 (sleep 1; $TOOL put $key three > /dev/null; sleep 1; kill $one; sleep 1; kill $two) &
                 timeout 6 $TOOL elect -l e",
                until("e/", 1),
                until("e/", 2)
            ),
        )
        .vague(),
        script(
            "l3",
            "$TOOL elect f one > /dev/null & id=$!
             await '[ -n \"$($TOOL get f/ --prefix)\" ]'
             key=$($TOOL get f/ --prefix --keys-only)
             $TOOL lease revoke ${key#f/} > /dev/null; wait $id; echo $?",
        ),
    ]);
    cases
}
