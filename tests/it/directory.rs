//! Whose data a member takes for its own.

use std::time::Duration;

use anyhow::Result;
use tests::{Member, Options, Program, skipped};

use crate::program;

/// How long a refusal may take; it comes at once.
const REFUSAL_MAX: Duration = Duration::from_secs(30);

fn on(directory: &Member) -> Result<Member> {
    let mut options = Options::new(program());
    options.data_dir = Some(directory.data_dir());
    Member::prepare(options)
}

/// etcd would wait for the lock for ever; we say what is wrong (`tests/differences.md`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_one_directory_are_refused() -> Result<()> {
    if !program().is_ours() {
        return Ok(());
    }
    let first = Member::start(program()).await?;
    let client = first.connect().await?;
    client.put("a", "1").await?;
    let mut second = on(&first)?;
    second.spawn()?;
    let status = second.wait_exit(REFUSAL_MAX).await?;
    assert!(!status.success());
    let log = second.log();
    assert!(log.contains("lock") || log.contains("in use"), "the reason is named: {log}");
    client.put("a", "2").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_etcds_is_refused_and_left_alone() -> Result<()> {
    let (Some(etcd), true) = (Program::etcd(), program().is_ours()) else {
        skipped("a directory of etcd's", "REAL_ETCD_BIN is not set");
        return Ok(());
    };
    let mut theirs = Member::start(etcd).await?;
    theirs.connect().await?.put("a", "1").await?;
    theirs.terminate().await?;
    let mut ours = on(&theirs)?;
    ours.spawn()?;
    let status = ours.wait_exit(REFUSAL_MAX).await?;
    assert!(!status.success());
    let log = ours.log();
    assert!(log.contains("etcd") && log.contains("snapshot"), "the way over is named: {log}");
    theirs.start_again().await?;
    assert!(theirs.connect().await?.get("a").await?.is_some(), "etcd still finds its data");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_something_else_is_refused() -> Result<()> {
    if !program().is_ours() {
        return Ok(());
    }
    let mut member = Member::prepare(Options::new(program()))?;
    let snap = member.data_dir().join("member/snap");
    std::fs::create_dir_all(&snap)?;
    std::fs::create_dir_all(member.data_dir().join("member/wal"))?;
    std::fs::write(snap.join("db"), b"no database at all")?;
    std::fs::write(member.data_dir().join("member/wal/0000000000000000-0000000000000000.wal"), b"no log")?;
    member.spawn()?;
    let status = member.wait_exit(REFUSAL_MAX).await?;
    assert!(!status.success());
    assert_eq!(std::fs::read(snap.join("db"))?, b"no database at all", "what is not ours is not touched");
    Ok(())
}

/// Damage before valid records is no torn tail: a member that went on would forget what it acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_refuses_to_start_and_names_the_place() -> Result<()> {
    if !program().is_ours() {
        return Ok(());
    }
    let mut member = Member::start(program()).await?;
    let client = member.connect().await?;
    for at in 0..200 {
        client.put(format!("k/{at}"), vec![b'v'; 500]).await?;
    }
    member.kill().await?;
    let mut segments: Vec<_> = std::fs::read_dir(member.data_dir().join("member/wal"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    segments.retain(|path| path.is_file());
    segments.sort();
    let mut damaged = None;
    for path in &segments {
        let mut bytes = std::fs::read(path)?;
        let value = vec![b'v'; 500];
        // The first record that is surely followed by others.
        if let Some(at) = bytes.windows(500).position(|window| window == value) {
            bytes[at + 250] ^= 0x40;
            std::fs::write(path, bytes)?;
            damaged = Some(path.clone());
            break;
        }
    }
    let damaged = damaged.expect("a value stands in the log as it is");
    member.spawn()?;
    let status = member.wait_exit(REFUSAL_MAX).await?;
    assert!(!status.success());
    let (log, name) =
        (member.log(), damaged.file_name().expect("a file has a name").to_string_lossy().into_owned());
    assert!(log.contains(&name) && log.contains("offset"), "{name} and the offset are named: {log}");
    Ok(())
}
