//! Clocks of single members, ahead of or behind those of the machine.
//!
//! A small library in C is loaded into the member before the C library and
//! answers for it. It is compiled when first needed, by `cc`. A program that
//! asks the kernel itself, as everything in Go does, sees nothing of it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// The compiled library; gone with the last clock.
#[derive(Debug, Clone)]
pub struct Library {
    dir: Arc<TempDir>,
}

impl Library {
    /// Compiles it. Fails where there is no C compiler.
    pub fn build() -> Result<Library> {
        let dir = tempfile::Builder::new().prefix("quorate-clock-").tempdir()?;
        let source = dir.path().join("preload.c");
        std::fs::write(&source, include_str!("clock/preload.c"))?;
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]);
        let output = cc.arg(dir.path().join("preload.so")).arg(&source).arg("-ldl").output();
        let output = output.context("no C compiler, which member's clocks need")?;
        ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Library { dir: Arc::new(dir) })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("preload.so")
    }
}

/// The clock of one member.
#[derive(Debug)]
pub struct Clock {
    library: Library,
    path: PathBuf,
    file: File,
    ahead: Ahead,
}

/// How far a member's clocks are ahead of the machine's, in nanoseconds; less than 0 is behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ahead {
    /// The time of day.
    pub wall: i64,
    /// The clock that only goes forward, by which timeouts are counted.
    pub monotonic: i64,
}

impl Clock {
    /// A clock that tells what the machine's tells, at a path of its own.
    pub fn new(library: &Library, at: usize) -> Result<Clock> {
        let path = library.dir.path().join(format!("clock.{at}"));
        let file = File::options().create(true).truncate(true).write(true).open(&path)?;
        let mut clock = Clock { library: library.clone(), path, file, ahead: Ahead::default() };
        clock.set(Ahead::default())?;
        Ok(clock)
    }

    /// The environment of a process that has this clock.
    pub fn env(&self) -> [(String, String); 2] {
        let text = |path: &Path| path.display().to_string();
        [("LD_PRELOAD".to_owned(), text(&self.library.path())), ("JEPSEN_CLOCK".to_owned(), text(&self.path))]
    }

    /// How far it is ahead.
    pub fn ahead(&self) -> Ahead {
        self.ahead
    }

    /// Moves the time of day, forward or back.
    pub fn set_wall(&mut self, ahead: i64) -> Result<()> {
        self.set(Ahead { wall: ahead, ..self.ahead })
    }

    /// Moves the monotonic clock forward. It never goes back while the member lives.
    pub fn add_monotonic(&mut self, more: Duration) -> Result<()> {
        let monotonic = self.ahead.monotonic + more.as_nanos() as i64;
        self.set(Ahead { monotonic, ..self.ahead })
    }

    /// As it was at first. Only a member that is about to start may see the monotonic clock go back.
    pub fn reset(&mut self) -> Result<()> {
        self.set(Ahead::default())
    }

    fn set(&mut self, ahead: Ahead) -> Result<()> {
        self.file.write_all_at(&ahead.wall.to_ne_bytes(), 0)?;
        self.file.write_all_at(&ahead.monotonic.to_ne_bytes(), 8)?;
        self.ahead = ahead;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(clock: &Clock) -> Result<i64> {
        let output = Command::new("date").arg("+%s").envs(clock.env()).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    }

    #[test]
    fn a_process_sees_the_clock_it_was_given() -> Result<()> {
        let library = Library::build()?;
        let mut clock = Clock::new(&library, 0)?;
        let off = |clock: &Clock| -> Result<i64> {
            Ok(seconds(clock)? - std::time::UNIX_EPOCH.elapsed()?.as_secs() as i64)
        };
        assert!(off(&clock)?.abs() < 60);
        clock.set_wall(-86_400_000_000_000)?;
        assert!((off(&clock)? + 86_400).abs() < 60);
        clock.reset()?;
        assert!(off(&clock)?.abs() < 60);
        Ok(())
    }
}
