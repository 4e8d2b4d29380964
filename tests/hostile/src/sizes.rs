//! Measures the memory of an entry of each table, by the growth of the resident memory for many
//! entries.

use std::time::Duration;

use psrpc_tokio::bus::publish;
use psrpc_tokio::{ServerLimits, ServerOptions, Text, default_runtime};

use crate::forge::{Forged, Forger};
use crate::memory::Memory;
use crate::site::{Held, Site};

/// How many frames are published before the server reads them.
const BURST: usize = 1000;

/// A kind of entries, and how many are made.
pub(crate) struct Size {
    pub(crate) name: &'static str,
    pub(crate) entries: usize,
    make: Make,
}

#[derive(Clone, Copy)]
enum Make {
    Forged(fn(&Forger, usize) -> Forged),
    Held(Held),
    Streams,
}

/// All kinds.
pub(crate) const SIZES: &[Size] = &[
    Size {
        name: "a call that waits, in its client, with its task",
        entries: 100_000,
        make: Make::Held(Held::Call),
    },
    Size {
        name: "a request that waits for a grant, in a server",
        entries: 60_000,
        make: Make::Forged(Forger::waiting_request),
    },
    Size { name: "a remembered request", entries: 1_000_000, make: Make::Forged(Forger::far_expiry) },
    Size {
        name: "a subscription to updates, with its task",
        entries: 20_000,
        make: Make::Held(Held::Subscription),
    },
    Size { name: "an open stream, on both sides, with its handler", entries: 20_000, make: Make::Streams },
];

/// Returns the bytes of one entry.
///
/// # Errors
///
/// Returns an error if the client or the server cannot be created, or if a call fails.
pub(crate) async fn measure(size: &Size) -> Result<u64, String> {
    let options = ServerOptions::new().limits(ServerLimits { remembered: 1 << 22, ..ServerLimits::DEFAULT });
    let site = Site::new(options).await.map_err(|error| error.to_string())?;
    site.honest_calls().await.map_err(|error| error.to_string())?;
    let runtime = default_runtime().map_err(|error| error.to_string())?;
    let forger = Forger { runtime, client: String::new(), call: Text::EMPTY, large: None };
    let mut memory = Memory::start()?;
    let before = memory.before;
    let mut made = Vec::new();
    for number in 0..size.entries {
        match size.make {
            Make::Forged(forge) => {
                let (channel, frame) = forge(&forger, number);
                publish(&site.bus, channel, frame).await.map_err(|error| error.to_string())?;
            }
            Make::Held(held) => drop(site.hold(held)),
            Make::Streams => made.push(site.open_stream().await.map_err(|error| error.to_string())?),
        }
        if number % BURST == 0 {
            settle(&site).await?;
        }
    }
    settle(&site).await?;
    let grown = memory.sample()? - before;
    Ok(grown / size.entries as u64)
}

/// Waits until the server and the client have read the frames in their queues: they read the
/// frames of a new call after those.
async fn settle(site: &Site) -> Result<(), String> {
    let call = tokio::time::timeout(Duration::from_secs(30), site.call()).await;
    let call = call.map_err(|_| "a call took longer than 30 s".to_owned())?;
    call.map_err(|error| format!("a call failed: {error}"))
}
