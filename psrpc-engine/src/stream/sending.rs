//! Messages to the other side: sent, and settled by their acks.

use alloc::boxed::Box;
use core::time::Duration;

use bytes::Bytes;
use psrpc_proto::{Frame, Stream, StreamBody};

use super::Streams;
use super::context::Context;
use super::event::StreamEvent;
use super::frames::frame;
use super::side::{Side, SideOutputs};
use super::window::WaitingSend;
use crate::core::bus_error::BusError;
use crate::core::handle::{SendHandle, StreamHandle};
use crate::core::outputs::Publish;
use crate::error::{Evidence, Failure, SendError};
use crate::reason::{Dropped, Reason};
use crate::wire::outgoing;

impl<S: Side> Streams<S> {
    /// Sends a message, once the window has a place for it. The send ends by its deadline at the
    /// latest.
    pub(crate) fn send(
        &mut self,
        cx: &mut Context<'_, S>,
        stream: StreamHandle,
        payload: Bytes,
        timeout: Option<Duration>,
    ) -> Result<SendHandle, SendError> {
        let entry = self.in_flight.get_mut(stream).filter(|entry| !entry.state.ended);
        let Some(entry) = entry else { return Err(SendError::Ended) };
        let state = &mut entry.state;
        let limit = self.limits.waiting_per_stream;
        let has_place = state.sends.has_place();
        if !has_place && state.sends.waiting() >= limit {
            return Err(SendError::TooMany { limit });
        }
        let timeout = timeout.unwrap_or(cx.rules.timeout);
        let (request_id, vacancy) = self.sends.draw_id(cx.ids);
        let body = StreamBody::Message { payload };
        let frame = frame(cx.now, entry.id.clone(), request_id.clone(), timeout, body);
        outgoing::check(&frame, &state.channel, cx.rules.frame)?;
        let deadline = cx.now.time + timeout;
        let send = self.sends.start(&mut cx.outputs.timers, vacancy, request_id, deadline, stream);
        match frame {
            Frame::Stream(Stream { body: Some(StreamBody::Message { payload }), .. }) if !has_place => {
                state.sends.wait(WaitingSend { send, payload });
            }
            frame => {
                state.sends.add(send);
                cx.outputs.publish(Publish::Message(send), &state.channel, frame);
            }
        }
        Ok(send)
    }

    /// Forgets a send without an event. If the message has been published, it may still arrive.
    pub(crate) fn cancel_send(&mut self, cx: &mut Context<'_, S>, send: SendHandle) {
        if let Some(stream) = self.sends.settle(&mut cx.outputs.timers, send) {
            self.leave_window(cx, stream, send);
        }
    }

    /// Handles an ack from the other side. The ack's own expiry does not matter, because the send
    /// has a deadline.
    pub(crate) fn on_ack(&mut self, cx: &mut Context<'_, S>, frame: Stream) {
        let Stream { stream_id, request_id, .. } = frame;
        let stream = self.in_flight.find(&stream_id);
        let Some(send) = self.sends.find(&request_id).filter(|send| self.sends.stream(*send) == stream)
        else {
            return cx.outputs.dropped(Dropped::of(Reason::Late, request_id, stream_id));
        };
        let Some(entry) = stream.and_then(|stream| self.in_flight.get_mut(stream)) else { return };
        entry.state.last_received = cx.now.time;
        if self.sends.is_overdue(cx.now.time, send) {
            return cx.outputs.dropped(Dropped::of(Reason::Late, request_id, stream_id));
        }
        entry.state.sends.grow();
        self.settle(cx, send, Ok(()));
    }

    /// Handles the deadline of a send.
    pub(super) fn on_deadline(&mut self, cx: &mut Context<'_, S>, send: SendHandle) {
        self.sends.timer_fired(send);
        let Some(entry) = self.sends.stream(send).and_then(|stream| self.in_flight.get_mut(stream)) else {
            return;
        };
        let was_sent = entry.state.sends.remove(send);
        if was_sent {
            entry.state.sends.halve();
        }
        let evidence = Evidence { unsent: !was_sent, ..Evidence::default() };
        if let Some(stream) = self.end_send(cx.outputs, send, Err(Failure::timed_out(evidence))) {
            self.fill_window(cx, stream);
        }
    }

    pub(crate) fn on_message_published(
        &mut self,
        cx: &mut Context<'_, S>,
        send: SendHandle,
        result: Result<Option<u64>, BusError>,
    ) {
        if let Err(error) = result {
            self.settle(cx, send, Err(Failure::bus(Reason::PublishFailed, error, Evidence::default())));
        }
    }

    /// Ends a send, and publishes the next that waits.
    fn settle(&mut self, cx: &mut Context<'_, S>, send: SendHandle, outcome: Result<(), Box<Failure>>) {
        if let Some(stream) = self.end_send(cx.outputs, send, outcome) {
            self.leave_window(cx, stream, send);
        }
    }

    /// Ends a send, and returns its stream.
    pub(super) fn end_send(
        &mut self,
        outputs: &mut SideOutputs<S>,
        send: SendHandle,
        outcome: Result<(), Box<Failure>>,
    ) -> Option<StreamHandle> {
        let stream = self.sends.settle(&mut outputs.timers, send)?;
        outputs.event(StreamEvent::Sent { send, outcome }.into());
        Some(stream)
    }

    /// Removes a send from the window of its stream, and publishes the next that waits.
    fn leave_window(&mut self, cx: &mut Context<'_, S>, stream: StreamHandle, send: SendHandle) {
        if let Some(entry) = self.in_flight.get_mut(stream) {
            entry.state.sends.remove(send);
            self.fill_window(cx, stream);
        }
    }

    /// Publishes sends that wait, as far as the window of the stream has places.
    fn fill_window(&mut self, cx: &mut Context<'_, S>, stream: StreamHandle) {
        let Some(entry) = self.in_flight.get_mut(stream) else { return };
        while let Some(next) = entry.state.sends.next() {
            // If its deadline has passed, its timer fires next, and brings us back here.
            let Some((request_id, deadline)) = self.sends.get(next) else { return };
            let (request_id, timeout) = (request_id.clone(), deadline.since(cx.now.time));
            if timeout.is_zero() {
                return;
            }
            let Some(WaitingSend { send, payload }) = entry.state.sends.admit_next() else { return };
            let body = StreamBody::Message { payload };
            let frame = frame(cx.now, entry.id.clone(), request_id, timeout, body);
            cx.outputs.publish(Publish::Message(send), &entry.state.channel, frame);
        }
    }
}
