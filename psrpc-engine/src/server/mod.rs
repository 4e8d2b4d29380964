//! The server: commands, frames and time in; frames and events out.

mod context;
mod drain;
mod names;
mod registry;
mod request;
mod role;
mod side;
mod stream;
mod updates;

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;
use psrpc_proto::{Any, ErrorResponse, Frame, IdGenerator, Request, Seed, Stream, StreamBody, Text};

use self::context::{Context, stream_rules};
use self::drain::{Cause, Ending, Endings, Phase};
use self::registry::Registry;
use self::request::{Incoming, Requests};
use self::role::Carries;
pub use self::side::ServerSide;
use self::side::{Outputs, Owner, ServerStreams};
use self::updates::Updates;
use crate::config::{ConfigError, ServerConfig};
use crate::core::budget::{Budget, Due};
use crate::core::bus_error::BusError;
use crate::core::handle::{
    RegistrationHandle, RequestHandle, StreamHandle, SubscriptionHandle, UpdateHandle,
};
use crate::core::map::HashKeys;
use crate::core::outputs::{LentFrame, Output, Publish, Token};
use crate::core::time::Now;
use crate::core::timers::{Timeout, TimerKind};
use crate::engine::Engine;
use crate::error::{RegisterError, UpdateError};
use crate::event::ServerEvent;
use crate::reason::{Counters, Dropped, Reason};
use crate::stream::Streams;
use crate::stream::commands::StreamCommands;
use crate::wire::incoming;
use crate::wire::route::{Route, check_own_id, check_service};

/// The server's side of the protocol for one service (PROTOCOL sections 5 to 9). [`Engine`] states
/// how to drive it.
pub struct Server {
    config: ServerConfig,
    ids: IdGenerator,
    phase: Phase,
    registry: Registry,
    requests: Requests,
    streams: ServerStreams,
    updates: Updates,
    endings: Endings,
    outputs: Outputs,
}

impl Server {
    /// Creates a server that draws its id and hash keys from `seed`. It serves nothing until
    /// [`register`](Self::register) is called.
    ///
    /// # Errors
    ///
    /// Returns an error if not every bus can carry the service or the id, or if a limit is out of
    /// range.
    pub fn new(mut config: ServerConfig, seed: Seed) -> Result<Self, ConfigError> {
        check_service(config.service.as_str())?;
        let mut ids = IdGenerator::new(seed);
        let keys = HashKeys::draw(&mut ids);
        if config.id.is_empty() {
            config.id = ids.server();
        }
        check_own_id(&config.id, config.limits.frame.id_bytes)?;
        config.limits.streams.check()?;
        Ok(Self {
            phase: Phase::Open,
            registry: Registry::new(keys.clone()),
            requests: Requests::new(keys.clone(), &config),
            streams: Streams::new(keys, config.limits.streams),
            updates: Updates::new(),
            endings: Endings::new(),
            outputs: Outputs::new(),
            ids,
            config,
        })
    }

    /// Returns the server's id on the wire.
    pub fn id(&self) -> &Text {
        &self.config.id
    }

    /// Returns the service, by its name on the wire.
    pub fn service(&self) -> &Text {
        &self.config.service
    }

    /// Returns the number of requests in flight: those the server decides on, has bid for, or runs,
    /// and those whose response waits for the bus.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Returns the number of streams, including ended ones whose handlers are not done.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Returns the number of stream messages that wait to be sent or acknowledged.
    pub fn sending(&self) -> usize {
        self.streams.sending()
    }

    /// Returns the number of updates that wait for the bus.
    pub fn publishing(&self) -> usize {
        self.updates.len()
    }

    /// Returns the number of stream messages that are held back until their consumers have room.
    pub fn held(&self) -> usize {
        self.streams.held()
    }

    /// Returns the number of requests and stream messages remembered so that none runs or is
    /// delivered twice.
    pub fn remembered(&self) -> usize {
        self.requests.remembered() + self.streams.remembered()
    }

