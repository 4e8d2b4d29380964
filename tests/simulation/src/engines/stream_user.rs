//! The user of the open streams of a node, the same on both sides: sends, receives, is slow at
//! times, and closes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{ErrorCode, ErrorResponse, Frame};
use psrpc_engine::{
    ClientConfig, Dropped, Engine, Failure, Now, PendingMessage, Reason, SendHandle, ServerConfig,
    SlowConsumer, StreamEvent, StreamHandle, Time,
};

use super::arrivals::Arrivals;
use super::engine_run_event::EngineRunEvent;
use super::user_act::{ClientAct, ServerAct, StreamAct};
use crate::fault::Fault;
use crate::judge::fact::{Fact, Operation, OperationKind};
use crate::judge::violation::{Checked, Invariant};

use super::engine_node::Moment;
use super::engine_world::EngineWorld;
use crate::judge::payload;
use crate::node_id::NodeId;
use crate::rng::Rng;

/// The number of messages that each side of a fresh stream sends at once. Under tight limits,
/// neither side has room for as many.
const FRESH_MESSAGES: u64 = 6;

/// How long the bus takes at most to confirm an ack.
const CONFIRMATION: Duration = Duration::from_secs(1);

/// A limit on held messages that fresh streams cannot reach.
pub(super) const ENOUGH_HELD: usize = 100;

/// The open streams of one node's user.
pub(crate) struct StreamUser {
    node: NodeId,
    streams: BTreeMap<StreamHandle, UserStream>,
    /// The sends that have not ended: the stream of each, and its number unless a forged client
    /// opened the stream.
    sends: BTreeMap<SendHandle, (StreamHandle, Option<usize>)>,
    arrivals: Arrivals,
    config: StreamUserConfig,
    rng: Rng,
}

/// The configuration of the engine, as far as it concerns streams.
pub(crate) struct StreamUserConfig {
    /// The default timeout of a send.
    timeout: Duration,
    allowance: Duration,
    /// The number of messages of a stream that may wait for the consumer.
    unread: usize,
    /// Whether the engine holds back the messages of slow consumers, and fresh streams cannot reach
    /// its limit on held messages.
    holds_back: bool,
    has_idle_timeout: bool,
}

macro_rules! stream_user_configs {
    ($($config:ident)*) => {
        $(impl From<&$config> for StreamUserConfig {
            fn from(config: &$config) -> Self {
                Self {
                    timeout: config.timeout,
                    allowance: config.skew_allowance,
                    unread: config.limits.streams.unread_per_stream,
                    holds_back: config.streams.slow_consumer == SlowConsumer::HoldBack
                        && config.limits.streams.held >= ENOUGH_HELD,
                    has_idle_timeout: config.streams.idle_timeout.is_some(),
                }
            }
        })*
    };
}

stream_user_configs!(ClientConfig ServerConfig);

struct UserStream {
    /// The operation number of its opening; `None` if a forged client opened it.
    number: Option<usize>,
    /// The number of messages still to send.
    remaining: u64,
    /// Whether this side closes the stream after its last message.
    closes: bool,
    /// Whether the stream must succeed.
    fresh: bool,
    /// The number of messages that wait for the consumer.
    unread: usize,
    /// Whether the consumer had room at the start of the step.
    had_room: bool,
    ended: bool,
    /// Whether to forget the stream when it ends.
    done: bool,
}

impl StreamUser {
    pub(crate) fn new(node: NodeId, config: impl Into<StreamUserConfig>, rng: Rng) -> Self {
        let (streams, sends, arrivals) = (BTreeMap::new(), BTreeMap::new(), Arrivals::default());
        Self { node, streams, sends, arrivals, config: config.into(), rng }
    }

