//! A harness that drives a client or server by hand, in virtual time.

use std::time::Duration;

use psrpc_engine::proto::{
    Channel, ClaimRequest, ClaimResponse, ErrorResponse, Frame, MethodProperties, Request, Response, Routing,
    Text,
};
use psrpc_engine::{
    BusError, Call, CallHandle, Client, ClientConfig, ClientEvent, Dropped, Engine, Failure, Now, Output,
    Reason, Received, RegistrationHandle, Reply, RequestHandle, Route, Server, ServerConfig, ServerEvent,
    SubscriptionHandle, SubscriptionKind, Time, Token, WallTime,
};

pub const QUEUE: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: true };
pub const AFFINITY: MethodProperties = MethodProperties { routing: Routing::Affinity, require_claim: true };
pub const MULTI: MethodProperties = MethodProperties { routing: Routing::Multi, require_claim: false };
pub const SINGLE: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: false };

/// The start of virtual wall time, in Unix nanoseconds.
pub const EPOCH: i64 = 1_795_345_422_000_000_000;

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn at(after: Duration) -> Now {
    Now { time: Time::ZERO + after, wall: WallTime::from_unix_nanos(EPOCH) + after }
}

pub fn route(method: &str, properties: MethodProperties) -> Route {
    Route::new::<&str>("Hats", method, properties, &[]).unwrap()
}

pub fn topic_route(method: &str, properties: MethodProperties, topic: &[&str]) -> Route {
    Route::new("Hats", method, properties, topic).unwrap()
}

/// Takes all outputs, except frames to publish.
pub fn all_outputs<E: Engine>(engine: &mut E) -> Vec<Output<E::Event>> {
    std::iter::from_fn(|| engine.poll_output()).collect()
}

/// Takes all frames to publish.
pub fn all_published<E: Engine>(engine: &mut E) -> Published {
    std::iter::from_fn(|| next_published(engine)).collect()
}

/// Takes the next frame to publish.
pub fn next_published<E: Engine>(engine: &mut E) -> Option<(Token, Channel, Frame)> {
    let outgoing = engine.poll_publish()?;
    let token = outgoing.token();
    let (channel, frame) = outgoing.take();
    Some((token, channel, frame))
}

/// Polls the next frame, refuses it as a full bus would, and returns a copy of it.
pub fn refuse_next<E: Engine>(engine: &mut E) -> Option<Frame> {
    let frame = engine.poll_publish()?.frame().clone();
    engine.handle_full();
    Some(frame)
}

/// Returns `true` if an engine has no output and no frame to publish.
pub fn is_idle<E: Engine>(engine: &mut E) -> bool {
    engine.poll_output().is_none() && engine.poll_publish().is_none()
}

/// Published frames, each with its token and channel.
pub type Published = Vec<(Token, Channel, Frame)>;

/// An engine with its clock, its subscriptions and its collected outputs.
pub struct Driven<E: Engine> {
    pub engine: E,
    pub now: Now,
    /// The wall clock at the start of virtual time, in Unix nanoseconds.
    pub epoch: i64,
    pub subscriptions: Vec<(SubscriptionHandle, Channel, SubscriptionKind)>,
    pub unsubscribed: Vec<SubscriptionHandle>,
    /// How many subscribers each frame reaches, if the bus knows.
    pub receivers: Option<u64>,
    published: Published,
    events: Vec<E::Event>,
}

impl<E: Engine> Driven<E> {
    pub fn new(engine: E) -> Self {
        let (now, subscriptions, unsubscribed) = (at(Duration::ZERO), Vec::new(), Vec::new());
        let mut driven = Self {
            engine,
            now,
            epoch: EPOCH,
            subscriptions,
            unsubscribed,
            receivers: None,
            published: Vec::new(),
            events: Vec::new(),
        };
        driven.drain();
        driven
    }