    /// Returns the counters.
    pub fn counters(&self) -> &Counters {
        &self.outputs.counters
    }

    /// Registers methods, all or none of them. They are served from [`ServerEvent::Registered`] on.
    ///
    /// # Errors
    ///
    /// Returns an error if a method is already registered on its topic, would share a channel with
    /// a registered method or belongs to another service, or if the server is closed; nothing is
    /// subscribed then.
    pub fn register(&mut self, routes: Vec<Route>) -> Result<RegistrationHandle, RegisterError> {
        if let Some(closed) = self.closed() {
            return Err(closed);
        }
        if let Some(route) = routes.iter().find(|route| *route.service() != self.config.service) {
            let (route, service) = (route.clone(), self.config.service.clone());
            return Err(RegisterError::WrongService { route, service });
        }
        self.registry.register(&mut self.outputs, routes)
    }

    /// Returns the registration of these methods, if they were registered together, in this order,
    /// and the registration has not ended. Returns `None` for an empty slice.
    pub fn registration(&self, routes: &[Route]) -> Option<RegistrationHandle> {
        self.registry.find(routes)
    }

    /// Returns `true` if a method is registered on its topic, alone or with others, so that it
    /// cannot be registered again. The registration may still be starting or ending.
    pub fn serves(&self, route: &Route) -> bool {
        self.registry.registration_of(route).is_some()
    }

    /// Ends a registration. Requests that the bus delivers until it confirms the end of the
    /// subscriptions are still served, while streams end with "EOF". [`ServerEvent::Deregistered`]
    /// follows when none of its requests is in flight and the stream handlers are done. If the
    /// registration was not complete yet, [`ServerEvent::Registered`] follows instead, with an
    /// error.
    pub fn deregister(&mut self, now: Now, registration: RegistrationHandle) {
        self.registry.deregister(&mut self.outputs, registration);
        self.end_streams_of(now, registration);
    }

    /// Returns the error of new registrations if the server is shutting down or closed.
    pub fn closed(&self) -> Option<RegisterError> {
        match self.phase {
            Phase::Open => None,
            _ if self.is_abandoned() => Some(RegisterError::RuntimeEnded),
            Phase::Draining { .. } | Phase::Closing(_) | Phase::Closed(_) => Some(RegisterError::Closed),
        }
    }

    /// Returns the bus's error while subscriptions are interrupted, so that requests may not reach
    /// the server.
    pub fn interruption(&self) -> Option<&BusError> {
        self.registry.interruption()
    }

    /// Returns `true` if the server was abandoned, because its runtime has shut down or its
    /// background task has ended ([`abandon`](Engine::abandon)).
    pub fn is_abandoned(&self) -> bool {
        matches!(self.phase, Phase::Closing(Cause::RuntimeEnded) | Phase::Closed(Cause::RuntimeEnded))
    }

    /// Bids for a request with an affinity; higher is better. An affinity below 0 or not finite
    /// makes no bid and abandons the request. A request that requires no claim runs at once.
    ///
    /// Does nothing unless the request [waits for a decision](Self::is_waiting).
    pub fn bid(&mut self, now: Now, request: RequestHandle, affinity: f32) {
        let (requests, mut cx) = self.split(now);
        requests.bid(&mut cx, request, affinity);
        self.close_if_drained(now);
    }

    /// Returns `true` if a request waits for [`bid`](Self::bid), [`skip_claim`](Self::skip_claim)
    /// or [`reject`](Self::reject), and was not abandoned.
    pub fn is_waiting(&self, request: RequestHandle) -> bool {
        self.requests.is_deciding(request)
    }

    /// Runs a request at once, and announces that instead of waiting for a grant, if its client and
    /// method allow it ([`Received::may_skip_claim`](crate::Received::may_skip_claim)). Otherwise
    /// bids 1.
    ///
    /// Does nothing unless the request [waits for a decision](Self::is_waiting).
    pub fn skip_claim(&mut self, now: Now, request: RequestHandle) {
        let (requests, mut cx) = self.split(now);
        requests.skip_claim(&mut cx, request);
        self.close_if_drained(now);
    }

