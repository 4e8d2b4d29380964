//! The client: commands, frames and time in; frames and events out.

mod call;
mod context;
mod multi;
mod observed;
mod responders;
pub(crate) mod selection;
mod stream;
mod subscription;

use alloc::boxed::Box;
use alloc::string::ToString;
use core::fmt;

use psrpc_proto::{Channel, ErrorResponse, Frame, IdGenerator, Seed, Text};

pub use self::call::Call;
use self::call::Calls;
pub use self::context::ClientSide;
use self::context::{ClientStreams, Context, Outputs, Owner, stream_rules};
pub use self::multi::MultiCall;
use self::multi::MultiCalls;
pub use self::stream::OpenStream;
use self::subscription::{ListenerHandle, Listeners};
use crate::config::{ClientConfig, ConfigError};
use crate::core::budget::{Budget, Due, Step};
use crate::core::bus_error::BusError;
use crate::core::handle::{CallHandle, MultiHandle, StreamHandle, SubscriptionHandle};
use crate::core::map::HashKeys;
use crate::core::outputs::{LentFrame, Output, Publish, SubscriptionKind, Token};
use crate::core::subscriptions::{Ended, Live, Subscriptions};
use crate::core::time::Now;
use crate::core::timers::{Timeout, TimerId, TimerKind};
use crate::engine::Engine;
use crate::error::{CallError, Evidence, Failure};
use crate::event::ClientEvent;
use crate::reason::{Counters, Reason};
use crate::stream::Streams;
use crate::stream::commands::StreamCommands;
use crate::wire::incoming;
use crate::wire::route::{Route, check_own_id, check_service};

/// The client's side of the protocol for one service (PROTOCOL sections 5 to 9). [`Engine`] states
/// how to drive it.
///
/// A new client subscribes to its channels at once. Calls can be made after [`ClientEvent::Ready`].
pub struct Client {
    config: ClientConfig,
    ids: IdGenerator,
    phase: Phase,
    subscriptions: Subscriptions<ClientChannel>,
    calls: Calls,
    multi_calls: MultiCalls,
    streams: ClientStreams,
    listeners: Listeners,
    outputs: Outputs,
}

enum Phase {
    /// Some subscriptions are not live yet.
    Starting {
        missing: u32,
    },
    Open,
    /// The client makes no more calls, and ends everything it holds.
    Closing(Closing),
    Closed(Cause),
}

/// The progress of a close, which does a bounded amount of work at a time.
struct Closing {
    cause: Cause,
    stage: Stage,
    /// The position in the table of the stage.
    cursor: usize,
    /// Limits the wait for the bus to confirm; `None` if the client does not wait.
    confirm_timer: Option<TimerId>,
    /// Armed while more work is due at once.
    continue_timer: Option<TimerId>,
}

/// Why a client closes.
#[derive(Clone)]
enum Cause {
    Requested,
    /// The bus gave up a subscription that the client cannot work without.
    Lost(BusError),
    RuntimeEnded,
}

/// The stages of a close, in order.
#[derive(Clone, Copy)]
enum Stage {
    Calls,
    MultiCalls,
    Streams,
    Subscriptions,
    /// Waits for the bus to confirm the end of the subscriptions and to take the closes of streams.
    Bus,
    /// Ends the listeners whose end the bus did not confirm.
    Listeners,
}

impl Cause {
    fn failure(&self, evidence: Evidence) -> Box<Failure> {
        match self {
            Cause::Requested => Failure::closed(evidence),
            Cause::Lost(error) => Failure::bus(Reason::SubscriptionLost, error.clone(), evidence),
            Cause::RuntimeEnded => Failure::runtime_of_client(evidence),
        }
    }

    fn call_error(&self) -> CallError {
        match self {
            Cause::RuntimeEnded => CallError::RuntimeEnded,
            Cause::Requested | Cause::Lost(_) => CallError::Closed,
        }
    }
}

