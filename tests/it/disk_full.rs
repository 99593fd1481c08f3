//! A disk that fills up.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{Member, Options, skipped};

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
