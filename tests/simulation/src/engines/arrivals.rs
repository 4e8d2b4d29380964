//! The messages that arrive at one node, and the rules for those that its engine holds back.

use bytes::Bytes;
use psrpc_engine::proto::{Frame, Stream, StreamBody, Text};
use psrpc_engine::{Dropped, Time, WallTime};

use super::engine_node::Moment;
use super::engine_world::EngineWorld;
use crate::judge::violation::{Checked, Invariant};

/// The messages that have arrived at a node on streams of the model, and have been neither
/// delivered nor dropped.
#[derive(Default)]
pub(super) struct Arrivals {
    /// The message that the engine handles in this step.
    incoming: Option<Arrival>,
    /// The messages that the engine holds back, in the order of their arrival.
    held: Vec<Arrival>,
    /// The stream of a message that was dropped in this step before it had expired. The stream must
    /// end in this step.
    must_end: Option<usize>,
}

/// A message that has arrived.
struct Arrival {
    /// The operation number of its stream.
    stream: usize,
    request_id: Text,
    payload: Bytes,
    /// Its own expiry, by the wall clock and by the monotonic clock of the node.
    expiry: WallTime,
    expires: Time,
}

impl Arrival {
    fn has_expired(&self, moment: Moment) -> bool {
        moment.now.wall >= self.expiry || moment.now.time >= self.expires
    }
}

impl Arrivals {
    /// Begins a step of the node. A message that arrived in the step before, and was neither
    /// delivered nor dropped, is held back.
    pub(super) fn begin_step(&mut self) -> Checked {
        self.held.extend(self.incoming.take());
        match self.must_end.take() {
            Some(stream) => Invariant::I12
                .violated(format!("stream {stream}: a message was dropped while it was held back")),
            None => Ok(()),
        }
    }

    /// Notes the frame that the engine is about to handle.
    pub(super) fn on_frame(&mut self, moment: Moment, world: &EngineWorld, frame: &Frame) {
        let Frame::Stream(Stream { stream_id, request_id, expiry, body, .. }) = frame else { return };
        let Some(StreamBody::Message { payload }) = body else { return };
        let Some(stream) = world.model.number_of(stream_id) else { return };
        let expiry = WallTime::from_unix_nanos(*expiry);
        let expires = moment.now.time + expiry.since(moment.now.wall);
        let (request_id, payload) = (request_id.clone(), payload.clone());
        self.incoming = Some(Arrival { stream, request_id, payload, expiry, expires });
    }

    /// Returns the expiry of the message that the engine handles in this step, if the report is
    /// about that message.
    pub(super) fn incoming_expiry(&self, stream: usize, dropped: &Dropped) -> Option<WallTime> {
        let incoming = self.incoming.as_ref()?;
        (incoming.stream == stream && incoming.request_id == dropped.request_id).then_some(incoming.expiry)
    }

    /// Checks the delivery of a message.
    pub(super) fn delivered(&mut self, moment: Moment, stream: usize, payload: &Bytes) -> Checked {
        let first = self.held.iter().position(|held| held.stream == stream);
        let is_same = |arrival: &Arrival| arrival.stream == stream && arrival.payload == *payload;
        let position = self.held.iter().position(is_same);
        if position.is_none() {
            self.incoming.take_if(|incoming| is_same(incoming));
        }
        if position != first {
            return Invariant::I7.violated(format!("{payload:?} overtook a message that was held back"));
        }
        let Some(position) = position else { return Ok(()) };
        if self.held.remove(position).has_expired(moment) {
            return Invariant::I7.violated(format!("{payload:?} was held back past its expiry"));
        }
        Ok(())
    }

    /// Notes a message that was dropped.
    pub(super) fn dropped(&mut self, moment: Moment, stream: usize, request_id: &Text) {
        let is_same = |arrival: &Arrival| arrival.stream == stream && arrival.request_id == *request_id;
        if self.incoming.take_if(|incoming| is_same(incoming)).is_some() {
            return;
        }
        let Some(position) = self.held.iter().position(is_same) else { return };
        if !self.held.remove(position).has_expired(moment) {
            self.must_end = Some(stream);
        }
    }

    /// Notes the end of a stream.
    pub(super) fn ended(&mut self, stream: usize) {
        self.must_end.take_if(|must_end| *must_end == stream);
    }
}
