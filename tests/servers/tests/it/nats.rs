//! A client of NATS that publishes and receives lines.

use std::io::{BufRead, BufReader, Result, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// How long a line may take.
const AT_MOST: Duration = Duration::from_secs(20);

pub struct NatsClient {
    stream: BufReader<TcpStream>,
}

impl NatsClient {
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(AT_MOST)).unwrap();
        let mut client = Self { stream: BufReader::new(stream) };
        assert!(client.line().unwrap().starts_with("INFO "));
        // The protocol of clients that listen to what becomes of the cluster.
        client.send("CONNECT {\"verbose\":false,\"protocol\":1}");
        client
    }

    pub fn send(&mut self, line: &str) {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// The next line that is not an `INFO`, which a server sends when the cluster changes.
    pub fn line_but_info(&mut self) -> String {
        loop {
            let line = self.line().unwrap();
            if !line.starts_with("INFO ") {
                return line;
            }
        }
    }

    /// Returns when the server has taken all that was sent before.
    pub fn flush(&mut self) {
        self.send("PING");
        assert_eq!(self.line_but_info(), "PONG");
    }
}
