//! The causes of a call without a response, each with what its caller and the log show.
//! `docs/operations.md` quotes these lines.

mod hats;
mod logs;

use std::time::Duration;

use hats::{FIT, HATS, PICK, PausedRuntime, client, fit, runtime, serve, settle};
use logs::logged;
use psrpc_bus_local::LocalBus;
use psrpc_tokio::bus::{Bus, Inbox, WakeList, publish};
use psrpc_tokio::*;
use tracing::level_filters::LevelFilter;

/// A runtime whose wall clock is ahead.
struct Ahead(PausedRuntime, Duration);

impl Runtime for Ahead {
    fn now(&self) -> Now {
        let Now { time, wall } = self.0.now();
        Now { time, wall: wall + self.1 }
    }

    fn seed(&self) -> proto::Seed {
        self.0.seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        self.0.sleep_until(deadline)
    }

    fn spawn(&self, task: Task) {
        self.0.spawn(task);
    }
}

/// Checks that the document quotes a line.
fn quoted(line: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let document = std::fs::read_to_string(path).unwrap();
    assert!(document.contains(line), "docs/operations.md does not quote: {line}");
}

/// Calls the affinity method.
fn pick(client: &Client) -> Call<String, String> {
    client.call(PICK, &[], "fez".to_owned())
}

async fn named(bus: &LocalBus) -> Client {
    client(bus, ClientOptions::new().id("CLI_ann")).await
}

/// Returns the logged line that has these words, with the random id replaced.
fn line(log: &hats::Log, words: &str) -> String {
    let lines = log.take();
    let line = lines.iter().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{lines:?}"));
    let id = line.split("request_id=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    line.replace(id, "REQ_1")
}

#[tokio::test(start_paused = true)]
async fn nobody_is_subscribed() {
    let error = fit(&named(&LocalBus::new()).await, "fez").await.unwrap_err();
    quoted(&error.to_string());
    assert_eq!(error.to_string(), "unavailable: no response from servers (nobody was subscribed)");
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_the_server_is_ahead() {
    let (log, _guard) = logged(LevelFilter::DEBUG);
    let bus = LocalBus::new();
    let ahead = Ahead(runtime(), Duration::from_secs(10));
    let handlers = Handlers::new(&HATS, ()).unary(FIT, |_, request| hats::echo(request));
    let server = Server::new(bus.clone(), ahead, handlers, ServerOptions::new().id("SRV_elm")).unwrap();
    server.register(&[FIT], &[]).await.unwrap();
    let error = fit(&named(&bus).await, "fez").await.unwrap_err();
    quoted(&error.to_string());
    assert!(error.to_string().ends_with("(the request reached 1 subscriber; no server bid)"), "{error}");
    let line = line(&log, "request expired");
    quoted(&line);
    assert!(line.ends_with("late_by=7s"), "{line}");
    assert_eq!(server.counters().get(Reason::Expired), 1);
}

#[tokio::test(start_paused = true)]
async fn the_server_does_not_bid() {
    let bus = LocalBus::new();
    let handlers =
        Handlers::new(&HATS, ()).unary_with_affinity(PICK, |_, request| hats::echo(request), |_, _| -1.0);
    let server = Server::new(bus.clone(), runtime(), handlers, ServerOptions::new()).unwrap();
    server.register(&[PICK], &[]).await.unwrap();
    let error = pick(&named(&bus).await).await.unwrap_err();
    quoted(&error.to_string());
    assert_eq!(server.counters().get(Reason::NoBid), 1);
}

#[tokio::test(start_paused = true)]
async fn the_server_is_busy() {
    let (log, _guard) = logged(LevelFilter::DEBUG);
    let bus = LocalBus::new();
    let options = ServerOptions::new().id("SRV_elm").concurrency(1);
    let _server = serve(&bus, options, |_| std::future::pending()).await;
    let client = named(&bus).await;
    let running = tokio::spawn(pick(&client).timeout(Duration::from_secs(60)).into_future());
    // Beyond the short circuit, the first call runs.
    tokio::time::sleep(Duration::from_secs(1)).await;
    quoted(&pick(&client).await.unwrap_err().to_string());
    quoted(&line(&log, "concurrency limit reached"));
    // A queue-routed call gets an answer, since no other server sees it.
    let error = fit(&client, "fez").await.unwrap_err();
    assert!(error.to_string().starts_with("resource_exhausted: the server has reached"), "{error}");
    quoted(&error.to_string());
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn the_bids_are_not_acceptable() {
    let bus = LocalBus::new();
    let _server = serve(&bus, ServerOptions::new(), hats::echo).await;
    let selection = Selection::new().minimum_affinity(2.0);
    let error = pick(&named(&bus).await).selection(selection).await.unwrap_err();
    quoted(&error.to_string());
    assert!(error.to_string().contains("1 of them below the minimum affinity"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_handler_is_too_slow() {
    let bus = LocalBus::new();
    let _server = serve(&bus, ServerOptions::new().id("SRV_elm"), |_| std::future::pending()).await;
    let error = fit(&named(&bus).await, "fez").await.unwrap_err();
    quoted(&error.to_string());
    assert!(error.to_string().contains("server SRV_elm was selected"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_server_is_full() {
    let bus = LocalBus::new();
    let limits = ServerLimits { remembered: 0, ..ServerLimits::DEFAULT };
    let _server = serve(&bus, ServerOptions::new().limits(limits), hats::echo).await;
    let error = fit(&named(&bus).await, "fez").await.unwrap_err();
    quoted(&error.to_string());
    assert_eq!(error.reason(), Some(Reason::Answered));
}

#[tokio::test(start_paused = true)]
async fn the_bid_is_late() {
    let (log, _guard) = logged(LevelFilter::DEBUG);
    let bus = LocalBus::new();
    let client = named(&bus).await;
    // A server that is slow to bid.
    let requests = proto::Channel::request::<&str>("Hats", "Pick", &[], false);
    let (sink, _requests) = Inbox::new(1);
    let _server = bus.subscribe(&requests, SubscriptionKind::Plain, sink, &mut WakeList::new());
    let error = pick(&client).timeout(Duration::from_millis(10)).await.unwrap_err();
    assert!(error.to_string().ends_with("(the request reached 1 subscriber; no server bid)"), "{error}");
    quoted(&error.to_string());
    let bid = proto::Frame::ClaimRequest(proto::ClaimRequest {
        request_id: "REQ_1".into(),
        server_id: "SRV_elm".into(),
        affinity: 1.0,
        handling: false,
    });
    publish(&bus, proto::Channel::claim_request("Hats", "CLI_ann"), bid).await.unwrap();
    settle().await;
    quoted(&line(&log, "late or unknown"));
}