/// The frames that a subscription carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientChannel {
    Bids,
    Responses,
    Streams,
    Updates(ListenerHandle),
}

impl Client {
    /// Creates a client that draws its ids and hash keys from `seed`.
    ///
    /// # Errors
    ///
    /// Returns an error if not every bus can carry the service or the id, or if a limit is out of
    /// range.
    pub fn new(mut config: ClientConfig, seed: Seed) -> Result<Self, ConfigError> {
        check_service(config.service.as_str())?;
        let mut ids = IdGenerator::new(seed);
        let keys = HashKeys::draw(&mut ids);
        if config.id.is_empty() {
            config.id = ids.client();
        }
        check_own_id(&config.id, config.limits.frame.id_bytes)?;
        ConfigError::check_limit("updates_per_subscription", config.limits.updates_per_subscription)?;
        config.limits.streams.check()?;
        let mut client = Self {
            ids,
            phase: Phase::Starting { missing: 2 + u32::from(config.opens_streams) },
            subscriptions: Subscriptions::new(),
            calls: Calls::new(keys.clone()),
            multi_calls: MultiCalls::new(keys.clone()),
            streams: Streams::new(keys, config.limits.streams),
            listeners: Listeners::new(),
            outputs: Outputs::new(),
            config,
        };
        let (service, id) = (client.config.service.as_str(), client.config.id.as_str());
        let streams = (ClientChannel::Streams, Channel::stream_to_client(service, id));
        let calls = [
            (ClientChannel::Bids, Channel::claim_request(service, id)),
            (ClientChannel::Responses, Channel::response(service, id)),
        ];
        for (role, channel) in calls.into_iter().chain(client.config.opens_streams.then_some(streams)) {
            client.subscriptions.subscribe(&mut client.outputs, role, &channel, SubscriptionKind::Plain);
        }
        Ok(client)
    }

    /// Returns the client's id on the wire.
    pub fn id(&self) -> &Text {
        &self.config.id
    }

    /// Returns the service, by its name on the wire.
    pub fn service(&self) -> &Text {
        &self.config.service
    }

    /// Returns the number of calls in flight, including multi calls and openings of streams.
    pub fn in_flight(&self) -> usize {
        self.calls.len() + self.multi_calls.len()
    }

    /// Returns the number of streams that are open or being opened.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Returns the number of stream messages that wait to be sent or acknowledged.
    pub fn sending(&self) -> usize {
        self.streams.sending()
    }

    /// Returns the number of subscriptions to updates.
    pub fn listening(&self) -> usize {
        self.listeners.len()
    }

    /// Returns the number of stream messages that are held back until their consumers have room.
    pub fn held(&self) -> usize {
        self.streams.held()
    }

    /// Returns the number of stream messages remembered so that none is delivered twice.
    pub fn remembered(&self) -> usize {
        self.streams.remembered()
    }

    /// Returns the counters.
    pub fn counters(&self) -> &Counters {
        &self.outputs.counters
    }

    /// Returns the bus's error while the subscriptions that calls need are interrupted. New calls
    /// fail with it.
    pub fn interruption(&self) -> Option<&BusError> {
        self.subscriptions.interruption()
    }

    /// Reports that the bus refused to lock a queue-routed request, so no server gets it. The
    /// engine does not know whose request it was: every queue-routed call in flight that fails
    /// later has `cause` in its [evidence](crate::Evidence::lock_refusal).
    pub fn lock_refused(&mut self, now: Now, cause: &BusError) {
        self.calls.on_lock_refused(now, cause.to_string());
    }

    /// Starts a call. It ends with exactly one [`ClientEvent::Resolved`], at its deadline at the
    /// latest, or a millisecond later if it [asks](ClientEvent::Select) at the deadline.
    ///
    /// # Errors
    ///
    /// Returns an error if the call is invalid or the client cannot make it; nothing is published
    /// then.
    pub fn call(&mut self, now: Now, call: Call) -> Result<CallHandle, CallError> {
        self.check(&call.route, false)?;
        let rules = self.calls.check(&call.route, &call.selection, &self.config)?;
        let (calls, _, mut cx) = self.split(now);
        let call = calls.call(&mut cx, call, rules)?;
        self.fail_if_interrupted(now, call);
        Ok(call)
    }

