//! The server: commands, frames and time in; frames and events out.

mod registry;
mod request;

use alloc::vec::Vec;

use bytes::Bytes;
use psrpc_proto::{Channel, ErrorResponse, Frame, IdGenerator, Request, Seed, Text};

use self::registry::{Carries, Registry};
use self::request::Requests;
use crate::config::ServerConfig;
use crate::dedup::BucketKey;
use crate::engine::Engine;
use crate::error::{BusError, ConfigError, RegisterError};
use crate::event::ServerEvent;
use crate::map::HashKeys;
use crate::output::{self, Publish};
use crate::route::{check_own_id, check_service};
use crate::timers::{TimerId, TimerKind};
use crate::{
    Counters, Dropped, Now, Output, Reason, RegistrationHandle, RequestHandle, Route, SubscriptionHandle,
    Timeout, Token, incoming,
};

/// The server's side of the protocol for one service (PROTOCOL sections 5 and 6). Drive it as [`Engine`] says.
pub struct Server {
    config: ServerConfig,
    phase: Phase,
    registry: Registry,
    requests: Requests,
    io: Io,
}

type Io = output::Io<ServerEvent, Owner>;

/// What a timer of a server is for.
#[derive(Clone, Copy)]
enum Owner {
    Request(RequestHandle),
    Bucket(BucketKey),
    Drain,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// It takes no new registrations, and is closed when nothing is in flight and those that it has are gone. Once the
    /// timer has fired it takes no requests either, and does not wait for the bus to confirm that there are none.
    Draining {
        timer: Option<TimerId>,
    },
    Closed,
}

impl Server {
    /// A server that draws its id and hashes from `seed`. It serves nothing until it is told to
    /// [`register`](Self::register).
    ///
    /// # Errors
    ///
    /// When the service or the id cannot be carried by every bus.
    pub fn new(mut config: ServerConfig, seed: Seed) -> Result<Self, ConfigError> {
        check_service(config.service.as_str())?;
        let mut ids = IdGenerator::new(seed);
        let keys = HashKeys { first: ids.bits(), second: ids.bits() };
        if config.id.is_empty() {
            config.id = ids.server();
        }
        check_own_id(&config.id, config.limits.frame.id_bytes)?;
        Ok(Self {
            phase: Phase::Open,
            registry: Registry::new(keys),
            requests: Requests::new(keys, &config),
            io: Io::new(),
            config,
        })
    }

    /// Its id on the wire.
    pub fn id(&self) -> &Text {
        &self.config.id
    }

    /// Its service, by the name on the wire.
    pub fn service(&self) -> &Text {
        &self.config.service
    }

    /// How many requests are in flight: decided upon, bid for, running, or answered while the bus has no room for the
    /// response.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// How many requests it remembers, so that none runs twice.
    pub fn remembered(&self) -> usize {
        self.requests.remembered()
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.io.counters
    }

    /// Serves methods, all or none of them, from [`ServerEvent::Registered`] on.
    ///
    /// # Errors
    ///
    /// When a method is served already on that topic or would share a channel with one that is, or the server is
    /// closed; nothing is subscribed then.
    pub fn register(&mut self, routes: Vec<Route>) -> Result<RegistrationHandle, RegisterError> {
        if self.phase != Phase::Open {
            return Err(RegisterError::Closed);
        }
        if let Some(route) = routes.iter().find(|route| *route.service() != self.config.service) {
            let (route, service) = (route.clone(), self.config.service.clone());
            return Err(RegisterError::WrongService { route, service });
        }
        self.registry.register(&mut self.io, routes)
    }

    /// Stops to serve methods that were registered together. What the bus has delivered until it confirms is still
    /// served; [`ServerEvent::Deregistered`] comes when none of it is in flight any more.
    pub fn deregister(&mut self, registration: RegistrationHandle) {
        self.registry.deregister(&mut self.io, registration);
    }

    /// Bids for a request with an affinity: more is better. Below 0, or not finite, is no bid: the request is
    /// abandoned. A request that requires no claim runs at once.
    ///
    /// Ignored unless the request waits for it ([`is_waiting`](Self::is_waiting)).
    pub fn bid(&mut self, now: Now, request: RequestHandle, affinity: f32) {
        let (requests, mut cx) = self.split(now);
        requests.bid(&mut cx, request, affinity);
        self.close_if_drained();
    }

