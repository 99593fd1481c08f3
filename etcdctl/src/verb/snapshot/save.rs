//! `snapshot save`: the state of one member, in a file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use manners::progress::Progress;
use proto::etcdserverpb as pb;
use snapshot::file::{Checker, Verdict};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Streaming;

use super::part::Part;
use super::shelf::Shelf;
use crate::client::{CallError, Client};
use crate::failure::{Failure, exit};
use crate::globals::{Globals, Settings};
use crate::{go, log, output};

/// How often is told why there is no connection yet.
const IMPATIENCE: Duration = Duration::from_secs(10);

/// What its help says.
pub const ABOUT: &str =
    "Saves the state of one member, which must be the only one in --endpoints, to a file that etcd's and
this etcdutl restore. What comes is checked against its digest; the file is there when all of it is
on disk, and not before.

Where the file is a directory, the snapshot gets the name etcd-snapshot-<cluster id>-<time>.db in it.

There is no time limit unless --command-timeout is given.";

/// The argument and flag of `snapshot save`.
#[derive(Debug, clap::Args)]
pub struct Save {
    #[arg(long, value_name = "uint", value_parser = go::parse_uint)]
    #[arg(help = "in a directory: afterwards, remove the oldest snapshots of this cluster but so many")]
    keep: Option<u64>,
    #[arg(value_name = "<filename>")]
    words: Vec<OsString>,
}

/// Where the snapshot goes, and what else is there.
#[derive(Debug)]
struct Target {
    file: PathBuf,
    /// The shelf it stands on, and how many are kept there.
    shelf: Option<(Shelf, usize)>,
}

impl Save {
    /// Saves the snapshot and says where. A failure leaves no file, and tells how much had come.
    ///
    /// # Errors
    /// Status 5 when the snapshot could not be had, or not be kept.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        let [word] = self.words.as_slice() else {
            return Err(Failure::args("snapshot save expects one argument <filename>"));
        };
        let path = Path::new(word);
        let keep = match self.keep {
            Some(0) => return Err(Failure::args("--keep must keep at least one snapshot")),
            Some(_) if !path.is_dir() => {
                return Err(Failure::args(format!("--keep needs a directory, {} is none", path.display())));
            }
            keep => keep.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)),
        };
        let settings = globals.settle(&[])?;
        let [endpoint] = settings.endpoints.as_slice() else {
            let endpoints = settings.endpoints.join(" ");
            return Err(interrupted(format!(
                "snapshot must be requested to one selected node, not multiple [{endpoints}]"
            )));
        };
        let deadline = settings.command_timeout_given.then(|| Instant::now() + settings.command_timeout);
        let mut ends = Ends::new()?;
        let version = tokio::select! {
            saved = save(&settings, endpoint, path, keep, deadline) => saved?,
            // The part goes with the future that holds it.
            name = ends.next() => return Err(interrupted(format!("{name}: nothing was saved"))),
        };
        let (file, version) = version;
        let file = file.display();
        match version.is_empty() {
            true => output::say(format!("Snapshot saved at {file}")),
            false => output::say(format!("Snapshot saved at {file}\nServer version {version}")),
        }
    }
}

/// Saves the snapshot, then removes those that are not to be kept. Gives its place and the storage version.
async fn save(
    settings: &Settings,
    endpoint: &str,
    path: &Path,
    keep: Option<usize>,
    deadline: Option<Instant>,
) -> Result<(PathBuf, String), Failure> {
    let client = Client::open(settings).await.map_err(|failure| match failure.status {
        exit::BAD_CONNECTION => Failure { status: exit::INTERRUPTED, ..failure },
        _ => failure,
    })?;
    let target = Target::find(&client, path, keep).await?;
    let part = Part::create(&target.file).map_err(interrupted)?;
    log::info("created temporary db file", &[("path", &part.path().display())]);
    let stream = open(&client, deadline).await?;
    log::info("fetching snapshot", &[("endpoint", &endpoint)]);
    let start = Instant::now();
    let mut download =
        Download { part, checker: Checker::default(), remaining: None, version: String::new() };
    let fetched = match deadline {
        None => download.fetch(stream).await,
        Some(deadline) => tokio::time::timeout_at(deadline, download.fetch(stream))
            .await
            .unwrap_or_else(|_| Err(CallError::DeadlineExceeded.to_string())),
    };
    fetched
        .map_err(|reason| interrupted(format!("could not write snapshot: {reason} [{}]", download.had())))?;
    let Download { part, checker, version, .. } = download;
    let size = checker.len();
    match checker.finish() {
        Verdict::Intact(_) => {}
        Verdict::Missing => return Err(interrupted(format!("sha256 checksum not found [bytes: {size}]"))),
        Verdict::Mismatch { expected, got } => {
            return Err(interrupted(format!(
                "the snapshot that came is damaged: expected sha256 {expected}, got {got} [bytes: {size}]"
            )));
        }
    }
    part.finish(&target.file).map_err(interrupted)?;
    log::info(
        "fetched snapshot",
        &[
            ("endpoint", &endpoint),
            ("size", &go::size(size)),
            ("took", &go::duration(start.elapsed())),
            ("etcd-version", &version),
        ],
    );
    log::info("saved", &[("path", &target.file.display())]);
    target.tidy()?;
    Ok((target.file, version))
}