    /// Starts a call that every server answers. Each response is a [`ClientEvent::Response`].
    /// Unless it is [canceled](Self::cancel_multi), the call ends with exactly one
    /// [`ClientEvent::MultiEnded`], at its deadline at the latest.
    ///
    /// # Errors
    ///
    /// Returns an error if the call is invalid or the client cannot make it; nothing is published
    /// then.
    pub fn multi_call(&mut self, now: Now, call: MultiCall) -> Result<MultiHandle, CallError> {
        self.check(&call.route, false)?;
        let interruption = self.interruption().cloned();
        let (_, multi_calls, mut cx) = self.split(now);
        let call = multi_calls.call(&mut cx, call)?;
        if let Some(cause) = interruption {
            let evidence = Evidence { unsent: true, ..Evidence::default() };
            multi_calls.end(&mut cx, call, Err(Failure::bus(Reason::Interrupted, cause, evidence)));
        }
        Ok(call)
    }

    /// Starts the call that opens a stream. It ends with exactly one [`ClientEvent::Opened`], at
    /// its deadline at the latest, or a millisecond later if it [asks](ClientEvent::Select) at the
    /// deadline.
    ///
    /// # Errors
    ///
    /// Returns an error if the call is invalid or the client cannot make it; nothing is published
    /// then.
    pub fn open_stream(&mut self, now: Now, open: OpenStream) -> Result<CallHandle, CallError> {
        self.check(&open.route, true)?;
        let (calls, _, mut cx) = self.split(now);
        let call = stream::open(calls, &mut cx, open)?;
        self.fail_if_interrupted(now, call);
        Ok(call)
    }

    /// Fails a call that has just started if the client would miss its response. The request is not
    /// published.
    fn fail_if_interrupted(&mut self, now: Now, call: CallHandle) {
        if let Some(cause) = self.interruption().cloned() {
            let (calls, _, mut cx) = self.split(now);
            calls.fail(&mut cx, call, |evidence| Failure::bus(Reason::Interrupted, cause, evidence));
        }
    }

    fn check(&self, route: &Route, is_stream: bool) -> Result<(), CallError> {
        match &self.phase {
            Phase::Open => {}
            Phase::Starting { .. } => return Err(CallError::NotReady),
            Phase::Closing(Closing { cause, .. }) | Phase::Closed(cause) => return Err(cause.call_error()),
        }
        let service = &self.config.service;
        if route.service() != service {
            return Err(CallError::WrongService { route: route.clone(), service: service.clone() });
        }
        if route.is_stream() != is_stream {
            let method = route.method().clone();
            return Err(CallError::Stream { method, is_stream: route.is_stream() });
        }
        Ok(())
    }

    /// Cancels a call or the opening of a stream. It resolves as canceled. A server that waits for
    /// the grant of the call never runs it.
    pub fn cancel(&mut self, now: Now, call: CallHandle) {
        let (calls, _, mut cx) = self.split(now);
        calls.cancel(&mut cx, call);
    }

    /// Ends a multi call without an event. Later responses are dropped.
    pub fn cancel_multi(&mut self, now: Now, call: MultiHandle) {
        let (_, multi_calls, mut cx) = self.split(now);
        multi_calls.cancel(&mut cx, call);
    }

    /// Responds to [`ClientEvent::Select`] with the server to run the call, `None` if no server
    /// suits, or the error that the call fails with. Does nothing if the call is over.
    pub fn select(&mut self, now: Now, call: CallHandle, choice: Result<Option<Text>, ErrorResponse>) {
        let (calls, _, mut cx) = self.split(now);
        calls.select(&mut cx, call, choice);
    }

