//! The floor: the same hops without the protocol, as a lower bound.

mod channels;
mod hops;
mod messages;
mod nats;
mod raw_connection;
mod reader;
mod redis;
mod sockets;
mod wire;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::BenchError;
use crate::load::Load;
use crate::place::{Kind, Place};
use crate::work::Work;

use hops::Hops;

/// Creates the floors of a cell. The first is the floor for the CPU time. With one call at a time
/// over a network, a second one on blocking sockets follows, since its latency is lower.
pub(crate) async fn loads(
    place: &Place,
    work: Work,
    concurrency: usize,
    size: usize,
) -> Result<Vec<Box<dyn Load>>, BenchError> {
    let hops = Hops::of(work, place.kind, size);
    let mut loads = vec![match place.kind {
        Kind::Local => channels::load(&hops, concurrency),
        Kind::Redis => redis::load(&place.url, hops.clone(), concurrency).await?,
        Kind::Nats => nats::load(&place.url, hops.clone(), concurrency).await?,
    }];
    if concurrency == 1 && place.kind != Kind::Local {
        loads.push(sockets::load(place.kind, &place.url, &hops)?);
    }
    Ok(loads)
}

/// The two channels of a floor.
#[derive(Clone)]
struct Names {
    to_server: String,
    to_client: String,
}

impl Names {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = |way| format!("bench.{process}.{count}.{way}");
        Self { to_server: name("there"), to_client: name("back") }
    }

    /// Returns the channel of a hop. Hops alternate between the two directions.
    fn of(&self, hop: usize) -> &str {
        if hop.is_multiple_of(2) { &self.to_server } else { &self.to_client }
    }
}
