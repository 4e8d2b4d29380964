//! What is on its way through a faulty bus and waits: for its time, for others to overtake it, or for room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};

use psrpc_engine::proto::{Channel, Frame};
use psrpc_engine::{BusError, Time};

use super::Injected;
use super::rule::Judged;
use crate::bus::{Delivery, Receipt, ReplyTo, Sink, Wakes};
use crate::sync::Mutex;

/// Where frames go, which is what they keep their order within.
#[derive(Clone)]
pub(super) enum Line {
    Bus(Channel),
    Subscriber(Arc<Subscriber>),
}

impl Line {
    pub(super) fn channel(&self) -> &Channel {
        match self {
            Line::Bus(channel) => channel,
            Line::Subscriber(subscriber) => &subscriber.channel,
        }
    }

    /// A frame was to fail here: its publishing, or the subscription.
    pub(super) fn fail(&self, error: BusError, receipt: Receipt) {
        match self {
            Line::Bus(_) => receipt.failed(error),
            Line::Subscriber(subscriber) => subscriber.end(Some(error), &mut Wakes::new()),
        }
    }
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
    pub(super) fn put(&self, delivery: Delivery, wakes: &mut Wakes) {
        if let Delivery::Ended(error) = delivery {
            return self.end(error, wakes);
        }
        if let Some(sink) = &*self.sink.lock().unwrap_or_else(PoisonError::into_inner) {
            sink.put(delivery, wakes);
        }
    }

    fn end(&self, error: Option<BusError>, wakes: &mut Wakes) {
        let sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (sink, error) {
            (Some(sink), Some(error)) => sink.fail(error, wakes),
            (Some(sink), None) => sink.end(wakes),
            (None, _) => {}
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

/// What waits.
#[derive(Default)]
pub(super) struct Parcels {
    waiting: BTreeMap<Due, Parcel>,
    /// The frames among them that wait to be overtaken, at most one of a line.
    held: Vec<Held>,
    /// What is due, and the wrapped bus had no room for.
    backlog: VecDeque<Parcel>,
    added: u64,
}

struct Held {
    due: Due,
    /// How many frames are still to overtake it.
    left: u32,
}

impl Parcels {
    /// Puts copies of one frame where they are to wait; gives what goes out now. The first of them has the receipt.
    pub(super) fn post(
        &mut self,
        now: Time,
        line: &Line,
        copies: Vec<Judged>,
        receipt: Receipt,
        injected: &mut Injected,
    ) -> Vec<Parcel> {
        let mut out = Vec::new();
        let mut receipt = Some(receipt);
        for Judged { frame, delay, hold } in copies {
            let receipt = receipt.take().unwrap_or_else(|| ReplyTo::new(|_| ()).receipt());
            let parcel = Parcel { line: line.clone(), frame, receipt };
            match hold {
                Some(hold) if !self.holds(line) => {
                    injected.reordered += 1;
                    let due = self.wait(now + delay + hold.within, parcel);
                    self.held.push(Held { due, left: hold.window.max(1) });
                }
                _ if delay.is_zero() => self.pass(parcel, &mut out),
                _ => drop(self.wait(now + delay, parcel)),
            }
        }
        out
    }

    /// Whether a frame of this line waits to be overtaken.
    pub(super) fn holds(&self, line: &Line) -> bool {
        self.held.iter().any(|held| self.waiting[&held.due].line == *line)
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Adds what is to go once there is room, after all the rest.
    pub(super) fn push_backlog(&mut self, parcel: Parcel) {
        self.backlog.push_back(parcel);
    }

    /// Puts back what there was no room for after all.
    pub(super) fn unpop_backlog(&mut self, parcel: Parcel) {
        self.backlog.push_front(parcel);
    }

    pub(super) fn pop_backlog(&mut self) -> Option<Parcel> {
        self.backlog.pop_front()
    }

    fn wait(&mut self, at: Time, parcel: Parcel) -> Due {
        let due = (at, self.added);
        self.added += 1;
        self.waiting.insert(due, parcel);
        due
    }

    /// Adds a frame to `out`, and after it the one that it was the last to overtake.
    fn pass(&mut self, parcel: Parcel, out: &mut Vec<Parcel>) {
        let overtaken = self.held.iter().position(|held| self.waiting[&held.due].line == parcel.line);
        out.push(parcel);
        let Some(index) = overtaken else { return };
        self.held[index].left -= 1;
        if self.held[index].left == 0 {
            let due = self.held.remove(index).due;
            out.extend(self.waiting.remove(&due));
        }
    }

    /// Takes what is due.
    pub(super) fn due(&mut self, now: Time) -> Vec<Parcel> {
        let mut out = Vec::new();
        while let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= now) {
            let (due, parcel) = first.remove_entry();
            self.held.retain(|held| held.due != due);
            self.pass(parcel, &mut out);
        }
        out
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.waiting.keys().next().map(|(at, _)| *at)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.backlog.is_empty()
    }
}
