//! Clients and servers on a bus that fails on demand.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use futures_core::Stream;
use psrpc::bus::{Bus, Delivery, Inbox, Receipt, ReplyTo, Sink, WakeList};
use psrpc::proto::Channel;
use psrpc::{
    BusError, ClientOptions, Error, ErrorCode, Reason, Request, Runtime, ServerOptions, SubscriptionKind,
};
use psrpc_bus_local::LocalBus;
use psrpc_conformance::proto::{Ask, Reply, Shop, ShopClient, ShopServer};
use psrpc_conformance::runtime::{Host, Solo};
use psrpc_testing::{FaultyBus, Rule};

/// Fails publishes of frames of this kind.
fn refuse(bus: &FaultyBus, kind: &'static str) {
    let rule = Rule::fail(BusError::new("the cable is cut"));
    bus.inject(rule.when(move |_, frame| frame.kind() == kind));
}

/// Fails subscriptions to channels with this suffix.
fn refuse_subscription(bus: &FaultyBus, end: &'static str) {
    bus.intercept_subscribe(move |channel, _, sink, wakes| {
        if !channel.legacy().ends_with(end) {
            return Some(sink);
        }
        sink.fail(BusError::new("not allowed"), wakes);
        None
    });
}

type Sinks = Arc<Mutex<Vec<(String, Sink)>>>;

/// Makes each subscription live and captures its sink. Subscribers then receive only the frames
/// that the test puts into the sinks.
fn capture_sinks(bus: &FaultyBus) -> Sinks {
    let sinks = Sinks::default();
    let captured = Arc::clone(&sinks);
    bus.intercept_subscribe(move |channel, _, sink, wakes| {
        sink.live(wakes);
        captured.lock().unwrap().push((channel.legacy().to_owned(), sink));
        None
    });
    sinks
}

struct Echo;

impl Shop for Echo {
    async fn fit(&self, request: Request<Ask>) -> Result<Reply, Error> {
        Ok(Reply { text: request.text.clone(), ..Reply::default() })
    }

    async fn pick(&self, request: Request<Ask>) -> Result<Reply, Error> {
        self.fit(request).await
    }

    fn pick_affinity(&self, _: &Request<Ask>) -> f32 {
        1.0
    }

    async fn owner_fit(&self, request: Request<Ask>) -> Result<Reply, Error> {
        self.fit(request).await
    }

    async fn rack_fit(&self, request: Request<Ask>) -> Result<Reply, Error> {
        self.fit(request).await
    }

    async fn rack_pick(&self, request: Request<Ask>) -> Result<Reply, Error> {
        self.fit(request).await
    }

    fn rack_pick_affinity(&self, _: &Request<Ask>) -> f32 {
        1.0
    }

    async fn make_hat_v1(&self, request: Request<Ask>) -> Result<Reply, Error> {
        self.fit(request).await
    }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(Solo, FaultyBus) -> F) {
    let solo = Solo::new();
    let bus = FaultyBus::new(LocalBus::new(), solo.clone(), 1);
    solo.clone().block_on(Box::pin(test(solo, bus)));
}

async fn client(solo: &Solo, bus: &FaultyBus) -> Result<ShopClient, Error> {
    ShopClient::with_runtime(bus.clone(), solo.clone(), ClientOptions::new()).await
}

async fn server(solo: &Solo, bus: &FaultyBus) -> Result<ShopServer, Error> {
    ShopServer::with_runtime(bus.clone(), solo.clone(), Echo, ServerOptions::new()).await
}

/// Checks that the message of the bus error appears once in the error's text and sources, and that
/// the error wraps the bus error.
fn check_reported_once(error: &Error, message: &str) {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        write!(text, ": {next}").unwrap();
        cause = next.source();
    }
    assert_eq!(text.matches(message).count(), 1, "{text}");
    assert_eq!(error.get_ref().unwrap().downcast_ref::<BusError>().unwrap().to_string(), message);
}

fn ask() -> Ask {
    Ask { text: "top".into(), ..Ask::default() }
}

#[test]
fn a_publish_that_fails_fails_the_call_at_once_with_the_bus_error_in_it() {
    run(|solo, bus| async move {
        let client = client(&solo, &bus).await.unwrap();
        let fails_at_once = async |message| {
            let start = solo.now();
            let error = client.fit(ask()).await.unwrap_err();
            assert_eq!(
                (error.code(), error.reason()),
                (&ErrorCode::Unavailable, Some(Reason::PublishFailed))
            );
            check_reported_once(&error, message);
            assert_eq!(solo.now(), start, "the call did not fail at once");
        };
        refuse(&bus, "Request");
        fails_at_once("the cable is cut").await;
        bus.heal();
        bus.intercept_publish(|_, _, _| None);
        fails_at_once("the bus dropped the frame without a reason").await;
    });
}