    /// Whether a request waits for the layer above to [`bid`](Self::bid), [`elect`](Self::elect) or
    /// [`reject`](Self::reject): not if it was abandoned meanwhile.
    pub fn is_waiting(&self, request: RequestHandle) -> bool {
        self.requests.is_deciding(request)
    }

    /// Runs a request at once, announcing so instead of waiting for a grant, if its client and method allow it
    /// ([`Received::may_elect`](crate::Received::may_elect)); bids 1 otherwise.
    ///
    /// Ignored unless the request waits for a bid.
    pub fn elect(&mut self, now: Now, request: RequestHandle) {
        let (requests, mut cx) = self.split(now);
        requests.elect(&mut cx, request);
        self.close_if_drained();
    }

    /// Answers a request with an error instead of bidding for it, since it does not decode.
    ///
    /// Ignored unless the request waits for a bid.
    pub fn reject(&mut self, now: Now, request: RequestHandle, error: ErrorResponse) {
        let (requests, mut cx) = self.split(now);
        requests.reject(&mut cx, request, error);
        self.close_if_drained();
    }

    /// Answers a request whose handler is done. Past its deadline nothing is published. A result that is larger than a
    /// frame may be becomes an error, `resource_exhausted`, since no client would read it.
    ///
    /// Ignored unless the request runs.
    pub fn respond(&mut self, now: Now, request: RequestHandle, result: Result<Bytes, ErrorResponse>) {
        let (requests, mut cx) = self.split(now);
        requests.respond(&mut cx, request, result);
        self.close_if_drained();
    }

    /// Shuts the server down without losing what it has accepted: it unsubscribes, serves what was delivered until
    /// the bus has confirmed that, and is [closed](ServerEvent::Closed) when nothing is in flight and every response
    /// has left. A bid may still be granted, so it is waited for as a handler is. If the bus does not confirm within
    /// the configured timeout, nothing more is accepted from it; so the server is closed after that timeout or by the
    /// expiry of the last request that it accepted, whichever is later.
    pub fn drain(&mut self, now: Now) {
        if self.phase != Phase::Open {
            return;
        }
        let at = now.time + self.config.drain_timeout;
        let timer = Some(self.io.timers.arm(at, TimerKind::Drain, Owner::Drain));
        self.phase = Phase::Draining { timer };
        self.registry.deregister_all(&mut self.io);
        self.close_if_drained();
    }

    /// Shuts the server down at once: requests in flight are abandoned and answered by nothing.
    pub fn kill(&mut self) {
        if self.phase != Phase::Closed {
            self.requests.abandon_all(&mut self.io);
            self.close();
        }
    }

    fn close_if_drained(&mut self) {
        if let Phase::Draining { timer } = self.phase {
            if self.requests.len() == 0 && (self.registry.is_empty() || timer.is_none()) {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        if let Phase::Draining { timer: Some(timer) } = core::mem::replace(&mut self.phase, Phase::Closed) {
            self.io.timers.disarm(timer);
        }
        self.registry.forget(&mut self.io);
        self.requests.forget(&mut self.io);
        self.io.withdraw(|_| false);
        self.io.event(ServerEvent::Closed);
    }

    fn split(&mut self, now: Now) -> (&mut Requests, Context<'_>) {
        let Self { requests, registry, io, config, .. } = self;
        (requests, Context { now, io, registry, config })
    }
}

/// What a request needs of the rest of the server.
struct Context<'a> {
    now: Now,
    io: &'a mut Io,
    registry: &'a mut Registry,
    config: &'a ServerConfig,
}

impl Engine for Server {
    type Event = ServerEvent;

    fn handle_subscribed(&mut self, _: Now, subscription: SubscriptionHandle, result: Result<(), BusError>) {
        match result {
            Ok(()) => self.registry.on_live(&mut self.io, subscription),
            Err(error) => self.registry.on_ended(&mut self.io, subscription, Some(error)),
        }
        self.close_if_drained();
    }