/// Opens the stream. Without a deadline that may take for ever: what it waits for is told now and then.
async fn open(
    client: &Client,
    deadline: Option<Instant>,
) -> Result<Streaming<pb::SnapshotResponse>, Failure> {
    let mut opening = std::pin::pin!(client.snapshot(deadline));
    let mut patience = tokio::time::interval_at(Instant::now() + IMPATIENCE / 4, IMPATIENCE);
    patience.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            opened = &mut opening => return opened.map_err(interrupted),
            _ = patience.tick() => {
                let error = client.last_connection_error().unwrap_or_else(|| "it does not answer".to_owned());
                log::warn("waiting for the endpoint", "error", error);
            }
        }
    }
}

impl Target {
    /// The file itself, or a new one in the directory.
    async fn find(client: &Client, path: &Path, keep: Option<usize>) -> Result<Self, Failure> {
        if !path.is_dir() {
            return Ok(Self { file: path.to_owned(), shelf: None });
        }
        let status = client.status(client.deadline(), pb::StatusRequest {}).await.map_err(interrupted)?;
        let shelf = Shelf::new(path, status.header.map_or(0, |header| header.cluster_id));
        let file = shelf.place(SystemTime::now());
        Ok(Self { file, shelf: keep.map(|keep| (shelf, keep)) })
    }

    /// Removes the snapshots that are not to be kept.
    fn tidy(&self) -> Result<(), Failure> {
        let Some((shelf, keep)) = &self.shelf else { return Ok(()) };
        let removed = shelf.keep(*keep).map_err(|error| {
            let file = self.file.display();
            interrupted(format!("saved {file}, but could not remove old snapshots: {}", go::io_error(&error)))
        })?;
        for path in removed {
            log::info("removed an old snapshot", &[("path", &path.display())]);
        }
        Ok(())
    }
}

/// A snapshot on its way.
struct Download {
    part: Part,
    checker: Checker,
    /// Bytes of the image that are to come, as the member said last.
    remaining: Option<u64>,
    /// The storage version that the member says; empty before etcd 3.6.
    version: String,
}

impl Download {
    /// Takes all that comes.
    async fn fetch(&mut self, mut stream: Streaming<pb::SnapshotResponse>) -> Result<(), String> {
        let mut progress = Progress::new("saving");
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(()),
                Err(status) => return Err(CallError::Status(status).to_string()),
            };
            self.part.write(&message.blob)?;
            self.checker.update(&message.blob);
            self.remaining = Some(message.remaining_bytes);
            if !message.version.is_empty() {
                self.version = message.version;
            }
            progress.set(self.checker.len(), self.checker.len() + message.remaining_bytes);
        }
    }

    /// How far it has come.
    fn had(&self) -> String {
        let len = self.checker.len();
        match self.remaining {
            Some(remaining) => format!("bytes: {len} of {}", len.saturating_add(remaining)),
            None => format!("bytes: {len}"),
        }
    }
}

/// The signals that end a command.
struct Ends {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Ends {
    fn new() -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(Failure::general);
        Ok(Self { interrupt: of(SignalKind::interrupt())?, terminate: of(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted",
            _ = self.terminate.recv() => "terminated",
        }
    }
}

/// Status 5: what was under way came to no end.
fn interrupted(message: impl std::fmt::Display) -> Failure {
    Failure::new(exit::INTERRUPTED, message)
}