    /// Adds a stream.
    pub(crate) fn open(
        &mut self,
        world: &mut EngineWorld,
        stream: StreamHandle,
        number: Option<usize>,
        closes: bool,
    ) {
        let fresh = number.is_some_and(|number| world.model.is_fresh(number));
        let rng = &mut self.rng;
        let remaining = if fresh { FRESH_MESSAGES } else { rng.below(10) };
        let closes = if fresh { closes } else { rng.chance(500) };
        let done = matches!(self.node, NodeId::Client(_));
        self.streams.insert(
            stream,
            UserStream { number, remaining, closes, fresh, unread: 0, had_room: true, ended: false, done },
        );
        // Nothing else may ever end it.
        let late = world.is_calm() && !fresh && !self.config.has_idle_timeout;
        self.schedule(world, 40, if late { StreamAct::Close(stream) } else { StreamAct::Send(stream) });
    }

    /// Returns `true` if the stream with this operation number is open here.
    pub(crate) fn has(&self, number: usize) -> bool {
        self.streams.values().any(|stream| stream.number == Some(number) && !stream.ended)
    }

    /// Notes that the handler has finished, so that the stream is forgotten when it ends.
    pub(crate) fn done(&mut self, stream: StreamHandle) {
        match self.streams.get_mut(&stream) {
            Some(state) if state.ended => self.forget(stream),
            Some(state) => state.done = true,
            None => {}
        }
    }

    /// Forgets a stream.
    pub(crate) fn forget(&mut self, stream: StreamHandle) {
        self.streams.remove(&stream);
    }

    /// Closes all streams, unless an idle timeout ends them.
    pub(crate) fn close_all<E: Engine>(&mut self, engine: &mut E, now: Now) {
        if self.config.has_idle_timeout {
            return;
        }
        for stream in self.streams.keys() {
            engine.stream_commands().close(now, *stream, None);
        }
    }

    pub(crate) fn act<E: Engine>(
        &mut self,
        engine: &mut E,
        moment: Moment,
        world: &mut EngineWorld,
        act: StreamAct,
    ) -> Checked {
        match act {
            StreamAct::Send(stream) => self.send_some(engine, moment, world, stream),
            StreamAct::Accept(delivery, payload) => self.accept(engine, moment, world, delivery, &payload),
            StreamAct::Take(stream) => {
                self.taken(engine, moment, stream);
                Ok(())
            }
            StreamAct::CancelSend(send) => {
                engine.stream_commands().cancel_send(moment.now, send);
                match self.sends.remove(&send) {
                    Some((_, Some(number))) => world.note(Fact::Abandoned { number }),
                    _ => Ok(()),
                }
            }
            StreamAct::Close(stream) => {
                let cause = self.rng.maybe(300, |_| ErrorResponse::new(ErrorCode::Aborted, "enough of that"));
                world.scene.log(self.node, format_args!("closes {stream:?}"));
                engine.stream_commands().close(moment.now, stream, cause);
                Ok(())
            }
        }
    }

    /// Sends a few messages at once, or all of a fresh stream.
    fn send_some<E: Engine>(
        &mut self,
        engine: &mut E,
        moment: Moment,
        world: &mut EngineWorld,
        stream: StreamHandle,
    ) -> Checked {
        let open = self.streams.get_mut(&stream).filter(|state| !state.ended);
        let Some(state) = open else { return Ok(()) };
        if state.remaining == 0 {
            if state.closes {
                self.schedule(world, 200, StreamAct::Close(stream));
            }
            return Ok(());
        }
        let count = if state.fresh { state.remaining } else { self.rng.within(1..5).min(state.remaining) };
        state.remaining -= count;
        let (number, fresh) = (state.number, state.fresh);
        for _ in 0..count {
            let timeout = if fresh { None } else { self.rng.maybe(500, |rng| rng.grains(1..2000)) };
            self.send(engine, moment, world, stream, number, timeout)?;
        }
        Ok(())
    }

