//! The queue of a faulty bus: frames that are delayed, held back, or waiting for room.

use std::collections::{BTreeMap, VecDeque};

use psrpc::Time;
use psrpc::bus::{Receipt, ReplyTo};
use psrpc::proto::Frame;

use crate::injected::Injected;
use crate::link::Link;
use crate::rule::Decision;

/// A frame to be sent now or later.
pub(super) struct QueuedFrame {
    pub(super) link: Link,
    pub(super) frame: Frame,
    pub(super) receipt: Receipt,
}

/// The time when a frame is due, and a number that distinguishes frames with the same time.
type Due = (Time, u64);

/// The frames that wait.
#[derive(Default)]
pub(super) struct DelayQueue {
    waiting: BTreeMap<Due, QueuedFrame>,
    /// The waiting frames that are held back to be overtaken, at most one per link.
    held: Vec<Held>,
    /// Frames that are due, but for which the wrapped bus had no room.
    backlog: VecDeque<QueuedFrame>,
    added: u64,
}

struct Held {
    due: Due,
    /// The number of frames that must still overtake it.
    remaining: u32,
}

impl DelayQueue {
    /// Queues copies of a frame. Returns the frames to send now. The first copy gets the receipt.
    pub(super) fn enqueue(
        &mut self,
        now: Time,
        link: &Link,
        copies: Vec<Decision>,
        receipt: Receipt,
        injected: &mut Injected,
    ) -> Vec<QueuedFrame> {
        let mut out = Vec::new();
        let mut receipt = Some(receipt);
        for Decision { frame, delay, hold } in copies {
            let receipt = receipt.take().unwrap_or_else(|| ReplyTo::new(|_| ()).receipt());
            let queued = QueuedFrame { link: link.clone(), frame, receipt };
            match hold {
                Some(hold) if !self.is_holding(link) => {
                    injected.reordered += 1;
                    let due = self.insert(now + delay + hold.within, queued);
                    self.held.push(Held { due, remaining: hold.window.max(1) });
                }
                _ if delay.is_zero() => self.pass(queued, &mut out),
                _ => drop(self.insert(now + delay, queued)),
            }
        }
        out
    }

    /// Returns `true` if a frame of this link is held back.
    pub(super) fn is_holding(&self, link: &Link) -> bool {
        self.held.iter().any(|held| self.waiting[&held.due].link == *link)
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Appends a frame to the backlog.
    pub(super) fn push_backlog(&mut self, queued: QueuedFrame) {
        self.backlog.push_back(queued);
    }

    /// Puts a frame back at the front of the backlog.
    pub(super) fn return_to_backlog(&mut self, queued: QueuedFrame) {
        self.backlog.push_front(queued);
    }

    pub(super) fn pop_backlog(&mut self) -> Option<QueuedFrame> {
        self.backlog.pop_front()
    }

    fn insert(&mut self, at: Time, queued: QueuedFrame) -> Due {
        let due = (at, self.added);
        self.added += 1;
        self.waiting.insert(due, queued);
        due
    }

    /// Adds a frame to `out`. If this was the last frame to overtake a held one, adds that one,
    /// too.
    fn pass(&mut self, queued: QueuedFrame, out: &mut Vec<QueuedFrame>) {
        let overtaken = self.held.iter().position(|held| self.waiting[&held.due].link == queued.link);
        out.push(queued);
        let Some(index) = overtaken else { return };
        self.held[index].remaining -= 1;
        if self.held[index].remaining == 0 {
            let due = self.held.remove(index).due;
            out.extend(self.waiting.remove(&due));
        }
    }

    /// Removes and returns the frames that are due.
    pub(super) fn due(&mut self, now: Time) -> Vec<QueuedFrame> {
        let mut out = Vec::new();
        while let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= now) {
            let (due, queued) = first.remove_entry();
            self.held.retain(|held| held.due != due);
            self.pass(queued, &mut out);
        }
        out
    }

    /// Returns the time when the next frame is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.waiting.keys().next().map(|(at, _)| *at)
    }

    /// Returns `true` if no frame is waiting.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.backlog.is_empty()
    }
}
