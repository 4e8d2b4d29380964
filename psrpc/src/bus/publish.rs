//! Publishing a frame without a client or a server.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use psrpc_engine::BusError;
use psrpc_engine::proto::{Channel, Frame};

use super::{Accepted, Bus, Offer, ReplyTo, WakeList};
use crate::sync::Lock;
use crate::waiting;

/// Publishes a frame, for programs that use a bus without a client or a server.
///
/// The future offers the frame when it is first polled, and waits while the bus is full. It
/// resolves to the number of subscribers that received the frame, if the bus knows it. Dropping the
/// future does not withdraw a frame that the bus has accepted.
///
/// # Errors
///
/// Returns the bus's error if the frame could not be published.
pub fn publish<B: Bus + ?Sized>(bus: &B, channel: Channel, frame: Frame) -> PublishFuture<'_, B> {
    PublishFuture { bus, state: PublishState::Waiting(channel, frame) }
}

/// The future returned by [`publish`].
pub struct PublishFuture<'a, B: ?Sized> {
    bus: &'a B,
    state: PublishState,
}

enum PublishState {
    Waiting(Channel, Frame),
    Accepted(Arc<Lock<Slot>>),
}

#[derive(Default)]
struct Slot {
    result: Option<Result<Option<u64>, BusError>>,
    waker: Option<Waker>,
}

impl<B: Bus + ?Sized> Future for PublishFuture<'_, B> {
    type Output = Result<Option<u64>, BusError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &this.state {
                PublishState::Waiting(channel, frame) => {
                    let slot = Arc::new(Lock::new(Slot::default()));
                    let shared = Arc::clone(&slot);
                    let reply_to = ReplyTo::new(move |result| {
                        let mut wakes = WakeList::new();
                        let mut slot = shared.lock();
                        slot.result = Some(result);
                        wakes.extend(slot.waker.take());
                    });
                    let offer = Offer::new(channel.clone(), frame.clone(), reply_to);
                    match this.bus.publish(offer, &mut WakeList::new()) {
                        Ok(Accepted::Done(receivers)) => return Poll::Ready(Ok(receivers)),
                        Ok(Accepted::Failed(error)) => return Poll::Ready(Err(error)),
                        Ok(Accepted::Later) => this.state = PublishState::Accepted(slot),
                        Err(super::Full) if this.bus.poll_ready(cx).is_pending() => return Poll::Pending,
                        Err(super::Full) => {}
                    }
                }
                PublishState::Accepted(slot) => {
                    let mut slot = slot.lock();
                    if let Some(result) = slot.result.take() {
                        return Poll::Ready(result);
                    }
                    let replaced = waiting::replace(&mut slot.waker, cx);
                    drop(slot);
                    drop(replaced);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<B: ?Sized> fmt::Debug for PublishFuture<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishFuture").finish_non_exhaustive()
    }
}
