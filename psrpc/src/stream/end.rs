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
use crate::interceptor::{SendChain, SendOptions};
use crate::message::AnyMessage;
use crate::waiting::WaiterKey;

/// What a stream asks of the client or server that it belongs to.
pub(crate) trait StreamEnd: SendChain {
    fn codec(&self) -> &Arc<Codec>;
    /// Hands a message to the engine, and returns the key to ask for the outcome by.
    fn start_send(&self, payload: Bytes, options: SendOptions) -> Result<usize, SendError>;
    fn poll_sent(&self, sender: usize, cx: &Context<'_>) -> Poll<Result<(), Box<Failure>>>;
    fn cancel_send(&self, sender: usize);
    fn poll_message(&self, waiter: &mut WaiterKey, cx: &Context<'_>) -> Poll<Option<AnyMessage>>;
    fn poll_ended(&self, waiter: &mut WaiterKey, cx: &Context<'_>) -> Poll<Box<Failure>>;
    /// Takes the place of a task that waits no more.
    fn remove_waiter(&self, awaited: Awaited, waiter: &mut WaiterKey);
    fn close(&self, cause: Option<ErrorResponse>);
    fn hijack(&self);
}

/// A task that waits for a stream, and leaves its place when it gives up.
pub(super) struct StreamWaiter<'a> {
    end: &'a dyn StreamEnd,
    awaited: Awaited,
    pub(super) key: WaiterKey,
}

impl<'a> StreamWaiter<'a> {
    pub(super) fn new(end: &'a dyn StreamEnd, awaited: Awaited) -> Self {
        Self { end, awaited, key: WaiterKey::default() }
    }
}

impl Drop for StreamWaiter<'_> {
    fn drop(&mut self) {
        if self.key.is_registered() {
            self.end.remove_waiter(self.awaited, &mut self.key);
        }
    }
}

/// Resolves with the cause when a stream has ended.
pub(super) async fn closed(end: &dyn StreamEnd) -> Error {
    let mut waiter = StreamWaiter::new(end, Awaited::End);
    let failure = poll_fn(|cx| end.poll_ended(&mut waiter.key, cx)).await;
    (*failure).into()
}
