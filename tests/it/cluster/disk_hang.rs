//! A leader whose disk takes what it is given and never answers.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use tests::{Cluster, eventually, http, skipped};

use super::load::Load;
use super::{move_leader, put_eventually, shape};

/// A disk of its own that can be made to hang; gone with the test.
struct Disk {
    _image: tempfile::NamedTempFile,
    dir: tempfile::TempDir,
}

impl Disk {
    /// `None` where that is not possible.
    fn mount() -> Result<Option<Disk>> {
        let image = tempfile::NamedTempFile::new()?;
        File::options().write(true).open(image.path())?.set_len(512 << 20)?;
        let dir = tempfile::tempdir()?;
        let disk = Disk { _image: image, dir };
        let done = run(Command::new("mkfs.ext4").arg("-q").arg(disk._image.path()))
            && run(Command::new("mount").args(["-o", "loop"]).arg(disk._image.path()).arg(disk.dir.path()))
            && disk.freeze(true)
            && disk.freeze(false);
        Ok(done.then_some(disk))
    }

    fn freeze(&self, frozen: bool) -> bool {
        run(Command::new("fsfreeze").arg(if frozen { "-f" } else { "-u" }).arg(self.dir.path()))
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.freeze(false);
        // What still uses it goes with the test's processes.
        run(Command::new("umount").arg("-l").arg(self.dir.path()));
    }
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn data_dir(disk: &Disk) -> PathBuf {
    disk.path().join("data")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_steps_down() -> Result<()> {
    // Dropped before the cluster's processes are waited for: they could not end while it hangs.
    let Some(disk) = Disk::mount()? else {
        skipped("a disk that hangs", "no file system can be made and frozen here");
        return Ok(());
    };
    let mut cluster = Cluster::prepare(shape(3)).await?;
    cluster[0].options_mut().data_dir = Some(data_dir(&disk));
    for at in 0..3 {
        cluster[at].spawn()?;
    }
    cluster.ready().await?;
    move_leader(&mut cluster, 0).await?;
    let load = Load::start(vec![cluster.client(1), cluster.client(2)], "load/");
    load.flows(100).await?;

    ensure!(disk.freeze(true), "the disk cannot be made to hang");
    let hung = Instant::now();
    let heir = eventually("another leader", || async {
        let leader = cluster.leader_among(&[1, 2]).await?;
        ensure!(leader != 0, "the one that hangs leads");
        Ok(leader)
    })
    .await?;
    println!("member {heir} leads {:?} after the disk of the leader hung", hung.elapsed());
    load.flows(100).await?;
    let (status, _, body) = http(cluster[0].client_port(), "GET", "/readyz")?;
    ensure!(status == 503, "a member whose disk hangs is ready: {status} {body}");

    ensure!(disk.freeze(false), "the disk cannot be made to answer");
    put_eventually(&cluster, 0, "after", "").await?;
    load.flows(100).await?;
    load.finish().await?.check(&cluster, &[0, 1, 2]).await?;
    cluster.leader().await?;
    cluster.finish().await
}
