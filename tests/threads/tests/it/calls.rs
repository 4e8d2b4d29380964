//! Calls that resolve on one thread while another polls, drops or moves their futures.

use std::future::{IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Poll;

use psrpc::bus::Bus;
use psrpc::{Client, Selection};
use psrpc_bus_local::LocalBus;
use psrpc_threads::{Shop, ThreadedBus, Threads, client, explore, shop};
use shuttle::future::{block_on, spawn};

fn next(client: &Client, number: u32) -> impl Future<Output = u32> + Send + use<> {
    let call = client.call(Shop::NEXT, &[], number).into_future();
    async { call.await.unwrap() }
}

/// Polls a future once. Returns its output, or the future if it is not ready.
async fn poll_once<F: Future + Unpin>(mut future: F) -> Result<F::Output, F> {
    match poll_fn(|cx| Poll::Ready(Pin::new(&mut future).poll(cx))).await {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err(future),
    }
}

fn calls_from_two_threads(bus: impl Bus + Clone) {
    let threads = Threads::default();
    let ((server, ran), client) = (shop(bus.clone(), &threads), client(bus, &threads));
    let calls = [1, 10].map(|number| spawn(next(&client, number)));
    assert_eq!(calls.map(|call| block_on(call).unwrap()), [2, 11]);
    assert_eq!((ran.load(Ordering::Relaxed), client.in_flight()), (2, 0));
    drop((client, server));
    threads.join();
}

#[test]
fn calls_from_two_threads_are_answered() {
    explore(300, || calls_from_two_threads(LocalBus::new()));
}

#[test]
fn calls_from_two_threads_are_answered_on_a_threaded_bus_and_room_for_one_frame() {
    explore(300, || calls_from_two_threads(ThreadedBus::new(1)));
}

#[test]
fn a_call_that_moves_to_another_task_wakes_the_new_task() {
    explore(300, || {
        let (threads, bus) = (Threads::default(), LocalBus::new());
        let ((server, _), client) = (shop(bus.clone(), &threads), client(bus, &threads));
        let call = client.call::<_, u32>(Shop::NEXT, &[], 1_u32).into_future();
        let polled = block_on(spawn(poll_once(call))).unwrap();
        let answer = polled.unwrap_or_else(block_on);
        assert_eq!(answer.unwrap(), 2);
        drop((client, server));
        threads.join();
    });
}

#[test]
fn a_call_that_is_dropped_at_any_time_leaves_nothing_behind() {
    explore(300, || {
        let (threads, bus) = (Threads::default(), LocalBus::new());
        let ((server, _), client) = (shop(bus.clone(), &threads), client(bus, &threads));
        let in_selection = client.clone();
        let selection = Selection::new().choose(move |bids| {
            // This deadlocks if the selection function is called under the driver's lock.
            in_selection.in_flight();
            Ok(bids.first())
        });
        let picking = client.call::<_, u32>(Shop::PICK, &[], 1_u32).selection(selection);
        let calls = [client.call::<_, u32>(Shop::NEXT, &[], 1_u32), picking];
        let dropping = calls.map(|call| spawn(async { drop(poll_once(call.into_future()).await) }));
        dropping.into_iter().for_each(|call| block_on(call).unwrap());
        assert_eq!(client.in_flight(), 0);
        assert_eq!(block_on(next(&client, 5)), 6, "the client still works");
        // Granted calls run to their end and others are withdrawn, so the shutdown does not wait
        // for time to pass.
        block_on(server.shutdown());
        drop(client);
        threads.join();
    });
}

#[test]
fn every_response_to_a_multi_call_reaches_the_task_that_it_moved_to() {
    explore(300, || {
        let (threads, bus) = (Threads::default(), LocalBus::new());
        let servers = [(); 2].map(|()| shop(bus.clone(), &threads).0);
        let client = client(bus, &threads);
        let call = client.multi_call::<_, u32>(Shop::CENSUS, &[], 1_u32).responses(2);
        let mut answers = block_on(call.into_future()).unwrap();
        let (first, mut answers) = block_on(spawn(async move {
            let first = poll_once(Box::pin(answers.next())).await.ok();
            (first, answers)
        }))
        .unwrap();
        let mut seen = usize::from(first.is_some());
        while let Some(answer) = block_on(answers.next()) {
            assert_eq!(*answer.unwrap(), 2);
            seen += 1;
        }
        assert_eq!(seen, 2);
        drop((client, servers, answers));
        threads.join();
    });
}