    /// Subscribes to the updates that servers publish on a route. `message` is the full protobuf
    /// name of the updates. The subscription is live from [`ClientEvent::Subscribed`] on, and ends
    /// with exactly one [`ClientEvent::Unsubscribed`].
    ///
    /// # Errors
    ///
    /// Returns an error if the client is not open, or the route is a stream or belongs to another
    /// service.
    pub fn subscribe(
        &mut self,
        route: &Route,
        message: impl Into<Text>,
    ) -> Result<SubscriptionHandle, CallError> {
        self.check(route, false)?;
        let kind = if route.is_queue() { SubscriptionKind::Queue } else { SubscriptionKind::Plain };
        let Self { subscriptions, listeners, outputs, .. } = self;
        Ok(listeners.add(message.into(), |listener| {
            subscriptions.subscribe(outputs, ClientChannel::Updates(listener), route.requests(), kind)
        }))
    }

    /// Ends a subscription to updates.
    pub fn unsubscribe(&mut self, subscription: SubscriptionHandle) {
        if let Some(ClientChannel::Updates(_)) = self.subscriptions.role(subscription) {
            self.subscriptions.unsubscribe(&mut self.outputs, subscription);
        }
    }

    /// Reports that the consumer has taken an update, which makes room for another.
    pub fn taken_update(&mut self, subscription: SubscriptionHandle) {
        if let Some(ClientChannel::Updates(listener)) = self.subscriptions.role(subscription) {
            self.listeners.taken(listener);
        }
    }

    /// Closes the client. Calls in flight resolve with "client is closed"; streams and
    /// subscriptions end. This method ends the first [`ROUND`](crate::ROUND) of them, and calls of
    /// [`handle_timeout`](Engine::handle_timeout), which are due at once, end the rest. The client
    /// is [closed](ClientEvent::Closed) when the bus has confirmed the end of the subscriptions and
    /// taken the closes of the streams, or after [`ClientConfig::close_timeout`].
    pub fn close(&mut self, now: Now) {
        self.start_close(now, Cause::Requested);
    }

    /// Returns the error of new calls if the client is closing or closed.
    pub fn closed(&self) -> Option<CallError> {
        match &self.phase {
            Phase::Starting { .. } | Phase::Open => None,
            Phase::Closing(Closing { cause, .. }) | Phase::Closed(cause) => Some(cause.call_error()),
        }
    }

    fn start_close(&mut self, now: Now, cause: Cause) {
        if let Phase::Closing(_) | Phase::Closed(_) = self.phase {
            return;
        }
        let waits = !matches!(cause, Cause::RuntimeEnded);
        let at = now.time + self.config.close_timeout;
        let confirm_timer = waits.then(|| self.outputs.timers.arm(at, TimerKind::Drain, Owner::Close));
        self.phase = Phase::Closing(Closing {
            cause,
            stage: Stage::Calls,
            cursor: 0,
            confirm_timer,
            continue_timer: None,
        });
        self.continue_close(now, &mut Budget::round());
    }

