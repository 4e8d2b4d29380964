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
use crate::judge::fact::{Asked, Fact, What};
use crate::judge::violation::{Checked, Invariant};

use super::engine_node::Moment;
use super::engine_world::EngineWorld;
use crate::judge::payload;
use crate::node_id::NodeId;
use crate::rng::Rng;

/// The open streams of one node's user.
pub(crate) struct StreamUser {
    node: NodeId,
    streams: BTreeMap<StreamHandle, Ongoing>,
    /// The sends that have not ended: the stream of each, and its number unless a forged client
    /// opened the stream.
    sends: BTreeMap<SendHandle, (StreamHandle, Option<usize>)>,
    /// The message that the engine is about to handle: its stream, and its expiry by the sender's
    /// clock.
    heard: Option<(Text, WallTime)>,
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

struct Ongoing {
    /// The operation number of its opening; `None` if a forged client opened it.
    number: Option<usize>,
    /// The number of messages still to send.
    to_say: u64,
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
        Self { node, streams, sends, heard: None, config: config.into(), rng }
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
        let to_say = if fresh { 2 } else { rng.below(5) };
        let closes = if fresh { closes } else { rng.chance(500) };
        let done = matches!(self.node, NodeId::Client(_));
        self.streams.insert(stream, Ongoing { number, to_say, closes, fresh, unread: 0, ended: false, done });
        // Nothing else may ever end it.
        let late = world.is_calm() && !fresh && !self.config.has_idle_timeout;
        self.later(world, 40, if late { StreamAct::Close(stream) } else { StreamAct::Say(stream) });
    }

    /// Returns `true` if the stream with this operation number is open here.
    pub(crate) fn has(&self, number: usize) -> bool {
        self.streams.values().any(|stream| stream.number == Some(number) && !stream.ended)
    }

