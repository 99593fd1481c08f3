//! Where log lines go: standard streams, files, the journal.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::net::UnixDatagram;

use anyhow::Context;
use parking_lot::Mutex;

use super::rotate::Rotating;

const JOURNAL: &str = "/run/systemd/journal/socket";

/// A place for log lines.
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file that is appended to.
    File(Mutex<std::fs::File>),
    /// A file that makes room for a new one when it is full.
    Rotating(Mutex<Rotating>),
    /// systemd's journal.
    Journal(UnixDatagram),
}

impl Output {
    /// Opens what `--log-outputs` names; `rotation` is the JSON of `--log-rotation-config-json`.
    pub fn open(target: &str, rotation: Option<&str>) -> anyhow::Result<Output> {
        match (target, rotation) {
            ("default" | "stderr", _) => Ok(Output::Stderr),
            ("stdout", _) => Ok(Output::Stdout),
            ("systemd/journal", _) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(JOURNAL).with_context(|| format!("systemd's journal at {JOURNAL}"))?;
                Ok(Output::Journal(socket))
            }
            (path, Some(settings)) => Ok(Output::Rotating(Mutex::new(Rotating::open(path, settings)?))),
            (path, None) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                Ok(Output::File(Mutex::new(file.with_context(|| format!("open {path}"))?)))
            }
        }
    }

    /// Writes a line. There is nowhere left to say that this failed, so a failure is passed over.
    pub fn write(&self, level: &str, line: &str) {
        let written = match self {
            Output::Stderr => std::io::stderr().lock().write_all(line.as_bytes()),
            Output::Stdout => std::io::stdout().lock().write_all(line.as_bytes()),
            Output::File(file) => file.lock().write_all(line.as_bytes()),
            Output::Rotating(file) => file.lock().write(line),
            Output::Journal(socket) => {
                let priority = match level {
                    "debug" => 7,
                    "info" => 6,
                    "warn" => 4,
                    "error" => 3,
                    _ => 2,
                };
                let datagram =
                    format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=etcd\nMESSAGE={}\n", line.trim_end());
                socket.send(datagram.as_bytes()).map(drop)
            }
        };
        drop(written);
    }
}