    /// Answers a request with an error instead of a bid, because it does not decode.
    ///
    /// Does nothing unless the request [waits for a decision](Self::is_waiting).
    pub fn reject(&mut self, now: Now, request: RequestHandle, error: ErrorResponse) {
        let (requests, mut cx) = self.split(now);
        requests.reject(&mut cx, request, error);
        self.close_if_drained(now);
    }

    /// Answers a request whose handler is done. Nothing is published after the request's deadline.
    /// A result that exceeds the frame limit is replaced by the error `resource_exhausted`, because
    /// clients would drop the frame.
    ///
    /// Does nothing unless the request runs.
    pub fn respond(&mut self, now: Now, request: RequestHandle, result: Result<Bytes, ErrorResponse>) {
        let (requests, mut cx) = self.split(now);
        requests.respond(&mut cx, request, result);
        self.close_if_drained(now);
    }

    /// Publishes an update to the subscribers of a route. Unless it is
    /// [canceled](Self::cancel_update), the publish ends with exactly one [`ServerEvent::Updated`],
    /// after `timeout` at the latest; `None` stands for [`ServerConfig::timeout`].
    ///
    /// # Errors
    ///
    /// Returns an error if the update cannot be published or the server is closed.
    pub fn publish(
        &mut self,
        now: Now,
        route: &Route,
        message: Any,
        timeout: Option<Duration>,
    ) -> Result<UpdateHandle, UpdateError> {
        match self.phase {
            Phase::Open | Phase::Draining { .. } => {}
            _ if self.is_abandoned() => return Err(UpdateError::RuntimeEnded),
            Phase::Closing(_) | Phase::Closed(_) => return Err(UpdateError::Closed),
        }
        if *route.service() != self.config.service {
            let (route, service) = (route.clone(), self.config.service.clone());
            return Err(UpdateError::WrongService { route, service });
        }
        let Self { updates, requests: _, registry, outputs, ids, config, streams, .. } = self;
        updates.publish(
            &mut Context { now, outputs, ids, registry, config, streams },
            route,
            message,
            timeout,
        )
    }

    /// Forgets an update without an event. It may still be published.
    pub fn cancel_update(&mut self, now: Now, update: UpdateHandle) {
        self.updates.cancel(&mut self.outputs, update);
        self.close_if_drained(now);
    }

    /// Shuts the server down gracefully. It unsubscribes, serves the requests delivered until the
    /// bus confirms, and is [closed](ServerEvent::Closed) when nothing is in flight and the bus has
    /// taken every response, update and close of a stream. A bid counts as in flight because it may
    /// still be granted.
    ///
    /// If the bus does not confirm within [`ServerConfig::drain_timeout`], the server accepts
    /// nothing more from it. The server therefore closes no later than the latest of these times:
    /// the end of that timeout, the expiry of the last accepted request, the deadline of the last
    /// update, and, if it has streams, the end of [`ServerConfig::linger`].
    ///
    /// Streams end at once, with "EOF" on both sides. Their handlers get [`ServerConfig::linger`]
    /// to finish.
    pub fn drain(&mut self, now: Now) {
        if self.phase != Phase::Open {
            return;
        }
        let timers = &mut self.outputs.timers;
        let timer = Some(timers.arm(now.time + self.config.drain_timeout, TimerKind::Drain, Owner::Drain));
        let linger = Some(timers.arm(now.time + self.config.linger, TimerKind::Linger, Owner::Linger));
        self.phase = Phase::Draining { timer, linger };
        self.endings.extend([Ending::Registrations { cursor: 0 }, Ending::Streams { cursor: 0 }]);
        self.continue_endings(now, &mut Budget::round());
        self.close_if_drained(now);
    }

