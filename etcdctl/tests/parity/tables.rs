//! The commands, by area.

use std::path::Path;

use super::case::{Case, case};
use super::server::free_port;

/// The same command in every output format, with and without `--hex`.
pub fn formats(line: &str) -> Vec<Case> {
    let flags = [
        "",
        " --hex",
        " -w fields",
        " -w fields --hex",
        " -w json",
        " -w json --hex",
        " -w protobuf",
        " -w table",
    ];
    flags.iter().map(|flags| case(&format!("{line}{flags}"))).collect()
}

/// get, put and del.
pub fn keys_and_values() -> Vec<Case> {
    let mut cases = vec![
        case("put foo bar"),
        case("put foo bar2 --prev-kv"),
        case("put").stdin(""),
        case("put onlykey").stdin("from stdin\n"),
        case("put onlykey"),
        case("put foo bar third"),
        case("put -- -k -v"),
        case("put k -v"),
        case("put k -- -v"),
        case("put '' x"),
        case("put 'a<b>&c' 'é\u{301}\u{1}\t\u{2028}\"\\'"),
        case("put nolease v --lease zz"),
        case("put nolease v --lease 1234"),
        case("put nokey --ignore-value"),
        case("put foo x --ignore-value"),
        case("put foo --ignore-value --prev-kv"),
        case("put foo y --ignore-lease"),
        case("put big").stdin(&"x".repeat(1_572_865)),
        case("put big").stdin(&"x".repeat(2_200_000)),
        case("get"),
        case("get nokey"),
        case("get nokey -w json"),
        case("get nokey -w fields"),
        case("get foo --print-value-only"),
        case("get foo --print-value-only -w json"),
        case("get foo --print-value-only=false -w json"),
        case("get '' --prefix --keys-only"),
        case("get '' --prefix --count-only"),
        case("get '' --prefix --count-only -w fields"),
        case("get '' --prefix --count-only -w json"),
        case("get '' --prefix --limit 2 -w json"),
        case("get '' --prefix --limit=-1"),
        case("get '' --from-key"),
        case("get ''"),
        case("get foo onlykey x"),
        case("get f p --order DESCEND --sort-by MODIFY"),
        case("get f p --order descend --sort-by version"),
        case("get f p --order FOO"),
        case("get f p --sort-by FOO"),
        case("get f p --consistency s"),
        case("get f p --consistency x"),
        case("--consistency s get f"),
        case("--prefix=true -w json get f"),
        case("member --consistency s list"),
        case("get f p --prefix"),
        case("get f --prefix --from-key"),
        case("get f --keys-only --count-only"),
        case("get foo --rev 2"),
        case("get foo --rev 1"),
        case("get foo --rev 1000"),
        case("get foo --rev x"),
        case("get foo --rev"),
        case("get '' --prefix --min-mod-rev 3 --max-mod-rev 5"),
        case("get '' --prefix --min-create-rev 3 --max-create-rev 1"),
        case("get '' --prefix --min-create-rev 3"),
        case("get '' --prefix --stream"),
        case("get '' --prefix --stream -w json"),
        case("get '' --prefix --stream --order DESCEND --sort-by MODIFY"),
        case("get foo -w"),
        case("get foo -w xml"),
        case("get foo -wjson --write-out simple"),
        case("-w json get foo"),
        case("get foo --nope"),
        case("get foo -x"),
        case("get foo --hex=maybe"),
        case("get foo --command-timeout 5"),
        case("ge foo"),
    ];
    for line in ["get '' --prefix", "get nokey", "put foo z --prev-kv", "put foo z"] {
        cases.extend(formats(line));
    }
    cases.extend([
        case("del"),
        case("del a b c"),
        case("del nokey"),
        case("del foo onlykey"),
        case("del foo onlykey --range"),
        case("del k --prefix --from-key"),
        case("del k l --prefix"),
    ]);
    for flags in ["", " --hex", " -w fields", " -w json", " -w protobuf", " -w table"] {
        cases.push(case(&format!("put k{flags} v")));
        cases.push(case(&format!("del k --prev-kv{flags}")));
    }
    cases.extend([case("del '' --prefix"), case("del '' --from-key"), case("get '' --prefix -w json")]);
    cases
}

