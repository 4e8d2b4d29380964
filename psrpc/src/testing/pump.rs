//! The pump: the task that sends what waits in a faulty bus.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use psrpc_engine::Time;

use super::Shared;
use super::parcels::{Line, Parcel};
use crate::bus::{Accepted, Delivery, Full, Offer, Receipt, ReplyTo, Wakes};
use crate::runtime::Task;
use crate::sync::Mutex;
use crate::waiting;

/// Whether there is a pump, and what wakes it.
#[derive(Default)]
pub(super) enum PumpState {
    #[default]
    Idle,
    Running(Option<Waker>),
}

/// Sends what waits in a faulty bus, and ends when nothing does or the bus is gone.
struct Pump {
    shared: Weak<Shared>,
    sleep: Option<(Time, Task)>,
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(shared) = self.shared.upgrade() else { return Poll::Ready(()) };
        loop {
            let now = shared.runtime.now().time;
            let mut state = shared.lock();
            let due = state.parcels.due(now);
            if due.is_empty() && state.parcels.is_empty() {
                state.pump = PumpState::Idle;
                return Poll::Ready(());
            }
            let next = state.parcels.next();
            let PumpState::Running(waker) = &mut state.pump else { unreachable!("this is the pump") };
            let replaced = waiting::replace(waker, cx);
            drop(state);
            drop(replaced);
            if !due.is_empty() {
                shared.send(due);
                continue;
            }
            if shared.poll_backlog(cx).is_ready() && next.is_none() {
                continue;
            }
            let Some(next) = next else { return Poll::Pending };
            if self.sleep.as_ref().is_none_or(|(until, _)| *until != next) {
                self.sleep = Some((next, shared.runtime.sleep_until(next)));
            }
            let Some((_, sleep)) = &mut self.sleep else { return Poll::Pending };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.sleep = None;
        }
    }
}

impl Shared {
    /// Sees to it that what waits is sent.
    pub(super) fn pump(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.parcels.is_empty() {
            return;
        }
        match &mut state.pump {
            PumpState::Running(waker) => {
                let waker = waker.take();
                drop(state);
                waker.into_iter().for_each(Waker::wake);
            }
            idle => {
                *idle = PumpState::Running(None);
                drop(state);
                self.runtime.spawn(Box::pin(Pump { shared: Arc::downgrade(self), sleep: None }));
            }
        }
    }

    /// Publishes what the wrapped bus had no room for; ready when all of it is.
    fn poll_backlog(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.lock().parcels.has_backlog() {
            return Poll::Ready(());
        }
        loop {
            if self.bus.poll_room(cx).is_pending() {
                return Poll::Pending;
            }
            let Some(parcel) = self.lock().parcels.pop_backlog() else { break };
            if let Some(parcel) = self.send_one(parcel) {
                // Another publish took the room.
                self.lock().parcels.unpop_backlog(parcel);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        self.wake_for_room();
        Poll::Ready(())
    }

    /// Sends frames in their order; what the wrapped bus has no room for waits.
    pub(super) fn send(self: &Arc<Self>, parcels: Vec<Parcel>) {
        for parcel in parcels {
            let behind = matches!(parcel.line, Line::Bus(_)) && self.lock().parcels.has_backlog();
            let left = if behind { Some(parcel) } else { self.send_one(parcel) };
            if let Some(parcel) = left {
                self.lock().parcels.push_backlog(parcel);
                self.pump();
            }
        }
    }

    /// Sends a frame, and gives it back if the wrapped bus has no room for it. A subscriber always has.
    #[must_use]
    pub(super) fn send_one(&self, parcel: Parcel) -> Option<Parcel> {
        let Parcel { line, frame, receipt } = parcel;
        let channel = match &line {
            Line::Bus(channel) => channel.clone(),
            Line::Subscriber(subscriber) => {
                subscriber.put(Delivery::Frame(frame), &mut Wakes::new());
                receipt.published(None);
                return None;
            }
        };
        let waiting = Arc::new(Mutex::new(Some(receipt)));
        let told = Arc::clone(&waiting);
        let reply_to = ReplyTo::new(move |result| {
            if let Some(receipt) = take(&told) {
                receipt.tell(result);
            }
        });
        let offer = Offer::new(channel, frame.clone(), reply_to);
        let result = match self.bus.publish(offer, &mut Wakes::new()) {
            Ok(Accepted::Later) => return None,
            Ok(Accepted::Done(receivers)) => Ok(receivers),
            Ok(Accepted::Failed(error)) => Err(error),
            Err(Full) => {
                let receipt = take(&waiting).expect("the wrapped bus did not take the frame");
                return Some(Parcel { line, frame, receipt });
            }
        };
        if let Some(receipt) = take(&waiting) {
            receipt.tell(result);
        }
        None
    }
}

fn take(waiting: &Mutex<Option<Receipt>>) -> Option<Receipt> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The pump learns that the bus is gone, and ends.
        if let PumpState::Running(Some(waker)) = &self.lock().pump {
            waker.wake_by_ref();
        }
    }
}