    /// Shuts the server down at once. Requests in flight are abandoned without a response. Streams
    /// end with "EOF" on both sides, and their handlers are stopped.
    pub fn kill(&mut self, now: Now) {
        self.end_all(now, Cause::Requested);
    }

    fn end_all(&mut self, now: Now, cause: Cause) {
        if let Phase::Closing(_) | Phase::Closed(_) = self.phase {
            return;
        }
        self.endings.clear();
        let streams = [Ending::Streams { cursor: 0 }, Ending::Handlers { cursor: 0 }];
        self.endings.extend([Ending::Requests { cursor: 0 }].into_iter().chain(streams));
        self.close(now, cause);
    }

    fn close_if_drained(&mut self, now: Now) {
        if let Phase::Draining { timer, .. } = self.phase {
            let in_flight =
                self.requests.len() + self.streams.len() + self.updates.len() + self.endings.len();
            // The clients must learn that their streams have ended.
            let confirmed = || self.registry.is_empty() && self.outputs.is_done_with_closes();
            if in_flight == 0 && (timer.is_none() || confirmed()) {
                self.close(now, Cause::Requested);
            }
        }
    }

    /// Closes the server once all queued endings are done.
    fn close(&mut self, now: Now, cause: Cause) {
        if let Phase::Draining { timer, linger } = core::mem::replace(&mut self.phase, Phase::Closing(cause))
        {
            for timer in [timer, linger].into_iter().flatten() {
                self.outputs.timers.disarm(timer);
            }
        }
        let last = [Ending::Subscriptions { cursor: 0 }, Ending::Updates { cursor: 0 }, Ending::Server];
        self.endings.extend(last);
        self.continue_endings(now, &mut Budget::round());
    }

    fn end_streams_of(&mut self, now: Now, registration: RegistrationHandle) {
        self.endings.push(Ending::StreamsOf { registration, remaining: usize::MAX });
        self.continue_endings(now, &mut Budget::round());
    }

    /// Continues the queued endings, as far as the budget allows.
    fn continue_endings(&mut self, now: Now, budget: &mut Budget) {
        let Self { requests, registry, outputs, ids, config, streams, updates, endings, phase } = self;
        let mut cx = Context { now, outputs, ids, registry, config, streams };
        endings.advance(&mut cx, requests, updates, phase, budget);
    }

    fn on_ended(&mut self, now: Now, subscription: SubscriptionHandle, error: Option<BusError>) {
        if let Some(lost) = self.registry.on_ended(&mut self.outputs, subscription, error) {
            self.end_streams_of(now, lost);
        }
    }

    /// Returns `true` if the server ignores all input.
    fn ignores_input(&self) -> bool {
        matches!(self.phase, Phase::Closing(_) | Phase::Closed(_))
    }

    fn split(&mut self, now: Now) -> (&mut Requests, Context<'_>) {
        let Self { requests, registry, outputs, ids, config, streams, .. } = self;
        (requests, Context { now, outputs, ids, registry, config, streams })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("service", self.service())
            .field("id", self.id())
            .field("in_flight", &self.in_flight())
            .field("streams", &self.streams())
            .finish_non_exhaustive()
    }
}

impl Engine for Server {
    type Event = ServerEvent;
    type Side = ServerSide;

    fn handle_subscribed(
        &mut self,
        now: Now,
        subscription: SubscriptionHandle,
        result: Result<(), BusError>,
    ) {
        match result {
            _ if self.ignores_input() => {}
            Ok(()) => {
                if self.registry.on_live(&mut self.outputs, subscription) {
                    self.handle_gap(now, subscription, None);
                }
            }
            Err(error) => self.on_ended(now, subscription, Some(error)),
        }
        self.close_if_drained(now);
    }

    fn handle_interrupted(&mut self, _: Now, subscription: SubscriptionHandle, cause: BusError) {
        if !self.ignores_input() {
            self.registry.on_interrupted(&mut self.outputs, subscription, cause);
        }
    }

