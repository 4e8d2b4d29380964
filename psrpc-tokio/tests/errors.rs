//! The texts of errors, and the log lines of a server for them.

mod hats;
mod logs;
mod shop;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use hats::{FIT, HATS, PICK, client, fit, runtime, serve};
use logs::logged;
use psrpc_bus_local::LocalBus;
use psrpc_tokio::bus::{Accepted, Bus, Full, Offer, Sink, Subscription, WakeList};
use psrpc_tokio::middleware::Retry;
use psrpc_tokio::proto::{Channel, Frame};
use psrpc_tokio::*;
use tracing::level_filters::LevelFilter;

/// Returns the text of an error and its sources, as printed by `{:#}` of anyhow.
fn with_sources(error: &Error) -> String {
    let sources = std::iter::successors(error.source(), |source| (*source).source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// A user's error with a source.
#[derive(Debug)]
struct NoFelt(std::num::ParseIntError);

impl fmt::Display for NoFelt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no felt")
    }
}

impl StdError for NoFelt {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

fn no_felt() -> Result<String, NoFelt> {
    "many".parse::<u32>().map(|felt| felt.to_string()).map_err(NoFelt)
}

#[test]
fn no_source_repeats_the_text_of_its_error() {
    let error = no_felt().code(ErrorCode::NotFound).unwrap_err();
    assert_eq!(with_sources(&error), "not_found: there is no felt: invalid digit found in string");
    assert!(error.get_ref().unwrap().downcast_ref::<NoFelt>().is_some());
    let lost = Error::from(BusError::new("the connection was lost"));
    assert_eq!(with_sources(&lost), "unavailable: the connection was lost");
}

#[tokio::test(start_paused = true)]
async fn the_text_of_an_error_contains_the_known_cause() {
    let client = client(&LocalBus::new(), ClientOptions::new()).await;
    let error = fit(&client, "fez").await.unwrap_err();
    let text = "unavailable: no response from servers (nobody was subscribed)";
    assert_eq!((error.to_string(), format!("{error:?}")), (text.to_owned(), text.to_owned()));
    assert!(!error.may_have_run(), "nobody was subscribed to the queue");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_time_reports_that_it_was_not_sent() {
    let bus = LocalBus::new();
    let _server = serve(&bus, ServerOptions::new(), hats::echo).await;
    let client = client(&bus, ClientOptions::new()).await;
    let error = fit(&client, "fez").timeout(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.to_string(), "deadline_exceeded: request timed out (the request was not sent)");
    assert!(!error.may_have_run());
}

#[tokio::test(start_paused = true)]
async fn a_multi_call_without_subscribers_says_so() {
    let client = shop::client(&LocalBus::new()).await;
    let responses = shop::census(&client, "who").await.unwrap();
    let texts = shop::all(responses).await;
    assert_eq!(texts, ["unavailable: no response from servers (nobody was subscribed)"]);
}

/// A bus that accepts only small frames, and counts the publishes.
#[derive(Clone)]
struct SmallFrames(LocalBus, hats::Log);

impl Bus for SmallFrames {
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        self.1.add("");
        if offer.frame().value_len() > 1000 {
            let error = BusError::invalid("a frame of 2000 bytes is over the limit of 1000");
            return Ok(Accepted::Failed(error));
        }
        self.0.publish(offer, wakes)
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        self.0.subscribe(channel, kind, sink, wakes)
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_large_for_the_bus_is_not_retried() {
    let bus = SmallFrames(LocalBus::new(), hats::Log::default());
    let _server = serve(&bus, ServerOptions::new(), hats::echo).await;
    let client = client(&bus, ClientOptions::new().interceptor(Retry::new().attempts(5))).await;
    bus.1.take();
    let error = fit(&client, &"x".repeat(2000)).await.unwrap_err();
    assert_eq!(bus.1.len(), 1, "the request is sent once");
    let text = "invalid_argument: publish failed: a frame of 2000 bytes is over the limit of 1000";
    assert_eq!(error.to_string(), text);
    assert_eq!(
        (error.is_retryable(), error.may_have_run(), error.fault(), error.reason()),
        (false, false, Fault::Caller, Some(Reason::PublishFailed))
    );
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_too_large_for_the_bus_is_an_error_response_at_once() {
    let bus = SmallFrames(LocalBus::new(), hats::Log::default());
    let _server =
        serve(&bus, ServerOptions::new(), |_: Request<String>| async { Ok("x".repeat(2000)) }).await;
    let client = client(&bus, ClientOptions::new()).await;
    let started = tokio::time::Instant::now();
    let error = fit(&client, "fez").await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let text = "resource_exhausted: the bus cannot carry the response: \
                a frame of 2000 bytes is over the limit of 1000";
    assert_eq!(error.to_string(), text);
    assert_eq!((error.reason(), error.may_have_run()), (Some(Reason::Answered), true));
}

#[tokio::test(start_paused = true)]
async fn the_caller_gets_the_text_of_a_handler_error_and_the_server_logs_its_causes() {
    let (log, _guard) = logged(LevelFilter::DEBUG);
    let bus = LocalBus::new();
    let handlers = Handlers::new(&HATS, ())
        .unary(FIT, |_, _: Request<String>| async { no_felt().internal() })
        .unary(PICK, |_, _: Request<String>| async { no_felt().code(ErrorCode::NotFound) });
    let server = Server::new(bus.clone(), runtime(), handlers, ServerOptions::new()).unwrap();
    server.register(&[FIT, PICK], &[]).await.unwrap();
    let requests = hats::Log::default();
    let recorder = requests.clone();
    let client = client(&bus, ClientOptions::new()).await;
    let _tap = bus.subscribe(
        &Channel::request::<&str>("Hats", "Fit", &[], true),
        SubscriptionKind::Plain,
        Sink::new(move |delivery, _| {
            if let psrpc_tokio::bus::Delivery::Frame(Frame::Request(request)) = delivery {
                recorder.add(request.request_id.to_string());
            }
        }),
        &mut WakeList::new(),
    );
    let error = fit(&client, "fez").await.unwrap_err();
    assert_eq!(with_sources(&error), "internal: there is no felt", "the cause is not sent");
    let id = &requests.take()[0];
    let line = |level, error, method, id: &str| {
        let request = format!(r#"service="Hats" method="{method}" request_id={id}"#);
        format!(
            r#"psrpc::server {level}: a handler failed {request} error={error} causes="invalid digit found in string""#
        )
    };
    let all = log.take();
    let failed = all.iter().find(|line| line.contains("a handler failed")).unwrap();
    assert_eq!(*failed, line("ERROR", "internal: there is no felt", "Fit", &format!("{id:?}")));
    client.call::<_, String>(PICK, &[], "fez".to_owned()).await.unwrap_err();
    let all = log.take();
    let failed = all.iter().find(|line| line.contains("a handler failed")).unwrap();
    assert!(failed.starts_with("psrpc::server DEBUG"), "not_found is not the server's fault: {failed}");
}
