//! What clients and servers make of a bus that fails: cases that need a bus which fails on demand.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use psrpc::bus::{Bus, Delivery, Full, Inbox, Receipt, Sink, Subscription};
use psrpc::proto::{Channel, Frame};
use psrpc::{
    BusError, ClientOptions, Error, ErrorCode, Reason, Request, Runtime, ServerOptions, SubscriptionKind,
};
use psrpc_bus_local::LocalBus;
use psrpc_conformance::proto::{Ask, Reply, Shop, ShopClient, ShopServer};
use psrpc_conformance::runtime::{Host, Solo};

/// A local bus that fails as it is told.
#[derive(Clone, Default)]
struct FaultyBus {
    local: LocalBus,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Faults {
    /// Frames of this kind are not published, and the bus says so.
    refuse: Option<&'static str>,
    /// Frames of this kind are dropped without a word.
    swallow: Option<&'static str>,
    /// Frames of this kind are published, and the bus says so when it lets go of these receipts.
    confirm_late: Option<&'static str>,
    receipts: Vec<Receipt>,
    /// There is no room for anything.
    full: bool,
    waiting_for_room: Vec<Waker>,
    /// Subscriptions to channels that end so are refused.
    refuse_subscription: Option<&'static str>,
    /// The sinks of subscriptions, to lose them by.
    sinks: Vec<(String, Sink)>,
    /// Whether to keep sinks instead of handing them to the local bus.
    keep_sinks: bool,
}

impl FaultyBus {
    fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock().unwrap());
    }

    fn make_room(&self) {
        let waiting = {
            let mut faults = self.faults.lock().unwrap();
            faults.full = false;
            std::mem::take(&mut faults.waiting_for_room)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Bus for FaultyBus {
    fn publish(&self, channel: &Channel, frame: Frame, receipt: Receipt) -> Result<(), Box<Full>> {
        let (refuse, swallow, confirm_late, full) = {
            let faults = self.faults.lock().unwrap();
            let is = |kind: Option<&str>| kind == Some(frame.kind());
            (is(faults.refuse), is(faults.swallow), is(faults.confirm_late), faults.full)
        };
        if full {
            return Err(Box::new(Full { frame, receipt }));
        }
        if refuse {
            receipt.failed(BusError::new("the cable is cut"));
            return Ok(());
        }
        if swallow {
            drop(receipt);
            return Ok(());
        }
        if confirm_late {
            self.set(|faults| faults.receipts.push(receipt));
            return self.local.publish(channel, frame, Receipt::new(|_| ()));
        }
        self.local.publish(channel, frame, receipt)
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut faults = self.faults.lock().unwrap();
        if !faults.full {
            return Poll::Ready(());
        }
        faults.waiting_for_room.push(cx.waker().clone());
        Poll::Pending
    }

    fn subscribe(&self, channel: &Channel, kind: SubscriptionKind, sink: Sink) -> Subscription {
        let mut faults = self.faults.lock().unwrap();
        if faults.refuse_subscription.is_some_and(|end| channel.legacy().ends_with(end)) {
            sink.fail(BusError::new("not allowed"));
            return Subscription::new(|| ());
        }
        if faults.keep_sinks {
            sink.live();
            faults.sinks.push((channel.legacy().to_owned(), sink));
            return Subscription::new(|| ());
        }
        drop(faults);
        self.local.subscribe(channel, kind, sink)
    }
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
    solo.clone().block_on(Box::pin(test(solo, FaultyBus::default())));
}

async fn client(solo: &Solo, bus: &FaultyBus) -> Result<ShopClient, Error> {
    ShopClient::with_runtime(bus.clone(), solo.clone(), ClientOptions::new()).await
}

async fn server(solo: &Solo, bus: &FaultyBus) -> Result<ShopServer, Error> {
    ShopServer::with_runtime(bus.clone(), solo.clone(), Echo, ServerOptions::new()).await
}

fn ask() -> Ask {
    Ask { text: "top".into(), ..Ask::default() }
}

#[test]
fn a_publish_that_fails_fails_the_call_at_once_with_the_bus_error_as_its_source() {
    run(|solo, bus| async move {
        let client = client(&solo, &bus).await.unwrap();
        for (make, said) in [
            (Faults { refuse: Some("Request"), ..Faults::default() }, "the cable is cut"),
            (
                Faults { swallow: Some("Request"), ..Faults::default() },
                "the bus dropped the frame without a reason",
            ),
        ] {
            bus.set(|faults| *faults = make);
            let start = solo.now();
            let error = client.fit(ask()).await.unwrap_err();
            assert_eq!(
                (error.code(), error.reason()),
                (&ErrorCode::Unavailable, Some(Reason::PublishFailed))
            );
            assert_eq!(std::error::Error::source(&error).unwrap().to_string(), said);
            assert_eq!(solo.now(), start, "at once");
        }
    });
}

#[test]
fn a_grant_that_fails_fails_the_call_at_once() {
    run(|solo, bus| async move {
        let _server = server(&solo, &bus).await.unwrap();
        let client = client(&solo, &bus).await.unwrap();
        bus.set(|faults| faults.refuse = Some("ClaimResponse"));
        let error = client.fit(ask()).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::PublishFailed));
    });
}

