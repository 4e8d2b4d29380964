//! The floor by blocking sockets: one message at a time, each end on a thread of its own.

use std::io;
use std::thread;
use std::time::Duration;

use super::raw_connection::{Endpoint, RawConnection, ShutdownOnDrop};
use super::{Hops, Names};
use crate::BenchError;
use crate::load::{Load, Pace, Slice};
use crate::measure::{Meter, Tally, now};
use crate::place::Kind;

/// The client's end, and the ends of the servers.
struct Sockets {
    /// `None` while it is at work.
    connection: Option<RawConnection>,
    hops: usize,
    answers: usize,
    _servers: Vec<ShutdownOnDrop>,
}

pub(super) fn load(kind: Kind, url: &str, hops: &Hops) -> Result<Box<dyn Load>, BenchError> {
    let (endpoint, names) = (endpoint(kind, url)?, Names::new());
    let mut servers = Vec::new();
    // Of a message that nobody answers, the client is the subscriber itself.
    let channel = if hops.is_one_way() { &names.there } else { &names.back };
    for _ in 0..if hops.is_one_way() { 0 } else { hops.answers } {
        let mut server = RawConnection::new(&endpoint, hops, &names, &names.there)?;
        servers.push(server.shutdown_on_drop()?);
        let count = hops.sizes.len();
        // The thread ends with its connection.
        thread::spawn(move || while answer(&mut server, count).is_ok() {});
    }
    let connection = Some(RawConnection::new(&endpoint, hops, &names, channel)?.with_timeout()?);
    Ok(Box::new(Sockets { connection, hops: hops.sizes.len(), answers: hops.answers, _servers: servers }))
}

/// The endpoint that a URL names.
fn endpoint(kind: Kind, url: &str) -> Result<Endpoint, BenchError> {
    if kind == Kind::Nats {
        let first = url.split(',').next().unwrap_or_default();
        let server: async_nats::ServerAddr = first.parse()?;
        let (user, password) = (server.username().map(Into::into), server.password().map(Into::into));
        return Ok(Endpoint { kind, host: server.host().into(), port: server.port(), user, password });
    }
    let client = redis::Client::open(url)?;
    let (info, settings) = (client.get_connection_info(), client.get_connection_info().redis_settings());
    let redis::ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err("a Redis server is reached by TCP here".into());
    };
    let (user, password) = (settings.username().map(Into::into), settings.password().map(Into::into));
    Ok(Endpoint { kind, host: host.clone(), port: *port, user, password })
}

/// The server's part of one unit.
fn answer(server: &mut RawConnection, hops: usize) -> io::Result<()> {
    for hop in (0..hops).step_by(2) {
        server.receive(hop)?;
        if hop == 0 {
            server.lock()?;
        }
        server.send(hop + 1)?;
    }
    Ok(())
}

/// The client's part of one unit.
fn ask(client: &mut RawConnection, hops: usize, answers: usize) -> io::Result<()> {
    for hop in (0..hops).step_by(2) {
        client.send(hop)?;
        for _ in 0..answers {
            client.receive((hop + 1).min(hops - 1))?;
        }
    }
    Ok(())
}

impl Load for Sockets {
    fn slice<'a>(&'a mut self, length: Duration, _: Pace, tally: &'a mut Tally) -> Slice<'a> {
        Box::pin(async move {
            let (hops, answers) = (self.hops, self.answers);
            let mut connection = self.connection.take().ok_or("the sockets are gone")?;
            let meter = Meter::start(tally);
            let end = meter.began() + length;
            let (connection, took) = tokio::task::spawn_blocking(move || {
                let (mut took, mut begun) = (Vec::new(), now());
                while begun < end {
                    ask(&mut connection, hops, answers)?;
                    let done = now();
                    took.push((done - begun).as_nanos() as u64);
                    begun = done;
                }
                Ok::<_, io::Error>((connection, took))
            })
            .await??;
            meter.stop(tally);
            took.into_iter().for_each(|nanos| tally.took(nanos));
            self.connection = Some(connection);
            Ok(())
        })
    }
}
