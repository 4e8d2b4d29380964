//! The commands on streams, shared by client and server.

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
/// has no effect.
pub struct StreamCommands<'a, S: Side> {
    pub(crate) streams: &'a mut Streams<S>,
    pub(crate) outputs: &'a mut SideOutputs<S>,
    pub(crate) ids: &'a mut IdGenerator,
    pub(crate) rules: Rules<'a>,
}

impl<S: Side> StreamCommands<'_, S> {
    /// Returns the streams and their context.
    fn at(&mut self, now: Now) -> (&mut Streams<S>, Context<'_, S>) {
        let Self { streams, outputs, ids, rules } = self;
        (streams, Context { now, outputs, ids, rules: *rules })
    }

    /// Returns the timeout of a message that sets none.
    pub fn default_timeout(&self) -> Duration {
        self.rules.timeout
    }

    /// Sends a message on a stream. Unless it is [canceled](Self::cancel_send), the send ends with
    /// exactly one [`StreamEvent::Sent`](crate::StreamEvent::Sent), after `timeout` at the latest;
    /// `None` stands for the [default](Self::default_timeout). Messages arrive in the order of
    /// their sends only if each is sent after the previous one was acknowledged.
    ///
    /// The number of unacknowledged messages of a stream is limited by a window. A message beyond
    /// it waits, and is published in its turn, with the rest of its timeout as its lifetime. The
    /// window starts at 64, grows by one with each ack, up to
    /// [`StreamLimits::sends_per_stream`](crate::StreamLimits::sends_per_stream), and halves, down
    /// to 1, when an unacknowledged message times out. So a receiver that discards messages is not
    /// flooded.
    ///
    /// # Errors
    ///
    /// Returns an error if the stream has ended or the message cannot be sent; nothing is published
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

    /// Forgets a send without an event. If the message has been published, it may still arrive.
    pub fn cancel_send(&mut self, now: Now, send: SendHandle) {
        let (streams, mut cx) = self.at(now);
        streams.cancel_send(&mut cx, send);
    }

    /// Accepts a message that arrived with [`StreamEvent::Message`](crate::StreamEvent::Message),
    /// and acknowledges it to its sender.
    pub fn accept(&mut self, now: Now, delivery: PendingMessage) {
        let (streams, mut cx) = self.at(now);
        streams.acknowledge(&mut cx, delivery);
    }

    /// Rejects a message that arrived with [`StreamEvent::Message`](crate::StreamEvent::Message),
    /// without acknowledging it. Pass a `cause` if the message does not decode: the stream then
    /// ends with that cause.
    pub fn reject(&mut self, now: Now, delivery: PendingMessage, cause: Option<ErrorResponse>) {
        let (streams, mut cx) = self.at(now);
        streams.reject(&mut cx, delivery, cause);
    }

    /// Reports that the consumer has taken an accepted message, which makes room for another.
    /// Returns `true` if messages are held back: call [`release`](Self::release) then.
    #[must_use = "messages that are held back must be released"]
    pub fn taken(&mut self, stream: StreamHandle) -> bool {
        self.streams.taken(stream)
    }

    /// Delivers messages that are held back ([`HoldBack`](crate::SlowConsumer::HoldBack)), as far
    /// as the consumer has room for them.
    pub fn release(&mut self, now: Now, stream: StreamHandle) {
        let (streams, mut cx) = self.at(now);
        streams.release(&mut cx, stream);
    }

    /// Closes a stream. Both sides end with `cause`, or with "stream closed" if it is `None`. At a
    /// server, the handle stays valid until
    /// [`Engine::finish_stream`](crate::Engine::finish_stream).
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
