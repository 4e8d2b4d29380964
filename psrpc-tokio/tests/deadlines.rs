//! A caller that is scheduled late gets the same result as one that is scheduled in time.

mod hats;

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use hats::{FIT, HATS, client, fit, runtime, settle, unresponsive};
use prost::Message;
use psrpc_bus_local::LocalBus;
use psrpc_tokio::bus::{Bus, Delivery, Inbox, Offer, ReplyTo, Subscription, WakeList};
use psrpc_tokio::proto::{Channel, ClaimRequest, Frame, Response};
use psrpc_tokio::*;

/// A server driven by the test.
struct ManualServer {
    bus: LocalBus,
    requests: Inbox,
    _subscription: Subscription,
}

impl ManualServer {
    async fn new(bus: &LocalBus) -> Self {
        let (_subscription, requests) = unresponsive(bus, FIT).await;
        Self { bus: bus.clone(), requests, _subscription }
    }

    async fn next(&mut self) -> Delivery {
        poll_fn(|cx| Pin::new(&mut self.requests).poll_next(cx)).await.unwrap()
    }

    async fn request(&mut self) -> proto::Request {
        match self.next().await {
            Delivery::Frame(Frame::Request(request)) => request,
            other => panic!("expected a request, got {other:?}"),
        }
    }

    fn publish(&self, channel: &Channel, frame: Frame) {
        let _ = self
            .bus
            .publish(Offer::new(channel.clone(), frame, ReplyTo::new(|_| ())), &mut WakeList::new())
            .unwrap();
    }

    fn bid(&self, request: &proto::Request) {
        let (request_id, server_id) = (request.request_id.clone(), "SRV_1".into());
        let bid = ClaimRequest { request_id, server_id, affinity: 1.0, handling: false };
        let channel = Channel::claim_request(HATS.name, request.client_id.as_str());
        self.publish(&channel, Frame::ClaimRequest(bid));
    }

    fn respond(&self, request: &proto::Request) {
        let response = Response {
            request_id: request.request_id.clone(),
            server_id: "SRV_1".into(),
            sent_at: request.sent_at,
            result: Ok("fez".to_owned().encode_to_vec().into()),
        };
        let channel = Channel::response(HATS.name, request.client_id.as_str());
        self.publish(&channel, Frame::Response(response));
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_read_after_the_deadline_is_late() {
    let timeout = Duration::from_millis(100);
    // The same response is accepted before the deadline.
    for (slept, in_time) in [(timeout / 2, true), (timeout, false), (timeout * 5, false)] {
        let bus = LocalBus::new();
        let mut server = ManualServer::new(&bus).await;
        let client = client(&bus, ClientOptions::new()).await;
        let started = runtime().now().time;
        let call = tokio::spawn(fit(&client, "fez").timeout(timeout).into_future());
        let request = server.request().await;
        server.bid(&request);
        while runtime().now().time.since(started) < Duration::from_millis(1) {
            settle().await;
        }
        server.respond(&request);
        // No task runs in the meantime, as in a stopped process.
        tokio::time::advance(slept - runtime().now().time.since(started)).await;
        match call.await.unwrap() {
            Ok(hat) => assert!(in_time && hat == "fez", "{hat} after {slept:?}"),
            Err(error) => assert!(!in_time && error.is_timed_out(), "{error} after {slept:?}"),
        }
        assert_eq!(client.counters().get(Reason::Late), u64::from(!in_time), "{slept:?}");
    }
}