#[test]
fn a_grant_that_fails_fails_the_call_at_once() {
    run(|solo, bus| async move {
        let _server = server(&solo, &bus).await.unwrap();
        let client = client(&solo, &bus).await.unwrap();
        refuse(&bus, "ClaimResponse");
        let error = client.fit(ask()).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::PublishFailed));
    });
}

#[test]
fn a_response_that_cannot_be_published_is_counted_at_the_server() {
    run(|solo, bus| async move {
        let server = server(&solo, &bus).await.unwrap();
        let client = client(&solo, &bus).await.unwrap();
        refuse(&bus, "Response");
        let error = client.fit(ask()).await.unwrap_err();
        assert_eq!(error.code(), &ErrorCode::DeadlineExceeded);
        assert_eq!(server.server().counters().get(Reason::PublishFailed), 1);
    });
}

#[test]
fn a_bus_without_room_delays_calls_and_loses_none() {
    run(|solo, bus| async move {
        let _server = server(&solo, &bus).await.unwrap();
        let client = client(&solo, &bus).await.unwrap();
        bus.block();
        let wake = bus.clone();
        let later = solo.sleep_until(solo.now().time + Duration::from_millis(200));
        solo.spawn(Box::pin(async move {
            later.await;
            wake.unblock();
        }));
        let reply = client.fit(ask()).await.unwrap();
        assert_eq!(reply.text, "top");
    });
}

