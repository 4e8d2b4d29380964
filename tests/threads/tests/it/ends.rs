//! Clients, servers and runtimes that end on one thread while others use them.

use std::future::IntoFuture;
use std::sync::atomic::Ordering;
use std::time::Duration;

use psrpc::bus::Bus;
use psrpc::middleware::Retry;
use psrpc::{ClientStream, Error, Reason};
use psrpc_bus_local::LocalBus;
use psrpc_testing::StoppableRuntime;
use psrpc_threads::{Shop, ThreadedBus, Threads, client, client_on, explore, shop};
use shuttle::future::{block_on, spawn};

/// Sends a message on a stream, and reads until the stream ends. Returns the outcome of the send.
async fn stream_until_it_ends(
    open: impl Future<Output = Result<ClientStream<u32, u32>, Error>>,
) -> Result<(), Option<Reason>> {
    let stream = open.await.map_err(|error| error.reason())?;
    let sent = stream.send(7).await.map_err(|error| error.reason());
    while stream.next().await.is_some() {}
    stream.closed().await;
    sent
}

/// Closes a client on one thread while others call, use a stream, and wait for updates.
fn close_during_calls(bus: impl Bus + Clone) {
    let threads = Threads::default();
    let ((server, _), client) = (shop(bus.clone(), &threads), client(bus, &threads));
    let mut news = block_on(client.subscribe::<u32>(Shop::NEWS, &[]).into_future()).unwrap();
    let (call, open) =
        (client.call::<_, u32>(Shop::NEXT, &[], 1_u32), client.open_stream::<u32, u32>(Shop::ECHO, &[]));
    let calling = spawn(async move { call.await.map_err(|error| error.reason()) });
    let streaming = spawn(stream_until_it_ends(open.into_future()));
    let listening = spawn(async move { while news.next().await.is_some() {} });
    let closing = client.clone();
    let closing = spawn(async move { closing.close() });
    let called = block_on(calling).unwrap();
    assert!(matches!(called, Ok(2) | Err(Some(Reason::ClientClosed))), "{called:?}");
    let streamed = block_on(streaming).unwrap();
    assert!(matches!(streamed, Ok(()) | Err(Some(Reason::ClientClosed))), "{streamed:?}");
    block_on(listening).unwrap();
    block_on(closing).unwrap();
    assert_eq!((client.in_flight(), client.streams()), (0, 0));
    // The shutdown waits until an ungranted request expires.
    threads.clock().run_freely();
    block_on(server.shutdown());
    drop((client, server));
    threads.join();
}

/// Ends the runtime of a client on one thread while others call, retry, use a stream, and wait for
/// updates.
fn end_runtime_during_calls(bus: impl Bus + Clone) {
    let threads = Threads::default();
    let runtime = StoppableRuntime::new(threads.clone());
    let ((server, _), client) = (shop(bus.clone(), &threads), client_on(bus, runtime.clone()));
    let mut news = block_on(client.subscribe::<u32>(Shop::NEWS, &[]).into_future()).unwrap();
    let second = Duration::from_secs(1);
    // Each attempt fails at once, and the pause after it outlasts the runtime.
    let retry = Retry::new().attempts(0).backoff(second, second).without_jitter().retry_if(|_| true);
    let retried = client.call::<_, u32>(Shop::NEXT, &[], 1_u32).timeout(Duration::ZERO).interceptor(retry);
    let (call, open) =
        (client.call::<_, u32>(Shop::NEXT, &[], 1_u32), client.open_stream::<u32, u32>(Shop::ECHO, &[]));
    let calling = spawn(async move { call.await.map_err(|error| error.reason()) });
    let retrying = spawn(async move { retried.await.map_err(|error| error.reason()) });
    let streaming = spawn(stream_until_it_ends(open.into_future()));
    let listening = spawn(async move { while news.next().await.is_some() {} });
    let ending = spawn(async move { runtime.stop() });
    let ended = Err(Some(Reason::RuntimeEnded));
    let called = block_on(calling).unwrap();
    assert!(called == Ok(2) || called == ended, "{called:?}");
    assert_eq!(block_on(retrying).unwrap(), ended);
    let streamed = block_on(streaming).unwrap();
    assert!(streamed == Ok(()) || streamed == Err(Some(Reason::RuntimeEnded)), "{streamed:?}");
    block_on(listening).unwrap();
    block_on(ending).unwrap();
    block_on(client.shutdown());
    assert_eq!((client.in_flight(), client.streams()), (0, 0));
    threads.clock().run_freely();
    block_on(server.shutdown());
    drop((client, server));
    threads.join();
}

