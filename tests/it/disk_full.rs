//! A disk that fills up.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tests::{Member, Options, Program, skipped};

use crate::program;

/// A file system of its own, gone with the test.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// `None` where mounting is not allowed.
    fn mount(mebibytes: u32) -> Result<Option<Disk>> {
        let dir = tempfile::tempdir()?;
        let size = format!("size={mebibytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output()?;
        Ok(mounted.status.success().then_some(Disk { dir }))
    }

    fn grow(&self, mebibytes: u32) -> Result<()> {
        let size = format!("remount,size={mebibytes}m");
        let status = Command::new("mount").args(["-o", &size]).arg(self.dir.path()).status()?;
        ensure!(status.success(), "the disk cannot grow");
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What still uses it goes with the test's processes.
        Command::new("umount").arg("-l").arg(self.dir.path()).status().ok();
    }
}

/// The member stops with a clear line, loses nothing, and goes on once there is space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_member_and_loses_nothing() -> Result<()> {
    let Some(disk) = Disk::mount(400)? else {
        skipped("a full disk", "tmpfs cannot be mounted here");
        return Ok(());
    };
    let mut options = Options::new(program());
    options.data_dir = Some(disk.path());
    let mut member = Member::start_with(options).await?;
    let client = member.connect().await?;
    let value = vec![b'x'; 1 << 20];
    let mut acknowledged = Vec::new();
    for at in 0..2_000 {
        let key = format!("k/{at:05}");
        match tokio::time::timeout(Duration::from_secs(60), client.put(key.clone(), value.clone())).await {
            Ok(Ok(_)) => acknowledged.push(key),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    ensure!(acknowledged.len() < 2_000, "2 GB fit on 400 MB");
    member.wait_exit(Duration::from_secs(60)).await?;
    let log = member.log().to_lowercase();
    ensure!(
        log.contains("no space left") || log.contains("storagefull"),
        "the reason is named:\n{}",
        member.log_tail()
    );

    disk.grow(4_000)?;
    member.start_again().await?;
    let client = member.connect().await?;
    for key in &acknowledged {
        ensure!(
            client.get(key.as_str()).await?.is_some_and(|kv| kv.value == value),
            "{key} was acknowledged"
        );
    }
    client.put("after", "1").await?;
    Ok(())
}

/// A restore, and the first start on what it left, end with a clear line, and are done again once there is space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_a_restore_and_a_first_start() -> Result<()> {
    let Some(disk) = Disk::mount(5)? else {
        skipped("a full disk under a restore", "tmpfs cannot be mounted here");
        return Ok(());
    };
    let source = Member::start(program()).await?;
    let client = source.connect().await?;
    // Random ones, so that no compression makes room.
    let value = |at: u64| {
        let mut value = vec![0; 1 << 16];
        StdRng::seed_from_u64(at).fill(&mut value[..]);
        value
    };
    for at in 0..160 {
        client.put(format!("k/{at}"), value(at)).await?;
    }
    let file = source.dir().join("file");
    let mut save = Command::new(Program::etcdctl());
    save.args(["--endpoints", &source.client_url(), "snapshot", "save"]).arg(&file);
    ensure!(save.output()?.status.success(), "saved");
    let mut options = Options::new(program());
    options.data_dir = Some(disk.path());
    let mut member = Member::prepare(options)?;

    let refused = member.restore(&Program::etcdutl(), &file).output()?;
    let stderr = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && stderr.contains("No space left on device"), "{stderr}");
    ensure!(stderr.contains("snap/db"), "it names the file: {stderr}");
    ensure!(!disk.path().exists(), "it leaves nothing");
    disk.grow(16)?;
    ensure!(member.restore(&Program::etcdutl(), &file).output()?.status.success(), "restored");

    let error = format!("{:#}", member.start_again().await.expect_err("there is no room for both"));
    ensure!(error.to_lowercase().contains("no space left"), "{error}");
    ensure!(disk.path().join("member/snap/db").is_file(), "what the restore left is there");
    disk.grow(400)?;
    member.start_again().await?;
    let client = member.connect().await?;
    for at in 0..160 {
        let pair = client.get(format!("k/{at}").as_str()).await?;
        ensure!(pair.is_some_and(|pair| pair.value == value(at)), "{at}");
    }
    Ok(())
}
