//! The trace: all that happened in a run, as lines to read and as a hash to compare.

use std::fmt::{self, Write};

use psrpc_engine::Time;

/// Where an FNV-1a hash starts.
pub(crate) const FNV: u64 = 0xcbf2_9ce4_8422_2325;

/// Takes the lines of a run: hashes them (FNV-1a), and shows them if somebody wants to see them.
pub(crate) struct Trace {
    hash: u64,
    line: String,
    show: Option<fn(&str)>,
}

impl Trace {
    pub(crate) fn new(show: Option<fn(&str)>) -> Self {
        Self { hash: FNV, line: String::new(), show }
    }

    pub(crate) fn line(&mut self, at: Time, who: impl fmt::Display, what: impl fmt::Display) {
        writeln!(self, "{} {who} {what}", Millis(at)).expect("a trace takes all");
        if let Some(show) = self.show {
            show(self.line.trim_end());
            self.line.clear();
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

impl Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.hash = fnv1a(self.hash, text.as_bytes());
        if self.show.is_some() {
            self.line.push_str(text);
        }
        Ok(())
    }
}

/// Goes on with a hash that has come as far as `hash`.
pub(crate) fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A virtual time in milliseconds since the start of the run.
struct Millis(Time);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_nanos() / 1000;
        write!(f, "{:>6}.{:03}", micros / 1000, micros % 1000)
    }
}
