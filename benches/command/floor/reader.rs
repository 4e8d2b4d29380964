//! A blocking socket that is read as far as is wanted.

use std::io::{self, Read};
use std::net::TcpStream;

/// A socket, and what was read from it and is not taken yet.
pub(super) struct Reader {
    pub(super) stream: TcpStream,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

impl Reader {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: vec![0; 1 << 16], from: 0, to: 0 }
    }

    /// Passes over so many bytes that are there.
    pub(super) fn take(&mut self, length: usize) {
        self.from += length;
    }

    /// What is there.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }

    /// Waits for more.
    pub(super) fn more(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        if self.to == self.buffer.len() {
            self.buffer.resize(2 * self.to, 0);
        }
        match self.stream.read(&mut self.buffer[self.to..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.to += read;
                Ok(())
            }
        }
    }

    /// Passes over a line.
    pub(super) fn line(&mut self) -> io::Result<()> {
        loop {
            if let Some(end) = self.ahead().windows(2).position(|end| end == b"\r\n") {
                self.from += end + 2;
                return Ok(());
            }
            self.more()?;
        }
    }

    /// Passes over these bytes.
    ///
    /// # Errors
    ///
    /// If other bytes came, which the error shows.
    pub(super) fn expect(&mut self, expected: &[u8]) -> io::Result<()> {
        while self.ahead().len() < expected.len() {
            self.more()?;
        }
        if !self.ahead().starts_with(expected) {
            let said = String::from_utf8_lossy(self.ahead()).into_owned();
            return Err(io::Error::other(format!("the server says {said:?}")));
        }
        self.from += expected.len();
        Ok(())
    }
}
