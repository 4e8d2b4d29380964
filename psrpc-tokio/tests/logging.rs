//! What is logged: the targets and levels of the table in the crate's documentation.

mod hats;

use std::fmt::{Debug, Write};

use hats::{FIT, HandBus, Log, PICK, client, echo, fit, late_request, serve, settle, stray_response};
use psrpc_bus_local::LocalBus;
use psrpc_tokio::bus::{Bus, Receipt};
use psrpc_tokio::proto::Channel;
use psrpc_tokio::*;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::subscriber::DefaultGuard;

/// Takes what psrpc logs up to a level: the target, the level, the text and the fields.
struct Subscriber(Log, LevelFilter);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.0.push_str(&format!(": {value:?}")),
            name => write!(self.0, " {name}={value:?}").unwrap(),
        }
    }
}

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= self.1 && metadata.target().starts_with("psrpc")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.1)
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line(format!("{} {}", metadata.target(), metadata.level()));
        event.record(&mut line);
        self.0.add(line.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn logged(level: LevelFilter) -> (Log, DefaultGuard) {
    let log = Log::default();
    (log.clone(), tracing::subscriber::set_default(Subscriber(log, level)))
}

fn publish(bus: &LocalBus, channel: &Channel, frame: proto::Frame) {
    bus.publish(channel, frame, Receipt::new(|_| ())).unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropped_frames_are_logged_at_debug_with_their_ids_escaped() {
    let (log, _guard) = logged(LevelFilter::DEBUG);
    let bus = LocalBus::new();
    let _server = serve(&bus, ServerOptions::new().id("S"), echo).await;
    let client = client(&bus, ClientOptions::new().id("C")).await;
    publish(&bus, &Channel::response("Hats", client.id()), stray_response("a\nb"));
    settle().await;
    let dropped = "psrpc::client DEBUG: dropped a frame: too late, or for nothing known";
    let ids = r#"service="Hats" id="C" request_id="a\nb" peer="SRV_stray""#;
    assert_eq!(log.take(), [format!("{dropped} {ids}")]);
    let requests = Channel::request::<&str>("Hats", "Fit", &[], FIT.properties.queue());
    publish(&bus, &requests, late_request("RPC_late"));
    settle().await;
    let dropped = "psrpc::server DEBUG: dropped a frame: request expired";
    let ids = r#"service="Hats" id="S" request_id="RPC_late" peer="CLI_late" late_by=2ms"#;
    assert_eq!(log.take(), [format!("{dropped} {ids}")]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_goes_well_is_not_logged() {
    let (log, _guard) = logged(LevelFilter::TRACE);
    let bus = LocalBus::new();
    let server = serve(&bus, ServerOptions::new(), echo).await;
    let client = client(&bus, ClientOptions::new()).await;
    fit(&client, "fez").await.unwrap();
    client.close();
    server.shutdown().await;
    assert!(log.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn gaps_and_what_the_bus_gave_up_are_logged_as_warnings() {
    let (log, _guard) = logged(LevelFilter::WARN);
    let bus = HandBus::default();
    let _server = serve(&bus, ServerOptions::new().id("S"), echo).await;
    let mut sinks = bus.take();
    sinks[0].gap(Some(3));
    settle().await;
    assert_eq!(log.take(), [r#"psrpc::bus WARN: the bus may have lost frames service="Hats" id="S" lost=3"#]);
    sinks.remove(0).fail(BusError::new("gone"));
    settle().await;
    let lost = "psrpc::bus WARN: the bus gave up a registration";
    let fields = r#"service="Hats" id="S" methods=["Fit", "Pick"] topic=[]"#;
    assert_eq!(log.take(), [format!("{lost} {fields}")]);
    let _client = client(&bus, ClientOptions::new().id("C")).await;
    let mut sinks = bus.take();
    sinks.remove(0).fail(BusError::new("gone"));
    drop(sinks);
    settle().await;
    let lost = "psrpc::bus WARN: the bus gave up a client's subscriptions";
    assert_eq!(log.take(), [format!(r#"{lost} service="Hats" id="C" error="gone""#)]);
}

#[tokio::test(start_paused = true)]
async fn panics_of_user_code_are_logged_as_errors() {
    let (log, _guard) = logged(LevelFilter::ERROR);
    let bus = LocalBus::new();
    let options = ServerOptions::new().observer(|_| panic!("as it was told"));
    let handlers = Handlers::new(&hats::HATS, ())
        .unary(FIT, |_, _: Request<String>| async { panic!("as it was told") as Result<String, Error> })
        .unary_with_affinity(PICK, |_, request| echo(request), |_, _| panic!("as it was told"));
    let observed = Server::new(bus.clone(), hats::runtime(), handlers, ServerOptions::new()).unwrap();
    observed.register(&[FIT], &[]).await.unwrap();
    let client = client(&bus, ClientOptions::new()).await;
    fit(&client, "fez").await.unwrap_err();
    assert_eq!(log.take(), [r#"psrpc::server ERROR: a handler panicked method="Fit""#]);
    observed.register(&[PICK], &[]).await.unwrap();
    let pick = || client.call::<String, String>(PICK, &[], "fez".to_owned());
    pick().await.unwrap_err();
    assert_eq!(log.take(), [r#"psrpc::server ERROR: an affinity function panicked method="Pick""#]);
    observed.shutdown().await;
    pick().selection(Selection::new().choose(|_| panic!("as it was told"))).await.unwrap_err();
    assert_eq!(log.take(), ["psrpc::client ERROR: a selection function panicked"]);
    let _server = serve(&bus, options, echo).await;
    fit(&client, "fez").await.unwrap();
    assert_eq!(log.take(), ["psrpc::server ERROR: an observer panicked"; 2]);
}
