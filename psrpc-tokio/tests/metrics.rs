//! Metrics on both sides of a call.

mod hats;
mod shop;

use std::sync::Arc;
use std::time::Duration;

use hats::{Log, client, error, fit, runtime, serve, settle};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::middleware::{MetricsObserver, MultiCall, Side, StreamSent, UnaryCall};
use psrpc_tokio::*;
use shop::{all, census, echo, opening, parade, text};

struct Observer(Log);

impl MetricsObserver for Observer {
    fn unary_call(&self, side: Side, info: &CallInfo, call: &UnaryCall<'_>) {
        let UnaryCall { duration, result, bytes_sent, bytes_received, .. } = call;
        let code = result.map_or_else(|error| error.code().to_string(), |()| "ok".to_owned());
        let took = duration.as_millis();
        self.0.add(format!("{side:?} {info} {code} in {took} ms, {bytes_sent} out, {bytes_received} in"));
    }

    fn multi_call(&self, side: Side, info: &CallInfo, call: &MultiCall) {
        let MultiCall { duration, responses, errors, bytes_sent, bytes_received, .. } = call;
        let (took, bytes) = (duration.as_millis(), format!("{bytes_sent} out, {bytes_received} in"));
        self.0.add(format!("{side:?} {info} {responses} responses, {errors} errors in {took} ms, {bytes}"));
    }

    fn stream_opened(&self, side: Side, info: &CallInfo) {
        self.0.add(format!("{side:?} {info} opened"));
    }

    fn stream_sent(&self, side: Side, info: &CallInfo, sent: &StreamSent<'_>) {
        let StreamSent { duration, result, bytes, .. } = sent;
        let code = result.map_or_else(|error| error.code().to_string(), |()| "ok".to_owned());
        self.0.add(format!("{side:?} {info} sent {bytes}: {code} in {} ms", duration.as_millis()));
    }

    fn stream_received(&self, side: Side, info: &CallInfo, bytes: usize) {
        self.0.add(format!("{side:?} {info} received {bytes}"));
    }

    fn stream_closed(&self, side: Side, info: &CallInfo) {
        self.0.add(format!("{side:?} {info} closed"));
    }
}

/// Creates a client and a server with metrics. The handler sleeps, and the request selects its
/// result.
async fn hats(log: &Log) -> (Client, Server) {
    let (bus, observer) = (LocalBus::new(), Arc::new(Observer(log.clone())));
    let server = serve(
        &bus,
        ServerOptions::new().metrics(Arc::clone(&observer)),
        |request: Request<String>| async move {
            let until = request.runtime().now().time + Duration::from_millis(30);
            request.runtime().sleep_until(until).await;
            match request.as_str() {
                "fail" => Err(error(ErrorCode::NotFound)),
                "panic" => panic!("on purpose"),
                _ => Ok(format!("{} and more", *request)),
            }
        },
    )
    .await;
    (client(&bus, ClientOptions::new().metrics(observer)).await, server)
}

#[tokio::test(start_paused = true)]
async fn a_call_is_measured_on_both_sides() {
    let log = Log::default();
    let (client, _server) = hats(&log).await;
    fit(&client, "fez").await.unwrap();
    assert_eq!(
        log.take(),
        ["Server Hats.Fit ok in 30 ms, 14 out, 5 in", "Client Hats.Fit ok in 30 ms, 5 out, 14 in"]
    );
}

