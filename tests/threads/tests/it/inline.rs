//! A runtime whose wake-ups run the woken task at once (I19): no wake-up happens under a lock.

use std::future::IntoFuture;
use std::sync::atomic::Ordering;

use psrpc::Selection;
use psrpc::bus::Bus;
use psrpc_bus_local::LocalBus;
use psrpc_threads::{Carrier, Inline, Shop, client_on, explore, shop_on};
use shuttle::future::{block_on, spawn};

/// Makes a call, a call with selection, a multi call and a stream, alongside another caller.
fn everything_is_answered(bus: impl Bus + Clone) {
    let ((server, ran), client) =
        (shop_on(bus.clone(), Inline::default()), client_on(bus, Inline::default()));
    let other = client.call::<_, u32>(Shop::NEXT, &[], 1_u32).into_future();
    let other = spawn(other);
    // Accepts the first bid, since time stands still.
    let first = Selection::new().accept_first_available(true);
    let picked = client.call::<_, u32>(Shop::PICK, &[], 2_u32).selection(first);
    assert_eq!(block_on(picked.into_future()).unwrap(), 3);
    block_on(async {
        let mut answers = client.multi_call::<_, u32>(Shop::CENSUS, &[], 3_u32).answers(1).await.unwrap();
        assert_eq!(*answers.next().await.unwrap().unwrap(), 4);
        let stream = client.open_stream::<u32, u32>(Shop::ECHO, &[]).await.unwrap();
        stream.send(5).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), 5);
        stream.close(None);
    });
    assert_eq!(block_on(other).unwrap().unwrap(), 2);
    assert_eq!(ran.load(Ordering::Relaxed), 3);
    drop((client, server));
}

#[test]
fn tasks_that_run_within_what_wakes_them_are_answered() {
    explore(300, || everything_is_answered(LocalBus::new()));
}

#[test]
fn tasks_that_run_within_what_wakes_them_are_answered_on_a_bus_with_a_thread_of_its_own() {
    explore(300, || everything_is_answered(Carrier::new(1)));
}
