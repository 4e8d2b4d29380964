//! The floor with blocking sockets: one message at a time, each end on its own thread.

use std::io;
use std::thread;
use std::time::Duration;

use super::raw_connection::{Endpoint, RawConnection, ShutdownOnDrop};
use super::{Hops, Names};
use crate::BenchError;
use crate::load::{Load, Pace, Slice};
use crate::measure::{Meter, Tally, now};
use crate::place::Kind;

/// The client's connection, and guards for those of the servers.
struct Sockets {
    /// `None` during a slice.
    connection: Option<RawConnection>,
    hops: usize,
    responses: usize,
    _servers: Vec<ShutdownOnDrop>,
}

pub(super) fn load(kind: Kind, url: &str, hops: &Hops) -> Result<Box<dyn Load>, BenchError> {
    let (endpoint, names) = (endpoint(kind, url)?, Names::new());
    let mut servers = Vec::new();
    // Without a response, the client subscribes to its own message.
    let channel = if hops.is_one_way() { &names.to_server } else { &names.to_client };
    for _ in 0..if hops.is_one_way() { 0 } else { hops.responses } {
        let mut server = RawConnection::new(&endpoint, hops, &names, &names.to_server)?;
        servers.push(server.shutdown_on_drop()?);
        let count = hops.sizes.len();
        // The thread ends when its connection does.
        thread::spawn(move || while respond(&mut server, count).is_ok() {});
    }
    let connection = Some(RawConnection::new(&endpoint, hops, &names, channel)?.with_timeout()?);
    Ok(Box::new(Sockets { connection, hops: hops.sizes.len(), responses: hops.responses, _servers: servers }))
}

/// Parses a URL into an endpoint.
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
        return Err("the floor requires a TCP address".into());
    };
    let (user, password) = (settings.username().map(Into::into), settings.password().map(Into::into));
    Ok(Endpoint { kind, host: host.clone(), port: *port, user, password })
}

/// Runs the server's part of one unit.
fn respond(server: &mut RawConnection, hops: usize) -> io::Result<()> {
    for hop in (0..hops).step_by(2) {
        server.receive(hop)?;
        if hop == 0 {
            server.lock()?;
        }
        server.send(hop + 1)?;
    }
    Ok(())
}

/// Runs the client's part of one unit.
fn ask(client: &mut RawConnection, hops: usize, responses: usize) -> io::Result<()> {
    for hop in (0..hops).step_by(2) {
        client.send(hop)?;
        for _ in 0..responses {
            client.receive((hop + 1).min(hops - 1))?;
        }
    }
    Ok(())
}

impl Load for Sockets {
    fn slice<'a>(&'a mut self, length: Duration, _: Pace, tally: &'a mut Tally) -> Slice<'a> {
        Box::pin(async move {
            let (hops, responses) = (self.hops, self.responses);
            let mut connection = self.connection.take().ok_or("an earlier slice failed")?;
            let meter = Meter::start(tally);
            let end = meter.started_at() + length;
            let (connection, durations) = tokio::task::spawn_blocking(move || {
                let (mut durations, mut started) = (Vec::new(), now());
                while started < end {
                    ask(&mut connection, hops, responses)?;
                    let done = now();
                    durations.push((done - started).as_nanos() as u64);
                    started = done;
                }
                Ok::<_, io::Error>((connection, durations))
            })
            .await??;
            meter.stop(tally);
            durations.into_iter().for_each(|nanos| tally.record(nanos));
            self.connection = Some(connection);
            Ok(())
        })
    }
}
