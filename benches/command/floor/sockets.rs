//! The floor by blocking sockets: one message at a time, each end on a thread of its own.

use std::io;
use std::thread;
use std::time::Duration;

use super::ear::{Door, Ear, Ending};
use super::{Hops, Names};
use crate::Fault;
use crate::load::{Load, Pace, Slice};
use crate::measure::{Meter, Tally, now};
use crate::place::Kind;

/// The client's end, and the ends of the servers.
struct Sockets {
    /// Where it is not at work.
    ear: Option<Ear>,
    hops: usize,
    answers: usize,
    _servers: Vec<Ending>,
}

pub(super) fn load(kind: Kind, url: &str, hops: &Hops) -> Result<Box<dyn Load>, Fault> {
    let (door, names) = (door(kind, url)?, Names::new());
    let mut servers = Vec::new();
    // With nothing to answer one end hears what it says, by way of the server.
    let listens = if hops.is_one_way() { &names.there } else { &names.back };
    for _ in 0..if hops.is_one_way() { 0 } else { hops.answers } {
        let mut server = Ear::new(&door, hops, &names, &names.there)?;
        servers.push(server.ending()?);
        let count = hops.sizes.len();
        // It ends with its connection.
        thread::spawn(move || while answer(&mut server, count).is_ok() {});
    }
    let ear = Some(Ear::new(&door, hops, &names, listens)?.impatient()?);
    Ok(Box::new(Sockets { ear, hops: hops.sizes.len(), answers: hops.answers, _servers: servers }))
}

/// Where the server is, and who we are there.
fn door(kind: Kind, url: &str) -> Result<Door, Fault> {
    if kind == Kind::Nats {
        let first = url.split(',').next().unwrap_or_default();
        let server: async_nats::ServerAddr = first.parse()?;
        let (user, password) = (server.username().map(Into::into), server.password().map(Into::into));
        return Ok(Door { kind, host: server.host().into(), port: server.port(), user, password });
    }
    let client = redis::Client::open(url)?;
    let (info, settings) = (client.get_connection_info(), client.get_connection_info().redis_settings());
    let redis::ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err("a Redis server is reached by TCP here".into());
    };
    let (user, password) = (settings.username().map(Into::into), settings.password().map(Into::into));
    Ok(Door { kind, host: host.clone(), port: *port, user, password })
}

/// The server's part of one unit.
fn answer(server: &mut Ear, hops: usize) -> io::Result<()> {
    for hop in (0..hops).step_by(2) {
        server.hear(hop)?;
        if hop == 0 {
            server.lock()?;
        }
        server.say(hop + 1)?;
    }
    Ok(())
}

/// The client's part of one unit.
fn ask(client: &mut Ear, hops: usize, answers: usize) -> io::Result<()> {
    for hop in (0..hops).step_by(2) {
        client.say(hop)?;
        for _ in 0..answers {
            client.hear((hop + 1).min(hops - 1))?;
        }
    }
    Ok(())
}

impl Load for Sockets {
    fn slice<'a>(&'a mut self, length: Duration, _: Pace, tally: &'a mut Tally) -> Slice<'a> {
        Box::pin(async move {
            let (hops, answers) = (self.hops, self.answers);
            let mut ear = self.ear.take().ok_or("the sockets are gone")?;
            let meter = Meter::start(tally);
            let end = meter.began() + length;
            let (ear, took) = tokio::task::spawn_blocking(move || {
                let (mut took, mut begun) = (Vec::new(), now());
                while begun < end {
                    ask(&mut ear, hops, answers)?;
                    let done = now();
                    took.push((done - begun).as_nanos() as u64);
                    begun = done;
                }
                Ok::<_, io::Error>((ear, took))
            })
            .await??;
            meter.stop(tally);
            took.into_iter().for_each(|nanos| tally.took(nanos));
            self.ear = Some(ear);
            Ok(())
        })
    }
}
