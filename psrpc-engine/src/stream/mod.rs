//! Open streams, shared by both sides: messages in and out, acks, and the end.
//!
//! ```text
//!           ┌── message ──▶ accept (ack) │ reject │ discard
//!           │      └── hold back ──▶ accept (ack) │ reject │ expire
//! ──open──▶ Open ──close, by either side; idle; drained──▶ Ended ──forget──▶ (gone)
//!           └── send ──▶ wait for a place in the window ──▶ ack │ deadline │ failed publish
//!                                                           │ cancellation │ end of the stream
//! ```
//!
//! A client's stream is gone when it ends; a server's lingers until its handler is done.

pub(crate) mod commands;
pub(crate) mod context;
pub(crate) mod event;
pub(crate) mod frames;
mod held;
pub(crate) mod pending_message;
mod receiving;
mod sending;
pub(crate) mod sends;
pub(crate) mod side;
mod window;

use alloc::boxed::Box;
use psrpc_proto::{Channel, ErrorCode, ErrorResponse, Text};

use self::context::Context;
use self::event::StreamEvent;
use self::frames::publish_close;
use self::held::{HeldMessages, HeldSize};
use self::sends::{Sends, StreamTimer};
use self::side::{Side, SideOutputs};
use self::window::SendWindow;
use crate::core::budget::{Budget, Step};
use crate::core::dedup::Dedup;
use crate::core::handle::{SendHandle, StreamHandle};
use crate::core::in_flight::{InFlight, Vacancy};
use crate::core::map::HashKeys;
use crate::core::outputs::Publish;
use crate::core::time::Time;
use crate::core::timers::TimerKind;
use crate::error::Failure;
use crate::limits::StreamLimits;
use crate::reason::Reason;

/// The streams of one engine.
pub(crate) struct Streams<S: Side> {
    in_flight: InFlight<StreamHandle, StreamState<S::Data>>,
    sends: Sends,
    received: Dedup,
    /// How much all streams hold back.
    held: HeldSize,
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
    /// Messages that wait for the consumer to have room for them.
    held: HeldMessages,
    /// Acks that the bus has not taken yet. Limited like `unread`, because a full bus delays acks.
    acks: usize,
    sends: SendWindow,
}

impl<S: Side> Streams<S> {
    pub(crate) fn new(keys: HashKeys, limits: StreamLimits) -> Self {
        Self {
            in_flight: InFlight::new(keys.clone()),
            sends: Sends::new(keys.clone()),
            received: Dedup::new(limits.remembered),
            held: HeldSize::default(),
            keys,
            limits,
        }
    }

    /// Returns the number of streams, including those that linger.
    pub(crate) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the number of messages that wait to be sent or acknowledged.
    pub(crate) fn sending(&self) -> usize {
        self.sends.len()
    }

    /// Returns the number of received messages that are held back.
    pub(crate) fn held(&self) -> usize {
        self.held.messages
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

    /// Returns the next stream from `cursor` on, and advances `cursor`. Each of the stream's
    /// [messages](Self::messages_of) costs as much as the stream itself.
    pub(crate) fn walk(&self, cursor: &mut usize, budget: &mut Budget) -> Step<StreamHandle> {
        let step = self.in_flight.walk(cursor, budget);
        if let Step::Next(stream) = step {
            budget.spend(self.messages_of(stream));
        }
        step
    }

    /// Returns the number of messages that a stream sends and that it holds back.
    pub(crate) fn messages_of(&self, stream: StreamHandle) -> usize {
        self.in_flight.get(stream).map_or(0, |entry| entry.state.sends.len() + entry.state.held.len())
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
        let (last_received, held, sends) =
            (Time::ZERO, HeldMessages::new(), SendWindow::new(self.limits.sends_per_stream));
        let state =
            StreamState { data, channel, ended: false, last_received, unread: 0, held, acks: 0, sends };
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
                self.on_deadline(cx, send);
            }
            StreamTimer::Idle(stream) => {
                budget.spend(self.messages_of(stream));
                self.on_idle(cx, stream);
            }
            StreamTimer::Held(stream) => {
                budget.spend(self.messages_of(stream));
                self.on_held_expired(cx, stream);
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

    // --- the end ---------------------------------------------------------------------------------

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

    /// Ends a stream on this side: fails its sends, and drops the messages that are held back.
    pub(crate) fn end(&mut self, outputs: &mut SideOutputs<S>, stream: StreamHandle, cause: Box<Failure>) {
        let Some(entry) = self.in_flight.get_mut(stream).filter(|entry| !entry.state.ended) else { return };
        entry.state.ended = true;
        entry.disarm(&mut outputs.timers);
        while let Some(message) = entry.state.held.pop(&mut self.held, &mut outputs.timers) {
            outputs.dropped(message.dropped(&entry.id));
        }
        for send in entry.state.sends.clear() {
            self.end_send(outputs, send, Err(cause.clone()));
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
}
