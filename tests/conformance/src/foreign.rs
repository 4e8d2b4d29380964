//! A peer that sends and receives raw frames. It can misbehave in ways that psrpc's own clients and
//! servers cannot.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

use futures_core::Stream;
use prost::Message;
use psrpc::bus::{Bus, Delivery, Inbox, Subscription, WakeList};
use psrpc::proto::{Any, Channel, ClaimRequest, ClaimResponse, Frame, FrameLimits, Request, Response};
use psrpc::{BusError, SubscriptionKind, Text};

/// The service of the cases, by its name on the wire.
pub(crate) const SHOP: &str = "Shop";

/// A peer that sends and receives raw frames.
pub(crate) struct ForeignPeer {
    bus: Arc<dyn Bus>,
}

/// A response as encoded by Go, which includes an empty text.
#[derive(Clone, PartialEq, Message)]
struct GoResponse {
    #[prost(string, tag = "1")]
    request_id: String,
    #[prost(string, tag = "2")]
    server_id: String,
    #[prost(string, tag = "5")]
    error: String,
    #[prost(string, tag = "6")]
    code: String,
}

/// Receives the frames of a channel.
pub(crate) struct FrameReceiver {
    inbox: Inbox,
    subscription: Option<Subscription>,
}

impl ForeignPeer {
    pub(crate) fn new(bus: Arc<dyn Bus>) -> Self {
        Self { bus }
    }

    /// Subscribes to a channel. The subscription is live when this returns.
    pub(crate) async fn listen(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
    ) -> Result<FrameReceiver, String> {
        self.listen_with(channel, kind, 1024).await
    }

    pub(crate) async fn listen_with(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        capacity: usize,
    ) -> Result<FrameReceiver, String> {
        let (sink, inbox) = Inbox::new(capacity);
        let subscription = Some(self.bus.subscribe(channel, kind, sink, &mut WakeList::new()));
        let mut receiver = FrameReceiver { inbox, subscription };
        match receiver.next().await {
            Some(Delivery::Live) => Ok(receiver),
            other => Err(format!("failed to subscribe to {channel}: {other:?}")),
        }
    }

    /// Publishes a frame. Returns the number of subscribers that received it, if the bus knows.
    pub(crate) async fn publish(&self, channel: &Channel, frame: Frame) -> Result<Option<u64>, BusError> {
        psrpc::bus::publish(&*self.bus, channel.clone(), frame).await
    }

    /// Publishes a frame. An error fails the case.
    pub(crate) async fn send(&self, channel: &Channel, frame: Frame) -> Result<(), String> {
        self.publish(channel, frame).await.map(|_| ()).map_err(|error| format!("failed to publish: {error}"))
    }

    /// Bids for a request.
    pub(crate) async fn bid(&self, request: &Request, server: &str, affinity: f32) -> Result<(), String> {
        self.claim(request, server, affinity, false).await
    }

    /// Announces that a server runs a request without a grant.
    pub(crate) async fn announce(&self, request: &Request, server: &str) -> Result<(), String> {
        self.claim(request, server, 1.0, true).await
    }

    async fn claim(
        &self,
        request: &Request,
        server: &str,
        affinity: f32,
        handling: bool,
    ) -> Result<(), String> {
        let (request_id, server_id) = (request.request_id.clone(), server.into());
        let claim = ClaimRequest { request_id, server_id, affinity, handling };
        let channel = Channel::claim_request(SHOP, request.client_id.as_str());
        self.send(&channel, Frame::ClaimRequest(claim)).await
    }

    /// Responds to a request.
    pub(crate) async fn respond(
        &self,
        request: &Request,
        server: &str,
        result: Result<Vec<u8>, psrpc::proto::ErrorResponse>,
    ) -> Result<(), String> {
        let response = Response {
            request_id: request.request_id.clone(),
            server_id: server.into(),
            sent_at: request.sent_at,
            result: result.map(Into::into),
        };
        let channel = Channel::response(SHOP, request.client_id.as_str());
        self.send(&channel, Frame::Response(response)).await
    }

    /// Responds with an error whose text or code may be empty, as Go allows.
    pub(crate) async fn respond_as_go(
        &self,
        request: &Request,
        server: &str,
        error: &str,
        code: &str,
    ) -> Result<(), String> {
        let response = GoResponse {
            request_id: request.request_id.to_string(),
            server_id: server.to_owned(),
            error: error.to_owned(),
            code: code.to_owned(),
        };
        let envelope = Any {
            type_url: "type.googleapis.com/internal.Response".into(),
            value: response.encode_to_vec().into(),
        };
        let channel = Channel::response(SHOP, request.client_id.as_str());
        self.send(&channel, Frame::Raw(Frame::Other(envelope).encode(channel.local()))).await
    }

