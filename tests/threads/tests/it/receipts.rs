//! Receipts: the outcome of a publish, reported during the publish (by the same thread or another)
//! or later.

use psrpc::bus::Bus;
use psrpc_bus_local::LocalBus;
use psrpc_threads::{Shop, ThreadedBus, Threads, explore, shop};
use shuttle::future::{block_on, spawn};

/// Publishes two updates on each of two threads. Each publish gets its own receipt.
fn updates_from_two_threads(bus: impl Bus + Clone) {
    let threads = Threads::default();
    let (server, _) = shop(bus.clone(), &threads);
    let publishing = [1_u32, 10].map(|number| {
        let server = server.clone();
        spawn(async move {
            for number in [number, number + 1] {
                let receivers = server.publish(Shop::NEWS, &[], &number).await.unwrap();
                assert!(matches!(receivers, None | Some(0)), "{receivers:?}");
            }
        })
    });
    publishing.into_iter().for_each(|publishing| block_on(publishing).unwrap());
    drop(server);
    threads.join();
}

#[test]
fn every_receipt_reaches_its_publisher() {
    explore(500, || updates_from_two_threads(LocalBus::new()));
}

#[test]
fn every_receipt_that_another_thread_reports_reaches_its_publisher() {
    explore(1000, || updates_from_two_threads(ThreadedBus::new(9)));
}

#[test]
fn every_receipt_reaches_its_publisher_when_the_bus_has_room_for_one_frame() {
    explore(1000, || updates_from_two_threads(ThreadedBus::new(1)));
}