#[tokio::test(start_paused = true)]
async fn errors_and_panics_are_recorded_with_their_codes() {
    let log = Log::default();
    let (client, _server) = hats(&log).await;
    fit(&client, "fail").await.unwrap_err();
    assert_eq!(
        log.take(),
        [
            "Server Hats.Fit not_found in 30 ms, 0 out, 6 in",
            "Client Hats.Fit not_found in 30 ms, 6 out, 0 in"
        ]
    );
    fit(&client, "panic").await.unwrap_err();
    assert_eq!(
        log.take(),
        ["Server Hats.Fit internal in 30 ms, 0 out, 7 in", "Client Hats.Fit internal in 30 ms, 7 out, 0 in"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_and_a_stopped_handler_are_recorded_as_canceled() {
    let log = Log::default();
    let (client, server) = hats(&log).await;
    let call = tokio::spawn(fit(&client, "fez").into_future());
    runtime().sleep_until(runtime().now().time + Duration::from_millis(10)).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    server.kill();
    server.shutdown().await;
    tokio::task::yield_now().await;
    assert_eq!(
        log.take(),
        ["Client Hats.Fit canceled in 10 ms, 5 out, 0 in", "Server Hats.Fit canceled in 10 ms, 0 out, 5 in"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_multi_call_is_measured_until_its_responses_end_or_are_dropped() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let observer = Arc::new(Observer(log.clone()));
    let options = ServerOptions::new().metrics(Arc::clone(&observer));
    let _servers = (
        shop::server(&bus, "elm", options, echo).await,
        shop::server(&bus, "oak", ServerOptions::new(), echo).await,
    );
    let client = shop::client_with(&bus, ClientOptions::new().metrics(observer)).await;
    let responses = census(&client, "who").timeout(Duration::from_millis(50)).await.unwrap();
    assert_eq!(all(responses).await.len(), 2);
    assert_eq!(
        log.take(),
        [
            "Server Shop.Census 1 responses, 0 errors in 0 ms, 5 out, 5 in",
            "Client Shop.Census 2 responses, 0 errors in 50 ms, 5 out, 10 in"
        ]
    );
    let mut responses = census(&client, "fail").await.unwrap();
    assert!(responses.next().await.unwrap().is_err());
    log.take();
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(responses);
    assert_eq!(log.take(), ["Client Shop.Census 0 responses, 1 errors in 20 ms, 6 out, 0 in"]);
    client.close();
    census(&client, "who").await.unwrap_err();
    assert_eq!(log.take(), ["Client Shop.Census 0 responses, 1 errors in 0 ms, 5 out, 0 in"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_measured_on_both_sides() {
    let (bus, ours, theirs) = (LocalBus::new(), Log::default(), Log::default());
    let options = ServerOptions::new().unread_per_stream(1).metrics(Observer(theirs.clone()));
    let _server = shop::server(&bus, "elm", options, |stream| async move {
        stream.send(text("welcome")).await?;
        Err(stream.closed().await)
    })
    .await;
    let client = shop::client_with(&bus, ClientOptions::new().metrics(Observer(ours.clone()))).await;
    let stream = parade(&client).await;
    settle().await;
    stream.send(text("one")).await.unwrap();
    stream.send(text("two")).timeout(Duration::from_millis(40)).await.unwrap_err();
    let canceled = tokio::time::timeout(Duration::from_millis(10), stream.send(text("three")).into_future());
    assert!(canceled.await.is_err());
    drop(stream);
    settle().await;
    let lines = ["opened", "received 9", "sent 5: ok in 0 ms", "sent 5: deadline_exceeded in 40 ms"];
    let lines = [&lines[..], &["sent 7: canceled in 10 ms", "closed"]].concat();
    assert_eq!(
        ours.take(),
        lines.iter().map(|line| format!("Client Shop.Parade {line}")).collect::<Vec<_>>()
    );
    let lines = ["opened", "sent 9: ok in 0 ms", "received 5", "closed"];
    assert_eq!(theirs.take(), lines.map(|line| format!("Server Shop.Parade {line}")));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_to_open_is_recorded_neither_as_opened_nor_as_closed() {
    let log = Log::default();
    let options = ClientOptions::new().metrics(Observer(log.clone()));
    let client = shop::client_with(&LocalBus::new(), options).await;
    opening(&client).await.unwrap_err();
    drop(opening(&client).into_future());
    assert!(log.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_observer_loses_no_message() {
    struct Panics;

    impl MetricsObserver for Panics {
        fn stream_opened(&self, _: Side, _: &CallInfo) {
            panic!("on purpose");
        }

        fn stream_received(&self, _: Side, _: &CallInfo, _: usize) {
            panic!("on purpose");
        }

        fn stream_closed(&self, _: Side, _: &CallInfo) {
            panic!("on purpose");
        }
    }

    let bus = LocalBus::new();
    let _server = shop::server(&bus, "elm", ServerOptions::new().metrics(Panics), echo).await;
    let client = shop::client_with(&bus, ClientOptions::new().metrics(Panics)).await;
    for _ in 0..2 {
        let stream = parade(&client).await;
        stream.send(text("a")).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), "echo a");
    }
}
