//! A subscriber of the log that looks for control characters.

use std::fmt::{Debug, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;

/// Counts the lines of the log, and the lines that have control characters.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Counts>);

#[derive(Default)]
struct Counts {
    lines: AtomicU64,
    unescaped: AtomicU64,
}

impl Log {
    /// Reads the log of psrpc from now on, at all levels.
    pub(crate) fn install() -> Result<Self, String> {
        let log = Self::default();
        let installed = tracing::subscriber::set_global_default(log.clone());
        installed.map_err(|error| error.to_string())?;
        Ok(log)
    }

    pub(crate) fn lines(&self) -> u64 {
        self.0.lines.load(Ordering::Relaxed)
    }

    pub(crate) fn unescaped(&self) -> u64 {
        self.0.unescaped.load(Ordering::Relaxed)
    }
}

/// An event as a formatter prints it.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, " {field}={value}");
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("psrpc")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lines.fetch_add(1, Ordering::Relaxed);
        if line.0.chars().any(char::is_control) {
            self.0.unescaped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
