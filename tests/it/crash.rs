//! Nothing that was acknowledged is lost, however the process ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest};
use tests::Member;
use tokio::task::JoinHandle;

use crate::program;

const WRITERS: usize = 16;
const KILLS: usize = 6;

/// What a writer knows of its keys: the value that was last acknowledged, and the one that may also be there.
#[derive(Debug, Default, Clone)]
struct Key {
    acknowledged: Option<u64>,
    revision: i64,
    unsure: Vec<Option<u64>>,
}

type Known = Arc<Mutex<BTreeMap<String, Key>>>;

/// Writers that put and delete, each its own keys, until told to stop or refused.
fn load(
    member: &Member,
    known: &Known,
    stop: &Arc<AtomicBool>,
    count: &Arc<AtomicU64>,
) -> Vec<JoinHandle<()>> {
    let url = member.client_url();
    (0..WRITERS)
        .map(|writer| {
            let (url, known, stop, count) =
                (url.clone(), Arc::clone(known), Arc::clone(stop), Arc::clone(count));
            tokio::spawn(async move {
                let Ok(client) = tests::Client::connect(&url, None).await else { return };
                while !stop.load(Ordering::Relaxed) {
                    let value = count.fetch_add(1, Ordering::Relaxed);
                    let key = format!("w{writer}/{}", value % 7);
                    let wanted = (value % 5 != 0).then_some(value);
                    known
                        .lock()
                        .expect("no panic holds it")
                        .entry(key.clone())
                        .or_default()
                        .unsure
                        .push(wanted);
                    let answer = match wanted {
                        Some(value) => client.put(key.clone(), value.to_string()).await,
                        None => {
                            let delete = DeleteRangeRequest { key: key.clone().into(), ..Default::default() };
                            client
                                .kv
                                .clone()
                                .delete_range(delete)
                                .await
                                .map(|a| a.into_inner().header.unwrap_or_default())
                        }
                    };
                    match answer {
                        Ok(header) => {
                            let key =
                                Key { acknowledged: wanted, revision: header.revision, unsure: Vec::new() };
                            known
                                .lock()
                                .expect("no panic holds it")
                                .insert(format!("w{writer}/{}", value % 7), key);
                        }
                        Err(_) => return,
                    }
                }
            })
        })
        .collect()
}

async fn check(member: &Member, known: &Known, highest: &mut i64) -> Result<()> {
    let client = member.connect().await?;
    let now = client.put("check", "").await?.revision;
    ensure!(now > *highest, "revision {now} follows {highest}");
    *highest = now;
    let snapshot = known.lock().expect("no panic holds it").clone();
    for (name, key) in snapshot {
        let found = client.get(name.clone()).await?;
        let value = found.as_ref().map(|kv| String::from_utf8_lossy(&kv.value).parse()).transpose()?;
        ensure!(
            value == key.acknowledged || key.unsure.contains(&value),
            "{name} is {value:?}, acknowledged at revision {} was {key:?}",
            key.revision
        );
        ensure!(now > key.revision, "{name} was acknowledged at {}, now is {now}", key.revision);
        if value == key.acknowledged && key.unsure.is_empty() && value.is_some() {
            ensure!(found.is_some_and(|kv| kv.mod_revision == key.revision), "{name} has another revision");
        }
        // From here on the key is what it turned out to be.
        known
            .lock()
            .expect("no panic holds it")
            .insert(name, Key { acknowledged: value, revision: 0, unsure: vec![value] });
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_to_kills_under_load() -> Result<()> {
    let mut member = Member::start(program()).await?;
    let (known, count) = (Known::default(), Arc::new(AtomicU64::new(1)));
    let mut highest = 0;
    for round in 0..KILLS {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = load(&member, &known, &stop, &count);
        let until = count.load(Ordering::Relaxed) + 150 + 100 * round as u64;
        while count.load(Ordering::Relaxed) < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if round % 2 == 1 {
            // A compaction runs when the power goes.
            let compact = CompactionRequest { revision: highest, physical: false };
            member.connect().await?.kv.compact(compact).await?;
        }
        if round % 3 == 2 {
            member.terminate().await.context("SIGTERM under load")?;
        } else {
            member.kill().await?;
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await?;
        }
        member.start_again().await.with_context(|| format!("start after stop {round}"))?;
        check(&member, &known, &mut highest).await.with_context(|| format!("after stop {round}"))?;
    }
    Ok(())
}

/// A member that is killed while it starts, again and again, still comes up with everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_during_start_do_no_harm() -> Result<()> {
    let mut member = Member::start(program()).await?;
    let client = member.connect().await?;
    for at in 0..300 {
        client.put(format!("k/{at}"), vec![b'v'; 1000]).await?;
    }
    member.kill().await?;
    for wait in [1, 3, 10, 20, 40, 80, 160] {
        member.spawn()?;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        member.kill().await?;
    }
    member.start_again().await?;
    assert_eq!(member.connect().await?.count("k/").await?, 300);
    Ok(())
}
