//! Open streams, shared by both sides: messages in and out, acks, and the end.
//!
//! ```text
//!           ┌── message ──▶ accept (ack) │ reject │ discard
//! ──open──▶ Open ──close, by either side; idle; drained──▶ Ended ──forget──▶ (gone)
//!           └── send ──▶ ack │ deadline │ failed publish │ cancellation │ end of the stream
//! ```
//!
//! A client's stream is gone when it ends; a server's lingers until its handler is done.

pub(crate) mod commands;
pub(crate) mod context;
pub(crate) mod event;
pub(crate) mod frames;
pub(crate) mod pending_message;
pub(crate) mod sends;
pub(crate) mod side;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use psrpc_proto::{Channel, ErrorCode, ErrorResponse, Frame, Stream, StreamBody, Text};

use self::context::{Context, Rules};
use self::event::StreamEvent;
use self::frames::{frame, publish_close, slow_consumer};
use self::pending_message::PendingMessage;
use self::sends::{Sends, StreamTimer};
use self::side::{Side, SideOutputs};
use crate::config::SlowConsumer;
use crate::core::budget::{Budget, Step};
use crate::core::bus_error::BusError;
use crate::core::dedup::{Admission, Dedup};
use crate::core::handle::{SendHandle, StreamHandle};
use crate::core::in_flight::{InFlight, Vacancy};
use crate::core::map::HashKeys;
use crate::core::outputs::Publish;
use crate::core::time::{Expiry, Time};
use crate::core::timers::TimerKind;
use crate::error::{Evidence, Failure, SendError};
use crate::limits::StreamLimits;
use crate::reason::{Dropped, Reason};
use crate::wire::outgoing;

/// The streams of one engine.
pub(crate) struct Streams<S: Side> {
    in_flight: InFlight<StreamHandle, StreamState<S::Data>>,
    sends: Sends,
    received: Dedup,
    keys: HashKeys,
    limits: StreamLimits,
}

/// The state of one side of a stream.
struct StreamState<D> {
    /// The data that the side attaches to the stream.
    data: D,
    /// The channel for frames to the other side.
    channel: Channel,
    ended: bool,
    /// When the last frame of the other side arrived.
    last_received: Time,
    /// Messages that the consumer has not taken yet.
    unread: usize,
    /// Acks that the bus has not taken yet. Limited like `unread`, because a full bus delays acks.
    acks: usize,
    sends: Vec<SendHandle>,
}

impl<S: Side> Streams<S> {
    pub(crate) fn new(keys: HashKeys, limits: StreamLimits) -> Self {
        Self {
            in_flight: InFlight::new(keys.clone()),
            sends: Sends::new(keys.clone()),
            received: Dedup::new(limits.remembered),
            keys,
            limits,
        }
    }

    /// Returns the number of streams, including those that linger.
    pub(crate) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the number of messages sent and not acknowledged.
    pub(crate) fn sending(&self) -> usize {
        self.sends.len()
    }

    /// Returns the number of remembered messages.
    pub(crate) fn remembered(&self) -> usize {
        self.received.remembered()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.limits.streams
    }

    pub(crate) fn is_sending(&self, send: SendHandle) -> bool {
        self.sends.contains(send)
    }

    /// Returns the proof that no stream has this id, or `None` if one has.
    pub(crate) fn vacancy(&self, stream_id: &Text) -> Option<Vacancy> {
        self.in_flight.vacancy(stream_id)
    }

    pub(crate) fn find(&self, stream_id: &Text) -> Option<StreamHandle> {
        self.in_flight.find(stream_id)
    }

    /// Returns the data that the side attached to a stream.
    pub(crate) fn data_mut(&mut self, stream: StreamHandle) -> Option<&mut S::Data> {
        self.in_flight.get_mut(stream).map(|entry| &mut entry.state.data)
    }

    /// Returns the handle that the next stream will get.
    pub(crate) fn next(&self) -> StreamHandle {
        self.in_flight.next()
    }

    /// Returns the next stream from `cursor` on, and advances `cursor`. Each unacknowledged message
    /// costs as much as the stream itself.
    pub(crate) fn walk(&self, cursor: &mut usize, budget: &mut Budget) -> Step<StreamHandle> {
        let step = self.in_flight.walk(cursor, budget);
        if let Step::Next(stream) = step {
            budget.spend(self.sends_of(stream));
        }
        step
    }

    /// Returns the number of unacknowledged messages of a stream.
    pub(crate) fn sends_of(&self, stream: StreamHandle) -> usize {
        self.in_flight.get(stream).map_or(0, |entry| entry.state.sends.len())
    }

    // --- opening ---------------------------------------------------------------------------------

    /// Adds a stream that publishes on `channel`.
    pub(crate) fn add(
        &mut self,
        vacancy: Vacancy,
        stream_id: Text,
        channel: Channel,
        data: S::Data,
    ) -> StreamHandle {
        let handle = self.in_flight.next();
        let (last_received, sends) = (Time::ZERO, Vec::new());
        let state = StreamState { data, channel, ended: false, last_received, unread: 0, acks: 0, sends };
        self.in_flight.insert(vacancy, stream_id, None, state);
        handle
    }