#[test]
fn a_response_that_cannot_be_published_is_counted_at_the_server() {
    run(|solo, bus| async move {
        let server = server(&solo, &bus).await.unwrap();
        let client = client(&solo, &bus).await.unwrap();
        bus.set(|faults| faults.refuse = Some("Response"));
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
        bus.set(|faults| faults.full = true);
        let wake = bus.clone();
        let later = solo.sleep_until(solo.now().time + Duration::from_millis(200));
        solo.spawn(Box::pin(async move {
            later.await;
            wake.make_room();
        }));
        let reply = client.fit(ask()).await.unwrap();
        assert_eq!(reply.text, "top");
    });
}

#[test]
fn a_call_that_waits_for_room_ends_by_its_deadline_and_is_not_sent_then() {
    run(|solo, bus| async move {
        let client = client(&solo, &bus).await.unwrap();
        bus.set(|faults| faults.full = true);
        let error = client.owner_fit("me", ask()).timeout(Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(error.code(), &ErrorCode::DeadlineExceeded);
        bus.make_room();
        solo.sleep_until(solo.now().time + Duration::from_millis(1)).await;
        assert_eq!(client.client().counters().get(Reason::Withdrawn), 1);
        assert_eq!(client.client().counters().published, 0);
    });
}

#[test]
fn a_client_whose_subscription_is_refused_is_not_made() {
    run(|solo, bus| async move {
        bus.set(|faults| faults.refuse_subscription = Some("|RES"));
        let error = client(&solo, &bus).await.unwrap_err();
        assert_eq!(error.to_string(), "unavailable: not allowed");
    });
}

#[test]
fn a_server_whose_subscription_is_refused_is_not_made() {
    run(|solo, bus| async move {
        bus.set(|faults| faults.refuse_subscription = Some("|Pick|REQ"));
        let error = server(&solo, &bus).await.unwrap_err();
        assert_eq!(error.to_string(), "unavailable: not allowed");
    });
}

#[test]
fn a_shutdown_waits_until_the_bus_has_its_last_responses() {
    run(|solo, bus| async move {
        let server = server(&solo, &bus).await.unwrap();
        let client = client(&solo, &bus).await.unwrap();
        bus.set(|faults| faults.confirm_late = Some("Response"));
        client.fit(ask()).await.unwrap();
        assert_eq!(server.server().in_flight(), 1, "answered, but not on the bus as far as it has said");
        let mut cx = Context::from_waker(Waker::noop());
        let mut shutdown = Box::pin(server.shutdown());
        assert!(shutdown.as_mut().poll(&mut cx).is_pending());
        solo.sleep_until(solo.now().time + Duration::from_secs(1)).await;
        assert!(shutdown.as_mut().poll(&mut cx).is_pending());
        bus.set(|faults| faults.receipts.drain(..).for_each(|receipt| receipt.published(Some(1))));
        let confirmed = solo.now();
        shutdown.await;
        assert_eq!(solo.now(), confirmed);
        assert_eq!(server.server().counters().reasons().count(), 0, "{:?}", server.server().counters());
    });
}

#[test]
fn a_server_answers_for_a_method_that_it_lacks_where_nobody_else_can() {
    run(|solo, bus| async move {
        bus.set(|faults| faults.keep_sinks = true);
        let server = server(&solo, &bus).await.unwrap();
        bus.set(|faults| faults.keep_sinks = false);
        let client = client(&solo, &bus).await.unwrap();
        let calling = client.owner_fit("nobody", ask()).into_future();
        let watched = bus.clone();
        let (sink, mut requests) = Inbox::new(1);
        let channel = Channel::request("Shop", "OwnerFit", &["nobody"], true);
        let _subscription = bus.local.subscribe(&channel, SubscriptionKind::Queue, sink);
        solo.spawn(Box::pin(async move {
            while let Some(delivery) = poll_fn(|cx| Pin::new(&mut requests).poll_next(cx)).await {
                let Delivery::Frame(frame) = delivery else { continue };
                watched.set(|faults| {
                    let is_fit = |(name, _): &&(String, Sink)| name.ends_with("|Fit|REQ");
                    faults.sinks.iter().find(is_fit).unwrap().1.untaken(frame);
                });
            }
        }));
        let error = calling.await.unwrap_err();
        assert_eq!(error.to_string(), "unimplemented: method is not implemented");
        assert_eq!(server.server().counters().get(Reason::Untaken), 1);
    });
}

#[test]
fn a_topic_whose_subscription_is_refused_can_be_registered_later() {
    run(|solo, bus| async move {
        let server = server(&solo, &bus).await.unwrap();
        bus.set(|faults| faults.refuse_subscription = Some("|OwnerFit|me|REQ"));
        assert_eq!(server.register_owner_fit_topic("me").await.unwrap_err().code(), &ErrorCode::Unavailable);
        bus.set(|faults| faults.refuse_subscription = None);
        server.register_owner_fit_topic("me").await.unwrap();
        bus.set(|faults| faults.refuse_subscription = Some("|RackFit|a|b|REQ"));
        assert_eq!(
            server.register_rack_fit_topic("a", "b").await.unwrap_err().code(),
            &ErrorCode::Unavailable
        );
        bus.set(|faults| faults.refuse_subscription = None);
        // Its grants were subscribed to already.
        server.register_rack_fit_topic("a", "b").await.unwrap();
        let client = client(&solo, &bus).await.unwrap();
        client.owner_fit("me", ask()).await.unwrap();
        client.rack_fit("a", "b", ask()).await.unwrap();
    });
}

#[test]
fn a_client_whose_subscription_is_lost_fails_its_calls_and_later_ones() {
    run(|solo, bus| async move {
        bus.set(|faults| faults.keep_sinks = true);
        let client = client(&solo, &bus).await.unwrap();
        let losing = bus.clone();
        let later = solo.sleep_until(solo.now().time + Duration::from_millis(50));
        solo.spawn(Box::pin(async move {
            later.await;
            losing.set(|faults| {
                for (_, sink) in faults.sinks.drain(..) {
                    sink.fail(BusError::new("the server is gone"));
                }
            });
        }));
        let error = client.fit(ask()).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::SubscriptionLost));
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the server is gone");
        assert_eq!(client.fit(ask()).await.unwrap_err().reason(), Some(Reason::ClientClosed));
    });
}

