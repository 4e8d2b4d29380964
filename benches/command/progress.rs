//! A line on the terminal, if there is one, that tells how far it is.

use std::io::{self, IsTerminal, Write};

pub(crate) struct Progress {
    cells: usize,
    begun: usize,
    is_seen: bool,
}

impl Progress {
    pub(crate) fn new(cells: usize) -> Self {
        Self { cells, begun: 0, is_seen: io::stderr().is_terminal() }
    }

    pub(crate) fn begin(&mut self, what: &str) {
        self.begun += 1;
        if self.is_seen {
            eprint!("\r[{} of {}] {what}\x1b[K", self.begun, self.cells);
            // What cannot be shown is not needed.
            let _ = io::stderr().flush();
        }
    }

    pub(crate) fn clear(&self) {
        if self.is_seen {
            eprint!("\r\x1b[K");
        }
    }
}