/// txn.
pub fn transactions() -> Vec<Case> {
    let hit = "mod(\"a\") > \"0\"\n\nput a 1\nget a\nget '' --prefix --limit 1\ndel a --prev-kv\nput a \"two words\"\n\nput b 1\n\n";
    let miss =
        "value(\"a\") = \"x\"\nver(\"a\") != \"1\"\n\nput a 1\n\nput b 1 --prev-kv\nget b a\nget a\n\n";
    let mut cases = vec![case("put a 0"), case("txn extra"), case("txn").stdin("")];
    for text in [hit, miss] {
        for case in formats("txn") {
            cases.push(case.stdin(text));
        }
        cases.push(case("txn -i").stdin(text));
        cases.push(case("txn --interactive=false").stdin(text));
    }
    for text in [
        "\n\n\n",
        "bogus(\"foo\") = \"99\"\n\n\n\n",
        "mod(\"foo\") = \"x\"\n\n\n\n",
        "mod(\"foo\"\n\n\n\n",
        "nothing\n\n\n\n",
        "mod(\"foo\")=\"1\"\n\n\n\n",
        "c(\"a\") < \"100\"\n\nfetch a\n\n\n",
        "\nput\n\n\n",
        "\nput a\n\n\n",
        "\nget a --nope\n\n\n",
        "\nput a 1\nput a 2\n\n\n",
        "\nput a 1\n\n",
        "\nput a 1",
        "\ndel a b\n\n\n",
        "\ndel a --range\n\n\n",
        "create(\"a\") = \"0\"\n\n\n\n",
        "val(\"a\") < \"\\xff\"\n\nput \"q\\n\\\"\" 'single q'\nget \"q\\n\\\"\"\n\n\n",
    ] {
        cases.push(case("txn").stdin(text));
    }
    cases.push(case("txn -w xml").stdin("\n\n\n"));
    cases
}

/// watch, interactive or not, and compaction.
pub fn watches() -> Vec<Case> {
    let mut cases = vec![
        case("watch"),
        case("watch a a"),
        case("watch b a -w json"),
        case("watch a b --prefix"),
        case("watch a --rev -1"),
        case("watch a --"),
        case("watch -- echo"),
        case("put w 1"),
        case("put w 2"),
        case("del w"),
        case("put w2 '3 \"\u{e9}\"'"),
        case("watch w --rev 1").until(9),
        case("watch w x --rev 1 --prev-kv").until(16),
        case("watch w --prefix --rev 3 -w json").until(1),
        case("watch w --prefix --rev 3 -w json --prev-kv").until(1),
        case("watch w --prefix --rev 3 -w fields --hex").until(25),
        case("watch w --rev 2 --hex").until(3),
        case("watch w x y --rev 1").until(9),
        case("watch w --rev 2 -w table"),
        case(
            "watch --rev 2 w -- sh -c 'echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE; exit 7'",
        ),
        case("watch w --rev 5 --prefix -- sh -c 'echo -n $ETCD_WATCH_VALUE; kill -9 $$'"),
        case("watch w --rev 2 -- no-such-program -x"),
        case("watch --rev 2 -- echo hello").env("ETCDCTL_WATCH_KEY", "w").until(4),
        case("watch --rev 2").env("ETCDCTL_WATCH_KEY", "w").env("ETCDCTL_WATCH_RANGE_END", "x").until(9),
        case("watch w").env("ETCDCTL_WATCH_KEY", "w"),
        case("watch").env("ETCDCTL_WATCH_RANGE_END", "x"),
        case("watch -i").stdin("watch w --rev 2\n").close_after(9),
        case("watch -i").stdin("watch --rev 2 --prev-kv w -- echo seen\n").close_after(16),
        case("watch -i").stdin("\nnope\nwatch\nwatch a b --prefix\nwatch w2 --rev 2\n").close_after(3),
        case("watch -i").stdin("watch w --rev 1000\nwatch w2 --rev 2\n").close_after(3),
        case("watch -i").stdin("watch a --nope\n"),
        case("watch -i").stdin("watch a --\n"),
        case("watch -i").stdin("watch b a\nwatch w2 --rev 2\n").close_after(3),
        case("watch -i").stdin("watch --rev 2\n").env("ETCDCTL_WATCH_KEY", "w").close_after(9),
        case("watch -i").stdin("progress\n"),
        case("watch -i -w xml").stdin("progress\n"),
        case("watch w --rev x"),
        case("compaction"),
        case("compaction x"),
        case("compaction 4"),
        case("compaction 4"),
        case("compaction 1000"),
        case("compaction 5 --physical"),
        case("watch w --rev 2"),
        case("watch w --rev 2 -w json"),
        case("watch w --rev 2 -w fields"),
        case("watch -i -w json").stdin("watch w --rev 2\n").close_after(1),
        case("get w --rev 2"),
    ];
    // Leave the raw bytes to the last: a reader by lines sees no end in them.
    cases.push(case("watch w2 --rev 5 -w protobuf -- false"));
    cases
}

