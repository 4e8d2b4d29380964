//! A runtime whose wake-ups run the woken task at once: no wake-up happens under a lock.

use std::future::IntoFuture;
use std::sync::atomic::Ordering;

use psrpc::Selection;
use psrpc::bus::Bus;
use psrpc_bus_local::LocalBus;
use psrpc_threads::{InlineRuntime, Shop, ThreadedBus, client_on, explore, shop_on};
use shuttle::future::{block_on, spawn};

/// Makes a call, a call with selection, a multi call and a stream, alongside another caller.
fn call_everything(bus: impl Bus + Clone) {
    let ((server, ran), client) =
        (shop_on(bus.clone(), InlineRuntime::default()), client_on(bus, InlineRuntime::default()));
    let other = client.call::<_, u32>(Shop::NEXT, &[], 1_u32).into_future();
    let other = spawn(other);
    // Accepts the first bid, since time stands still.
    let first = Selection::new().accept_first_available(true);
    let picked = client.call::<_, u32>(Shop::PICK, &[], 2_u32).selection(first);
    assert_eq!(block_on(picked.into_future()).unwrap(), 3);
    block_on(async {
        let mut answers = client.multi_call::<_, u32>(Shop::CENSUS, &[], 3_u32).responses(1).await.unwrap();
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
fn calls_complete_when_wake_ups_run_the_woken_task() {
    explore(300, || call_everything(LocalBus::new()));
}

#[test]
fn calls_complete_when_wake_ups_run_the_woken_task_on_a_threaded_bus() {
    explore(300, || call_everything(ThreadedBus::new(1)));
}
