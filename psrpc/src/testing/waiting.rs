//! What waits in a faulty bus: for its time, for others to overtake it, or for room.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use psrpc_engine::proto::{Channel, Frame};
use psrpc_engine::{BusError, Time};

use super::Shared;
use super::rule::Judged;
use crate::bus::{Delivery, Receipt, Sink};
use crate::runtime::Task;
use crate::waiting;

/// Where frames go, which is what they keep their order within.
#[derive(Clone)]
pub(super) enum Line {
    Bus(Channel),
    Subscriber(Arc<Subscriber>),
}

impl PartialEq for Line {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Line::Bus(this), Line::Bus(other)) => this == other,
            (Line::Subscriber(this), Line::Subscriber(other)) => Arc::ptr_eq(this, other),
            _ => false,
        }
    }
}

/// A subscription through a faulty bus.
pub(super) struct Subscriber {
    pub(super) channel: Channel,
    /// Gone when the subscription has ended.
    sink: Mutex<Option<Sink>>,
}

impl Subscriber {
    pub(super) fn new(channel: Channel, sink: Sink) -> Self {
        Self { channel, sink: Mutex::new(Some(sink)) }
    }

    /// Hands on anything but the end.
    pub(super) fn put(&self, delivery: Delivery) {
        if let Some(sink) = &*self.sink.lock().unwrap_or_else(PoisonError::into_inner) {
            sink.put(delivery);
        }
    }

    pub(super) fn end(&self, error: Option<BusError>) {
        let sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(sink), Some(error)) = (sink, error) {
            sink.fail(error);
        }
    }
}

/// A frame that goes out, now or later.
pub(super) struct Parcel {
    pub(super) line: Line,
    pub(super) frame: Frame,
    pub(super) receipt: Receipt,
}

/// When a frame is due, and a number that tells those of one time apart.
type Due = (Time, u64);

/// What waits, and the task that sends it.
#[derive(Default)]
pub(super) struct Waiting {
    parcels: BTreeMap<Due, Parcel>,
    /// The frames among them that wait to be overtaken, one of a line.
    held: Vec<Held>,
    /// What the wrapped bus had no room for.
    backlog: VecDeque<Parcel>,
    added: u64,
    pump: PumpState,
}

struct Held {
    due: Due,
    /// How many frames are still to overtake it.
    left: u32,
}

#[derive(Default)]
enum PumpState {
    #[default]
    Idle,
    Running(Option<Waker>),
}

impl Waiting {
    /// Puts copies of one frame where they are to wait, and adds those that are not to `out`; gives how many are held back.
    /// The first of them has the receipt.
    pub(super) fn post(
        &mut self,
        now: Time,
        line: &Line,
        copies: Vec<Judged>,
        receipt: Receipt,
        out: &mut Vec<Parcel>,
    ) -> u64 {
        let mut held = 0;
        let mut receipt = Some(receipt);
        for Judged { frame, delay, hold } in copies {
            let receipt = receipt.take().unwrap_or_else(|| Receipt::new(|_| ()));
            let parcel = Parcel { line: line.clone(), frame, receipt };
            match hold {
                Some(hold) if !self.holds(line) => {
                    let due = self.wait(now + delay + hold.within, parcel);
                    self.held.push(Held { due, left: hold.window.max(1) });
                    held += 1;
                }
                _ if delay.is_zero() => self.pass(parcel, out),
                _ => drop(self.wait(now + delay, parcel)),
            }
        }
        held
    }

    /// Whether a frame of this line waits to be overtaken.
    pub(super) fn holds(&self, line: &Line) -> bool {
        self.held.iter().any(|held| self.parcels[&held.due].line == *line)
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    pub(super) fn add_to_backlog(&mut self, parcel: Parcel) {
        self.backlog.push_back(parcel);
    }

    fn wait(&mut self, at: Time, parcel: Parcel) -> Due {
        let due = (at, self.added);
        self.added += 1;
        self.parcels.insert(due, parcel);
        due
    }

    /// Adds a frame to `out`, and after it the one that it was the last to overtake.
    fn pass(&mut self, parcel: Parcel, out: &mut Vec<Parcel>) {
        let overtaken = self.held.iter().position(|held| self.parcels[&held.due].line == parcel.line);
        out.push(parcel);
        let Some(index) = overtaken else { return };
        self.held[index].left -= 1;
        if self.held[index].left == 0 {
            let due = self.held.remove(index).due;
            out.extend(self.parcels.remove(&due));
        }
    }

    /// Takes what is due.
    fn due(&mut self, now: Time) -> Vec<Parcel> {
        let mut out = Vec::new();
        while let Some(first) = self.parcels.first_entry().filter(|first| first.key().0 <= now) {
            let (due, parcel) = first.remove_entry();
            self.held.retain(|held| held.due != due);
            self.pass(parcel, &mut out);
        }
        out
    }

    /// Whether anything waits.
    fn is_empty(&self) -> bool {
        self.parcels.is_empty() && self.backlog.is_empty()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Woken, the pump learns that there is nothing to wait for any more.
        if let PumpState::Running(Some(waker)) = &self.pump {
            waker.wake_by_ref();
        }
    }
}

impl Shared {
    /// Sees to it that what waits is sent.
    pub(super) fn pump(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            return;
        }
        match &mut state.waiting.pump {
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
            let due = state.waiting.due(now);
            if due.is_empty() && state.waiting.is_empty() {
                state.waiting.pump = PumpState::Idle;
                return Poll::Ready(());
            }
            let next = state.waiting.parcels.keys().next().map(|(at, _)| *at);
            let PumpState::Running(waker) = &mut state.waiting.pump else { unreachable!("this is the pump") };
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
    /// Publishes what the wrapped bus had no room for; ready when all of it is.
    fn poll_backlog(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.lock().waiting.has_backlog() {
            return Poll::Ready(());
        }
        loop {
            if self.bus.poll_room(cx).is_pending() {
                return Poll::Pending;
            }
            let Some(parcel) = self.lock().waiting.backlog.pop_front() else { break };
            if let Some(parcel) = self.send_one(parcel) {
                // Somebody else took the room.
                self.lock().waiting.backlog.push_front(parcel);
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
            let behind = matches!(parcel.line, Line::Bus(_)) && self.lock().waiting.has_backlog();
            let left = if behind { Some(parcel) } else { self.send_one(parcel) };
            if let Some(parcel) = left {
                self.lock().waiting.add_to_backlog(parcel);
                self.pump();
            }
        }
    }

    /// Sends a frame; gives it back when the wrapped bus has no room for it.
    fn send_one(&self, Parcel { line, frame, receipt }: Parcel) -> Option<Parcel> {
        match &line {
            Line::Subscriber(subscriber) => {
                subscriber.put(Delivery::Frame(frame));
                None
            }
            Line::Bus(channel) => {
                let full = self.bus.publish(channel, frame, receipt).err()?;
                Some(Parcel { line, frame: full.frame, receipt: full.receipt })
            }
        }
    }
}
