//! A raw connection to the server of a bus: blocking sockets that send and receive messages of
//! known bytes.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::reader::Reader;
use super::wire::{self, lock_key, redis_command};
use super::{Hops, Names};
use crate::place::Kind;

/// The timeout of a response.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sent by a NATS server periodically; requires a response.
const PING: &[u8] = b"PING\r\n";

/// The maximum number of unread Redis replies to `PUBLISH`.
const MAX_UNREAD_REPLIES: usize = 64;

/// The address of a server and the credentials for it.
pub(super) struct Endpoint {
    pub(super) kind: Kind,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

impl Endpoint {
    fn connect(&self) -> io::Result<Reader> {
        let stream = TcpStream::connect((&*self.host, self.port))?;
        stream.set_nodelay(true)?;
        let mut reader = Reader::new(stream);
        let (user, password) = (self.user.as_deref(), self.password.as_deref());
        match (self.kind, user, password) {
            (Kind::Nats, user, password) => {
                reader.line()?;
                let options = serde_json::json!({
                    "verbose": false, "pedantic": false, "lang": "rust", "version": "0", "protocol": 1,
                    "user": user, "pass": password, "auth_token": user.filter(|_| password.is_none()),
                });
                reader.stream.write_all(format!("CONNECT {options}\r\n").as_bytes())?;
            }
            (_, _, Some(password)) => {
                reader.stream.write_all(&redis_command(&[
                    b"AUTH",
                    user.unwrap_or("default").as_bytes(),
                    password.as_bytes(),
                ]))?;
                reader.expect(b"+OK\r\n")?;
            }
            (_, _, None) => {}
        }
        Ok(reader)
    }
}

/// One end of the hops.
pub(super) struct RawConnection {
    kind: Kind,
    receiver: Reader,
    /// The second connection, for Redis: a subscribed connection cannot publish.
    sender: Option<Reader>,
    /// For each hop, the bytes to send and the number of bytes that the receiver gets.
    hops: Vec<(Vec<u8>, usize)>,
    /// The number of unread Redis replies.
    unread_replies: usize,
    lock_keys: Option<(String, u64)>,
}

impl RawConnection {
    /// Connects and subscribes to a channel.
    pub(super) fn new(endpoint: &Endpoint, hops: &Hops, names: &Names, channel: &str) -> io::Result<Self> {
        let mut receiver = endpoint.connect()?;
        let sender = match endpoint.kind {
            Kind::Nats => {
                receiver.stream.write_all(format!("SUB {channel} 1\r\nPING\r\n").as_bytes())?;
                receiver.expect(b"PONG\r\n")?;
                None
            }
            _ => {
                receiver.stream.write_all(&redis_command(&[b"SUBSCRIBE", channel.as_bytes()]))?;
                receiver.expect(
                    format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{channel}\r\n:1\r\n", channel.len()).as_bytes(),
                )?;
                Some(endpoint.connect()?)
            }
        };
        let messages = hops
            .sizes
            .iter()
            .enumerate()
            .map(|(hop, size)| wire::message(endpoint.kind, names.of(hop), *size));
        let lock_keys = hops.lock.then(|| (names.to_server.clone(), 0));
        Ok(Self {
            kind: endpoint.kind,
            receiver,
            sender,
            hops: messages.collect(),
            unread_replies: 0,
            lock_keys,
        })
    }

    /// Sets a timeout for receiving. Servers have none, since they wait between slices.
    pub(super) fn with_timeout(self) -> io::Result<Self> {
        self.receiver.stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(self)
    }

    /// Sends the message of a hop.
    pub(super) fn send(&mut self, hop: usize) -> io::Result<()> {
        let Some(sender) = &mut self.sender else { return self.receiver.stream.write_all(&self.hops[hop].0) };
        sender.stream.write_all(&self.hops[hop].0)?;
        self.unread_replies += 1;
        if self.unread_replies == MAX_UNREAD_REPLIES {
            self.read_replies()?;
        }
        Ok(())
    }

    /// Receives the message of a hop.
    pub(super) fn receive(&mut self, hop: usize) -> io::Result<()> {
        let length = self.hops[hop].1;
        loop {
            if self.kind == Kind::Nats && self.receiver.ahead().starts_with(PING) {
                self.receiver.take(PING.len());
                self.receiver.stream.write_all(b"PONG\r\n")?;
            } else if self.receiver.ahead().len() >= length {
                self.receiver.take(length);
                return Ok(());
            } else {
                self.receiver.more()?;
            }
        }
    }

    /// Takes a lock, if the hops require one.
    pub(super) fn lock(&mut self) -> io::Result<()> {
        let (Some((name, number)), Some(sender)) = (&mut self.lock_keys, &mut self.sender) else {
            return Ok(());
        };
        *number += 1;
        let key = lock_key(name, *number);
        sender.stream.write_all(&redis_command(&[b"SET", key.as_bytes(), b"1", b"EX", b"5", b"NX"]))?;
        self.read_replies()?;
        self.sender.as_mut().map_or(Ok(()), |sender| sender.expect(b"+OK\r\n"))
    }

    /// Reads the Redis replies to `PUBLISH`, each of which is a number of subscribers.
    fn read_replies(&mut self) -> io::Result<()> {
        if let Some(sender) = &mut self.sender {
            for _ in 0..std::mem::take(&mut self.unread_replies) {
                sender.line()?;
            }
        }
        Ok(())
    }

    /// Returns a guard that shuts down the receiving socket, so that a thread blocked on it ends.
    pub(super) fn shutdown_on_drop(&self) -> io::Result<ShutdownOnDrop> {
        Ok(ShutdownOnDrop(self.receiver.stream.try_clone()?))
    }
}

/// Shuts a socket down when it is dropped.
pub(super) struct ShutdownOnDrop(TcpStream);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        // The socket may be shut down already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