    /// Takes every output and frame, and reports each new subscription as live and each frame as
    /// published.
    pub fn drain(&mut self) {
        loop {
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Subscribe { subscription, channel, kind } => {
                        self.subscriptions.push((subscription, channel, kind));
                        self.engine.handle_subscribed(self.now, subscription, Ok(()));
                    }
                    Output::Unsubscribe { subscription } => self.unsubscribed.push(subscription),
                    Output::Event(event) => self.events.push(event),
                }
            }
            let Some(published) = next_published(&mut self.engine) else { return };
            self.engine.handle_published(self.now, published.0, Ok(self.receivers));
            self.published.push(published);
        }
    }

    /// Advances time, and fires every timer at its own time.
    pub fn advance_to(&mut self, after: Duration) {
        let until = self.at(after);
        while let Some(timeout) = self.engine.poll_timeout().filter(|timeout| timeout.at <= until.time) {
            self.now = self.at(timeout.at.since(Time::ZERO).max(self.now.time.since(Time::ZERO)));
            while self.engine.handle_timeout(self.now).is_more() {
                self.drain();
            }
            self.drain();
        }
        self.now = until;
    }

    fn at(&self, after: Duration) -> Now {
        Now { time: Time::ZERO + after, wall: WallTime::from_unix_nanos(self.epoch) + after }
    }

    pub fn subscription(&self, channel: &str) -> SubscriptionHandle {
        let found = self.subscriptions.iter().rev().find(|(_, name, _)| name.legacy() == channel);
        found.unwrap_or_else(|| panic!("no subscription to {channel}: {:?}", self.subscriptions)).0
    }

    pub fn frame(&mut self, channel: &str, frame: Frame) {
        self.deliver(self.subscription(channel), frame);
    }

    pub fn deliver(&mut self, subscription: SubscriptionHandle, frame: Frame) {
        self.engine.handle_frame(self.now, subscription, frame);
        self.drain();
    }

    /// Reports a subscription as interrupted, with the error of the bus.
    pub fn interrupt(&mut self, channel: &str, cause: &'static str) {
        self.engine.handle_interrupted(self.now, self.subscription(channel), BusError::new(cause));
        self.drain();
    }

    /// Reports a subscription as live again.
    pub fn resume(&mut self, channel: &str) {
        self.engine.handle_subscribed(self.now, self.subscription(channel), Ok(()));
        self.drain();
    }

    /// Returns the time of the next timer, if it fires at or before `until`.
    pub fn next_timeout(&self, until: Duration) -> Option<Duration> {
        let next = self.engine.poll_timeout()?.at.since(Time::ZERO);
        (next <= until).then_some(next)
    }

    /// Confirms every pending unsubscribe.
    pub fn confirm_unsubscribed(&mut self) {
        for subscription in std::mem::take(&mut self.unsubscribed) {
            self.engine.handle_unsubscribed(self.now, subscription);
        }
        self.drain();
    }

    pub fn published(&mut self) -> Published {
        std::mem::take(&mut self.published)
    }

    /// Takes the frames published so far, each with its channel.
    pub fn frames(&mut self) -> Vec<(String, Frame)> {
        self.published().into_iter().map(|(_, channel, frame)| (channel.legacy().to_owned(), frame)).collect()
    }

    pub fn events(&mut self) -> Vec<E::Event> {
        std::mem::take(&mut self.events)
    }
}

impl Driven<Client> {
    pub fn client() -> Self {
        Self::client_with(ClientConfig::new("Hats"))
    }

    pub fn client_with(mut config: ClientConfig) -> Self {
        config.id = "CLI_1".into();
        let mut client = Self::new(Client::new(config, [7; 32]).unwrap());
        assert!(matches!(client.events()[..], [ClientEvent::Ready]));
        client
    }

    pub fn call(&mut self, call: Call) -> CallHandle {
        let handle = self.engine.call(self.now, call).unwrap();
        self.drain();
        handle
    }

    /// Makes a call, and returns its handle and its request.
    pub fn request(&mut self, call: Call) -> (CallHandle, Request) {
        let handle = self.call(call);
        let requests = self.frames().into_iter().filter_map(|(_, frame)| match frame {
            Frame::Request(request) => Some(request),
            _ => None,
        });
        (handle, requests.last().expect("a call publishes a request"))
    }

    pub fn bid(&mut self, request: &Request, server: &str, affinity: f32) {
        self.claim(request, server, affinity, false);
    }

    pub fn announce(&mut self, request: &Request, server: &str) {
        self.claim(request, server, 1.0, true);
    }

    fn claim(&mut self, request: &Request, server: &str, affinity: f32, handling: bool) {
        let (request_id, server_id) = (request.request_id.clone(), server.into());
        let claim = ClaimRequest { request_id, server_id, affinity, handling };
        self.frame("Hats|CLI_1|CLAIM", Frame::ClaimRequest(claim));
    }