#[test]
fn a_call_that_waits_for_room_ends_by_its_deadline_and_is_not_sent_then() {
    run(|solo, bus| async move {
        let client = client(&solo, &bus).await.unwrap();
        bus.block();
        let error = client.owner_fit("me", ask()).timeout(Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(error.code(), &ErrorCode::DeadlineExceeded);
        bus.unblock();
        solo.sleep_until(solo.now().time + Duration::from_millis(1)).await;
        assert_eq!(client.client().counters().get(Reason::Withdrawn), 1);
        assert_eq!(client.client().counters().published, 0);
    });
}

#[test]
fn a_client_whose_subscription_is_refused_is_not_made() {
    run(|solo, bus| async move {
        refuse_subscription(&bus, "|RES");
        let error = client(&solo, &bus).await.unwrap_err();
        assert_eq!(error.to_string(), "unavailable: not allowed");
    });
}

#[test]
fn a_server_whose_subscription_is_refused_is_not_made() {
    run(|solo, bus| async move {
        refuse_subscription(&bus, "|Pick|REQ");
        let error = server(&solo, &bus).await.unwrap_err();
        assert_eq!(error.to_string(), "unavailable: not allowed");
    });
}

#[test]
fn a_shutdown_waits_until_the_bus_has_its_last_responses() {
    run(|solo, bus| async move {
        let server = server(&solo, &bus).await.unwrap();
        let client = client(&solo, &bus).await.unwrap();
        let receipts = Arc::new(Mutex::new(Vec::new()));
        let captured = Arc::clone(&receipts);
        bus.intercept_publish(move |_, frame, receipt| {
            captured.lock().unwrap().push(receipt);
            Some((frame, ReplyTo::new(|_| ()).receipt()))
        });
        client.fit(ask()).await.unwrap();
        assert_eq!(server.server().in_flight(), 1, "a response is in flight until the bus confirms it");
        let mut cx = Context::from_waker(Waker::noop());
        let mut shutdown = Box::pin(server.shutdown());
        assert!(shutdown.as_mut().poll(&mut cx).is_pending());
        solo.sleep_until(solo.now().time + Duration::from_secs(1)).await;
        assert!(shutdown.as_mut().poll(&mut cx).is_pending());
        receipts.lock().unwrap().drain(..).for_each(|receipt: Receipt| receipt.published(Some(1)));
        let confirmed = solo.now();
        shutdown.await;
        assert_eq!(solo.now(), confirmed);
        assert_eq!(server.server().counters().reasons().count(), 0, "{:?}", server.server().counters());
    });
}

#[test]
fn a_server_answers_for_a_method_that_it_lacks_where_nobody_else_can() {
    run(|solo, bus| async move {
        let sinks = capture_sinks(&bus);
        let server = server(&solo, &bus).await.unwrap();
        bus.heal();
        let client = client(&solo, &bus).await.unwrap();
        let calling = client.owner_fit("nobody", ask()).into_future();
        let (sink, mut requests) = Inbox::new(1);
        let channel = Channel::request("Shop", "OwnerFit", &["nobody"], true);
        let _subscription = bus.subscribe(&channel, SubscriptionKind::Queue, sink, &mut WakeList::new());
        solo.spawn(Box::pin(async move {
            while let Some(delivery) = poll_fn(|cx| Pin::new(&mut requests).poll_next(cx)).await {
                let Delivery::Frame(frame) = delivery else { continue };
                let is_fit = |(name, _): &&(String, Sink)| name.ends_with("|Fit|REQ");
                sinks.lock().unwrap().iter().find(is_fit).unwrap().1.misrouted(frame, &mut WakeList::new());
            }
        }));
        let error = calling.await.unwrap_err();
        assert_eq!(error.to_string(), "unimplemented: method is not implemented");
        assert_eq!(server.server().counters().get(Reason::Misrouted), 1);
    });
}

#[test]
fn a_topic_whose_subscription_is_refused_can_be_registered_later() {
    run(|solo, bus| async move {
        let server = server(&solo, &bus).await.unwrap();
        refuse_subscription(&bus, "|OwnerFit|me|REQ");
        assert_eq!(server.register_owner_fit_topic("me").await.unwrap_err().code(), &ErrorCode::Unavailable);
        bus.heal();
        server.register_owner_fit_topic("me").await.unwrap();
        refuse_subscription(&bus, "|RackFit|a|b|REQ");
        assert_eq!(
            server.register_rack_fit_topic("a", "b").await.unwrap_err().code(),
            &ErrorCode::Unavailable
        );
        bus.heal();
        // The subscription to its grants existed already.
        server.register_rack_fit_topic("a", "b").await.unwrap();
        let client = client(&solo, &bus).await.unwrap();
        client.owner_fit("me", ask()).await.unwrap();
        client.rack_fit("a", "b", ask()).await.unwrap();
    });
}

#[test]
fn a_client_whose_subscription_is_lost_fails_its_calls_and_later_ones() {
    run(|solo, bus| async move {
        let sinks = capture_sinks(&bus);
        let client = client(&solo, &bus).await.unwrap();
        let later = solo.sleep_until(solo.now().time + Duration::from_millis(50));
        solo.spawn(Box::pin(async move {
            later.await;
            for (_, sink) in sinks.lock().unwrap().drain(..) {
                sink.fail(BusError::new("the server is gone"), &mut WakeList::new());
            }
        }));
        let error = client.fit(ask()).wait_for_subscriber().await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::SubscriptionLost));
        check_reported_once(&error, "the server is gone");
        assert_eq!(client.fit(ask()).await.unwrap_err().reason(), Some(Reason::ClientClosed));
    });
}

#[test]
fn a_gap_is_counted_and_part_of_the_explanation() {
    run(|solo, bus| async move {
        let sinks = capture_sinks(&bus);
        let client = client(&solo, &bus).await.unwrap();
        let call = client.fit(ask()).wait_for_subscriber().into_future();
        let later = solo.sleep_until(solo.now().time + Duration::from_millis(50));
        solo.spawn(Box::pin(async move {
            later.await;
            sinks.lock().unwrap()[0].1.gap(Some(7), &mut WakeList::new());
        }));
        let error = call.await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::NobodySubscribed));
        let explanation = error.explanation().unwrap();
        assert!(explanation.contains("the bus lost frames for this client during the call"), "{explanation}");
        assert_eq!(client.client().counters().lost, 7);
    });
}

#[test]
fn a_client_dropped_before_it_is_ready_leaves_nothing_behind() {
    run(|solo, bus| async move {
        let sinks = capture_sinks(&bus);
        let mut cx = Context::from_waker(Waker::noop());
        let mut starting = Box::pin(client(&solo, &bus));
        assert!(starting.as_mut().poll(&mut cx).is_pending());
        drop(starting);
        sinks.lock().unwrap().clear();
        solo.sleep_until(solo.now().time + Duration::from_millis(1)).await;
        drop(bus);
        assert_eq!(Arc::strong_count(&sinks), 1, "the driver still holds the bus");
    });
}
