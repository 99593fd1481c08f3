//! Members on the disk: whatever was acknowledged is there after the machine stopped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jepsen::disk::{Disk, Loss, Names};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tests::{Member, Options, Program, skipped};

use super::disk;

/// What was acknowledged: each writer's last number.
type Acknowledged = Arc<Mutex<BTreeMap<String, u64>>>;

async fn member_on(disk: &Disk, program: Program) -> Result<Member> {
    let mut options = Options::new(program);
    options.data_dir = Some(disk.path().join("data"));
    Member::start_with(options).await
}

/// Writers that put ever greater numbers until told to stop or not answered.
async fn write_for(member: &Member, acknowledged: &Acknowledged, how_long: Duration) -> Result<Writers> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for writer in 0..8 {
        let client = member.connect().await?;
        let (acknowledged, stop) = (Arc::clone(acknowledged), Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            let key = format!("w/{writer}");
            let mut number = acknowledged.lock().expect("no panic holds it").get(&key).copied().unwrap_or(0);
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let value = format!("{number:020}{}", "x".repeat((number % 700) as usize));
                if client.put(key.clone(), value).await.is_err() {
                    return;
                }
                acknowledged.lock().expect("no panic holds it").insert(key.clone(), number);
            }
        }));
    }
    tokio::time::sleep(how_long).await;
    Ok(Writers { stop, tasks })
}

struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    async fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            tokio::time::timeout(Duration::from_secs(30), task).await.context("a writer hangs")??;
        }
        Ok(())
    }
}

async fn check(member: &Member, acknowledged: &Acknowledged) -> Result<()> {
    let client = member.connect().await?;
    let acknowledged = acknowledged.lock().expect("no panic holds it").clone();
    ensure!(acknowledged.len() == 8, "every writer wrote: {acknowledged:?}");
    for (key, number) in acknowledged {
        let pair =
            client.get(key.clone()).await?.with_context(|| format!("{key} is gone, {number} was in it"))?;
        let found: u64 = String::from_utf8_lossy(&pair.value)[..20].parse()?;
        ensure!(found >= number, "{key} is {found}, acknowledged was {number}");
    }
    Ok(())
}

/// The machine stops in the middle of writes, again and again.
async fn survives_crashes(program: Program, names: Names) -> Result<()> {
    let Some(mut disk) = disk(names) else { return Ok(()) };
    let mut rng = StdRng::seed_from_u64(5);
    let acknowledged = Acknowledged::default();
    let mut member = member_on(&disk, program).await?;
    let mut lost_files = 0;
    for (round, loss) in
        [Loss::All, Loss::Torn, Loss::Torn, Loss::All, Loss::Torn, Loss::Torn].into_iter().enumerate()
    {
        let writers = write_for(&member, &acknowledged, Duration::from_millis(700)).await?;
        member.kill().await?;
        writers.end().await?;
        let lost = disk.crash(loss, &mut rng)?;
        lost_files += lost.files;
        member.start_again().await.with_context(|| format!("round {round}, {loss:?}: {lost:?}"))?;
        check(&member, &acknowledged).await.with_context(|| format!("round {round}, {loss:?}: {lost:?}"))?;
    }
    ensure!(lost_files > 0, "the crashes took nothing: they tried nothing");
    Ok(())
}

/// The names of a new data directory, and of those in it, were not synced: a power cut after the first start
/// took all that had been acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ours_survives_crashes_of_the_machine() -> Result<()> {
    survives_crashes(Program::ours(), Names::Posix).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_survives_crashes_of_the_machine() -> Result<()> {
    let Some(program) = Program::etcd() else {
        skipped("real etcd on a disk that forgets", "REAL_ETCD_BIN is not set");
        return Ok(());
    };
    survives_crashes(program, Names::Journal).await
}

/// The disk's own check: a member told not to sync does lose what it acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_sync_loses_writes() -> Result<()> {
    let Some(mut disk) = disk(Names::Journal) else { return Ok(()) };
    let mut options = Options::new(Program::ours()).arg("--unsafe-no-fsync");
    options.data_dir = Some(disk.path().join("data"));
    let mut member = Member::start_with(options).await?;
    let acknowledged = Acknowledged::default();
    let writers = write_for(&member, &acknowledged, Duration::from_millis(700)).await?;
    member.kill().await?;
    writers.end().await?;
    disk.crash(Loss::All, &mut StdRng::seed_from_u64(5))?;
    let lost = match member.start_again().await {
        Ok(()) => check(&member, &acknowledged).await.is_err(),
        Err(_) => true,
    };
    ensure!(lost, "nothing is missing although nothing was synced");
    Ok(())
}

/// A hung disk holds writes back, and nothing acknowledged is lost when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_wait_for_a_disk_that_hangs() -> Result<()> {
    let Some(disk) = disk(Names::Posix) else { return Ok(()) };
    let member = member_on(&disk, Program::ours()).await?;
    let client = member.connect().await?;
    client.put("a", "1").await?;
    disk.set_hanging(true);
    let answered = tokio::time::timeout(Duration::from_secs(2), client.put("a", "2")).await;
    ensure!(!matches!(answered, Ok(Ok(_))), "a write was acknowledged by a disk that hangs");
    ensure!(disk.waiting() > 0);
    disk.set_hanging(false);
    tests::eventually("writes go on", || async { Ok(client.put("a", "3").await?) }).await?;
    ensure!(client.get("a").await?.is_some_and(|pair| pair.value == "3"));
    Ok(())
}

/// A full disk stops a member; with space it starts again with everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_outlives_a_full_disk() -> Result<()> {
    let Some(disk) = disk(Names::Posix) else { return Ok(()) };
    let mut member = member_on(&disk, Program::ours()).await?;
    let acknowledged = Acknowledged::default();
    write_for(&member, &acknowledged, Duration::from_millis(300)).await?.end().await?;
    disk.set_full(true);
    let client = member.connect().await?;
    let value = vec![b'x'; 1 << 20];
    let mut refused = false;
    for n in 0..300 {
        let put = client.put(format!("big/{n}"), value.clone());
        if !matches!(tokio::time::timeout(Duration::from_secs(20), put).await, Ok(Ok(_))) {
            refused = true;
            break;
        }
    }
    ensure!(refused && disk.refused() > 0, "300 MB fit on a full disk");
    disk.set_full(false);
    if member.wait_exit(Duration::from_secs(20)).await.is_err() {
        member.kill().await?;
    }
    member.start_again().await?;
    check(&member, &acknowledged).await
}
