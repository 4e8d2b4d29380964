//! The user of the open streams of a node, the same on both sides: sends, receives, is slow at
//! times, and closes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{ErrorCode, ErrorResponse, Frame, Stream, StreamBody, Text};
use psrpc_engine::{
    ClientConfig, Dropped, Engine, Failure, Now, PendingMessage, Reason, SendHandle, ServerConfig,
    StreamEvent, StreamHandle, Time, WallTime,
};

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

/// The open streams of one node's user.
pub(crate) struct StreamUser {
    node: NodeId,
    streams: BTreeMap<StreamHandle, UserStream>,
    /// The sends that have not ended: the stream of each, and its number unless a forged client
    /// opened the stream.
    sends: BTreeMap<SendHandle, (StreamHandle, Option<usize>)>,
    /// The message that the engine is about to handle: its stream, and its expiry by the sender's
    /// clock.
    incoming: Option<(Text, WallTime)>,
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
    ended: bool,
    /// Whether to forget the stream when it ends.
    done: bool,
}

impl StreamUser {
    pub(crate) fn new(node: NodeId, config: impl Into<StreamUserConfig>, rng: Rng) -> Self {
        let (streams, sends) = (BTreeMap::new(), BTreeMap::new());
        Self { node, streams, sends, incoming: None, config: config.into(), rng }
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
        let remaining = if fresh { 2 } else { rng.below(5) };
        let closes = if fresh { closes } else { rng.chance(500) };
        let done = matches!(self.node, NodeId::Client(_));
        self.streams
            .insert(stream, UserStream { number, remaining, closes, fresh, unread: 0, ended: false, done });
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
                self.taken(engine, stream);
                Ok(())
            }
            StreamAct::CancelSend(send) => {
                engine.stream_commands().cancel_send(send);
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

    /// Sends one or two messages.
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
        let count = self.rng.within(1..3).min(state.remaining);
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

    /// Reseeds the random choices for a moment.
    pub(crate) fn reseed_at(&mut self, moment: Time) {
        self.rng.reseed_at(moment);
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
                match number {
                    Some(stream) => world.note(Fact::StreamEnded { at: self.node, stream, cause: &cause }),
                    None => Ok(()),
                }
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
        if state.fresh {
            self.taken(engine, stream);
        } else {
            let slow = world.scene.faults.happens(Fault::SlowConsumer, &mut self.rng);
            self.schedule(world, if slow { 2000 } else { 8 }, StreamAct::Take(stream));
        }
        Ok(())
    }

    fn taken<E: Engine>(&mut self, engine: &mut E, stream: StreamHandle) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.unread -= 1;
            engine.stream_commands().taken(stream);
        }
    }

    /// Notes the frame that the engine is about to handle.
    pub(crate) fn on_frame(&mut self, frame: &Frame) {
        self.incoming = match frame {
            Frame::Stream(Stream { stream_id, expiry, body: Some(StreamBody::Message { .. }), .. }) => {
                Some((stream_id.clone(), WallTime::from_unix_nanos(*expiry)))
            }
            _ => None,
        };
    }

    /// Checks that the reason for a dropped message of a stream is true.
    pub(crate) fn dropped(&self, moment: Moment, world: &EngineWorld, dropped: &Dropped) -> Checked {
        let Some((_, expiry)) = self.incoming.as_ref().filter(|(stream_id, _)| *stream_id == dropped.peer)
        else {
            return Ok(());
        };
        if dropped.reason == Reason::ExpiredMessage && moment.latest_wall < *expiry + self.config.allowance {
            return Invariant::I16
                .violated(format!("{}: a message was dropped before it expired", self.node));
        }
        let number = world.model.number_of(&dropped.peer);
        let matches = |state: &&UserStream| state.number.is_some() && state.number == number;
        let has_room =
            self.streams.values().find(matches).is_some_and(|state| state.unread < self.config.unread);
        if dropped.reason == Reason::SlowConsumer && has_room && !moment.is_full {
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