    pub fn response(&mut self, request: &Request, server: &str, result: Result<&'static str, ErrorResponse>) {
        let (request_id, server_id) = (request.request_id.clone(), server.into());
        let result = result.map(|payload| payload.as_bytes().into());
        let response = Response { request_id, server_id, sent_at: EPOCH, result };
        self.frame("Hats|CLI_1|RES", Frame::Response(response));
    }

    /// Takes the published frames, and returns the servers that they grant.
    pub fn granted(&mut self) -> Vec<Text> {
        let grants = self.frames().into_iter().filter_map(|(_, frame)| match frame {
            Frame::ClaimResponse(grant) => Some(grant.server_id),
            _ => None,
        });
        grants.collect()
    }

    /// Takes the events, and returns the outcome of the one call that resolved, if any.
    pub fn outcome(&mut self) -> Option<Result<Reply, Box<Failure>>> {
        let mut outcomes = self.events().into_iter().filter_map(|event| match event {
            ClientEvent::Resolved { outcome, .. } => Some(outcome),
            _ => None,
        });
        let outcome = outcomes.next();
        assert!(outcomes.next().is_none(), "a call resolves once");
        outcome
    }

    pub fn failure(&mut self) -> Box<Failure> {
        self.outcome().expect("the call is over").expect_err("the call fails")
    }

    pub fn dropped(&mut self) -> Vec<Reason> {
        let dropped = self.events().into_iter().filter_map(|event| match event {
            ClientEvent::Dropped(Dropped { reason, .. }) => Some(reason),
            _ => None,
        });
        dropped.collect()
    }
}

impl Driven<Server> {
    pub fn server(routes: &[Route]) -> Self {
        Self::server_with(ServerConfig::new("Hats"), routes)
    }

    pub fn server_with(mut config: ServerConfig, routes: &[Route]) -> Self {
        config.id = "SRV_1".into();
        let mut server = Self::new(Server::new(config, [8; 32]).unwrap());
        for route in routes {
            server.register(std::slice::from_ref(route));
        }
        server.events();
        server
    }

    pub fn register(&mut self, routes: &[Route]) -> RegistrationHandle {
        let registration = self.engine.register(routes.to_vec()).unwrap();
        self.drain();
        registration
    }

    /// Delivers a request for a method without topics that expires after `timeout`.
    pub fn receive(&mut self, method: &str, id: &str, timeout: Duration) {
        let request = self.new_request(id, timeout);
        self.frame(&format!("Hats|{method}|REQ"), Frame::Request(request));
    }

    pub fn new_request(&self, id: &str, timeout: Duration) -> Request {
        Request {
            request_id: id.into(),
            client_id: "CLI_1".into(),
            sent_at: self.now.wall.as_unix_nanos(),
            expiry: (self.now.wall + timeout).as_unix_nanos(),
            ..Request::default()
        }
    }

    /// Takes the events, and returns the requests that need a bid.
    pub fn received(&mut self) -> Vec<Received> {
        let received = self.events().into_iter().filter_map(|event| match event {
            ServerEvent::Received(received) => Some(received),
            _ => None,
        });
        received.collect()
    }

    /// Delivers a request, and returns its handle.
    pub fn accept(&mut self, method: &str, id: &str, timeout: Duration) -> RequestHandle {
        self.receive(method, id, timeout);
        let received = self.received();
        assert_eq!(received.len(), 1, "the request comes in");
        received[0].request
    }

    pub fn bid(&mut self, request: RequestHandle, affinity: f32) {
        self.engine.bid(self.now, request, affinity);
        self.drain();
    }

    pub fn respond(&mut self, request: RequestHandle) {
        self.engine.respond(self.now, request, Ok("done".into()));
        self.drain();
    }

    pub fn grant(&mut self, method: &str, id: &str, server: &str) {
        let grant = ClaimResponse { request_id: id.into(), server_id: server.into() };
        self.frame(&format!("Hats|{method}|RCLAIM"), Frame::ClaimResponse(grant));
    }

    /// Takes the events, and returns those that start or end a request.
    pub fn request_events(&mut self) -> Vec<RequestEvent> {
        let events = self.events().into_iter().filter_map(|event| match event {
            ServerEvent::Run { .. } => Some(RequestEvent::Run),
            ServerEvent::Abandoned { reason, .. } => Some(RequestEvent::Abandoned(reason)),
            ServerEvent::Dropped(dropped) => Some(RequestEvent::Dropped(dropped.reason)),
            _ => None,
        });
        events.collect()
    }
}

/// An event that starts or ends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEvent {
    Run,
    Abandoned(Reason),
    Dropped(Reason),
}
