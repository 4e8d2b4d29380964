//! The pump: the task that sends the queued frames of a faulty bus.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use psrpc::bus::{Accepted, Delivery, Full, Lock, Offer, Receipt, ReplyTo, WakeList};
use psrpc::{BusError, Task, Time};

use crate::delay_queue::QueuedFrame;
use crate::faulty_bus::{PumpState, Shared};
use crate::link::Link;
use crate::waiting;

/// Sends queued frames. Ends when none are left or the bus was dropped.
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
            let due = state.queue.due(now);
            if due.is_empty() && state.queue.is_empty() {
                state.pump = PumpState::Idle;
                return Poll::Ready(());
            }
            let next = state.queue.next();
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
    /// Starts or wakes the pump if frames are queued.
    pub(super) fn pump(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.queue.is_empty() {
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

    /// Publishes the backlog. Ready when it is empty.
    fn poll_backlog(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.lock().queue.has_backlog() {
            return Poll::Ready(());
        }
        loop {
            if self.bus.poll_ready(cx).is_pending() {
                return Poll::Pending;
            }
            let Some(queued) = self.lock().queue.pop_backlog() else { break };
            if let Some(queued) = self.send_one(queued) {
                // Another publish took the room.
                self.lock().queue.return_to_backlog(queued);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        self.wake_for_room();
        Poll::Ready(())
    }

    /// Sends frames in order. Frames that the wrapped bus has no room for go into the backlog.
    pub(super) fn send(self: &Arc<Self>, frames: Vec<QueuedFrame>) {
        for queued in frames {
            let behind = matches!(queued.link, Link::Bus(_)) && self.lock().queue.has_backlog();
            let unsent = if behind { Some(queued) } else { self.send_one(queued) };
            if let Some(queued) = unsent {
                self.lock().queue.push_backlog(queued);
                self.pump();
            }
        }
    }

    /// Sends a frame. Returns it if the wrapped bus has no room. A subscriber always has room.
    #[must_use]
    pub(super) fn send_one(&self, queued: QueuedFrame) -> Option<QueuedFrame> {
        let QueuedFrame { link, frame, receipt } = queued;
        let channel = match &link {
            Link::Bus(channel) => channel.clone(),
            Link::Subscriber(subscriber) => {
                subscriber.put(Delivery::Frame(frame), &mut WakeList::new());
                receipt.published(None);
                return None;
            }
        };
        let pending = Arc::new(Lock::new(Some(receipt)));
        let reply_receipt = Arc::clone(&pending);
        let reply_to = ReplyTo::new(move |result| {
            if let Some(receipt) = take(&reply_receipt) {
                report(receipt, result);
            }
        });
        let offer = Offer::new(channel, frame.clone(), reply_to);
        let result = match self.bus.publish(offer, &mut WakeList::new()) {
            Ok(Accepted::Later) => return None,
            Ok(Accepted::Done(receivers)) => Ok(receivers),
            Ok(Accepted::Failed(error)) => Err(error),
            Err(Full) => {
                let receipt = take(&pending).expect("a full bus does not use the receipt");
                return Some(QueuedFrame { link, frame, receipt });
            }
        };
        if let Some(receipt) = take(&pending) {
            report(receipt, result);
        }
        None
    }
}

fn report(receipt: Receipt, result: Result<Option<u64>, BusError>) {
    match result {
        Ok(receivers) => receipt.published(receivers),
        Err(error) => receipt.failed(error),
    }
}

fn take(pending: &Lock<Option<Receipt>>) -> Option<Receipt> {
    pending.lock().take()
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Wake the pump, so that it ends.
        if let PumpState::Running(Some(waker)) = &self.lock().pump {
            waker.wake_by_ref();
        }
    }
}