/// lease.
pub fn leases() -> Vec<Case> {
    let mut cases = vec![
        case("lease").own_words(),
        case("lease grant"),
        case("lease grant x"),
        case("lease grant 9000000001"),
        case("lease list"),
        case("lease list -w json"),
        case("lease list -w fields"),
        case("lease grant 1000"),
        case("put leased v --lease {lease}"),
        case("put leased2 v --lease={lease}"),
        case("get leased -w json"),
        case("get leased -w fields --hex"),
        case("get leased -w fields"),
        case("lease timetolive"),
        case("lease timetolive zz"),
        case("lease timetolive 1234"),
        case("lease timetolive 1234 -w json"),
        case("lease timetolive 1234 -w fields"),
        case("lease timetolive {lease} --keys").vague().any_order(),
        case("lease timetolive {lease}").vague(),
        case("lease timetolive {lease} --keys -w json").vague().any_order(),
        case("lease timetolive {lease} --keys -w fields").vague().any_order(),
        case("lease keep-alive"),
        case("lease keep-alive zz"),
        case("lease keep-alive --once 1234"),
        case("lease keep-alive 1234"),
        case("lease keep-alive 1234 -w json"),
        case("lease keep-alive {lease}").until(1),
        case("lease revoke"),
        case("lease revoke 1234"),
    ];
    for line in ["lease list", "lease keep-alive --once {lease}"] {
        cases.extend(formats(line));
    }
    cases.extend([
        case("lease revoke {lease}"),
        case("lease timetolive {lease}"),
        case("get leased"),
        case("lease grant 1"),
        case("lease keep-alive {lease} -w json").until(1),
    ]);
    for flags in [" -w json", " -w fields", " -w fields --hex", " -w protobuf", " -w table"] {
        cases.push(case("lease grant 500"));
        let revoke = case(&format!("lease revoke {{lease}}{flags}"));
        // etcd's message dumps the memory of a struct.
        cases.push(if flags.ends_with("protobuf") { revoke.own_words() } else { revoke });
    }
    for flags in [" -w json", " -w fields"] {
        // Its id is printed in a form that is not followed.
        cases.push(case(&format!("lease grant 500{flags}")).vague());
    }
    cases
}

