//! Captures the log lines of psrpc.

use std::fmt::{Debug, Write};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::subscriber::DefaultGuard;

use crate::hats::Log;

/// Captures events of psrpc up to a level: target, level, text and fields.
struct Subscriber(Log, LevelFilter);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.0.push_str(&format!(": {value:?}")),
            name => write!(self.0, " {name}={value:?}").unwrap(),
        }
    }
}

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= self.1 && metadata.target().starts_with("psrpc")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.1)
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line(format!("{} {}", metadata.target(), metadata.level()));
        event.record(&mut line);
        self.0.add(line.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Captures events up to a level until the guard is dropped.
pub fn logged(level: LevelFilter) -> (Log, DefaultGuard) {
    let log = Log::default();
    (log.clone(), tracing::subscriber::set_default(Subscriber(log, level)))
}