    /// Joins the queue for requests of a queue-routed method without topics.
    pub(crate) async fn listen_to_requests(&self, method: &str) -> Result<FrameReceiver, String> {
        let channel = Channel::request::<&str>(SHOP, method, &[], true);
        self.listen(&channel, SubscriptionKind::Queue).await
    }

    /// Subscribes to the requests of an affinity method without topics.
    pub(crate) async fn listen_to_broadcast(&self, method: &str) -> Result<FrameReceiver, String> {
        self.listen(&Channel::request::<&str>(SHOP, method, &[], false), SubscriptionKind::Plain).await
    }

    /// Subscribes to the grants of a method without topics.
    pub(crate) async fn listen_to_grants(&self, method: &str) -> Result<FrameReceiver, String> {
        self.listen(&Channel::claim_response::<&str>(SHOP, method, &[]), SubscriptionKind::Plain).await
    }

    /// Subscribes to a client's channel for bids or responses.
    pub(crate) async fn listen_to_client(&self, channel: Channel) -> Result<FrameReceiver, String> {
        self.listen(&channel, SubscriptionKind::Plain).await
    }

    /// Grants a request of a method without topics.
    pub(crate) async fn grant(&self, method: &str, request_id: &Text, server: &str) -> Result<(), String> {
        let grant = ClaimResponse { request_id: request_id.clone(), server_id: server.into() };
        self.send(&Channel::claim_response::<&str>(SHOP, method, &[]), Frame::ClaimResponse(grant)).await
    }
}

/// Returns the next delivery at any of the receivers, and the index of that receiver.
pub(crate) async fn next_of_any(receivers: &mut [FrameReceiver]) -> (usize, Option<Delivery>) {
    poll_fn(|cx| {
        let next = receivers.iter_mut().enumerate().find_map(|(index, receiver)| {
            match Pin::new(&mut receiver.inbox).poll_next(cx) {
                Poll::Ready(delivery) => Some((index, delivery)),
                Poll::Pending => None,
            }
        });
        next.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

impl FrameReceiver {
    /// Returns the next delivery, or `None` after the end of the subscription.
    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        poll_fn(|cx| Pin::new(&mut self.inbox).poll_next(cx)).await
    }

    /// Returns the next frame, decoded if necessary.
    pub(crate) async fn frame(&mut self) -> Result<Frame, String> {
        match self.next().await {
            Some(Delivery::Frame(Frame::Raw(bytes))) => Frame::decode(&bytes, &FrameLimits::DEFAULT)
                .map(|(frame, _)| frame)
                .map_err(|error| error.to_string()),
            Some(Delivery::Frame(frame)) => Ok(frame),
            other => Err(format!("expected a frame, got {other:?}")),
        }
    }

    pub(crate) async fn request(&mut self) -> Result<Request, String> {
        match self.frame().await? {
            Frame::Request(request) => Ok(request),
            other => Err(format!("expected a request, got {}", other.kind())),
        }
    }

    pub(crate) async fn claim(&mut self) -> Result<ClaimRequest, String> {
        match self.frame().await? {
            Frame::ClaimRequest(claim) => Ok(claim),
            other => Err(format!("expected a bid, got {}", other.kind())),
        }
    }

    pub(crate) async fn grant(&mut self) -> Result<ClaimResponse, String> {
        match self.frame().await? {
            Frame::ClaimResponse(grant) => Ok(grant),
            other => Err(format!("expected a grant, got {}", other.kind())),
        }
    }

    pub(crate) async fn response(&mut self) -> Result<Response, String> {
        match self.frame().await? {
            Frame::Response(response) => Ok(response),
            other => Err(format!("expected a response, got {}", other.kind())),
        }
    }

    /// Unsubscribes. Frames delivered before the bus confirms this can still be received.
    pub(crate) fn unsubscribe(&mut self) {
        self.subscription = None;
    }

    /// Returns the deliveries that have arrived and were not received yet.
    pub(crate) fn waiting(&mut self) -> Vec<Delivery> {
        let mut cx = std::task::Context::from_waker(Waker::noop());
        let mut waiting = Vec::new();
        while let Poll::Ready(Some(delivery)) = Pin::new(&mut self.inbox).poll_next(&mut cx) {
            waiting.push(delivery);
        }
        waiting
    }
}