    /// Opens a stream, which starts its idle timeout.
    pub(crate) fn opened(&mut self, cx: &mut Context<'_, S>, stream: StreamHandle) {
        let Some(entry) = self.in_flight.get_mut(stream) else { return };
        entry.state.last_received = cx.now.time;
        if let Some(idle) = cx.rules.config.idle_timeout {
            entry.arm(
                &mut cx.outputs.timers,
                cx.now.time + idle,
                TimerKind::Idle,
                StreamTimer::Idle(stream).into(),
            );
        }
    }

    // --- frames ----------------------------------------------------------------------------------

    /// Handles a message from the other side.
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
        let limit = self.limits.unread_per_stream;
        // Whether the bus is full, and either this stream's waiting acks have reached the limit or
        // the output queue is overfull.
        let acks_held_up = cx.outputs.is_blocked() && state.acks >= limit || cx.outputs.is_overfull();
        if !self.received.contains(identity) && (state.unread >= limit || acks_held_up) {
            cx.outputs.dropped(drop(Reason::SlowConsumer));
            if cx.rules.config.slow_consumer == SlowConsumer::Close {
                self.close(cx, stream, Reason::SlowConsumer, slow_consumer());
            }
            return;
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
        state.unread += 1;
        let delivery = PendingMessage { stream, request_id, sent_at, expiry };
        cx.outputs.event(StreamEvent::Message { delivery, payload }.into());
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
        if let Some(entry) = stream.and_then(|stream| self.in_flight.get_mut(stream)) {
            entry.state.last_received = cx.now.time;
        }
        if self.sends.is_overdue(cx.now.time, send) {
            return cx.outputs.dropped(Dropped::of(Reason::Late, request_id, stream_id));
        }
        self.settle(cx.outputs, send, Ok(()));
    }

    /// Handles a close from the other side, even if it is expired: a stream that misses its close
    /// would stay forever.
    pub(crate) fn on_close(
        &mut self,
        outputs: &mut SideOutputs<S>,
        stream: StreamHandle,
        cause: ErrorResponse,
    ) {
        self.end(outputs, stream, Failure::ended(Reason::ClosedByPeer, cause));
    }

    // --- time and results ------------------------------------------------------------------------

    pub(crate) fn on_timeout(&mut self, cx: &mut Context<'_, S>, timer: StreamTimer, budget: &mut Budget) {
        match timer {
            StreamTimer::Bucket(bucket) => {
                let owner = |bucket| StreamTimer::Bucket(bucket).into();
                self.received.forget(cx.now, &mut cx.outputs.timers, bucket, owner, budget);
            }
            StreamTimer::Send(send) => {
                self.sends.timer_fired(send);
                self.settle(cx.outputs, send, Err(Failure::timed_out(Evidence::default())));
            }
            StreamTimer::Idle(stream) => {
                budget.spend(self.sends_of(stream));
                self.on_idle(cx, stream);
            }
        }
    }

    fn on_idle(&mut self, cx: &mut Context<'_, S>, stream: StreamHandle) {
        let Some(entry) = self.in_flight.timer_fired(stream) else { return };
        let Some(idle) = cx.rules.config.idle_timeout else { return };
        let until = entry.state.last_received + idle;
        if until > cx.now.time {
            // A frame arrived since the timer was set. The timer is moved only now, because moving
            // it for each frame would cost more.
            return entry.arm(
                &mut cx.outputs.timers,
                until,
                TimerKind::Idle,
                StreamTimer::Idle(stream).into(),
            );
        }
        let text = Text::from_static("stream was idle for too long");
        let cause = ErrorResponse::new(ErrorCode::DeadlineExceeded, text);
        self.close(cx, stream, Reason::Idle, cause);
    }

    pub(crate) fn on_message_published(
        &mut self,
        outputs: &mut SideOutputs<S>,
        send: SendHandle,
        result: Result<Option<u64>, BusError>,
    ) {
        if let Err(error) = result {
            self.settle(outputs, send, Err(Failure::bus(Reason::PublishFailed, error, Evidence::default())));
        }
    }

    pub(crate) fn on_ack_published(&mut self, stream: StreamHandle) {
        if let Some(entry) = self.in_flight.get_mut(stream) {
            entry.state.acks = entry.state.acks.saturating_sub(1);
        }
    }

    // --- commands --------------------------------------------------------------------------------