    /// Notes that the handler has finished, so that the stream is forgotten when it ends.
    pub(crate) fn done(&mut self, stream: StreamHandle) {
        match self.streams.get_mut(&stream) {
            Some(ongoing) if ongoing.ended => self.forget(stream),
            Some(ongoing) => ongoing.done = true,
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
            StreamAct::Say(stream) => self.say(engine, moment, world, stream),
            StreamAct::Accept(delivery, payload) => self.accept(engine, moment, world, delivery, &payload),
            StreamAct::Take(stream) => {
                self.taken(engine, stream);
                Ok(())
            }
            StreamAct::CancelSend(send) => {
                engine.stream_commands().cancel_send(send);
                match self.sends.remove(&send) {
                    Some((_, Some(number))) => world.note(Fact::GivenUp { number }),
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
    fn say<E: Engine>(
        &mut self,
        engine: &mut E,
        moment: Moment,
        world: &mut EngineWorld,
        stream: StreamHandle,
    ) -> Checked {
        let open = self.streams.get_mut(&stream).filter(|ongoing| !ongoing.ended);
        let Some(ongoing) = open else { return Ok(()) };
        if ongoing.to_say == 0 {
            if ongoing.closes {
                self.later(world, 200, StreamAct::Close(stream));
            }
            return Ok(());
        }
        let at_once = self.rng.within(1..3).min(ongoing.to_say);
        ongoing.to_say -= at_once;
        let (number, fresh) = (ongoing.number, ongoing.fresh);
        for _ in 0..at_once {
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
        let message = world.model.asked();
        // The model knows nothing of streams that forged clients opened.
        let payload = opening.map_or_else(|| Bytes::from_static(b"who are you?"), |_| payload::news(message));
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
            let (by, what) = (self.node, What::Send { stream, deadline: moment.now.time + timeout });
            let (deadline, grace) = (moment.due(timeout), Duration::ZERO);
            world.note(Fact::Asked(Asked { by, what, deadline, grace, must_succeed: false }))?;
            if world.scene.faults.happens(Fault::Cancel, &mut self.rng) {
                self.later(world, 40, StreamAct::CancelSend(send));
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
                let Some(ongoing) = self.streams.get_mut(&stream) else { return Ok(()) };
                ongoing.ended = true;
                let number = ongoing.number;
                if ongoing.done {
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
        let Some(ongoing) = self.streams.get_mut(&stream) else {
            return Invariant::I7
                .violated(format!("{payload:?} came out at {node} on a stream that is gone"));
        };
        ongoing.unread += 1;
        if ongoing.unread > self.config.unread {
            return Invariant::I10
                .violated(format!("{} messages wait to be taken at {node}", ongoing.unread));
        }
        if let Some(stream) = ongoing.number {
            world.note(Fact::Message { at: node, stream, payload: &payload })?;
        }
        let rng = &mut self.rng;
        if ongoing.fresh || rng.chance(500) {
            return self.accept(engine, moment, world, delivery, &payload);
        }
        if rng.chance(50) {
            let cause = rng.maybe(500, |_| ErrorResponse::new(ErrorCode::MalformedRequest, "cannot decode"));
            world.scene.log(self.node, format_args!("rejects {payload:?}"));
            ongoing.unread -= 1;
            engine.stream_commands().reject(moment.now, delivery, cause);
            return Ok(());
        }
        self.later(world, 80, StreamAct::Accept(delivery, payload));
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
        let Some(ongoing) = self.streams.get(&stream) else { return Ok(()) };
        if let (Some(_), Some(message)) = (ongoing.number, payload::number(payload)) {
            world.note(Fact::Accepted { at: self.node, message })?;
        }
        engine.stream_commands().accept(moment.now, delivery);
        if ongoing.fresh {
            self.taken(engine, stream);
        } else {
            let slow = world.scene.faults.happens(Fault::SlowConsumer, &mut self.rng);
            self.later(world, if slow { 2000 } else { 8 }, StreamAct::Take(stream));
        }
        Ok(())
    }

    fn taken<E: Engine>(&mut self, engine: &mut E, stream: StreamHandle) {
        if let Some(ongoing) = self.streams.get_mut(&stream) {
            ongoing.unread -= 1;
            engine.stream_commands().taken(stream);
        }
    }

    /// Notes the frame that the engine is about to handle.
    pub(crate) fn on_frame(&mut self, frame: &Frame) {
        self.heard = match frame {
            Frame::Stream(Stream { stream_id, expiry, body: Some(StreamBody::Message { .. }), .. }) => {
                Some((stream_id.clone(), WallTime::from_unix_nanos(*expiry)))
            }
            _ => None,
        };
    }

    /// Checks that the reason for a dropped message of a stream is true.
    pub(crate) fn dropped(&self, moment: Moment, world: &EngineWorld, dropped: &Dropped) -> Checked {
        let Some((_, expiry)) = self.heard.as_ref().filter(|(stream_id, _)| *stream_id == dropped.peer)
        else {
            return Ok(());
        };
        if dropped.reason == Reason::ExpiredMessage && moment.latest < *expiry + self.config.allowance {
            return Invariant::I16
                .violated(format!("{}: a message was dropped before it expired", self.node));
        }
        let number = world.model.number_of(&dropped.peer);
        let is_it = |ongoing: &&Ongoing| ongoing.number.is_some() && ongoing.number == number;
        let has_room =
            self.streams.values().find(is_it).is_some_and(|ongoing| ongoing.unread < self.config.unread);
        if dropped.reason == Reason::SlowConsumer && has_room && !moment.is_full {
            return Invariant::I12
                .violated(format!("{}: a message was dropped though there is room", self.node));
        }
        Ok(())
    }

    fn sent(&mut self, world: &mut EngineWorld, send: SendHandle, outcome: Result<(), &Failure>) -> Checked {
        let Some((stream, number)) = self.sends.remove(&send) else {
            return world.note(Fact::Ended { number: None, outcome });
        };
        let waits = self.sends.values().any(|(other, _)| *other == stream);
        if !waits && self.streams.contains_key(&stream) {
            self.later(world, 40, StreamAct::Say(stream));
        }
        match number {
            Some(_) => world.note(Fact::Ended { number, outcome }),
            None => Ok(()),
        }
    }

    /// Schedules an act within `grains` grains.
    fn later(&mut self, world: &mut EngineWorld, grains: u64, act: StreamAct) {
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
