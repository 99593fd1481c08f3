//! Files and directories, synced or not, through a crash.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jepsen::disk::{Disk, Loss, Names};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::disk;

fn rng() -> StdRng {
    StdRng::seed_from_u64(1)
}

fn sync_dir(path: &Path) -> Result<()> {
    Ok(File::open(path)?.sync_all()?)
}

/// A file whose name and bytes are safe.
fn safe_file(path: &Path, bytes: &[u8]) -> Result<File> {
    let mut file = File::options().create(true).truncate(true).read(true).write(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_dir(path.parent().context("it is in a directory")?)?;
    Ok(file)
}

#[test]
fn what_was_not_synced_is_lost_and_what_was_is_kept() -> Result<()> {
    let Some(mut disk) = disk(Names::Posix) else { return Ok(()) };
    let path = disk.path().join("f");
    let mut file = safe_file(&path, b"synced")?;
    file.write_all(b", and not")?;
    ensure!(fs::read(&path)? == b"synced, and not", "what is written is there at once");
    drop(file);
    let lost = disk.crash(Loss::All, &mut rng())?;
    ensure!(lost.files == 1 && lost.names == 0, "{lost:?}");
    ensure!(fs::read(&path)? == b"synced");

    let file = File::options().write(true).open(&path)?;
    file.write_all_at(b"S", 0)?;
    file.sync_data()?;
    file.write_all_at(b"Y", 1)?;
    file.set_len(2)?;
    drop(file);
    disk.crash(Loss::All, &mut rng())?;
    ensure!(fs::read(&path)? == b"Synced", "{:?}", fs::read_to_string(&path));
    ensure!(disk.crash(Loss::All, &mut rng())? == jepsen::disk::Lost::default(), "nothing was left to lose");
    Ok(())
}

/// A file that is opened so that each write is synced needs no call for it.
#[test]
fn synchronous_writes_are_kept() -> Result<()> {
    let Some(mut disk) = disk(Names::Posix) else { return Ok(()) };
    let path = disk.path().join("f");
    safe_file(&path, b"")?;
    let flags = rustix::fs::OFlags::DSYNC.bits() as i32;
    let mut file = File::options().append(true).custom_flags(flags).open(&path)?;
    file.write_all(b"at once")?;
    drop(file);
    disk.crash(Loss::All, &mut rng())?;
    ensure!(fs::read(&path)? == b"at once");
    Ok(())
}

#[test]
fn names_are_lost_without_a_sync_of_their_directory() -> Result<()> {
    let Some(mut disk) = disk(Names::Posix) else { return Ok(()) };
    let (root, dir) = (disk.path(), disk.path().join("dir"));
    fs::create_dir(&dir)?;
    sync_dir(&root)?;
    safe_file(&dir.join("old"), b"1")?;
    safe_file(&dir.join("gone"), b"2")?;
    safe_file(&dir.join("target"), b"3")?;
    fs::rename(dir.join("old"), dir.join("target"))?;
    fs::remove_file(dir.join("gone"))?;
    let mut made = File::create(dir.join("made"))?;
    made.write_all(b"4")?;
    made.sync_all()?;
    drop(made);
    fs::hard_link(dir.join("target"), dir.join("linked"))?;
    ensure!(fs::read_dir(&dir)?.count() == 3, "target, made and linked");
    let lost = disk.crash(Loss::All, &mut rng())?;
    ensure!(lost.names == 4, "{lost:?}");
    let read = |name: &str| fs::read(dir.join(name)).unwrap_or_default();
    ensure!(read("old") == b"1" && read("gone") == b"2" && read("target") == b"3");
    ensure!(!dir.join("made").exists() && !dir.join("linked").exists());

    fs::rename(dir.join("old"), dir.join("target"))?;
    fs::remove_file(dir.join("gone"))?;
    sync_dir(&dir)?;
    disk.crash(Loss::All, &mut rng())?;
    ensure!(!dir.join("old").exists() && !dir.join("gone").exists());
    ensure!(fs::read(dir.join("target"))? == b"1", "the rename was synced");
    Ok(())
}

/// A rename to another directory is never half done.
#[test]
fn a_rename_across_directories_is_whole() -> Result<()> {
    let Some(mut disk) = disk(Names::Posix) else { return Ok(()) };
    let (root, a, b) = (disk.path(), disk.path().join("a"), disk.path().join("b"));
    fs::create_dir(&a)?;
    fs::create_dir(&b)?;
    sync_dir(&root)?;
    safe_file(&a.join("f"), b"1")?;
    fs::rename(a.join("f"), b.join("f"))?;
    sync_dir(&a)?;
    disk.crash(Loss::All, &mut rng())?;
    ensure!(!a.join("f").exists() && fs::read(b.join("f"))? == b"1");
    fs::rename(&b, a.join("b"))?;
    disk.crash(Loss::All, &mut rng())?;
    ensure!(b.join("f").exists() && !a.join("b").exists(), "a directory went without a sync");
    Ok(())
}

/// With a journal, a sync of any file saves the names made before it.
#[test]
fn a_journal_saves_names_too() -> Result<()> {
    let Some(mut disk) = disk(Names::Journal) else { return Ok(()) };
    let path = disk.path().join("made");
    let mut file = File::create(&path)?;
    file.write_all(b"1")?;
    file.sync_all()?;
    fs::write(disk.path().join("later"), b"2")?;
    drop(file);
    disk.crash(Loss::All, &mut rng())?;
    ensure!(fs::read(&path)? == b"1" && !disk.path().join("later").exists());
    Ok(())
}

#[test]
fn a_torn_crash_keeps_some_of_it() -> Result<()> {
    let Some(mut disk) = disk(Names::Posix) else { return Ok(()) };
    let path = disk.path().join("f");
    safe_file(&path, &[1; 64 * 1024])?;
    let mut rng = StdRng::seed_from_u64(7);
    let mut kept = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let file = File::options().write(true).open(&path)?;
        file.write_all_at(&[1; 64 * 1024], 0)?;
        file.sync_all()?;
        file.write_all_at(&[2; 32 * 1024], 16 * 1024)?;
        drop(file);
        disk.crash(Loss::Torn, &mut rng)?;
        let bytes = fs::read(&path)?;
        ensure!(bytes.len() == 64 * 1024 && bytes[..16 * 1024].iter().all(|byte| *byte == 1));
        kept.insert(bytes.iter().filter(|byte| **byte == 2).count() / 512);
    }
    ensure!(kept.contains(&0) && kept.len() > 5, "sectors kept: {kept:?}");
    Ok(())
}