    /// Sends a message. The send ends by its deadline at the latest.
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
        let limit = self.limits.sends_per_stream;
        if state.sends.len() >= limit {
            return Err(SendError::TooMany { limit });
        }
        let timeout = timeout.unwrap_or(cx.rules.timeout);
        let (request_id, vacancy) = self.sends.draw_id(cx.ids);
        let body = StreamBody::Message { payload };
        let frame = frame(cx.now, entry.id.clone(), request_id.clone(), timeout, body);
        outgoing::check(&frame, &state.channel, cx.rules.frame)?;
        let deadline = cx.now.time + timeout;
        let send = self.sends.start(&mut cx.outputs.timers, vacancy, request_id, deadline, stream);
        state.sends.push(send);
        cx.outputs.publish(Publish::Message(send), &state.channel, frame);
        Ok(send)
    }

    /// Forgets a send without an event. The message may still arrive.
    pub(crate) fn cancel_send(&mut self, outputs: &mut SideOutputs<S>, send: SendHandle) {
        if let Some(stream) = self.sends.settle(&mut outputs.timers, send) {
            self.forget_send(stream, send);
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
        self.taken(stream);
        let Some(entry) = self.in_flight.get(stream) else { return };
        let reason = if cause.is_some() { Reason::MalformedMessage } else { Reason::Refused };
        cx.outputs.dropped(Dropped::of(reason, request_id, entry.id.clone()));
        if let Some(cause) = cause {
            self.close(cx, stream, reason, cause);
        }
    }

    /// Makes room for another message.
    pub(crate) fn taken(&mut self, stream: StreamHandle) {
        if let Some(entry) = self.in_flight.get_mut(stream) {
            entry.state.unread = entry.state.unread.saturating_sub(1);
        }
    }

    /// Ends a stream on both sides.
    pub(crate) fn close(
        &mut self,
        cx: &mut Context<'_, S>,
        stream: StreamHandle,
        reason: Reason,
        cause: ErrorResponse,
    ) {
        self.close_with(cx, stream, cause.clone(), Failure::ended(reason, cause));
    }

    /// Ends a stream on both sides, with a separate cause for the other side.
    pub(crate) fn close_with(
        &mut self,
        cx: &mut Context<'_, S>,
        stream: StreamHandle,
        sent_cause: ErrorResponse,
        cause: Box<Failure>,
    ) {
        let Some(entry) = self.in_flight.get(stream).filter(|entry| !entry.state.ended) else { return };
        let (stream_id, channel) = (entry.id.clone(), entry.state.channel.clone());
        publish_close(cx, Publish::Close, stream_id, &channel, sent_cause);
        self.end(cx.outputs, stream, cause);
    }

    /// Gives up a stream that was not opened. Publishes a close if the request was published, so
    /// that a server that accepts the stream late learns that it has ended.
    pub(crate) fn abort(&mut self, cx: &mut Context<'_, S>, stream: StreamHandle, failure: &Failure) {
        let Some((stream_id, state)) = self.in_flight.settle(stream, &mut cx.outputs.timers) else { return };
        // A server that refused the stream needs no close, unless another server may have accepted
        // it.
        let may_be_open = !failure.evidence.unsent
            && (failure.reason != Reason::Answered || failure.evidence.selected.is_some());
        if may_be_open {
            let sent_cause = ErrorResponse::new(failure.code.clone(), failure.text.clone());
            publish_close(cx, Publish::Close, stream_id, &state.channel, sent_cause);
        }
    }

    /// Ends a stream on this side, and fails its unacknowledged messages.
    pub(crate) fn end(&mut self, outputs: &mut SideOutputs<S>, stream: StreamHandle, cause: Box<Failure>) {
        let Some(entry) = self.in_flight.get_mut(stream).filter(|entry| !entry.state.ended) else { return };
        entry.state.ended = true;
        entry.disarm(&mut outputs.timers);
        for send in core::mem::take(&mut entry.state.sends) {
            self.settle(outputs, send, Err(cause.clone()));
        }
        if !S::LINGERS {
            self.in_flight.settle(stream, &mut outputs.timers);
        }
        outputs.count(cause.reason);
        outputs.event(StreamEvent::Ended { stream, cause }.into());
    }

    /// Removes a stream that has ended.
    pub(crate) fn forget(&mut self, outputs: &mut SideOutputs<S>, stream: StreamHandle) -> Option<S::Data> {
        self.in_flight.settle(stream, &mut outputs.timers).map(|(_, state)| state.data)
    }

    /// Forgets the received messages.
    pub(crate) fn forget_received(&mut self, outputs: &mut SideOutputs<S>) {
        self.received.clear(&mut outputs.timers);
    }

    // --- transitions -----------------------------------------------------------------------------

    fn settle(&mut self, outputs: &mut SideOutputs<S>, send: SendHandle, outcome: Result<(), Box<Failure>>) {
        let Some(stream) = self.sends.settle(&mut outputs.timers, send) else { return };
        self.forget_send(stream, send);
        outputs.event(StreamEvent::Sent { send, outcome }.into());
    }

    fn forget_send(&mut self, stream: StreamHandle, send: SendHandle) {
        let Some(entry) = self.in_flight.get_mut(stream) else { return };
        if let Some(index) = entry.state.sends.iter().position(|known| *known == send) {
            entry.state.sends.swap_remove(index);
        }
    }
}
