//! A buffered blocking socket.

use std::io::{self, Read};
use std::net::TcpStream;

/// A socket with the bytes that were read and not consumed yet.
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

    /// Consumes buffered bytes.
    pub(super) fn take(&mut self, length: usize) {
        self.from += length;
    }

    /// Returns the buffered bytes.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }

    /// Reads more bytes, and blocks until some arrive.
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

    /// Consumes a line.
    pub(super) fn line(&mut self) -> io::Result<()> {
        loop {
            if let Some(end) = self.ahead().windows(2).position(|end| end == b"\r\n") {
                self.from += end + 2;
                return Ok(());
            }
            self.more()?;
        }
    }

    /// Consumes the expected bytes.
    ///
    /// # Errors
    ///
    /// Returns an error that contains the received bytes if they differ.
    pub(super) fn expect(&mut self, expected: &[u8]) -> io::Result<()> {
        while self.ahead().len() < expected.len() {
            self.more()?;
        }
        if !self.ahead().starts_with(expected) {
            let received = String::from_utf8_lossy(self.ahead()).into_owned();
            return Err(io::Error::other(format!("unexpected response from the server: {received:?}")));
        }
        self.from += expected.len();
        Ok(())
    }
}
