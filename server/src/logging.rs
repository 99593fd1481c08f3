//! Log lines as zap writes them: JSON with level, ts, caller, msg, then the fields.
//!
//! A [`tracing::Subscriber`] without spans: what is switched off costs one
//! load, what is on is written under a lock, in one call, on the thread that says it.
//! Field names appear with dashes for underscores, as etcd spells them.

mod line;
mod output;
mod rotate;

use std::sync::{Arc, LazyLock};

use anyhow::Context;
use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, span};

use self::line::{Format, Line};
use self::output::Output;
use crate::config::flags::Flags;
use crate::config::{Note, value::Strings};

/// Crates whose lines are ours: the others speak one level less.
const OURS: &[&str] = &["etcd", "server", "state", "raftlog"];

static LOGGER: LazyLock<ArcSwap<Logger>> = LazyLock::new(|| {
    ArcSwap::from_pointee(Logger {
        ours: LevelFilter::INFO,
        format: Format::Json,
        outputs: vec![Output::Stderr],
    })
});

struct Logger {
    ours: LevelFilter,
    format: Format,
    outputs: Vec<Output>,
}

impl Logger {
    fn open(flags: &Flags) -> anyhow::Result<Logger> {
        let rotation = flags.enable_log_rotation.then_some(flags.log_rotation_config_json.as_str());
        let Strings(targets) = &flags.log_outputs;
        let outputs = if targets.is_empty() {
            vec![Output::Stderr]
        } else if targets.iter().any(|target| target == "/dev/null") {
            Vec::new()
        } else {
            targets.iter().map(|target| Output::open(target, rotation)).collect::<anyhow::Result<_>>()?
        };
        let ours = match flags.log_level.as_str() {
            "debug" => LevelFilter::DEBUG,
            "info" => LevelFilter::INFO,
            "warn" => LevelFilter::WARN,
            "error" => LevelFilter::ERROR,
            // panic and fatal lines are written past the filter
            _ => LevelFilter::OFF,
        };
        let format = if flags.log_format == "console" { Format::Console } else { Format::Json };
        Ok(Logger { ours, format, outputs })
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            return false;
        }
        let root = metadata.target().split("::").next().unwrap_or_default();
        if OURS.contains(&root) {
            return *metadata.level() <= self.ours;
        }
        // To openraft a peer that is away is news ten times a second. What it means for the member, the member says:
        // every error of openraft's that matters ends it.
        if root == "openraft" && self.ours < LevelFilter::DEBUG {
            return false;
        }
        let theirs = if self.ours > LevelFilter::WARN { LevelFilter::WARN } else { self.ours };
        *metadata.level() <= theirs
    }

    fn write(&self, line: &Line) {
        let text = line.render(self.format);
        for output in &self.outputs {
            output.write(line.level, &text);
        }
    }
}

/// Starts logging, JSON on stderr, until [`configure`] says where it is to go.
pub fn start() {
    // A second start, in a test, changes nothing.
    if tracing::subscriber::set_global_default(Zap).is_err() {
        tracing::debug!("logging was started before");
    }
}

/// Sends log lines where the flags say.
pub fn configure(flags: &Flags) -> anyhow::Result<()> {
    let logger = Logger::open(flags).context("log outputs")?;
    LOGGER.store(Arc::new(logger));
    tracing::callsite::rebuild_interest_cache();
    Ok(())
}

/// Logs what was noticed while the configuration was read.
pub fn note(note: &Note) {
    let level = if note.warning { "warn" } else { "info" };
    let mut line = Line::new(level, "config/parse.rs", &note.message);
    if !note.about.is_empty() {
        line.text("about", &note.about);
    }
    let logger = LOGGER.load();
    if logger.ours >= (if note.warning { LevelFilter::WARN } else { LevelFilter::INFO }) {
        logger.write(&line);
    }
}

/// Writes one line at level `fatal`, whatever the log level; the process is to end after it.
pub fn fatal(message: &str, fields: &[(&str, &str)]) {
    let mut line = Line::new("fatal", "server/main.rs", message);
    for (name, value) in fields {
        line.text(name, value);
    }
    LOGGER.load().write(&line);
}

struct Zap;

impl Subscriber for Zap {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        LOGGER.load().enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LOGGER.load().ours)
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            _ => "debug",
        };
        let mut line = Line::new(level, &line::caller(metadata), "");
        event.record(&mut line);
        LOGGER.load().write(&line);
    }

    // There are no spans: `enabled` refuses them all.
    fn new_span(&self, _attributes: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}
    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}
    fn enter(&self, _span: &span::Id) {}
    fn exit(&self, _span: &span::Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_targets() {
        let flags = |level: &str| Flags { log_level: level.to_owned(), ..Flags::default() };
        assert_eq!(Logger::open(&flags("debug")).unwrap().ours, LevelFilter::DEBUG);
        assert_eq!(Logger::open(&flags("fatal")).unwrap().ours, LevelFilter::OFF);
    }

    #[test]
    fn files_are_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log_outputs = Strings(vec![path.display().to_string()]);
        let flags = Flags { log_outputs, ..Flags::default() };
        let logger = Logger::open(&flags).unwrap();
        logger.write(&Line::new("info", "a/b.rs:1", "one"));
        drop(logger);
        Logger::open(&flags).unwrap().write(&Line::new("warn", "a/b.rs:2", "two"));
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }
}