#[test]
fn a_gap_is_counted_and_part_of_the_explanation() {
    run(|solo, bus| async move {
        bus.set(|faults| faults.keep_sinks = true);
        let client = client(&solo, &bus).await.unwrap();
        let call = client.fit(ask()).into_future();
        let gap = bus.clone();
        let later = solo.sleep_until(solo.now().time + Duration::from_millis(50));
        solo.spawn(Box::pin(async move {
            later.await;
            gap.set(|faults| faults.sinks[0].1.gap(Some(7)));
        }));
        let error = call.await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::NoResponse));
        let explanation = error.explanation().unwrap();
        assert!(explanation.contains("the bus lost frames to this client meanwhile"), "{explanation}");
        assert_eq!(client.client().counters().lost, 7);
    });
}

#[test]
fn a_client_dropped_before_it_is_ready_leaves_nothing_behind() {
    run(|solo, bus| async move {
        bus.set(|faults| faults.keep_sinks = true);
        let mut cx = Context::from_waker(Waker::noop());
        let mut starting = Box::pin(client(&solo, &bus));
        assert!(starting.as_mut().poll(&mut cx).is_pending());
        drop(starting);
        bus.set(|faults| faults.sinks.clear());
        solo.sleep_until(solo.now().time + Duration::from_millis(1)).await;
        assert_eq!(Arc::strong_count(&bus.faults), 1, "the driver has let go of the bus");
    });
}
