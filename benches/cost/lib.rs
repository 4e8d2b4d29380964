//! Set-ups for benches: a client and a server of the engine connected by the shortest possible bus,
//! and clients and servers with drivers on the in-process bus.

mod bids;
mod driver;
mod idle;
pub mod messages;
mod streams;

use std::time::Duration;

use psrpc_engine::proto::{Frame, MethodProperties};
use psrpc_engine::{
    Call, Client, ClientConfig, ClientEvent, ClientLimits, Engine, Now, Output, Route, Server, ServerConfig,
    ServerEvent, ServerLimits, SubscriptionHandle, Time, WallTime,
};

pub use bids::Bids;
pub use driver::{BusQueue, Driven};
pub use idle::{IdleClient, IdleServer};
pub use streams::Streams;

/// The time at which measured engines start.
pub const START: Now = Now { time: Time::ZERO, wall: WallTime::from_unix_nanos(1_795_345_422_000_000_000) };

/// The time between two measured operations.
const STEP: Duration = Duration::from_micros(50);

/// A client and a server after their first calls, so that their tables have reached their final
/// size.
pub struct Pair {
    client: Client,
    server: Server,
    route: Route,
    now: Now,
    bids: SubscriptionHandle,
    responses: SubscriptionHandle,
    requests: SubscriptionHandle,
    grants: Option<SubscriptionHandle>,
}

impl Pair {
    /// Creates a pair for one method.
    pub fn new(properties: MethodProperties) -> Self {
        let route = Route::new::<&str>("Hats", "Fit", properties, &[]).expect("the names are valid");
        let mut client = Client::new(ClientConfig::new("Hats"), [1; 32]).expect("a client");
        let limits = ServerLimits { requests: ClientLimits::DEFAULT.calls, ..ServerLimits::DEFAULT };
        let config = ServerConfig { limits, ..ServerConfig::new("Hats") };
        let mut server = Server::new(config, [2; 32]).expect("a server");
        server.register(vec![route.clone()]).expect("a registration");
        let now = START;
        let at_client = subscribe(&mut client, now);
        let at_server = subscribe(&mut server, now);
        let (bids, responses) = (at_client[0], at_client[1]);
        let (requests, grants) = match at_server[..] {
            [grants, requests] => (requests, Some(grants)),
            _ => (at_server[0], None),
        };
        let mut pair = Self { client, server, route, now, bids, responses, requests, grants };
        for _ in 0..1000 {
            pair.call();
        }
        pair
    }

    /// Creates a pair with `count` calls in flight, whose handlers keep running.
    pub fn crowded(properties: MethodProperties, count: usize) -> Self {
        let mut pair = Self::new(properties);
        for _ in 0..count {
            pair.carry(Some(Duration::from_secs(60)), Handler::Runs);
        }
        pair
    }

    /// Makes one call, from the command to the response.
    pub fn call(&mut self) {
        self.carry(None, Handler::Responds);
    }

    fn carry(&mut self, timeout: Option<Duration>, handler: Handler) {
        self.now = later(self.now, STEP);
        let payload = b"a message of sixty-four bytes, which is about what many calls have".as_slice();
        let call = Call { timeout, ..Call::new(self.route.clone(), payload) };
        self.client.call(self.now, call).expect("a call");
        let mut done = false;
        while !done {
            // Outputs are matched and frames passed on directly, since binding each to a variable
            // would copy it.
            loop {
                loop {
                    match self.client.poll_output() {
                        None => break,
                        Some(Output::Event(ClientEvent::Resolved { outcome, .. })) => {
                            done = outcome.is_ok();
                            assert!(done, "the call was not answered");
                        }
                        Some(_) => {}
                    }
                }
                let Some(outgoing) = self.client.poll_publish() else { break };
                let token = outgoing.token();
                let request = matches!(outgoing.frame(), Frame::Request(_));
                let to = if request { Some(self.requests) } else { self.grants };
                self.server.handle_frame(self.now, to.expect("a subscription"), outgoing.take().1);
                self.client.handle_published(self.now, token, Ok(None));
            }
            loop {
                loop {
                    match self.server.poll_output() {
                        None => break,
                        Some(Output::Event(ServerEvent::Received(received))) => {
                            self.server.bid(self.now, received.request, 1.0);
                        }
                        Some(Output::Event(ServerEvent::Run { request })) => match handler {
                            Handler::Responds => self.server.respond(self.now, request, Ok(payload.into())),
                            Handler::Runs => done = true,
                        },
                        Some(_) => {}
                    }
                }
                let Some(outgoing) = self.server.poll_publish() else { break };
                let token = outgoing.token();
                let bid = matches!(outgoing.frame(), Frame::ClaimRequest(_));
                let to = if bid { self.bids } else { self.responses };
                self.client.handle_frame(self.now, to, outgoing.take().1);
                self.server.handle_published(self.now, token, Ok(None));
            }
        }
    }
}

/// Adds a duration to both clocks.
pub fn later(now: Now, by: Duration) -> Now {
    Now { time: now.time + by, wall: now.wall + by }
}

/// The behaviour of a handler.
#[derive(Clone, Copy)]
enum Handler {
    Responds,
    Runs,
}

/// Returns `true` if an engine has no outputs.
pub(crate) fn is_idle<E: Engine>(engine: &mut E) -> bool {
    engine.poll_output().is_none() && engine.poll_publish().is_none()
}

pub(crate) fn subscribe<E: Engine>(engine: &mut E, now: Now) -> Vec<SubscriptionHandle> {
    let mut subscriptions = Vec::new();
    while let Some(output) = engine.poll_output() {
        if let Output::Subscribe { subscription, .. } = output {
            engine.handle_subscribed(now, subscription, Ok(()));
            subscriptions.push(subscription);
        }
    }
    subscriptions
}
