//! Messages from the other side: delivered, held back or dropped, and acknowledged.

use core::time::Duration;

use bytes::Bytes;
use psrpc_proto::{ErrorResponse, Frame, Stream, StreamBody};

use super::context::{Context, Rules};
use super::event::StreamEvent;
use super::frames::slow_consumer;
use super::held::HeldMessage;
use super::pending_message::PendingMessage;
use super::sends::StreamTimer;
use super::side::{Side, SideOutputs};
use super::{StreamState, Streams};
use crate::config::SlowConsumer;
use crate::core::dedup::Admission;
use crate::core::handle::StreamHandle;
use crate::core::outputs::Publish;
use crate::core::time::Expiry;
use crate::limits::StreamLimits;
use crate::reason::{Dropped, Reason};

/// Where a new message goes.
enum Placement {
    /// To the queue of the consumer.
    Queue,
    /// It is held back, until its own expiry at the latest.
    Held(Expiry),
    /// There is no room for it.
    Nowhere,
}

impl<D> StreamState<D> {
    /// Returns `true` if the consumer has room for a message. While the bus is full, the acks that
    /// wait for it must also be below the limit.
    fn has_room<S: Side>(&self, outputs: &SideOutputs<S>, limits: &StreamLimits) -> bool {
        let limit = limits.unread_per_stream;
        self.unread < limit && !(outputs.is_blocked() && self.acks >= limit)
    }
}

impl<S: Side> Streams<S> {
    /// Handles a message from the other side. Long, because each check has its own reason to drop
    /// the message.
    pub(crate) fn on_message(
        &mut self,
        cx: &mut Context<'_, S>,
        stream: StreamHandle,
        frame: Stream,
        payload: Bytes,
    ) {
        let Stream { stream_id, request_id, sent_at, expiry, .. } = frame;
        let drop = |reason| Dropped::of(reason, request_id.clone(), stream_id.clone());
        let state = match self.in_flight.get_mut(stream) {
            Some(entry) if !entry.state.ended => &mut entry.state,
            _ => return cx.outputs.dropped(drop(Reason::NoStream)),
        };
        if request_id.is_empty() {
            return cx.outputs.dropped(drop(Reason::MissingId));
        }
        state.last_received = cx.now.time;
        let Rules { horizon, skew_allowance, .. } = cx.rules;
        let expires = match Expiry::of_frame(cx.now, sent_at, expiry, horizon, skew_allowance) {
            Ok(expires) => expires,
            Err((reason, late)) => {
                let reason = if reason == Reason::Expired { Reason::ExpiredMessage } else { reason };
                return cx.outputs.dropped(Dropped { late_by: late.by, ..drop(reason) });
            }
        };
        let identity = self.keys.identity(stream_id.as_bytes(), request_id.as_bytes());
        let own_expiry = || Expiry::of_frame(cx.now, sent_at, expiry, horizon, Duration::ZERO).ok();
        let placement = match cx.rules.config.slow_consumer {
            // No message is accepted while the queue for a full bus is too long, because its ack
            // would make the queue longer.
            _ if cx.outputs.is_overfull() => Placement::Nowhere,
            _ if state.has_room::<S>(cx.outputs, &self.limits) && state.held.is_empty() => Placement::Queue,
            SlowConsumer::HoldBack if state.held.has_room(&self.held, payload.len(), &self.limits) => {
                own_expiry().map_or(Placement::Nowhere, Placement::Held)
            }
            _ => Placement::Nowhere,
        };
        if let Placement::Nowhere = placement
            && !self.received.contains(identity)
        {
            cx.outputs.dropped(drop(Reason::SlowConsumer));
            return self.overflowed(cx, stream);
        }
        let owner = |bucket| StreamTimer::Bucket(bucket).into();
        match self.received.admit(cx.now, &mut cx.outputs.timers, identity, &expires, owner) {
            Admission::New => {}
            Admission::Duplicate => return cx.outputs.dropped(drop(Reason::Duplicate)),
            Admission::Forgotten(late) => {
                return cx.outputs.dropped(Dropped { late_by: late.by, ..drop(Reason::ExpiredMessage) });
            }
            Admission::Full => return cx.outputs.dropped(drop(Reason::MessagesFull)),
        }
        let delivery = PendingMessage { stream, request_id, sent_at, expiry };
        match placement {
            Placement::Queue => {
                state.unread += 1;
                cx.outputs.event(StreamEvent::Message { delivery, payload }.into());
            }
            Placement::Held(expiry) => {
                let (message, owner) = (HeldMessage { delivery, payload, expiry }, StreamTimer::Held(stream));
                state.held.push(&mut self.held, &mut cx.outputs.timers, message, owner.into());
            }
            Placement::Nowhere => {}
        }
    }

