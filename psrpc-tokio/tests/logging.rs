//! The log targets and levels listed in the documentation of `psrpc`.

mod hats;
mod logs;

use hats::{FIT, ManualBus, PICK, client, echo, fit, late_request, serve, settle, stray_response};
use logs::logged;
use psrpc_bus_local::LocalBus;
use psrpc_tokio::bus::{Bus, Offer, ReplyTo, WakeList};
use psrpc_tokio::proto::Channel;
use psrpc_tokio::*;
use tracing::level_filters::LevelFilter;

fn publish(bus: &LocalBus, channel: &Channel, frame: proto::Frame) {
    let _ =
        bus.publish(Offer::new(channel.clone(), frame, ReplyTo::new(|_| ())), &mut WakeList::new()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropped_frames_are_logged_at_debug_with_their_ids_escaped() {
    let (log, _guard) = logged(LevelFilter::DEBUG);
    let bus = LocalBus::new();
    let _server = serve(&bus, ServerOptions::new().id("S"), echo).await;
    let client = client(&bus, ClientOptions::new().id("C")).await;
    publish(&bus, &Channel::response("Hats", client.id()), stray_response("a\nb"));
    settle().await;
    let dropped = "psrpc::client DEBUG: frame dropped";
    let ids = r#"service="Hats" id="C" reason=late or unknown request_id="a\nb" peer="SRV_stray""#;
    assert_eq!(log.take(), [format!("{dropped} {ids}")]);
    let requests = Channel::request::<&str>("Hats", "Fit", &[], FIT.properties.queue());
    publish(&bus, &requests, late_request("RPC_late"));
    settle().await;
    let dropped = "psrpc::server DEBUG: frame dropped";
    let ids =
        r#"service="Hats" id="S" reason=request expired request_id="RPC_late" peer="CLI_late" late_by=2ms"#;
    assert_eq!(log.take(), [format!("{dropped} {ids}")]);
}

#[tokio::test(start_paused = true)]
async fn a_successful_call_is_not_logged() {
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
async fn gaps_and_failed_subscriptions_are_logged_as_warnings() {
    let (log, _guard) = logged(LevelFilter::WARN);
    let bus = ManualBus::default();
    let _server = serve(&bus, ServerOptions::new().id("S"), echo).await;
    let mut sinks = bus.take();
    sinks[0].gap(Some(3), &mut WakeList::new());
    settle().await;
    assert_eq!(log.take(), [r#"psrpc::bus WARN: the bus may have lost frames service="Hats" id="S" lost=3"#]);
    sinks.remove(0).fail(BusError::new("closed"), &mut WakeList::new());
    settle().await;
    let lost = "psrpc::bus WARN: registration lost";
    let fields = r#"service="Hats" id="S" methods=["Fit", "Pick"] topic=[]"#;
    assert_eq!(log.take(), [format!("{lost} {fields}")]);
    let _client = client(&bus, ClientOptions::new().id("C")).await;
    let mut sinks = bus.take();
    sinks.remove(0).fail(BusError::new("closed"), &mut WakeList::new());
    drop(sinks);
    settle().await;
    let lost = "psrpc::bus WARN: client subscriptions lost";
    assert_eq!(log.take(), [format!(r#"{lost} service="Hats" id="C" error="closed""#)]);
}

#[tokio::test(start_paused = true)]
async fn panics_of_user_code_are_logged_as_errors() {
    let (log, _guard) = logged(LevelFilter::ERROR);
    let bus = LocalBus::new();
    let options = ServerOptions::new().observer(|_| panic!("on purpose"));
    let handlers = Handlers::new(&hats::HATS, ())
        .unary(FIT, |_, _: Request<String>| async { panic!("on purpose") as Result<String, Error> })
        .unary_with_affinity(PICK, |_, request| echo(request), |_, _| panic!("on purpose"));
    let observed = Server::new(bus.clone(), hats::runtime(), handlers, ServerOptions::new()).unwrap();
    observed.register(&[FIT], &[]).await.unwrap();
    let client = client(&bus, ClientOptions::new()).await;
    fit(&client, "fez").await.unwrap_err();
    let line = |source, method| {
        format!(
            r#"psrpc::server ERROR: {source} panicked service="Hats" method="{method}" request_id=ID panic="on purpose""#
        )
    };
    let without_id = |line: &String| match line.split_once("request_id=\"") {
        Some((before, after)) => format!("{before}request_id=ID{}", after.split_once('"').unwrap().1),
        None => line.clone(),
    };
    let logged = || log.take().iter().map(without_id).collect::<Vec<_>>();
    assert_eq!(logged(), [line("a handler", "Fit")]);
    observed.register(&[PICK], &[]).await.unwrap();
    let pick = || client.call::<String, String>(PICK, &[], "fez".to_owned());
    pick().await.unwrap_err();
    assert_eq!(logged(), [line("an affinity function", "Pick")]);
    observed.shutdown().await;
    let _unresponsive = hats::unresponsive(&bus, PICK).await;
    pick().selection(Selection::new().choose(|_| panic!("on purpose"))).await.unwrap_err();
    assert_eq!(log.take(), [r#"psrpc::client ERROR: a selection function panicked panic="on purpose""#]);
    let _server = serve(&bus, options, echo).await;
    fit(&client, "fez").await.unwrap();
    assert_eq!(log.take(), [r#"psrpc::server ERROR: an observer panicked panic="on purpose""#; 2]);
}