#[test]
fn a_full_disk_takes_nothing_more_until_it_is_not() -> Result<()> {
    let Some(disk) = disk(Names::Posix) else { return Ok(()) };
    let path = disk.path().join("f");
    let mut file = safe_file(&path, &[0; 8192])?;
    disk.set_full(true);
    let full =
        |result: std::io::Result<()>| result.is_err_and(|error| error.kind() == ErrorKind::StorageFull);
    ensure!(full(file.write_all(b"more")) && full(File::create(disk.path().join("g")).map(drop)));
    ensure!(full(fs::create_dir(disk.path().join("d"))));
    file.write_all_at(&[1; 4096], 0).context("what is there can be written over")?;
    file.sync_all()?;
    ensure!(disk.refused() == 3, "{} refused", disk.refused());
    disk.set_full(false);
    file.write_all(b"more")?;
    ensure!(fs::read(&path)?.ends_with(b"more"));
    Ok(())
}

#[test]
fn a_failing_disk_does_not_sync() -> Result<()> {
    let Some(mut disk) = disk(Names::Posix) else { return Ok(()) };
    let path = disk.path().join("f");
    let mut file = safe_file(&path, b"1")?;
    file.write_all(b"2")?;
    disk.set_failing(true);
    ensure!(file.sync_all().is_err_and(|error| error.raw_os_error() == Some(5)), "EIO");
    ensure!(file.write_all(b"3").is_err());
    drop(file);
    disk.set_failing(false);
    disk.crash(Loss::All, &mut rng())?;
    ensure!(fs::read(&path)? == b"1");
    Ok(())
}

#[test]
fn a_hanging_disk_answers_when_it_no_longer_hangs() -> Result<()> {
    let Some(disk) = disk(Names::Posix) else { return Ok(()) };
    let path = disk.path().join("f");
    let mut file = safe_file(&path, b"1")?;
    disk.set_hanging(true);
    let writer = std::thread::spawn(move || {
        file.write_all(b"2")?;
        file.sync_all()
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while disk.waiting() == 0 {
        ensure!(Instant::now() < deadline, "the write does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(200));
    ensure!(!writer.is_finished(), "a write was answered");
    ensure!(fs::metadata(&path)?.len() == 1, "one can look at a disk that hangs");
    disk.set_hanging(false);
    writer.join().expect("it does not panic")?;
    ensure!(fs::read(&path)? == b"12");
    Ok(())
}

/// Whoever still has a file open from before a crash can do nothing with it.
#[test]
fn an_open_file_does_not_survive_a_crash() -> Result<()> {
    let Some(mut disk) = disk(Names::Posix) else { return Ok(()) };
    let path = disk.path().join("f");
    let mut file = safe_file(&path, b"1")?;
    disk.crash(Loss::All, &mut rng())?;
    ensure!(file.write_all(b"2").and_then(|()| file.sync_all()).is_err());
    ensure!(fs::read(&path)? == b"1");
    Ok(())
}

#[test]
fn nothing_stays_mounted() -> Result<()> {
    let Some(disk) = disk(Names::Posix) else { return Ok(()) };
    let path = disk.path();
    let mounted =
        || Ok::<_, std::io::Error>(fs::read_to_string("/proc/mounts")?.contains(&*path.to_string_lossy()));
    ensure!(mounted()?);
    drop::<Disk>(disk);
    ensure!(!mounted()? && !path.exists());
    Ok(())
}
