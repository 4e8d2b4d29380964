//! The pump: the task that sends what waits in a faulty bus.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use psrpc_engine::Time;
use psrpc_engine::proto::Frame;

use super::Shared;
use super::parcels::{Line, Parcel};
use crate::bus::{Delivery, Full, Receipt};
use crate::runtime::Task;
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
            let Some(Parcel { line, frame, receipt }) = self.lock().parcels.pop_backlog() else { break };
            if let Err(full) = self.send_one(&line, frame, receipt) {
                // Somebody else took the room.
                self.lock().parcels.unpop_backlog(Parcel::given_back(line, *full));
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        self.wake_for_room();
        Poll::Ready(())
    }

    /// Sends frames in their order; what the wrapped bus has no room for waits.
    pub(super) fn send(self: &Arc<Self>, parcels: Vec<Parcel>) {
        for Parcel { line, frame, receipt } in parcels {
            let behind = matches!(line, Line::Bus(_)) && self.lock().parcels.has_backlog();
            let sent = if behind {
                Err(Box::new(Full { frame, receipt }))
            } else {
                self.send_one(&line, frame, receipt)
            };
            if let Err(full) = sent {
                self.lock().parcels.push_backlog(Parcel::given_back(line, *full));
                self.pump();
            }
        }
    }

    /// Sends a frame. Only the wrapped bus may have no room for it: a subscriber always has.
    pub(super) fn send_one(&self, line: &Line, frame: Frame, receipt: Receipt) -> Result<(), Box<Full>> {
        match line {
            Line::Bus(channel) => self.bus.publish(channel, frame, receipt),
            Line::Subscriber(subscriber) => {
                subscriber.put(Delivery::Frame(frame));
                Ok(())
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The pump learns that the bus is gone, and ends.
        if let PumpState::Running(Some(waker)) = &self.lock().pump {
            waker.wake_by_ref();
        }
    }
}
