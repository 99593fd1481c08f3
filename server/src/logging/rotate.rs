//! A log file that is set aside when it is full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde::Deserialize;

use crate::clock;

const MEGABYTE: u64 = 1024 * 1024;

/// What `--log-rotation-config-json` holds.
#[derive(Deserialize)]
#[serde(default)]
struct Settings {
    /// Megabytes at which the file is set aside.
    maxsize: u64,
    /// Days after which a file set aside is deleted; 0 for never.
    maxage: u64,
    /// How many files set aside are kept; 0 for all.
    maxbackups: usize,
    localtime: bool,
    compress: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { maxsize: 100, maxage: 0, maxbackups: 0, localtime: false, compress: false }
    }
}

/// The file, and when to set it aside.
pub struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    age_max: Option<Duration>,
    kept_max: Option<usize>,
}

impl Rotating {
    /// Opens the file at `path` with settings in JSON.
    pub fn open(path: &str, settings: &str) -> anyhow::Result<Rotating> {
        let settings: Settings = serde_json::from_str(settings).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => anyhow::anyhow!("invalid log rotation config: {error}"),
            _ => anyhow::anyhow!("improperly formatted log rotation config: {error}"),
        })?;
        anyhow::ensure!(
            !settings.localtime && !settings.compress,
            "--log-rotation-config-json: localtime and compress are not supported"
        );
        let path = PathBuf::from(path);
        let file = append(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Rotating {
            bytes: file.metadata()?.len(),
            file,
            path,
            bytes_max: settings.maxsize.max(1).saturating_mul(MEGABYTE),
            age_max: (settings.maxage > 0)
                .then(|| Duration::from_secs(settings.maxage.saturating_mul(86_400))),
            kept_max: (settings.maxbackups > 0).then_some(settings.maxbackups),
        })
    }

    /// Writes a line, after setting the file aside if the line does not fit any more.
    pub fn write(&mut self, line: &str) -> io::Result<()> {
        let length = line.len() as u64;
        if self.bytes > 0 && self.bytes + length > self.bytes_max {
            self.set_aside(SystemTime::now())?;
        }
        self.bytes += length;
        self.file.write_all(line.as_bytes())
    }

    fn set_aside(&mut self, now: SystemTime) -> io::Result<()> {
        fs::rename(&self.path, self.backup(now))?;
        self.file = append(&self.path)?;
        self.bytes = 0;
        self.forget(now)
    }

    /// `name-2026-11-21T07-36-02.994.log` for `name.log`.
    fn backup(&self, now: SystemTime) -> PathBuf {
        let moment = clock::timestamp(now).replace(':', "-");
        let (stem, extension) = self.stem_and_extension();
        self.path.with_file_name(format!("{stem}-{}{extension}", &moment[..moment.len() - 4]))
    }

    fn stem_and_extension(&self) -> (String, String) {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let extension = self.path.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
        (stem, extension.unwrap_or_default())
    }

    /// Deletes files set aside that are too many or too old.
    fn forget(&self, now: SystemTime) -> io::Result<()> {
        let (stem, extension) = self.stem_and_extension();
        let directory =
            self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut backups = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{stem}-")) && name.ends_with(&extension) {
                backups.push((name, entry.path(), entry.metadata()?.modified()?));
            }
        }
        backups.sort();
        backups.reverse();
        for (place, (_, path, modified)) in backups.iter().enumerate() {
            let too_many = self.kept_max.is_some_and(|kept| place >= kept);
            let too_old = self
                .age_max
                .is_some_and(|age| now.duration_since(*modified).is_ok_and(|elapsed| elapsed > age));
            if too_many || too_old {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_set_aside_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.log");
        let mut log = Rotating::open(path.to_str().unwrap(), "{\"maxsize\": 1, \"maxbackups\": 1}").unwrap();
        for moment in 0..3 {
            log.write(&"x".repeat(MEGABYTE as usize)).unwrap();
            log.set_aside(SystemTime::UNIX_EPOCH + Duration::from_secs(moment)).unwrap();
        }
        log.write("last\n").unwrap();
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["etcd-1970-01-01T00-00-02.000.log", "etcd.log"]);
        assert_eq!(fs::read_to_string(path).unwrap(), "last\n");
    }

    #[test]
    fn settings_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l").display().to_string();
        let refusal = |settings: &str| Rotating::open(&path, settings).err().map(|error| error.to_string());
        assert!(refusal("{").unwrap().starts_with("improperly formatted log rotation config"));
        assert!(refusal("{\"maxsize\": \"x\"}").unwrap().starts_with("invalid log rotation config"));
        assert!(refusal("{\"compress\": true}").is_some());
        assert!(refusal("{}").is_none());
    }
}
