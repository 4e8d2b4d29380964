//! Metrics: what is measured on both sides of a call.

mod hats;

use std::sync::Arc;
use std::time::Duration;

use hats::{Log, client, error, fit, runtime, serve};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::middleware::{MetricsObserver, Side, UnaryCall};
use psrpc_tokio::*;

struct Observer(Log);

impl MetricsObserver for Observer {
    fn unary_call(&self, side: Side, info: &CallInfo, call: &UnaryCall<'_>) {
        let UnaryCall { duration, result, bytes_sent, bytes_received, .. } = call;
        let code = result.map_or_else(|error| error.code().to_string(), |()| "ok".to_owned());
        let took = duration.as_millis();
        self.0.add(format!("{side:?} {info} {code} in {took} ms, {bytes_sent} out, {bytes_received} in"));
    }
}

/// A client and a server that are measured. The handler sleeps, and does as it is told.
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
                "panic" => panic!("as it was told"),
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
async fn errors_and_panics_are_measured_by_their_codes() {
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
async fn a_call_that_is_dropped_and_a_handler_that_is_stopped_are_canceled() {
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
