//! What the system says of a process: CPU, memory, bytes to disk.

use anyhow::{Context, Result};

/// One look at a running process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time so far, in seconds.
    pub cpu_s: f64,
    /// Resident bytes now.
    pub rss: u64,
    /// The most that was resident since the last [`reset_peak`].
    pub rss_peak: u64,
    /// Bytes it caused to be written to disk.
    pub disk: u64,
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            cpu_s: a.cpu_s + b.cpu_s,
            rss: a.rss + b.rss,
            rss_peak: a.rss_peak + b.rss_peak,
            disk: a.disk + b.disk,
        })
    }
}

/// Looks at a process.
///
/// # Errors
/// When there is no such process, or `/proc` is not as Linux has it.
pub fn usage(pid: u32) -> Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).with_context(|| path)
    };
    let stat = read("stat")?;
    let fields: Vec<&str> =
        stat.rsplit_once(')').context("stat without a name")?.1.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("short stat")?.parse::<f64>()?) };
    // Fields 14 and 15 of proc(5), in ticks of 1/100 s on every Linux in use.
    let cpu_s = (ticks(11)? + ticks(12)?) / 100.0;
    let status = read("status")?;
    let io = read("io").unwrap_or_default();
    Ok(Usage {
        cpu_s,
        rss: number(&status, "VmRSS:")? * 1024,
        rss_peak: number(&status, "VmHWM:")? * 1024,
        disk: number(&io, "write_bytes:").unwrap_or(0),
    })
}

/// Lets the peak of resident memory start anew.
///
/// # Errors
/// When the process is gone or not ours.
pub fn reset_peak(pid: u32) -> Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("clear_refs")
}

fn number(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
    let value = line[name.len()..].split_whitespace().next().context("no value")?;
    Ok(value.parse()?)
}
