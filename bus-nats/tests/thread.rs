//! The thread of a bus. A separate process, so that no other test has such a thread.

#![allow(clippy::disallowed_methods, reason = "real servers need real time")]

#[path = "it/support.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::fs::DirEntry;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_core::Stream;
use psrpc::SubscriptionKind::Plain;
use psrpc::bus::{Accepted, Bus, Delivery, Inbox, Offer, ReplyTo, WakeList};
use psrpc_bus_nats::NatsBus;
use psrpc_servers::Server;

use support::{SECOND, block_on, frame, plain, publish};

pub(crate) fn runtime() -> psrpc_smol::SmolRuntime {
    psrpc_smol::SmolRuntime
}

/// Returns the number of bus threads in this process.
fn threads() -> usize {
    let name = |entry: DirEntry| std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|entry| name(entry.unwrap())).filter(|name| name.trim() == "psrpc-nats").count()
}

#[test]
fn the_thread_ends_with_the_last_handle_of_the_bus() {
    let server = Server::nats(&[]);
    let bus = block_on(NatsBus::connect(&server.url(), runtime())).unwrap();
    assert_eq!(threads(), 1);
    let (sink, mut inbox) = Inbox::new(10);
    let subscription = bus.subscribe(&plain("Make"), Plain, sink, &mut WakeList::new());
    let mut next = move || block_on(poll_fn(|cx| Pin::new(&mut inbox).poll_next(cx)));
    assert!(matches!(next(), Some(Delivery::Live)));
    let clone = bus.clone();
    drop(bus);
    block_on(publish(&clone, &plain("Make"), frame(1))).unwrap();
    assert!(matches!(next(), Some(Delivery::Frame(_))));
    // A frame accepted before the end is still written.
    let other = block_on(NatsBus::connect(&server.url(), runtime())).unwrap();
    let offer = Offer::new(plain("Make"), frame(2), ReplyTo::new(drop));
    assert!(matches!(other.publish(offer, &mut WakeList::new()), Ok(Accepted::Later | Accepted::Done(None))));
    drop(other);
    assert!(matches!(next(), Some(Delivery::Frame(_))));
    drop(clone);
    assert!(threads() >= 1);
    drop(subscription);
    assert!(matches!(next(), Some(Delivery::Ended(None))));
    assert!(next().is_none());
    // Poll, because the end of a thread that is not joined cannot be awaited.
    let deadline = Instant::now() + 5 * SECOND;
    while threads() > 0 {
        assert!(Instant::now() < deadline, "{} threads are still running", threads());
        std::thread::sleep(Duration::from_millis(5));
    }
}
