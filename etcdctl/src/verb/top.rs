//! `top`: what the cluster is doing, again every second.
//!
//! ```text
//!   sample   asks each member: Status, and quorate.Insight where a member has it
//!   figures  two samples ─► rates, latencies, prefixes: what there is to show
//!   screen   figures ─► lines of text that fit a terminal
//!   terminal the terminal itself: raw, restored at every end
//! ```

mod figures;
mod sample;
mod screen;
mod terminal;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use self::figures::Figures;
use self::sample::{Asker, Sample};
use self::terminal::{Key, Terminal};
use super::endpoint;
use crate::failure::{Failure, exit};
use crate::globals::Globals;
use crate::go;
use crate::log;
use crate::output::{self, Format};

/// The shortest time between two samples.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The deepest prefix that a member counts by.
const DEPTH_MAX: i64 = 8;

/// The flags of `top`.
#[derive(Debug, clap::Args)]
pub struct Top {
    #[arg(long, help = "look at every member of the cluster")]
    cluster: bool,
    #[arg(long, value_name = "string", default_value = "/")]
    #[arg(help = "what ends each part of a key (default \"/\")")]
    delimiter: String,
    #[arg(long, value_name = "duration", default_value = "1s", value_parser = go::parse_duration)]
    #[arg(help = "time between two looks (default 1s)")]
    interval: Duration,
    #[arg(long, help = "look twice, an interval apart, show what came of it, and end")]
    once: bool,
    #[arg(long, value_name = "int", default_value = "2", value_parser = go::parse_int)]
    #[arg(help = "of how many parts the prefixes consist that keys are counted by (default 2)")]
    prefix_depth: i64,
    #[arg(hide = true)]
    _words: Vec<OsString>,
}

/// How the figures are put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A line of JSON each.
    Json,
    /// Lines of text each.
    Text,
    /// On the terminal, in place of what was there.
    Screen,
}

impl Top {
    /// Looks and shows, until told to end.
    pub async fn run(self, globals: Globals) -> Result<(), Failure> {
        if self.interval < INTERVAL_MIN {
            return Err(Failure::args("--interval is at least 100ms"));
        }
        let depth =
            u32::try_from(self.prefix_depth).ok().filter(|_| (1..=DEPTH_MAX).contains(&self.prefix_depth));
        let depth = depth.ok_or_else(|| Failure::args(format!("--prefix-depth is from 1 to {DEPTH_MAX}")))?;
        let settings = globals.settle(&[])?;
        let form = match settings.printer.format {
            Format::Json => Form::Json,
            Format::Simple | Format::Table if self.once || !std::io::stdout().is_terminal() => Form::Text,
            Format::Simple | Format::Table => Form::Screen,
            _ => return Err(Failure::new(exit::BAD_FEATURE, "top is shown as text or as json")),
        };
        let endpoints = endpoint::targets(&settings, self.cluster).await?;
        let asker =
            Asker::new(&settings, &endpoints, self.delimiter.into_bytes(), depth, self.interval).await?;
        // What a failed call says on stderr would stand in the middle of the screen; the member's row says it anyway.
        let _quiet = log::quiet();
        match form {
            Form::Screen => watch(&asker, self.interval).await,
            _ => print(&asker, self.interval, form, self.once).await,
        }
    }
}

/// Prints figures every interval, or once.
async fn print(asker: &Asker, interval: Duration, form: Form, once: bool) -> Result<(), Failure> {
    let mut ticks = ticker(interval);
    ticks.tick().await;
    let mut before = asker.sample().await;
    loop {
        ticks.tick().await;
        let sample = asker.sample().await;
        let figures = Figures::between(Some(&before), &sample);
        match form {
            Form::Json => {
                let text = serde_json::to_string(&figures).map_err(Failure::general)?;
                output::say(text)?;
            }
            _ => {
                let lines = screen::lines(&figures, interval, screen::WIDTH_OF_TEXT);
                let text: String = lines.iter().map(|line| format!("{}\n", line.text.trim_end())).collect();
                output::write(if once { text } else { text + "\n" }.as_bytes())?;
            }
        }
        if once {
            return match figures.members.iter().any(|member| member.error.is_none()) {
                true => Ok(()),
                false => Err(Failure::general("no endpoint has answered")),
            };
        }
        before = sample;
    }
}

/// Shows figures on the terminal until a key or a signal says to end.
async fn watch(asker: &Asker, interval: Duration) -> Result<(), Failure> {
    let mut terminal = Terminal::enter().map_err(Failure::general)?;
    let mut ticks = ticker(interval);
    let mut ended = std::pin::pin!(terminal::ended());
    let mut shown: Option<Figures> = None;
    let mut before: Option<Sample> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let sample = tokio::select! {
                    sample = asker.sample() => sample,
                    key = terminal.key() => match key {
                        Some(Key::Resized | Key::Other) => continue,
                        Some(Key::End) | None => return Ok(()),
                    },
                    () = &mut ended => return Ok(()),
                };
                shown = Some(Figures::between(before.as_ref(), &sample));
                before = Some(sample);
            }
            key = terminal.key() => match key {
                Some(Key::End) | None => return Ok(()),
                Some(Key::Other) => continue,
                Some(Key::Resized) => {}
            },
            () = &mut ended => return Ok(()),
        }
        if let Some(figures) = &shown {
            let (width, height) = Terminal::size().map_err(Failure::general)?;
            let lines = screen::fit(screen::lines(figures, interval, width), width, height);
            terminal.show(&lines).map_err(Failure::general)?;
        }
    }
}

fn ticker(interval: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