/// member list, endpoint, alarm, defrag and check, with endpoints that are down.
pub fn members_and_endpoints() -> Vec<Case> {
    let mut cases = Vec::new();
    for line in ["member list", "endpoint hashkv", "alarm list", "alarm disarm"] {
        cases.extend(formats(line));
    }
    for line in
        ["endpoint status", "endpoint health", "endpoint status --cluster", "endpoint health --cluster"]
    {
        cases.extend(formats(line).into_iter().map(Case::vague));
    }
    let dead = free_port();
    let short = "--command-timeout 2s";
    for line in [
        "member list --consistency s -w json",
        "member list --consistency x",
        "endpoint hashkv --rev 1",
        "endpoint hashkv --rev 1000",
        "endpoint hashkv --cluster",
        "alarm list x",
        "alarm disarm x",
        "check",
        "check perf --load x",
        "check perf --prefix /x --load=q",
        "defrag x",
        "member",
        "alarm",
        "endpoint",
    ] {
        let case = case(line);
        cases.push(match line {
            "defrag x" => case.vague(),
            "member" | "alarm" | "endpoint" | "check" => case.own_words(),
            // etcd's message names the wrong variable.
            "member list --consistency x" => case.own_words(),
            _ => case,
        });
    }
    for line in [
        format!("get a --endpoints 127.0.0.1:{dead} {short}"),
        format!("put a b --endpoints 127.0.0.1:{dead} {short}"),
        format!("endpoint status --endpoints 127.0.0.1:{dead} {short}"),
        format!("endpoint status --endpoints 127.0.0.1:{dead} -w json {short}"),
        format!("endpoint status --endpoints 127.0.0.1:{dead},127.0.0.1:{{port}} {short}"),
        format!("endpoint health --endpoints 127.0.0.1:{dead},127.0.0.1:{{port}} {short}"),
        format!("endpoint health --endpoints 127.0.0.1:{dead},127.0.0.1:{{port}} -w json {short}"),
        format!("endpoint hashkv --endpoints 127.0.0.1:{dead},127.0.0.1:{{port}} {short}"),
        format!("endpoint health --cluster --endpoints 127.0.0.1:{dead} {short}"),
        format!("defrag --endpoints 127.0.0.1:{dead},127.0.0.1:{{port}} {short}"),
        format!("defrag --cluster --endpoints 127.0.0.1:{dead} {short}"),
        format!("put a b --endpoints 127.0.0.1:{dead},127.0.0.1:{{port}}"),
        format!("get a --endpoints http://127.0.0.1:{dead},http://127.0.0.1:{{port}}"),
        "get a --endpoints ' 127.0.0.1:{port}'".to_owned(),
        "get a --command-timeout 0s".to_owned(),
        "get a --endpoints=".to_owned(),
    ] {
        cases.push(case(&line).vague());
    }
    cases
}

/// member add, promote, update and remove; move-leader.
pub fn membership_changes() -> Vec<Case> {
    let lines = [
        "member add",
        "member add a b http://x",
        "member add a",
        "member add a --peer-urls x",
        "member add a --peer-urls http://a",
        "member add a --peer-urls http://a:1/",
        "member update 1 --peer-urls ftp://a:1",
        "member add two --peer-urls http://127.0.0.1:3,http://127.0.0.1:4 --learner",
        "member list",
        "member list -w table",
        "member list -w fields",
        "member list -w json",
        "member add three --peer-urls http://127.0.0.1:5 --learner -w json",
        "member promote",
        "member promote zz",
        "member promote 1234",
        "member update 1234",
        "member update 1234 --peer-urls http://127.0.0.1:9",
        "member remove",
        "member remove 1234",
        "member remove zz",
        "member remove OWN",
        "member promote OWN",
        "member update OWN --peer-urls http://127.0.0.1:3",
        "move-leader",
        "move-leader zz",
        "move-leader 1234",
        "move-leader OWN",
        "move-leader OWN -w json",
        "move-leader OWN -w fields",
        "move-leader OWN -w table",
        "move-leader OWN extra",
    ];
    // The only voter's, which follows from its peer URL.
    let cases =
        lines.iter().map(|line| line.replace("OWN", "58a88bf978398f80")).map(|line| match line.as_str() {
            line if line.starts_with("member add") || line.starts_with("member list") => {
                case(line).vague().any_order()
            }
            line => case(line),
        });
    cases.collect()
}

/// What is asked of all members of a cluster, and moving its leader.
pub fn three_members(endpoints: &str) -> Vec<Case> {
    // The first answers only once there is a leader, the second once each member follows it.
    let mut cases =
        vec![case("put a b --command-timeout 20s"), case("endpoint health --cluster").vague().any_order()];
    cases.extend(formats("member list"));
    cases.extend(formats("endpoint hashkv --cluster"));
    for line in ["endpoint status --cluster", "endpoint health --cluster"] {
        cases.extend(formats(line).into_iter().map(|case| case.vague().any_order()));
    }
    cases.extend([
        case(&format!("move-leader 1234 --endpoints {endpoints}")),
        case(&format!("member remove 1234 --endpoints {endpoints}")),
        case(&format!("member promote 1234 --endpoints {endpoints}")),
    ]);
    cases
}

