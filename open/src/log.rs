//! What Keyfold logs, as lines of text, for programs whose language has no `tracing`.

use std::fmt::{Debug, Write};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Has `log` get every event of Keyfold's crates at level INFO and above from now on, as one line, on the thread that it comes from.
/// For a library that has `tracing` for itself: where the process has a subscriber already, as from a call before, it stays, and
/// nothing is done.
pub fn listen(log: fn(Level, String)) {
    let _ = tracing::subscriber::set_global_default(Listener(log));
}

struct Listener(fn(Level, String));

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Other crates have their own to say, which nobody has looked at for secrets.
        metadata.is_event() && *metadata.level() <= Level::INFO && metadata.target().starts_with("keyfold")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0(*event.metadata().level(), format!("{}{}", line.message, line.fields).replace(['\r', '\n'], " "));
    }

    // No span is enabled.
    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// An event as text: what it says, then its fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
