//! The floor: the same hops without the protocol. What no protocol can be quicker than.

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

/// The floors of a cell: first that with whose CPU time ours is compared; then, if there is one
/// that is quicker for one at a time, that.
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

/// The channels of a floor, both of its own.
#[derive(Clone)]
struct Names {
    there: String,
    back: String,
}

impl Names {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = |way| format!("bench.{process}.{count}.{way}");
        Self { there: name("there"), back: name("back") }
    }

    /// That of a hop: there and back in turns.
    fn of(&self, hop: usize) -> &str {
        if hop.is_multiple_of(2) { &self.there } else { &self.back }
    }
}