    /// Continues a close, as far as the budget allows.
    fn continue_close(&mut self, now: Now, budget: &mut Budget) {
        let Self { phase, subscriptions, listeners, calls, multi_calls, streams, outputs, ids, config } =
            self;
        let Phase::Closing(Closing { cause, stage, cursor, confirm_timer, continue_timer }) = phase else {
            return;
        };
        let mut cx = Context { now, outputs, ids, config, streams };
        loop {
            let next = match *stage {
                Stage::Calls => match calls.walk(cursor, budget) {
                    Step::Next(call) => {
                        calls.fail(&mut cx, call, |evidence| cause.failure(evidence));
                        continue;
                    }
                    Step::Done => Stage::MultiCalls,
                    Step::Spent => break,
                },
                Stage::MultiCalls => match multi_calls.walk(cursor, budget) {
                    Step::Next(call) => {
                        multi_calls.end(&mut cx, call, Err(cause.failure(Evidence::default())));
                        continue;
                    }
                    Step::Done => Stage::Streams,
                    Step::Spent => break,
                },
                Stage::Streams => match cx.streams.walk(cursor, budget) {
                    Step::Next(stream) => {
                        stream::end(&mut cx, stream, cause.failure(Evidence::default()));
                        continue;
                    }
                    Step::Done => {
                        cx.streams.forget_received(cx.outputs);
                        Stage::Subscriptions
                    }
                    Step::Spent => break,
                },
                Stage::Subscriptions => match subscriptions.walk(cursor, budget) {
                    Step::Next(subscription) => {
                        subscriptions.unsubscribe(cx.outputs, subscription);
                        continue;
                    }
                    Step::Done => Stage::Bus,
                    Step::Spent => break,
                },
                Stage::Bus => {
                    // The servers must learn that their streams have ended.
                    let confirmed = subscriptions.is_empty() && cx.outputs.is_done_with_closes();
                    if confirm_timer.is_some() && !confirmed {
                        return;
                    }
                    Stage::Listeners
                }
                Stage::Listeners => match listeners.walk(cursor, budget) {
                    Step::Next(listener) => {
                        let error =
                            matches!(cause, Cause::RuntimeEnded).then(|| cause.failure(Evidence::default()));
                        if let Some(subscription) = listeners.remove(listener) {
                            cx.outputs.event(ClientEvent::Unsubscribed { subscription, error });
                        }
                        continue;
                    }
                    Step::Done => {
                        for timer in [confirm_timer.take(), continue_timer.take()].into_iter().flatten() {
                            cx.outputs.timers.disarm(timer);
                        }
                        return self.end();
                    }
                    Step::Spent => break,
                },
            };
            (*stage, *cursor) = (next, 0);
        }
        // The budget is spent; the rest is due at once.
        continue_timer
            .get_or_insert_with(|| cx.outputs.timers.arm(now.time, TimerKind::Close, Owner::Ending));
    }

    /// Completes a close.
    fn end(&mut self) {
        let Phase::Closing(Closing { cause, .. }) = &self.phase else { return };
        let cause = cause.clone();
        let error = if let Cause::Lost(error) = &cause { Some(error.clone()) } else { None };
        self.phase = Phase::Closed(cause);
        self.subscriptions = Subscriptions::new();
        self.listeners = Listeners::new();
        // Only the closes are kept: nothing else tells the servers that their streams have ended.
        self.outputs.withdraw(|publish| publish == Publish::Close);
        self.outputs.event(ClientEvent::Closed { error });
    }

    fn close_if_confirmed(&mut self, now: Now) {
        if let Phase::Closing(Closing { stage: Stage::Bus, .. }) = self.phase {
            self.continue_close(now, &mut Budget::round());
        }
    }

    fn split(&mut self, now: Now) -> (&mut Calls, &mut MultiCalls, Context<'_>) {
        let Self { calls, multi_calls, streams, outputs, ids, config, .. } = self;
        (calls, multi_calls, Context { now, outputs, ids, config, streams })
    }

    /// Handles the end of a subscription. If the bus gave up the subscription of a listener, only
    /// that listener ends. If it gave up any other, the client closes.
    fn on_subscription_ended(&mut self, now: Now, subscription: SubscriptionHandle, error: BusError) {
        match self.subscriptions.ended(subscription) {
            Some((ClientChannel::Updates(listener), ended)) => {
                let lost = || Failure::bus(Reason::SubscriptionLost, error, Evidence::default());
                self.end_listener(subscription, listener, (ended == Ended::Lost).then(lost));
            }
            Some((_, Ended::Lost)) => self.start_close(now, Cause::Lost(error)),
            Some((_, Ended::Requested)) | None => {}
        }
        self.close_if_confirmed(now);
    }