/// Flags, variables, help.
pub fn command_line_and_environment() -> Vec<Case> {
    let mut cases = vec![case("put a b")];
    for line in ["bogus", "", "help", "get --help", "lease bogus", "help get", "--help", "options"] {
        cases.push(case(line).own_words());
    }
    cases.extend([
        case("pet"),
        case("help bogus"),
        case("help bogus get").own_words(),
        case("version"),
        case("version x"),
        case("--nope"),
        case("lease --nope"),
        case("get --nope"),
        case("get a --hex=1"),
        case("get a -h=false"),
        case("get a --cert ''"),
        case("get a --key=''").own_words(),
        case("get a --cacert ''"),
        case("get a --cacert no-such-file"),
        case("get a --cert no-such-file"),
        case("get a").env("ETCDCTL_API", "3"),
        case("get a").env("ETCDCTL_WRITE_OUT", "json"),
        case("get a -w fields").env("ETCDCTL_WRITE_OUT", "json"),
        case("get a").env("ETCDCTL_WRITE_OUT", ""),
        case("get a -w json").env("ETCDCTL_WRITE_OUT", ""),
        case("get a").env("ETCDCTL_HEX", "true"),
        case("get a").env("ETCDCTL_HEX", "maybe"),
        case("get a").env("ETCDCTL_COMMAND_TIMEOUT", "nonsense"),
        case("get a --debug"),
        case("get a").env("ETCDCTL_DEBUG", "1"),
        case("version").env("ETCDCTL_WRITE_OUT", "xml"),
        case("get a --endpoints 127.0.0.1:{port}").env("ETCDCTL_WRITE_OUT", "json"),
        case("get a --max-request-bytes 10 --max-recv-bytes 5"),
        case("put a 12345678901234567890 --max-request-bytes 10"),
        case("get a --user root:x"),
        case("get a --user root --password x"),
        case("get a --user root").stdin("x\n"),
        case("get a --user ''"),
        case("get a --user :x"),
        case("get a --auth-jwt-token t"),
        case("get a --user root:x --dial-timeout 1s --endpoints 127.0.0.1:1"),
        case("get a --user root:x --dial-timeout 0s"),
        case("get a --dial-timeout x"),
        case("get a --keepalive-time 1s --keepalive-timeout 1s"),
        case("get a --keepalive-time x"),
        case("get a --keepalive-timeout -1"),
        case("get a --max-recv-bytes x"),
        case("get a --max-request-bytes 0x10"),
        case("get a --max-recv-bytes 3"),
        case("get a -d ''"),
        case("get a --discovery-srv '' --discovery-srv-name x"),
        case("get a -d no-such-domain.invalid").own_words(),
        case("get a --insecure-discovery=false"),
        case("get a --insecure-transport=false --command-timeout 1s"),
        case("get a --command-timeout 1s").env("ETCDCTL_INSECURE_TRANSPORT", "false"),
        case("get a --insecure-transport").env("ETCDCTL_INSECURE_TRANSPORT", "false"),
        case("get a").env("ETCDCTL_DIAL_TIMEOUT", "x"),
        case("get a -d ''").env("ETCDCTL_DISCOVERY_SRV", "x.invalid"),
        case("get a").env("ETCDCTL_CERT", "no-such-file"),
        case("get a").env("ETCDCTL_USER", "root:x").env("ETCDCTL_PASSWORD", "y"),
        case("watch a --rev 1 --debug -w xml").env("ETCDCTL_WATCH_RANGE_END", ""),
        case("lock l true").env("ETCDCTL_WRITE_OUT", "xml"),
        case("completion"),
        case("completion tcsh"),
    ]);
    for shell in ["bash", "zsh", "fish", "powershell"] {
        cases.push(case(&format!("completion {shell}")).own_words());
    }
    cases
}

