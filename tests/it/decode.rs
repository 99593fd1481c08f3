//! Objects of Kubernetes in a member, shown by `etcdctl get --decode=k8s`.

use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::{Member, Program};

use crate::program;

fn etcdctl(member: &Member, line: &str) -> Result<Output> {
    let mut command = Command::new(Program::etcdctl());
    // The tool warns of variables that it does not know, such as the one that names it to tests.
    command.env_remove("ETCDCTL_BIN");
    command.args(line.split(' ')).arg("--endpoints").arg(member.client_url());
    Ok(command.output()?)
}

/// Every kind as an apiserver stores it, written by Kubernetes' own code, comes out as Kubernetes' JSON.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_shown_as_kubernetes_shows_them() -> Result<()> {
    let member = Member::start(program()).await?;
    let client = member.connect().await?;
    let lines = include_str!("../../etcdctl/k8s/testdata/objects.txt").lines();
    let mut objects = Vec::new();
    for (index, line) in lines.filter(|line| !line.starts_with('#')).enumerate() {
        let [_version, _kind, stored, shown] =
            line.splitn(4, ' ').collect::<Vec<_>>().try_into().expect("four words");
        let key = format!("/registry/{index:04}");
        let header = client.put(key.as_str(), STANDARD.decode(stored)?).await?;
        // Numbers inside of objects may be written as 1e2, which is 100.
        let shown: Value = serde_json::from_str(&shown.replace("1e2", "100"))?;
        objects.push(json!({
            "key": key, "create_revision": header.revision, "mod_revision": header.revision, "version": 1,
            "stored_as": "protobuf", "object": shown,
        }));
    }
    let output = etcdctl(&member, "get /registry/ --prefix --decode=k8s -w json")?;
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    let found: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(found.len(), objects.len());
    for (found, expected) in found.into_iter().zip(objects) {
        assert_eq!(found, expected);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_object_is_shown_as_what_it_is() -> Result<()> {
    let member = Member::start(program()).await?;
    let client = member.connect().await?;
    client.put("/r/a", r#"{"kind":"Gizmo","metadata":{"name":"a","managedFields":[{}]}}"#).await?;
    client.put("/r/b", "17").await?;
    client.put("/r/c", &b"k8s:enc:secretbox:v1:key2:\xff\xff"[..]).await?;
    let output = etcdctl(&member, "get /r/ --prefix --decode k8s --no-managed-fields")?;
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let expected = "\
# /r/a
# create_revision 2, mod_revision 2, version 1
kind: Gizmo
metadata:
  name: a
---
# /r/b
# create_revision 3, mod_revision 3, version 1
\"17\"
---
# /r/c
# create_revision 4, mod_revision 4, version 1
# encrypted by secretbox v1 with the key key2: 28 bytes
";
    assert_eq!(String::from_utf8(output.stdout)?, expected);
    let output = etcdctl(&member, "get /r/b --decode k8s --print-value-only")?;
    assert_eq!(String::from_utf8(output.stdout)?, "\"17\"\n");

    // Damage is told, after everything else was shown.
    client.put("/r/b", &b"k8s\0\x0a\x7f"[..]).await?;
    let output = etcdctl(&member, "get /r/ --prefix --decode k8s -w json")?;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr)?;
    assert!(error.starts_with("the value of \"/r/b\" cannot be decoded: "), "{error}");
    let text = String::from_utf8(output.stdout)?;
    let middle: Value = serde_json::from_str(text.lines().nth(1).context("three lines")?)?;
    assert_eq!((&middle["stored_as"], &middle["bytes"]), (&json!("damaged"), &json!("azhzAAp/")));
    assert_eq!(text.lines().count(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_go_with_decoding_is_refused() -> Result<()> {
    let member = Member::start(program()).await?;
    for (flags, status, text) in [
        (
            "--decode=yaml",
            1,
            "invalid argument \"yaml\" for \"--decode\" flag: k8s is what values can be decoded as",
        ),
        ("--decode=k8s --keys-only", 128, "neither `--keys-only` nor `--count-only` goes with it"),
        ("--decode=k8s -w table", 4, "`--decode` writes YAML, or JSON with `--write-out=json`"),
    ] {
        let output = etcdctl(&member, &format!("get a {flags}"))?;
        let error = String::from_utf8(output.stderr)?;
        assert!(output.status.code() == Some(status) && error.contains(text), "{:?}: {error}", output.status);
    }
    Ok(())
}