    fn handle_unsubscribed(&mut self, _: Now, subscription: SubscriptionHandle) {
        self.registry.on_ended(&mut self.io, subscription, None);
        self.close_if_drained();
    }

    fn handle_gap(&mut self, _: Now, subscription: SubscriptionHandle, lost: Option<u64>) {
        if self.registry.knows(subscription) {
            self.io.counters.lost += lost.unwrap_or(1);
            self.io.event(ServerEvent::Gap { subscription, lost });
        }
    }

    fn handle_published(&mut self, now: Now, token: Token, result: Result<Option<u64>, BusError>) {
        let (requests, mut cx) = self.split(now);
        match token.0 {
            Publish::Bid(request) if result.is_err() => requests.on_bid_failed(&mut cx, request),
            Publish::Response(request) => requests.on_response_published(&mut cx, request, result.is_ok()),
            Publish::Announcement(request) if result.is_err() => {
                let request_id = requests.id(request);
                self.io.dropped(Dropped::of(Reason::PublishFailed, request_id, Text::EMPTY));
            }
            Publish::Refusal if result.is_err() => {
                self.io.dropped(Dropped::of(Reason::PublishFailed, Text::EMPTY, Text::EMPTY));
            }
            _ => {}
        }
        self.close_if_drained();
    }

    fn handle_frame(&mut self, now: Now, subscription: SubscriptionHandle, frame: Frame) {
        let Some((role, route)) = self.registry.role(subscription) else { return };
        let route = route.clone();
        let Some(frame) = incoming::accept(&mut self.io, frame, &self.config.limits.frame) else { return };
        let deaf = self.phase == Phase::Draining { timer: None };
        let (requests, mut cx) = self.split(now);
        match (role.carries, frame) {
            (Carries::Requests, Frame::Request(Request { request_id, client_id, .. })) if deaf => {
                cx.io.dropped(Dropped::of(Reason::Draining, request_id, client_id));
            }
            (Carries::Requests, Frame::Request(request)) => {
                requests.on_request(&mut cx, role.registration, route, request);
            }
            (Carries::Grants, Frame::ClaimResponse(grant)) => requests.on_grant(&mut cx, grant),
            (_, frame) => incoming::unexpected(&mut self.io, &frame),
        }
        self.close_if_drained();
    }

    fn handle_untaken(&mut self, now: Now, subscription: SubscriptionHandle, frame: Frame) {
        let Some((role, _)) = self.registry.role(subscription) else { return };
        let carries = role.carries;
        let Some(frame) = incoming::accept(&mut self.io, frame, &self.config.limits.frame) else { return };
        match (carries, frame) {
            (Carries::Requests, Frame::Request(request)) => {
                let (requests, mut cx) = self.split(now);
                requests.on_untaken(&mut cx, request);
            }
            (_, frame) => incoming::drop_frame(&mut self.io, &frame, Reason::Untaken),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        while let Some((owner, _)) = self.io.timers.fire(now.time) {
            let (requests, mut cx) = self.split(now);
            match owner {
                Owner::Request(request) => requests.on_timeout(&mut cx, request),
                Owner::Bucket(bucket) => requests.on_forget(&mut cx, bucket),
                Owner::Drain => self.phase = Phase::Draining { timer: None },
            }
            self.close_if_drained();
        }
    }

    fn handle_full(&mut self, token: Token, channel: Channel, frame: Frame) {
        self.io.block(token, channel, frame);
        if self.phase == Phase::Closed {
            self.io.withdraw(|_| false);
        }
    }

    fn handle_room(&mut self) {
        self.io.unblock();
    }

    fn poll_output(&mut self) -> Option<Output<ServerEvent>> {
        let requests = &self.requests;
        self.io.pop(|publish| match publish {
            // An announcement is no use without its response, nor a response past its request's expiry.
            Publish::Bid(request) | Publish::Announcement(request) | Publish::Response(request) => {
                requests.contains(request)
            }
            Publish::Refusal | Publish::Request(_) | Publish::Grant(_) => true,
        })
    }

    fn poll_timeout(&self) -> Option<Timeout> {
        self.io.timers.next()
    }
}
