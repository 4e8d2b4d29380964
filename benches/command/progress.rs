//! A progress line on the terminal.

use std::io::{self, IsTerminal, Write};

pub(crate) struct Progress {
    cells: usize,
    started: usize,
    is_seen: bool,
}

impl Progress {
    pub(crate) fn new(cells: usize) -> Self {
        Self { cells, started: 0, is_seen: io::stderr().is_terminal() }
    }

    pub(crate) fn begin(&mut self, cell: &str) {
        self.started += 1;
        if self.is_seen {
            eprint!("\r[{} of {}] {cell}\x1b[K", self.started, self.cells);
            // Progress is optional, so errors are ignored.
            let _ = io::stderr().flush();
        }
    }

    pub(crate) fn clear(&self) {
        if self.is_seen {
            eprint!("\r\x1b[K");
        }
    }
}
