//! A peer that is not ours: it speaks the protocol by hand, frame by frame, and so can do what ours
//! never would.

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

/// A peer that speaks the protocol by hand.
pub(crate) struct Foreign {
    bus: Arc<dyn Bus>,
}

/// A response as Go writes it, empty text and all.
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

/// What a foreign peer hears on a channel.
pub(crate) struct Ear {
    inbox: Inbox,
    subscription: Option<Subscription>,
}

impl Foreign {
    pub(crate) fn new(bus: Arc<dyn Bus>) -> Self {
        Self { bus }
    }

    /// Listens to a channel; live when it is returned.
    pub(crate) async fn listen(&self, channel: &Channel, kind: SubscriptionKind) -> Result<Ear, String> {
        self.listen_with(channel, kind, 1024).await
    }

    pub(crate) async fn listen_with(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        capacity: usize,
    ) -> Result<Ear, String> {
        let (sink, inbox) = Inbox::new(capacity);
        let subscription = Some(self.bus.subscribe(channel, kind, sink, &mut WakeList::new()));
        let mut ear = Ear { inbox, subscription };
        match ear.next().await {
            Some(Delivery::Live) => Ok(ear),
            other => Err(format!("subscribing to {channel}: {other:?}")),
        }
    }

    /// Publishes a frame; gives how many subscribers got it, where the bus knows.
    pub(crate) async fn publish(&self, channel: &Channel, frame: Frame) -> Result<Option<u64>, BusError> {
        psrpc::bus::publish(&*self.bus, channel.clone(), frame).await
    }

    /// Publishes a frame, which must succeed.
    pub(crate) async fn send(&self, channel: &Channel, frame: Frame) -> Result<(), String> {
        self.publish(channel, frame).await.map(|_| ()).map_err(|error| format!("publishing: {error}"))
    }

    /// Bids for a request.
    pub(crate) async fn bid(&self, request: &Request, server: &str, affinity: f32) -> Result<(), String> {
        self.claim(request, server, affinity, false).await
    }

    /// Announces that a request is handled without waiting for a grant.
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

    /// Answers a request.
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

    /// Answers a request with an error whose text or code may be empty, as Go can.
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

    /// Listens, as one of the queue, to the requests of a queue-routed method without topics.
    pub(crate) async fn listen_to_requests(&self, method: &str) -> Result<Ear, String> {
        let channel = Channel::request::<&str>(SHOP, method, &[], true);
        self.listen(&channel, SubscriptionKind::Queue).await
    }

    /// Listens to the requests of an affinity method without topics.
    pub(crate) async fn listen_to_broadcast(&self, method: &str) -> Result<Ear, String> {
        self.listen(&Channel::request::<&str>(SHOP, method, &[], false), SubscriptionKind::Plain).await
    }

    /// Listens to the grants of a method without topics.
    pub(crate) async fn listen_to_grants(&self, method: &str) -> Result<Ear, String> {
        self.listen(&Channel::claim_response::<&str>(SHOP, method, &[]), SubscriptionKind::Plain).await
    }

    /// Listens to the bids for a client, or to the responses.
    pub(crate) async fn listen_to_client(&self, channel: Channel) -> Result<Ear, String> {
        self.listen(&channel, SubscriptionKind::Plain).await
    }

    /// Grants a request of a method without topics.
    pub(crate) async fn grant(&self, method: &str, request_id: &Text, server: &str) -> Result<(), String> {
        let grant = ClaimResponse { request_id: request_id.clone(), server_id: server.into() };
        self.send(&Channel::claim_response::<&str>(SHOP, method, &[]), Frame::ClaimResponse(grant)).await
    }
}

/// Returns what comes next at any of the ears, and the index of that ear.
pub(crate) async fn next_of(ears: &mut [Ear]) -> (usize, Option<Delivery>) {
    poll_fn(|cx| {
        let next = ears.iter_mut().enumerate().find_map(|(index, ear)| {
            match Pin::new(&mut ear.inbox).poll_next(cx) {
                Poll::Ready(delivery) => Some((index, delivery)),
                Poll::Pending => None,
            }
        });
        next.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

impl Ear {
    /// What comes next; `None` when nothing more will.
    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        poll_fn(|cx| Pin::new(&mut self.inbox).poll_next(cx)).await
    }

    /// The next frame, decoded if it was not.
    pub(crate) async fn frame(&mut self) -> Result<Frame, String> {
        match self.next().await {
            Some(Delivery::Frame(Frame::Raw(bytes))) => Frame::decode(&bytes, &FrameLimits::DEFAULT)
                .map(|(frame, _)| frame)
                .map_err(|error| error.to_string()),
            Some(Delivery::Frame(frame)) => Ok(frame),
            other => Err(format!("a frame was expected, and {other:?} came")),
        }
    }

    pub(crate) async fn request(&mut self) -> Result<Request, String> {
        match self.frame().await? {
            Frame::Request(request) => Ok(request),
            other => Err(format!("a request was expected, and a {} came", other.kind())),
        }
    }

    pub(crate) async fn claim(&mut self) -> Result<ClaimRequest, String> {
        match self.frame().await? {
            Frame::ClaimRequest(claim) => Ok(claim),
            other => Err(format!("a bid was expected, and a {} came", other.kind())),
        }
    }

    pub(crate) async fn grant(&mut self) -> Result<ClaimResponse, String> {
        match self.frame().await? {
            Frame::ClaimResponse(grant) => Ok(grant),
            other => Err(format!("a grant was expected, and a {} came", other.kind())),
        }
    }

    pub(crate) async fn response(&mut self) -> Result<Response, String> {
        match self.frame().await? {
            Frame::Response(response) => Ok(response),
            other => Err(format!("a response was expected, and a {} came", other.kind())),
        }
    }

    /// Ends the subscription; what was delivered until that is confirmed still comes.
    pub(crate) fn unsubscribe(&mut self) {
        self.subscription = None;
    }

    /// What has come and was not looked at.
    pub(crate) fn waiting(&mut self) -> Vec<Delivery> {
        let mut cx = std::task::Context::from_waker(Waker::noop());
        let mut waiting = Vec::new();
        while let Poll::Ready(Some(delivery)) = Pin::new(&mut self.inbox).poll_next(&mut cx) {
            waiting.push(delivery);
        }
        waiting
    }
}