    fn end_listener(
        &mut self,
        subscription: SubscriptionHandle,
        listener: ListenerHandle,
        error: Option<Box<Failure>>,
    ) {
        // A close may have ended the listener already.
        if self.listeners.remove(listener).is_none() {
            return;
        }
        if error.is_some() {
            self.outputs.count(Reason::SubscriptionLost);
        }
        self.outputs.event(ClientEvent::Unsubscribed { subscription, error });
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("service", self.service())
            .field("id", self.id())
            .field("in_flight", &self.in_flight())
            .field("streams", &self.streams())
            .finish_non_exhaustive()
    }
}

impl Engine for Client {
    type Event = ClientEvent;
    type Side = ClientSide;

    fn handle_subscribed(
        &mut self,
        now: Now,
        subscription: SubscriptionHandle,
        result: Result<(), BusError>,
    ) {
        if let Err(error) = result {
            return self.on_subscription_ended(now, subscription, error);
        }
        match (self.subscriptions.live(&mut self.outputs, subscription), &mut self.phase) {
            (Some((_, Live::Again)), _) => self.handle_gap(now, subscription, None),
            (Some((ClientChannel::Updates(_), Live::First)), _) => {
                self.outputs.event(ClientEvent::Subscribed { subscription });
            }
            (Some(_), Phase::Starting { missing }) => {
                *missing -= 1;
                if *missing == 0 {
                    self.phase = Phase::Open;
                    self.outputs.event(ClientEvent::Ready);
                }
            }
            _ => {}
        }
    }

    fn handle_interrupted(&mut self, now: Now, subscription: SubscriptionHandle, cause: BusError) {
        let Some(role) = self.subscriptions.role(subscription) else { return };
        // Calls do not depend on updates. The subscribers of updates see a gap afterwards.
        let is_essential = !matches!(role, ClientChannel::Updates(_));
        if is_essential {
            self.calls.on_gap(now);
        }
        self.subscriptions.interrupt(&mut self.outputs, subscription, is_essential, cause);
    }

    fn handle_unsubscribed(&mut self, now: Now, subscription: SubscriptionHandle) {
        self.on_subscription_ended(now, subscription, BusError::new("the bus ended the subscription"));
    }

    fn handle_gap(&mut self, now: Now, subscription: SubscriptionHandle, lost: Option<u64>) {
        let Some(role) = self.subscriptions.role(subscription) else { return };
        self.outputs.counters.count_lost(lost);
        if let ClientChannel::Bids | ClientChannel::Responses | ClientChannel::Streams = role {
            self.calls.on_gap(now);
        }
        self.outputs.event(ClientEvent::Gap { subscription, lost });
    }

    fn handle_published(&mut self, now: Now, token: Token, result: Result<Option<u64>, BusError>) {
        let (calls, multi_calls, mut cx) = self.split(now);
        match token.0 {
            Publish::Request(call) => calls.on_request_published(&mut cx, call, result),
            Publish::Grant(call) => calls.on_grant_published(&mut cx, call, result),
            Publish::MultiRequest(call) => multi_calls.on_published(&mut cx, call, result),
            Publish::Message(send) => {
                let (streams, mut cx) = cx.streams();
                streams.on_message_published(&mut cx, send, result);
            }
            Publish::Ack(stream) => {
                let (streams, mut stream_cx) = cx.streams();
                streams.on_ack_published(&mut stream_cx, stream);
                cx.check_published(result);
            }
            Publish::Close => {
                cx.outputs.close_published();
                cx.check_published(result);
            }
            _ => {}
        }
        self.close_if_confirmed(now);
    }