    fn send<E: Engine>(
        &mut self,
        engine: &mut E,
        moment: Moment,
        world: &mut EngineWorld,
        stream: StreamHandle,
        opening: Option<usize>,
        timeout: Option<Duration>,
    ) -> Checked {
        let message = world.model.operations();
        // The model knows nothing of streams that forged clients opened.
        let payload = opening.map_or_else(|| Bytes::from_static(b"unknown"), |_| payload::message(message));
        let send = match engine.stream_commands().send(moment.now, stream, payload, timeout) {
            Ok(send) => send,
            Err(error) => {
                world.scene.log(self.node, error);
                return Ok(());
            }
        };
        world.scene.log(self.node, format_args!("sends message {message} on {stream:?} as {send:?}"));
        let number = opening.map(|_| message);
        self.sends.insert(send, (stream, number));
        if let Some(stream) = opening {
            let timeout = timeout.unwrap_or(self.config.timeout);
            let (node, kind) =
                (self.node, OperationKind::Send { stream, deadline: moment.now.time + timeout });
            let (deadline, grace) = (moment.due(timeout), Duration::ZERO);
            world.note(Fact::Started(Operation { node, kind, deadline, grace, must_succeed: false }))?;
            if world.scene.faults.happens(Fault::Cancel, &mut self.rng) {
                self.schedule(world, 40, StreamAct::CancelSend(send));
            }
        }
        Ok(())
    }

    /// Begins a step of the node, which reseeds the random choices.
    pub(crate) fn begin_step(&mut self, moment: Time) -> Checked {
        self.rng.reseed_at(moment);
        for stream in self.streams.values_mut() {
            stream.had_room = stream.unread < self.config.unread;
        }
        self.arrivals.begin_step()
    }

    pub(crate) fn on_event<E: Engine>(
        &mut self,
        engine: &mut E,
        moment: Moment,
        world: &mut EngineWorld,
        event: StreamEvent,
    ) -> Checked {
        match event {
            StreamEvent::Message { delivery, payload } => {
                self.message(engine, moment, world, delivery, payload)
            }
            StreamEvent::Sent { send, outcome } => {
                self.sent(world, send, outcome.as_ref().copied().map_err(|failure| &**failure))
            }
            StreamEvent::Ended { stream, cause } => {
                let Some(state) = self.streams.get_mut(&stream) else { return Ok(()) };
                state.ended = true;
                let number = state.number;
                if state.done {
                    self.forget(stream);
                }
                let Some(stream) = number else { return Ok(()) };
                self.arrivals.ended(stream);
                world.note(Fact::StreamEnded { at: self.node, stream, cause: &cause })
            }
            _ => Ok(()),
        }
    }

    fn message<E: Engine>(
        &mut self,
        engine: &mut E,
        moment: Moment,
        world: &mut EngineWorld,
        delivery: PendingMessage,
        payload: Bytes,
    ) -> Checked {
        let stream = delivery.stream();
        let node = self.node;
        let Some(state) = self.streams.get_mut(&stream) else {
            return Invariant::I7
                .violated(format!("{payload:?} was reported at {node} on a stream that has ended"));
        };
        state.unread += 1;
        if state.unread > self.config.unread {
            return Invariant::I10
                .violated(format!("{} messages wait for the consumer at {node}", state.unread));
        }
        if let Some(stream) = state.number {
            self.arrivals.delivered(moment, stream, &payload)?;
            world.note(Fact::MessageReceived { at: node, stream, payload: &payload })?;
        }
        let rng = &mut self.rng;
        if state.fresh || rng.chance(500) {
            return self.accept(engine, moment, world, delivery, &payload);
        }
        if rng.chance(50) {
            let cause = rng.maybe(500, |_| ErrorResponse::new(ErrorCode::MalformedRequest, "cannot decode"));
            world.scene.log(self.node, format_args!("rejects {payload:?}"));
            state.unread -= 1;
            engine.stream_commands().reject(moment.now, delivery, cause);
            return Ok(());
        }
        self.schedule(world, 80, StreamAct::Accept(delivery, payload));
        Ok(())
    }

