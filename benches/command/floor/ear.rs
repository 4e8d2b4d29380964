//! One end of a conversation over blocking sockets.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::reader::Reader;
use super::words::{self, lock_key, redis_command};
use super::{Hops, Names};
use crate::place::Kind;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a NATS server says now and then, and wants an answer to.
const PING: &[u8] = b"PING\r\n";

/// How many answers of Redis to what is published may wait to be read.
const OWED: usize = 64;

/// What is needed to be let in.
pub(super) struct Door {
    pub(super) kind: Kind,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

impl Door {
    fn open(&self) -> io::Result<Reader> {
        let stream = TcpStream::connect((&*self.host, self.port))?;
        stream.set_nodelay(true)?;
        let mut reader = Reader::new(stream);
        let (user, password) = (self.user.as_deref(), self.password.as_deref());
        match (self.kind, user, password) {
            (Kind::Nats, user, password) => {
                reader.line()?;
                let words = serde_json::json!({
                    "verbose": false, "pedantic": false, "lang": "rust", "version": "0", "protocol": 1,
                    "user": user, "pass": password, "auth_token": user.filter(|_| password.is_none()),
                });
                reader.stream.write_all(format!("CONNECT {words}\r\n").as_bytes())?;
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

/// Says and hears messages.
pub(super) struct Ear {
    kind: Kind,
    hears: Reader,
    /// Redis wants a connection that is not subscribed.
    says: Option<Reader>,
    /// What is said for each hop, and how long what is heard of it is.
    hops: Vec<(Vec<u8>, usize)>,
    /// How many answers of Redis have not been read.
    owed: usize,
    lock_keys: Option<(String, u64)>,
}

impl Ear {
    /// Listens on one of the channels.
    pub(super) fn new(door: &Door, hops: &Hops, names: &Names, listens: &str) -> io::Result<Self> {
        let mut hears = door.open()?;
        let says = match door.kind {
            Kind::Nats => {
                hears.stream.write_all(format!("SUB {listens} 1\r\nPING\r\n").as_bytes())?;
                hears.expect(b"PONG\r\n")?;
                None
            }
            _ => {
                hears.stream.write_all(&redis_command(&[b"SUBSCRIBE", listens.as_bytes()]))?;
                hears.expect(
                    format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{listens}\r\n:1\r\n", listens.len()).as_bytes(),
                )?;
                Some(door.open()?)
            }
        };
        let spoken = hops
            .sizes
            .iter()
            .enumerate()
            .map(|(hop, size)| words::of_message(door.kind, names.of(hop), *size));
        let lock_keys = hops.lock.then(|| (names.there.clone(), 0));
        Ok(Self { kind: door.kind, hears, says, hops: spoken.collect(), owed: 0, lock_keys })
    }

    /// Gives up when nothing comes for too long, as a server does not that waits for its turn.
    pub(super) fn impatient(self) -> io::Result<Self> {
        self.hears.stream.set_read_timeout(Some(PATIENCE))?;
        Ok(self)
    }

    /// Says the message of a hop.
    pub(super) fn say(&mut self, hop: usize) -> io::Result<()> {
        let Some(says) = &mut self.says else { return self.hears.stream.write_all(&self.hops[hop].0) };
        says.stream.write_all(&self.hops[hop].0)?;
        self.owed += 1;
        if self.owed == OWED {
            self.settle()?;
        }
        Ok(())
    }

    /// Hears the message of a hop.
    pub(super) fn hear(&mut self, hop: usize) -> io::Result<()> {
        let length = self.hops[hop].1;
        loop {
            if self.kind == Kind::Nats && self.hears.ahead().starts_with(PING) {
                self.hears.take(PING.len());
                self.hears.stream.write_all(b"PONG\r\n")?;
            } else if self.hears.ahead().len() >= length {
                self.hears.take(length);
                return Ok(());
            } else {
                self.hears.more()?;
            }
        }
    }

    /// Takes a lock, where there are any.
    pub(super) fn lock(&mut self) -> io::Result<()> {
        let (Some((name, number)), Some(says)) = (&mut self.lock_keys, &mut self.says) else { return Ok(()) };
        *number += 1;
        let key = lock_key(name, *number);
        says.stream.write_all(&redis_command(&[b"SET", key.as_bytes(), b"1", b"EX", b"5", b"NX"]))?;
        self.settle()?;
        self.says.as_mut().map_or(Ok(()), |says| says.expect(b"+OK\r\n"))
    }

    /// Reads what Redis has answered to what was published: a digit each, how many it reached.
    fn settle(&mut self) -> io::Result<()> {
        if let Some(says) = &mut self.says {
            for _ in 0..std::mem::take(&mut self.owed) {
                says.line()?;
            }
        }
        Ok(())
    }

    /// Ends the conversation for whoever waits at this end.
    pub(super) fn ending(&self) -> io::Result<Ending> {
        Ok(Ending(self.hears.stream.try_clone()?))
    }
}

/// Ends a conversation when it is dropped.
pub(super) struct Ending(TcpStream);

impl Drop for Ending {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