/// A member over its quota.
pub fn space_is_used_up() -> Vec<Case> {
    let mut cases =
        vec![case("put big").stdin(&"x".repeat(200_000)), case("put big").stdin(&"x".repeat(200_000))];
    cases.push(case("put more").stdin(&"x".repeat(200_000)));
    cases.extend(formats("alarm list").into_iter().map(Case::vague));
    cases.extend(formats("endpoint health").into_iter().map(Case::vague));
    cases.push(case("lease grant 10"));
    cases.extend([case("endpoint status").vague(), case("endpoint status -w fields").vague()]);
    cases.push(case("alarm disarm -w json"));
    cases.push(case("alarm disarm"));
    cases
}

/// TLS with and without client certificates, and the member's flags for it.
pub fn encrypted_connections(folder: &Path) -> (Vec<Case>, Vec<String>) {
    let path = |name: &str| folder.join(name).display().to_string();
    let write =
        |name: &str, text: String| std::fs::write(folder.join(name), text).expect("a writable directory");
    for authority in ["right", "wrong"] {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, authority);
        write(&format!("{authority}.crt"), params.self_signed(&key).expect("a certificate").pem());
        let issuer = rcgen::Issuer::new(params, key);
        let leaf_key = rcgen::KeyPair::generate().expect("a key");
        let mut leaf =
            rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("names");
        leaf.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        write(
            &format!("{authority}-leaf.crt"),
            leaf.signed_by(&leaf_key, &issuer).expect("a certificate").pem(),
        );
        write(&format!("{authority}-leaf.key"), leaf_key.serialize_pem());
    }
    let (ca, cert, key) = (path("right.crt"), path("right-leaf.crt"), path("right-leaf.key"));
    let (wrong_ca, wrong_cert, wrong_key) =
        (path("wrong.crt"), path("wrong-leaf.crt"), path("wrong-leaf.key"));
    let server = "--endpoints https://127.0.0.1:{port} --command-timeout 30s";
    let refused = "--endpoints https://127.0.0.1:{port} --command-timeout 1s";
    let cases: Vec<Case> = [
        format!("put a b {server} --cacert {ca} --cert {cert} --key {key}"),
        format!("get a {server} --cacert {ca} --cert {cert} --key {key}"),
        format!("get a --endpoints 127.0.0.1:{{port}} --cacert {ca} --cert {cert} --key {key}"),
        format!("get a --endpoints localhost:{{port}} --cacert {ca} --cert {cert} --key {key}"),
        format!("get a {server} --insecure-skip-tls-verify --cert {cert} --key {key}"),
        format!("get a {refused} --insecure-skip-tls-verify=false --cert {cert} --key {key}"),
        format!("get a {refused} --insecure-skip-tls-verify"),
        format!("get a {refused} --cacert {ca}"),
        format!("get a {refused} --cacert {wrong_ca} --cert {cert} --key {key}"),
        format!("get a {refused} --cacert {ca} --cert {wrong_cert} --key {wrong_key}"),
        format!("get a {server} --cacert {ca} --cert {cert}"),
        format!("get a {server} --cacert {ca} --key {key}"),
        format!("get a --endpoints http://127.0.0.1:{{port}} --command-timeout 1s --cacert {ca}"),
        "get a --endpoints 127.0.0.1:{port} --command-timeout 1s".to_owned(),
        format!("endpoint health {server} --cacert {ca} --cert {cert} --key {key}"),
        format!("endpoint health --cluster {server} --cacert {ca} --cert {cert} --key {key}"),
        format!("endpoint health {refused} --cacert {wrong_ca} --cert {cert} --key {key}"),
        format!("watch a --rev 2 {server} --cacert {ca} --cert {cert} --key {key} -- false"),
    ]
    .iter()
    .map(|line| case(line).vague())
    .collect();
    let flags = ["--client-cert-auth".into(), format!("--trusted-ca-file={ca}")];
    let files = [format!("--cert-file={cert}"), format!("--key-file={key}")];
    (cases, [flags, files].concat())
}
