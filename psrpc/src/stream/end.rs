//! The interface of the user's end of a stream, independent of its side and message types.

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

/// The operations on the user's end of a stream.
pub(crate) trait StreamEnd: SendChain {
    fn codec(&self) -> &Arc<Codec>;
    /// Passes a message to the engine, and returns the key to poll for its outcome.
    fn start_send(&self, payload: Bytes, options: SendOptions) -> Result<usize, SendError>;
    fn poll_sent(&self, sender: usize, cx: &Context<'_>) -> Poll<Result<(), Box<Failure>>>;
    fn cancel_send(&self, sender: usize);
    fn poll_message(&self, waiter: &mut WaiterKey, cx: &Context<'_>) -> Poll<Option<AnyMessage>>;
    fn poll_ended(&self, waiter: &mut WaiterKey, cx: &Context<'_>) -> Poll<Box<Failure>>;
    /// Removes the waker of a task that no longer waits.
    fn remove_waiter(&self, awaited: Awaited, waiter: &mut WaiterKey);
    fn close(&self, cause: Option<ErrorResponse>);
    fn hijack(&self);
}

/// A task that waits on a stream. Dropping it removes its waker.
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

/// Waits until a stream has ended, and returns the cause.
pub(super) async fn closed(end: &dyn StreamEnd) -> Error {
    let mut waiter = StreamWaiter::new(end, Awaited::End);
    let failure = poll_fn(|cx| end.poll_ended(&mut waiter.key, cx)).await;
    (*failure).into()
}
