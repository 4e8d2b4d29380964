//! Streams that several threads use and end.

use std::future::{IntoFuture, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use psrpc::bus::Bus;
use psrpc::{Client, ClientStream, Server};
use psrpc_bus_local::LocalBus;
use psrpc_threads::{Shop, ThreadedBus, Threads, client, explore, shop};
use shuttle::future::{block_on, spawn};

/// Creates a server, a client, and a stream between them.
fn open(bus: impl Bus + Clone, threads: &Threads) -> (Server, Client, ClientStream<u32, u32>) {
    let ((server, _), client) = (shop(bus.clone(), threads), client(bus, threads));
    let stream = block_on(client.open_stream(Shop::ECHO, &[]).into_future()).unwrap();
    (server, client, stream)
}

/// Sends on one thread and receives on another. The stream ends when the second half is dropped.
fn two_halves(bus: impl Bus + Clone) {
    let threads = Threads::default();
    let (server, client, stream) = open(bus, &threads);
    let (sending, receiving) = stream.split();
    let sending = spawn(async move {
        for number in 1..=3 {
            sending.send(number).await.unwrap();
        }
    });
    let receiving = spawn(async move {
        for number in 1..=3 {
            assert_eq!(receiving.next().await, Some(number));
        }
    });
    block_on(sending).unwrap();
    block_on(receiving).unwrap();
    assert_eq!(client.streams(), 0, "both halves are dropped");
    drop((client, server));
    threads.join();
}

#[test]
fn two_halves_on_two_threads_keep_the_order_and_the_last_ends_the_stream() {
    explore(200, || two_halves(LocalBus::new()));
}

#[test]
fn two_halves_on_two_threads_keep_the_order_on_a_threaded_bus_and_room_for_one_frame() {
    explore(200, || two_halves(ThreadedBus::new(1)));
}

#[test]
fn halves_that_are_dropped_concurrently_end_the_handler() {
    explore(300, || {
        let threads = Threads::default();
        let (server, client, stream) = open(LocalBus::new(), &threads);
        let (sending, receiving) = stream.split();
        let dropping = [spawn(async move { drop(sending) }), spawn(async move { drop(receiving) })];
        dropping.into_iter().for_each(|dropping| block_on(dropping).unwrap());
        assert_eq!(client.streams(), 0);
        block_on(server.shutdown());
        drop(client);
        threads.join();
    });
}

#[test]
fn each_message_reaches_one_of_two_waiting_tasks() {
    explore(200, || {
        let threads = Threads::default();
        let (server, client, stream) = open(LocalBus::new(), &threads);
        let (sending, receiving) = stream.split();
        let receiving = Arc::new(receiving);
        let waiting = [(); 2].map(|()| {
            let receiving = Arc::clone(&receiving);
            spawn(async move {
                let mut received = Vec::new();
                while let Some(number) = receiving.next().await {
                    received.push(number);
                }
                received
            })
        });
        block_on(async {
            for number in 1..=2 {
                sending.send(number).await.unwrap();
            }
        });
        // The shutdown waits for the handler, which is stopped a second after the end of its
        // stream.
        threads.clock().run_freely();
        block_on(server.shutdown());
        let mut received = waiting.map(|waiting| block_on(waiting).unwrap()).concat();
        received.sort_unstable();
        assert!(received.iter().eq(&[1, 2][..received.len()]), "{received:?}");
        drop((client, sending, receiving));
        threads.join();
    });
}

#[test]
fn sends_fail_at_the_end_of_the_stream_and_accepted_messages_arrive_in_order() {
    explore(200, || {
        let threads = Threads::default();
        let (server, client, stream) = open(ThreadedBus::new(2), &threads);
        let (sending, receiving) = stream.split();
        let sending = Arc::new(sending);
        let closing = Arc::clone(&sending);
        let sends = spawn(async move {
            let mut taken = 0;
            for number in 1..=3 {
                if sending.send(number).await.is_err() {
                    break;
                }
                taken += 1;
            }
            sending.closed().await;
            taken
        });
        let receives = spawn(async move {
            let mut received = Vec::new();
            while let Some(number) = receiving.next().await {
                received.push(number);
            }
            received
        });
        let closes = spawn(async move { closing.close(None) });
        let (taken, received) = (block_on(sends).unwrap(), block_on(receives).unwrap());
        // The server may have taken one more message, if the sender saw the end of the stream
        // first.
        assert!(
            received.len() <= taken + 1 && received.iter().eq(&[1, 2, 3][..received.len()]),
            "{received:?}"
        );
        block_on(closes).unwrap();
        block_on(server.shutdown());
        drop(client);
        threads.join();
    });
}

#[test]
fn a_send_that_is_dropped_at_any_time_leaves_room_for_the_next() {
    explore(200, || {
        let threads = Threads::default();
        let (server, client, stream) = open(LocalBus::new(), &threads);
        let (sending, receiving) = stream.split();
        let sends = spawn(async move {
            let mut dropped = Box::pin(sending.send(1).into_future());
            let polled = poll_fn(|cx| Poll::Ready(dropped.as_mut().poll(cx))).await;
            drop((polled, dropped));
            sending.send(2).await.unwrap();
            sending
        });
        let received = block_on(async { [receiving.next().await, receiving.next().await] });
        assert_eq!(received, [Some(1), Some(2)]);
        drop((block_on(sends).unwrap(), receiving));
        drop((client, server));
        threads.join();
    });
}
