//! What a member tells of its load, and `etcdctl top`, which shows it.

use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{Member, Program};

use crate::program;

fn top(member: &Member, flags: &str) -> Result<Output> {
    let mut command = Command::new(Program::etcdctl());
    command.args(["top", "--once", "--interval=200ms"]).args(flags.split_whitespace());
    Ok(command.arg("--endpoints").arg(member.client_url()).output()?)
}

/// The line that `--once -w json` prints.
fn figures(member: &Member, flags: &str) -> Result<Value> {
    let output = top(member, &format!("-w json {flags}"))?;
    anyhow::ensure!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_shows_what_a_member_does() -> Result<()> {
    let member = Member::start(program()).await?;
    let client = member.connect().await?;
    for n in 0..20 {
        client.put(format!("/shop/carts/{n}"), "12345").await?;
    }
    client.put("/shop/open", "yes").await?;
    let writer = tokio::spawn(async move {
        for n in 0_u32.. {
            if client.put(format!("/shop/orders/{}", n % 5), "new").await.is_err()
                || client.get("/shop/carts/1").await.is_err()
            {
                break;
            }
        }
    });
    let figures = tokio::task::block_in_place(|| figures(&member, ""))?;
    let text = tokio::task::block_in_place(|| top(&member, "--prefix-depth 1"))?;
    writer.abort();

    let one = &figures["members"][0];
    assert_eq!((&one["role"], &one["name"], &one["error"]), (&"leader".into(), &"m".into(), &Value::Null));
    for rate in ["puts", "ranges", "keys_changed"] {
        assert!(figures["rates"][rate].as_f64().context(rate)? > 0.0, "{rate}: {figures}");
    }
    assert_eq!(figures["changed"][0]["prefix"], "/shop/orders/");
    assert_eq!(figures["read"][0]["prefix"], "/shop/carts/");
    let sizes: Vec<_> = figures["largest"].as_array().context("a list")?.iter().collect();
    let keys =
        |prefix: &str| sizes.iter().find(|size| size["prefix"] == prefix).map(|size| size["keys"].clone());
    assert_eq!(keys("/shop/carts/"), Some(20.into()), "{figures}");
    assert_eq!(keys("/shop/"), Some(1.into()), "{figures}");
    let put =
        figures["latencies"].as_array().context("a list")?.iter().find(|latency| latency["what"] == "Put");
    assert!(put.context("puts took time")?["p99_seconds"].as_f64().context("a number")? > 0.0);
    assert_eq!(figures["left_out"], serde_json::json!([]));

    let text = String::from_utf8(text.stdout)?;
    for part in ["etcdctl top  cluster ", "leader", "per second: puts ", "CHANGED MOST", "/shop/"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    Ok(())
}

/// etcd has no such service: what it does tell is shown, and the rest said to be missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_works_with_etcd_too() -> Result<()> {
    let Some(etcd) = Program::etcd() else {
        tests::skipped("top_works_with_etcd_too", "no REAL_ETCD_BIN");
        return Ok(());
    };
    let member = Member::start(etcd).await?;
    let figures = tokio::task::block_in_place(|| figures(&member, ""))?;
    assert_eq!(figures["members"][0]["role"], "leader");
    assert_eq!((&figures["rates"], &figures["keys"]), (&Value::Null, &Value::Null));
    let reason = figures["left_out"][0].as_str().context("a reason")?;
    assert!(reason.contains("without quorate.Insight"), "{reason}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_without_a_member_fails() -> Result<()> {
    let mut command = Command::new(Program::etcdctl());
    command.args(["top", "--once", "--interval=100ms", "--endpoints=127.0.0.1:1", "-w", "json"]);
    let output = tokio::task::block_in_place(|| command.output())?;
    assert_eq!(output.status.code(), Some(1));
    let figures: Value = serde_json::from_slice(&output.stdout)?;
    assert!(figures["members"][0]["error"].is_string(), "{figures}");
    for flags in ["--interval=1ms", "--prefix-depth=9", "-w fields"] {
        let mut command = Command::new(Program::etcdctl());
        command.args(["top", "--once"]).args(flags.split(' '));
        assert!(!command.output()?.status.success(), "{flags}");
    }
    Ok(())
}
