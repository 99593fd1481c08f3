//! What the libraries log, on stderr in the form of etcd's tools.

use std::fmt::Debug;

use manners::log::{Value, console};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Shows what a restore says, and warnings of everything it uses.
#[derive(Debug)]
pub(crate) struct Console;

impl Console {
    /// Does something whose lines are shown.
    pub(crate) fn within<T>(work: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Self), work)
    }
}

impl<S: Subscriber> Layer<S> for Console {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO if event.metadata().target().starts_with("server::restore") => "info",
            _ => return,
        };
        let mut line = Line::default();
        event.record(&mut line);
        let fields: Vec<(&str, Value<'_>)> =
            line.fields.iter().map(|(name, value)| (*name, value.shown())).collect();
        console(level, &line.message, &fields);
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: Vec<(&'static str, Held)>,
}

/// A value that outlives its event.
enum Held {
    Text(String),
    Number(u64),
    Signed(i64),
    Flag(bool),
}

impl Held {
    fn shown(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Text(text),
            Self::Number(number) => Value::Number(*number),
            Self::Signed(number) => Value::Signed(*number),
            Self::Flag(flag) => Value::Flag(*flag),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push((name, Held::Text(format!("{value:?}")))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push((field.name(), Held::Text(value.to_owned())));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), Held::Number(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), Held::Signed(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Held::Flag(value)));
    }
}
