//! The end of a stream that user code holds, on whichever side and whatever its messages are.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use psrpc_engine::proto::ErrorResponse;
use psrpc_engine::{Failure, SendError};

use super::codec::Codec;
use super::table::Awaited;
use crate::error::Error;
use crate::interceptor::{SendBelow, SendOptions};
use crate::message::AnyMessage;
use crate::waiting::Place;

/// What a stream asks of the client or server that it belongs to.
pub(crate) trait StreamEnd: SendBelow {
    fn codec(&self) -> &Arc<Codec>;
    /// Hands a message to the engine, and returns the key to ask for the outcome by.
    fn start_send(&self, payload: Bytes, options: SendOptions) -> Result<usize, SendError>;
    fn poll_sent(&self, sender: usize, cx: &Context<'_>) -> Poll<Result<(), Box<Failure>>>;
    fn cancel_send(&self, sender: usize);
    fn poll_message(&self, place: &mut Place, cx: &Context<'_>) -> Poll<Option<AnyMessage>>;
    fn poll_ended(&self, place: &mut Place, cx: &Context<'_>) -> Poll<Box<Failure>>;
    /// Takes the place of a task that waits no more.
    fn leave_place(&self, awaited: Awaited, place: &mut Place);
    fn close(&self, cause: Option<ErrorResponse>);
    fn hijack(&self);
}

/// A task that waits for a stream, and leaves its place when it gives up.
pub(super) struct Waiting<'a> {
    end: &'a dyn StreamEnd,
    awaited: Awaited,
    pub(super) place: Place,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(end: &'a dyn StreamEnd, awaited: Awaited) -> Self {
        Self { end, awaited, place: Place::default() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.place.is_taken() {
            self.end.leave_place(self.awaited, &mut self.place);
        }
    }
}

/// Resolves with the cause when a stream has ended.
pub(super) async fn closed(end: &dyn StreamEnd) -> Error {
    let mut waiting = Waiting::new(end, Awaited::End);
    let failure = poll_fn(|cx| end.poll_ended(&mut waiting.place, cx)).await;
    (*failure).into()
}