    fn handle_frame(&mut self, now: Now, subscription: SubscriptionHandle, mut frame: Frame) {
        let Some(role) = self.subscriptions.role(subscription) else { return };
        if !incoming::accept(&mut self.outputs, &mut frame, &self.config.limits.frame) {
            return;
        }
        let (calls, multi_calls, mut cx) = self.split(now);
        // Matching on `(role, frame)` would copy the frame.
        match frame {
            Frame::ClaimRequest(claim) if role == ClientChannel::Bids => calls.on_claim(&mut cx, claim),
            Frame::Response(response) if role == ClientChannel::Responses => {
                match multi_calls.find(&response.request_id) {
                    Some(call) => multi_calls.on_response(&mut cx, call, response),
                    None => calls.on_response(&mut cx, response),
                }
            }
            Frame::Stream(frame) if role == ClientChannel::Streams => stream::on_frame(calls, &mut cx, frame),
            frame => match (role, frame) {
                (ClientChannel::Updates(listener), Frame::Other(update)) => {
                    let limit = self.config.limits.updates_per_subscription;
                    self.listeners.on_update(&mut self.outputs, listener, update, limit);
                }
                (_, frame) => incoming::unexpected(&mut self.outputs, &frame),
            },
        }
    }

    fn handle_misrouted(&mut self, _: Now, _: SubscriptionHandle, mut frame: Frame) {
        if incoming::accept(&mut self.outputs, &mut frame, &self.config.limits.frame) {
            incoming::drop_frame(&mut self.outputs, &frame, Reason::Misrouted);
        }
    }

    fn handle_timeout(&mut self, now: Now) -> Due {
        let mut budget = Budget::round();
        while !budget.is_spent() {
            let Some((owner, _)) = self.outputs.timers.fire(now.time) else { return Due::Nothing };
            budget.spend(1);
            let (calls, multi_calls, mut cx) = self.split(now);
            match owner {
                Owner::Call(call) => calls.on_timeout(&mut cx, call),
                Owner::Multi(call) => multi_calls.on_timer(&mut cx, call),
                Owner::Stream(timer) => {
                    let (streams, mut cx) = cx.streams();
                    streams.on_timeout(&mut cx, timer, &mut budget);
                }
                Owner::Close => {
                    if let Phase::Closing(closing) = &mut self.phase {
                        closing.confirm_timer = None;
                    }
                    self.close_if_confirmed(now);
                }
                Owner::Ending => {
                    if let Phase::Closing(closing) = &mut self.phase {
                        closing.continue_timer = None;
                    }
                    self.continue_close(now, &mut budget);
                }
            }
        }
        self.outputs.timers.due(now.time)
    }

    fn stream_commands(&mut self) -> StreamCommands<'_, ClientSide> {
        let Self { streams, outputs, ids, config, .. } = self;
        StreamCommands { streams, outputs, ids, rules: stream_rules(config) }
    }

    fn finish_stream(&mut self, now: Now, stream: StreamHandle, result: Result<(), ErrorResponse>) {
        self.stream_commands().close(now, stream, result.err());
    }

    fn abandon(&mut self, now: Now) {
        self.start_close(now, Cause::RuntimeEnded);
        if let Phase::Closing(closing) = &mut self.phase
            && let Some(confirm_timer) = closing.confirm_timer.take()
        {
            self.outputs.timers.disarm(confirm_timer);
            self.close_if_confirmed(now);
        }
    }

    fn handle_full(&mut self) {
        self.outputs.block();
    }

    fn handle_room(&mut self) {
        self.outputs.unblock();
    }

    fn poll_output(&mut self) -> Option<Output<ClientEvent>> {
        self.outputs.pop()
    }

    fn poll_publish(&mut self) -> Option<LentFrame<'_>> {
        let Self { calls, multi_calls, streams, outputs, .. } = self;
        let head = outputs.head(|publish| match publish {
            Publish::Request(call) | Publish::Grant(call) => calls.contains(call),
            Publish::MultiRequest(call) => multi_calls.contains(call),
            Publish::Message(send) => streams.is_sending(send),
            _ => true,
        });
        let sent = match head? {
            Publish::Request(call) => calls.sent_flag(call),
            Publish::MultiRequest(call) => multi_calls.sent_flag(call),
            _ => None,
        };
        Some(outputs.lend(sent))
    }

    fn poll_timeout(&self) -> Option<Timeout> {
        self.outputs.timers.next()
    }
}