#[test]
fn everything_of_a_client_ends_when_another_thread_ends_its_runtime() {
    explore(200, || end_runtime_during_calls(LocalBus::new()));
}

#[test]
fn everything_of_a_client_ends_when_another_thread_ends_its_runtime_on_a_threaded_bus() {
    explore(200, || end_runtime_during_calls(ThreadedBus::new(2)));
}

#[test]
fn everything_of_a_client_ends_when_another_thread_closes_it() {
    explore(200, || close_during_calls(LocalBus::new()));
}

#[test]
fn everything_of_a_client_ends_when_another_thread_closes_it_on_a_threaded_bus() {
    explore(200, || close_during_calls(ThreadedBus::new(2)));
}

#[test]
fn dropping_the_last_handles_concurrently_ends_all_tasks() {
    explore(300, || {
        let (threads, bus) = (Threads::default(), ThreadedBus::new(9));
        let ((server, _), client) = (shop(bus.clone(), &threads), client(bus, &threads));
        let call = client.call::<_, u32>(Shop::NEXT, &[], 1_u32).into_future();
        let news = block_on(client.subscribe::<u32>(Shop::NEWS, &[]).into_future()).unwrap();
        let dropping =
            [spawn(async move { assert_eq!(call.await.unwrap(), 2) }), spawn(async move { drop(news) })];
        drop(client);
        dropping.into_iter().for_each(|dropping| block_on(dropping).unwrap());
        drop(server);
        threads.join();
    });
}

/// Shuts a server down on one thread while another calls. Running calls get a response, others get
/// none.
fn shut_down_during_calls(bus: impl Bus + Clone) {
    let threads = Threads::default();
    let ((server, ran), client) = (shop(bus.clone(), &threads), client(bus, &threads));
    let calls = [1, 10].map(|number| {
        let call = client.call::<_, u32>(Shop::NEXT, &[], number);
        spawn(async move { call.await.map_err(|error| error.reason()) })
    });
    let other = server.clone();
    let closing = [server, other].map(|server| spawn(async move { server.shutdown().await }));
    // A late call gets no response, so time must pass until its deadline.
    threads.clock().run_freely();
    let called = calls.map(|call| block_on(call).unwrap());
    closing.into_iter().for_each(|closing| block_on(closing).unwrap());
    let answered = called.iter().filter(|called| called.is_ok()).count();
    drop(client);
    threads.join();
    assert!(answered <= ran.load(Ordering::Relaxed));
}

#[test]
fn a_shutdown_from_another_thread_waits_for_running_calls() {
    explore(300, || shut_down_during_calls(LocalBus::new()));
}

#[test]
fn a_shutdown_from_another_thread_waits_for_running_calls_on_a_threaded_bus() {
    explore(300, || shut_down_during_calls(ThreadedBus::new(2)));
}

#[test]
fn a_kill_from_another_thread_ends_handlers_and_streams() {
    explore(300, || {
        let (threads, bus) = (Threads::default(), LocalBus::new());
        let ((server, _), client) = (shop(bus.clone(), &threads), client(bus, &threads));
        let stream = block_on(client.open_stream::<u32, u32>(Shop::ECHO, &[]).into_future()).unwrap();
        let call = client.call::<_, u32>(Shop::NEXT, &[], 1_u32);
        let calling = spawn(async move { call.await.is_ok() });
        let using = spawn(async move {
            let sent = stream.send(7).await;
            stream.closed().await;
            sent.is_ok()
        });
        let killing = spawn(async move { server.kill() });
        threads.clock().run_freely();
        block_on(killing).unwrap();
        block_on(using).unwrap();
        block_on(calling).unwrap();
        drop(client);
        threads.join();
    });
}

#[test]
fn a_kill_from_another_thread_ends_a_handler_that_does_not_end_by_itself() {
    explore(500, || {
        let (threads, bus) = (Threads::default(), LocalBus::new());
        let ((server, _), client) = (shop(bus.clone(), &threads), client(bus, &threads));
        let call = client.call::<_, u32>(Shop::NEXT, &[], Shop::NO_NUMBER).into_future();
        let calling = spawn(async move { drop(call.await.unwrap_err()) });
        let killing = spawn(async move { server.kill() });
        block_on(killing).unwrap();
        threads.clock().run_freely();
        block_on(calling).unwrap();
        drop(client);
        threads.join();
    });
}