    fn handle_unsubscribed(&mut self, now: Now, subscription: SubscriptionHandle) {
        if !self.ignores_input() {
            self.on_ended(now, subscription, None);
        }
        self.close_if_drained(now);
    }

    fn handle_gap(&mut self, _: Now, subscription: SubscriptionHandle, lost: Option<u64>) {
        if self.registry.contains(subscription) {
            self.outputs.counters.count_lost(lost);
            self.outputs.event(ServerEvent::Gap { subscription, lost });
        }
    }

    fn handle_published(&mut self, now: Now, token: Token, result: Result<Option<u64>, BusError>) {
        let (requests, mut cx) = self.split(now);
        match token.0 {
            Publish::Bid(request) if result.is_err() => requests.on_bid_failed(&mut cx, request),
            Publish::Response(request) => requests.on_response_published(&mut cx, request, result),
            Publish::Announcement(request) if result.is_err() => {
                let request_id = requests.id(request);
                self.outputs.dropped(Dropped::of(Reason::PublishFailed, request_id, Text::EMPTY));
            }
            Publish::Message(send) => {
                let (streams, mut cx) = cx.streams();
                streams.on_message_published(&mut cx, send, result);
            }
            Publish::Update(update) => self.updates.on_published(&mut self.outputs, update, result),
            Publish::Ack(stream) => {
                let (streams, mut cx) = cx.streams();
                streams.on_ack_published(&mut cx, stream);
                if result.is_err() {
                    self.outputs.dropped(Dropped::of(Reason::PublishFailed, Text::EMPTY, Text::EMPTY));
                }
            }
            Publish::Close if result.is_ok() => self.outputs.close_published(),
            Publish::Close => {
                self.outputs.close_published();
                self.outputs.dropped(Dropped::of(Reason::PublishFailed, Text::EMPTY, Text::EMPTY));
            }
            Publish::Refusal if result.is_err() => {
                self.outputs.dropped(Dropped::of(Reason::PublishFailed, Text::EMPTY, Text::EMPTY));
            }
            _ => {}
        }
        self.close_if_drained(now);
    }

    fn handle_frame(&mut self, now: Now, subscription: SubscriptionHandle, mut frame: Frame) {
        if self.ignores_input() {
            return;
        }
        let Some((role, route)) = self.registry.role(subscription) else { return };
        let (registration, requested, route) =
            (role.registration, role.carries == Carries::Requests, route.clone());
        if !incoming::accept(&mut self.outputs, &mut frame, &self.config.limits.frame) {
            return;
        }
        let refuses_requests = match self.phase {
            Phase::Draining { timer, .. } => timer.is_none(),
            Phase::Open | Phase::Closing(_) | Phase::Closed(_) => false,
        };
        let (requests, mut cx) = self.split(now);
        match frame {
            Frame::Request(Request { request_id, client_id, .. }) if requested && refuses_requests => {
                cx.outputs.dropped(Dropped::of(Reason::Draining, request_id, client_id));
            }
            Frame::Request(request) if requested && !route.is_stream() => {
                let Request { request_id, client_id, sent_at, expiry, metadata, payload, skip_claim, .. } =
                    request;
                let incoming = Incoming {
                    registration,
                    route,
                    request_id,
                    client_id,
                    sent_at,
                    expiry,
                    metadata,
                    payload,
                    skip_claim,
                    opens: None,
                };
                requests.receive(&mut cx, incoming);
            }
            Frame::Stream(Stream { request_id, body: Some(StreamBody::Open { node_id, .. }), .. })
                if requested && refuses_requests =>
            {
                cx.outputs.dropped(Dropped::of(Reason::Draining, request_id, node_id));
            }
            Frame::Stream(frame) if requested && route.is_stream() => {
                stream::on_frame(requests, &mut cx, registration, route, frame);
            }
            // Without a claim, a cancellation arrives on the channel of requests.
            Frame::ClaimResponse(grant) if !requested || grant.server_id.is_empty() => {
                requests.on_grant(&mut cx, grant);
            }
            frame => incoming::unexpected(&mut self.outputs, &frame),
        }
        self.close_if_drained(now);
    }

