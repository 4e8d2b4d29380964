//! A client that sends one command at a time to a Redis server, with or without TLS.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::tls::ServerTls;
use crate::wait::TIMEOUT;

/// A connection to a Redis server, a sentinel or a node of a cluster on 127.0.0.1.
pub struct RedisClient {
    stream: BufReader<Box<dyn Stream>>,
}

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A reply of a Redis server that is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A simple string or a bulk string.
    Text(String),
    /// An integer.
    Integer(i64),
    /// No value.
    Nil,
    /// Several replies in one.
    Array(Vec<Reply>),
}

impl RedisClient {
    /// Connects to this port of 127.0.0.1. With TLS, the client shows the client certificate.
    ///
    /// # Errors
    ///
    /// Returns an error if the server cannot be reached, fails the handshake or refuses the
    /// password.
    pub fn connect(port: u16, tls: Option<&ServerTls>, password: Option<&str>) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(stream),
            Some(tls) => {
                let server = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
                let connection = ClientConnection::new(Arc::new(tls.client_config()), server);
                Box::new(StreamOwned::new(connection.map_err(io::Error::other)?, stream))
            }
        };
        let mut client = Self { stream: BufReader::new(stream) };
        if let Some(password) = password {
            client.command(&["AUTH", password])?;
        }
        Ok(client)
    }

    /// Sends a command and returns the reply. It waits for at most 5 s.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection fails, or if the server replies with an error. In the
    /// second case, the text of the error is the text of the reply.
    pub fn command<W: AsRef<str>>(&mut self, words: &[W]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words.iter().map(AsRef::as_ref) {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        let stream = self.stream.get_mut();
        stream.write_all(request.as_bytes())?;
        stream.flush()?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
        let number = || rest.parse::<i64>().map_err(io::Error::other);
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => return Err(io::Error::other(rest)),
            ":" => Reply::Integer(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(length) => {
                    let mut text = vec![0; length + 2];
                    self.stream.read_exact(&mut text)?;
                    text.truncate(length);
                    Reply::Text(String::from_utf8(text).map_err(io::Error::other)?)
                }
            },
            "*" => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(length) => Reply::Array((0..length).map(|_| self.reply()).collect::<Result<_, _>>()?),
            },
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

impl Reply {
    /// Returns the parts of an array. Any other reply has none.
    pub fn items(&self) -> &[Reply] {
        match self {
            Self::Array(items) => items,
            _ => &[],
        }
    }

    /// Returns the value of a field, if the reply is a list of names and values.
    pub fn field(&self, name: &str) -> Option<String> {
        let pair = self.items().chunks_exact(2).find(|pair| pair[0].to_string() == name)?;
        Some(pair[1].to_string())
    }
}

/// Writes the text or the integer, nothing for no value, and the parts of an array with spaces in
/// between.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Nil => Ok(()),
            Self::Array(items) => {
                for (n, item) in items.iter().enumerate() {
                    let space = if n > 0 { " " } else { "" };
                    write!(f, "{space}{item}")?;
                }
                Ok(())
            }
        }
    }
}