    /// Closes the stream of a message for which there was no room, if the policy is to close it.
    fn overflowed(&mut self, cx: &mut Context<'_, S>, stream: StreamHandle) {
        if cx.rules.config.slow_consumer == SlowConsumer::Close {
            self.close(cx, stream, Reason::SlowConsumer, slow_consumer());
        }
    }

    /// Delivers messages that are held back, as far as there is room.
    pub(crate) fn release(&mut self, cx: &mut Context<'_, S>, stream: StreamHandle) {
        let Some(entry) = self.in_flight.get_mut(stream) else { return };
        let state = &mut entry.state;
        while state.has_room::<S>(cx.outputs, &self.limits) {
            let Some(message) = state.held.pop(&mut self.held, &mut cx.outputs.timers) else { return };
            if message.has_expired(cx.now) {
                cx.outputs.dropped(message.dropped(&entry.id));
                continue;
            }
            let HeldMessage { delivery, payload, .. } = message;
            state.unread += 1;
            cx.outputs.event(StreamEvent::Message { delivery, payload }.into());
        }
    }

    /// Drops the messages that have expired while they were held back.
    pub(super) fn on_held_expired(&mut self, cx: &mut Context<'_, S>, stream: StreamHandle) {
        let Some(entry) = self.in_flight.get_mut(stream) else { return };
        let owner = StreamTimer::Held(stream).into();
        let timers = &mut cx.outputs.timers;
        for message in entry.state.held.timer_fired(&mut self.held, timers, cx.now, owner) {
            cx.outputs.dropped(message.dropped(&entry.id));
        }
    }

    pub(crate) fn on_ack_published(&mut self, cx: &mut Context<'_, S>, stream: StreamHandle) {
        let Some(entry) = self.in_flight.get_mut(stream) else { return };
        entry.state.acks = entry.state.acks.saturating_sub(1);
        if !entry.state.held.is_empty() {
            self.release(cx, stream);
        }
    }

    /// Acknowledges a message to its sender.
    pub(crate) fn acknowledge(&mut self, cx: &mut Context<'_, S>, delivery: PendingMessage) {
        let PendingMessage { stream, request_id, sent_at, expiry } = delivery;
        let Some(entry) = self.in_flight.get_mut(stream).filter(|entry| !entry.state.ended) else { return };
        entry.state.acks += 1;
        let stream_id = entry.id.clone();
        let ack = Stream { stream_id, request_id, sent_at, expiry, body: Some(StreamBody::Ack) };
        cx.outputs.publish(Publish::Ack(stream), &entry.state.channel, Frame::Stream(ack));
    }

    /// Rejects a message. With a cause, the stream ends.
    pub(crate) fn reject(
        &mut self,
        cx: &mut Context<'_, S>,
        delivery: PendingMessage,
        cause: Option<ErrorResponse>,
    ) {
        let PendingMessage { stream, request_id, .. } = delivery;
        let is_holding = self.taken(stream);
        let Some(entry) = self.in_flight.get(stream) else { return };
        let reason = if cause.is_some() { Reason::MalformedMessage } else { Reason::Refused };
        cx.outputs.dropped(Dropped::of(reason, request_id, entry.id.clone()));
        match cause {
            Some(cause) => self.close(cx, stream, reason, cause),
            None if is_holding => self.release(cx, stream),
            None => {}
        }
    }

    /// Makes room for another message. Returns `true` if messages are held back.
    pub(crate) fn taken(&mut self, stream: StreamHandle) -> bool {
        let Some(entry) = self.in_flight.get_mut(stream) else { return false };
        entry.state.unread = entry.state.unread.saturating_sub(1);
        !entry.state.held.is_empty()
    }
}