    fn handle_misrouted(&mut self, now: Now, subscription: SubscriptionHandle, mut frame: Frame) {
        let Some((role, _)) = self.registry.role(subscription).filter(|_| !self.ignores_input()) else {
            return;
        };
        let carries = role.carries;
        if !incoming::accept(&mut self.outputs, &mut frame, &self.config.limits.frame) {
            return;
        }
        match (carries, frame) {
            (Carries::Requests, Frame::Request(request)) => {
                let (requests, mut cx) = self.split(now);
                requests.on_misrouted(&mut cx, request);
            }
            (_, frame) => incoming::drop_frame(&mut self.outputs, &frame, Reason::Misrouted),
        }
    }

    fn handle_timeout(&mut self, now: Now) -> Due {
        let mut budget = Budget::round();
        while !budget.is_spent() {
            let Some((owner, _)) = self.outputs.timers.fire(now.time) else { return Due::Nothing };
            budget.spend(1);
            let (requests, mut cx) = self.split(now);
            match owner {
                Owner::Request(request) => requests.on_timeout(&mut cx, request),
                Owner::Bucket(bucket) => requests.on_forget(&mut cx, bucket, &mut budget),
                Owner::Stream(timer) => {
                    let (streams, mut cx) = cx.streams();
                    streams.on_timeout(&mut cx, timer, &mut budget);
                }
                Owner::Update(update) => self.updates.on_timeout(&mut self.outputs, update),
                Owner::Linger => {
                    if let Phase::Draining { linger, .. } = &mut self.phase {
                        *linger = None;
                    }
                    self.endings.push(Ending::Handlers { cursor: 0 });
                    self.continue_endings(now, &mut budget);
                }
                Owner::Drain => {
                    if let Phase::Draining { timer, .. } = &mut self.phase {
                        *timer = None;
                    }
                }
                Owner::Ending => {
                    self.endings.timer_fired();
                    self.continue_endings(now, &mut budget);
                }
            }
            self.close_if_drained(now);
        }
        self.outputs.timers.due(now.time)
    }

    fn stream_commands(&mut self) -> StreamCommands<'_, ServerSide> {
        let Self { streams, outputs, ids, config, .. } = self;
        StreamCommands { streams, outputs, ids, rules: stream_rules(config) }
    }

    fn finish_stream(&mut self, now: Now, stream: StreamHandle, result: Result<(), ErrorResponse>) {
        let (_, mut cx) = self.split(now);
        stream::finish(&mut cx, stream, result);
        self.close_if_drained(now);
    }

    fn abandon(&mut self, now: Now) {
        self.end_all(now, Cause::RuntimeEnded);
    }

    fn handle_full(&mut self) {
        self.outputs.block();
        if let Phase::Closed(_) = self.phase {
            self.outputs.withdraw(|_| false);
        }
    }

    fn handle_room(&mut self) {
        self.outputs.unblock();
    }

    fn poll_output(&mut self) -> Option<Output<ServerEvent>> {
        self.outputs.pop()
    }

    fn poll_publish(&mut self) -> Option<LentFrame<'_>> {
        let Self { requests, streams, updates, outputs, .. } = self;
        outputs.head(|publish| match publish {
            // An announcement is useless without its response, and so is a response after its
            // request has expired.
            Publish::Bid(request) | Publish::Announcement(request) | Publish::Response(request) => {
                requests.contains(request)
            }
            Publish::Message(send) => streams.is_sending(send),
            Publish::Update(update) => updates.contains(update),
            _ => true,
        })?;
        Some(outputs.lend(None))
    }

    fn poll_timeout(&self) -> Option<Timeout> {
        self.outputs.timers.next()
    }
}