    fn accept<E: Engine>(
        &mut self,
        engine: &mut E,
        moment: Moment,
        world: &mut EngineWorld,
        delivery: PendingMessage,
        payload: &Bytes,
    ) -> Checked {
        let stream = delivery.stream();
        let Some(state) = self.streams.get(&stream) else { return Ok(()) };
        if let (Some(_), Some(message)) = (state.number, payload::number(payload)) {
            world.note(Fact::Accepted { at: self.node, message })?;
        }
        engine.stream_commands().accept(moment.now, delivery);
        if state.fresh && !self.config.holds_back {
            self.taken(engine, moment, stream);
        } else if state.fresh {
            self.schedule(world, 8, StreamAct::Take(stream));
        } else {
            let slow = world.scene.faults.happens(Fault::SlowConsumer, &mut self.rng);
            self.schedule(world, if slow { 2000 } else { 8 }, StreamAct::Take(stream));
        }
        Ok(())
    }

    fn taken<E: Engine>(&mut self, engine: &mut E, moment: Moment, stream: StreamHandle) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.unread -= 1;
            if engine.stream_commands().taken(stream) {
                engine.stream_commands().release(moment.now, stream);
            }
        }
    }

    /// Notes the frame that the engine is about to handle.
    pub(crate) fn on_frame(&mut self, moment: Moment, world: &EngineWorld, frame: &Frame) {
        self.arrivals.on_frame(moment, world, frame);
    }

    /// Checks that the reason for a dropped message of a stream is true.
    pub(crate) fn dropped(&mut self, moment: Moment, world: &EngineWorld, dropped: &Dropped) -> Checked {
        let Some(number) = world.model.number_of(&dropped.peer) else { return Ok(()) };
        let expiry = self.arrivals.incoming_expiry(number, dropped);
        let is_incoming = expiry.is_some();
        if dropped.reason == Reason::ExpiredMessage
            && expiry.is_some_and(|expiry| moment.latest_wall < expiry + self.config.allowance)
        {
            return Invariant::I16
                .violated(format!("{}: a message was dropped before it expired", self.node));
        }
        if dropped.reason != Reason::Duplicate || is_incoming {
            self.arrivals.dropped(moment, number, &dropped.request_id);
        }
        let state = self.streams.values().find(|state| state.number == Some(number));
        let had_room = state.is_some_and(|state| state.had_room);
        // After the bus was full, it may not have confirmed all acks yet.
        let is_blocked = moment.is_full || !is_incoming && moment.was_full_within(CONFIRMATION);
        if dropped.reason == Reason::SlowConsumer && had_room && !is_blocked {
            return Invariant::I12
                .violated(format!("{}: a message was dropped although there was room", self.node));
        }
        Ok(())
    }

    fn sent(&mut self, world: &mut EngineWorld, send: SendHandle, outcome: Result<(), &Failure>) -> Checked {
        let Some((stream, number)) = self.sends.remove(&send) else {
            return world.note(Fact::Ended { number: None, outcome });
        };
        let is_sending = self.sends.values().any(|(other, _)| *other == stream);
        if !is_sending && self.streams.contains_key(&stream) {
            self.schedule(world, 40, StreamAct::Send(stream));
        }
        match number {
            Some(_) => world.note(Fact::Ended { number, outcome }),
            None => Ok(()),
        }
    }

    /// Schedules an act within `grains` grains.
    fn schedule(&mut self, world: &mut EngineWorld, grains: u64, act: StreamAct) {
        let delay = self.rng.grains(0..grains);
        world.scene.schedule_after(
            delay,
            match self.node {
                NodeId::Client(client) => EngineRunEvent::Client(client, ClientAct::Stream(act)),
                NodeId::Server(server) => EngineRunEvent::Server(server, ServerAct::Stream(act)),
            },
        );
    }
}
