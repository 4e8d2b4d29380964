//! The commands on streams, the same for a client and a server.

use core::fmt;
use core::time::Duration;

use bytes::Bytes;
use psrpc_proto::{ErrorResponse, IdGenerator};

use super::Streams;
use super::context::{Context, Rules};
use super::frames::plain_close;
use super::pending_message::PendingMessage;
use super::side::{Side, SideOutputs};
use crate::core::handle::{SendHandle, StreamHandle};
use crate::core::time::Now;
use crate::error::SendError;
use crate::reason::Reason;

/// The commands on the streams of an engine
/// ([`Engine::stream_commands`](crate::Engine::stream_commands)). A command with a stale handle
/// does nothing.
pub struct StreamCommands<'a, S: Side> {
    pub(crate) streams: &'a mut Streams<S>,
    pub(crate) outputs: &'a mut SideOutputs<S>,
    pub(crate) ids: &'a mut IdGenerator,
    pub(crate) rules: Rules<'a>,
}

impl<S: Side> StreamCommands<'_, S> {
    /// The streams, with what they need.
    fn at(&mut self, now: Now) -> (&mut Streams<S>, Context<'_, S>) {
        let Self { streams, outputs, ids, rules } = self;
        (streams, Context { now, outputs, ids, rules: *rules })
    }

    /// Returns how long a message may take that does not say so itself.
    pub fn default_timeout(&self) -> Duration {
        self.rules.timeout
    }

    /// Sends a message on a stream. It ends with exactly one
    /// [`StreamEvent::Sent`](crate::StreamEvent::Sent), after `timeout`, or else the
    /// [default](Self::default_timeout), at the latest. Messages arrive in the order of their sends
    /// only if each is sent after the one before it was acknowledged.
    ///
    /// # Errors
    ///
    /// When the stream has ended, or the message cannot be sent as it stands; nothing is published
    /// then.
    pub fn send(
        &mut self,
        now: Now,
        stream: StreamHandle,
        payload: impl Into<Bytes>,
        timeout: Option<Duration>,
    ) -> Result<SendHandle, SendError> {
        let (streams, mut cx) = self.at(now);
        streams.send(&mut cx, stream, payload.into(), timeout)
    }

    /// Forgets a send, without an event. Whether the message arrives is open.
    pub fn cancel_send(&mut self, send: SendHandle) {
        self.streams.cancel_send(self.outputs, send);
    }

    /// Answers [`StreamEvent::Message`](crate::StreamEvent::Message): its consumer has it, and its sender may know.
    pub fn accept(&mut self, now: Now, delivery: PendingMessage) {
        let (streams, mut cx) = self.at(now);
        streams.acknowledge(&mut cx, delivery);
    }

    /// Answers [`StreamEvent::Message`](crate::StreamEvent::Message): its consumer does not take it. With a cause, since it
    /// does not decode, the stream ends; without one its sender hears nothing.
    pub fn reject(&mut self, now: Now, delivery: PendingMessage, cause: Option<ErrorResponse>) {
        let (streams, mut cx) = self.at(now);
        streams.reject(&mut cx, delivery, cause);
    }

    /// The consumer has taken a message that was accepted, so that there is room for another.
    pub fn taken(&mut self, stream: StreamHandle) {
        self.streams.taken(stream);
    }

    /// Closes a stream: both sides end with the cause, or with "stream closed". At a server its
    /// handler goes on, until [`Engine::finish_stream`](crate::Engine::finish_stream).
    pub fn close(&mut self, now: Now, stream: StreamHandle, cause: Option<ErrorResponse>) {
        let (streams, mut cx) = self.at(now);
        streams.close(&mut cx, stream, Reason::Closed, cause.unwrap_or_else(plain_close));
    }
}

impl<S: Side> fmt::Debug for StreamCommands<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamCommands").field("streams", &self.streams.len()).finish_non_exhaustive()
    }
}
