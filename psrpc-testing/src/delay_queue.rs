//! What is on its way through a faulty bus and waits: for its time, for others to overtake it, or
//! for room.

use std::collections::{BTreeMap, VecDeque};

use psrpc::Time;
use psrpc::bus::{Receipt, ReplyTo};
use psrpc::proto::Frame;

use crate::injected::Injected;
use crate::link::Link;
use crate::rule::Decision;

/// A frame that goes out, now or later.
pub(super) struct QueuedFrame {
    pub(super) link: Link,
    pub(super) frame: Frame,
    pub(super) receipt: Receipt,
}

/// When a frame is due, and a number that tells those of one time apart.
type Due = (Time, u64);

/// What waits.
#[derive(Default)]
pub(super) struct DelayQueue {
    waiting: BTreeMap<Due, QueuedFrame>,
    /// The frames among them that wait to be overtaken, at most one of a link.
    held: Vec<Held>,
    /// What is due, and the wrapped bus had no room for.
    backlog: VecDeque<QueuedFrame>,
    added: u64,
}

struct Held {
    due: Due,
    /// How many frames are still to overtake it.
    left: u32,
}

impl DelayQueue {
    /// Puts copies of one frame where they are to wait; gives what goes out now. The first of them
    /// has the receipt.
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
                Some(hold) if !self.holds(link) => {
                    injected.reordered += 1;
                    let due = self.wait(now + delay + hold.within, queued);
                    self.held.push(Held { due, left: hold.window.max(1) });
                }
                _ if delay.is_zero() => self.pass(queued, &mut out),
                _ => drop(self.wait(now + delay, queued)),
            }
        }
        out
    }

    /// Whether a frame of this link waits to be overtaken.
    pub(super) fn holds(&self, link: &Link) -> bool {
        self.held.iter().any(|held| self.waiting[&held.due].link == *link)
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Adds what is to go once there is room, after all the rest.
    pub(super) fn push_backlog(&mut self, queued: QueuedFrame) {
        self.backlog.push_back(queued);
    }

    /// Puts back what there was no room for after all.
    pub(super) fn unpop_backlog(&mut self, queued: QueuedFrame) {
        self.backlog.push_front(queued);
    }

    pub(super) fn pop_backlog(&mut self) -> Option<QueuedFrame> {
        self.backlog.pop_front()
    }

    fn wait(&mut self, at: Time, queued: QueuedFrame) -> Due {
        let due = (at, self.added);
        self.added += 1;
        self.waiting.insert(due, queued);
        due
    }

    /// Adds a frame to `out`, and after it the one that it was the last to overtake.
    fn pass(&mut self, queued: QueuedFrame, out: &mut Vec<QueuedFrame>) {
        let overtaken = self.held.iter().position(|held| self.waiting[&held.due].link == queued.link);
        out.push(queued);
        let Some(index) = overtaken else { return };
        self.held[index].left -= 1;
        if self.held[index].left == 0 {
            let due = self.held.remove(index).due;
            out.extend(self.waiting.remove(&due));
        }
    }

    /// Takes what is due.
    pub(super) fn due(&mut self, now: Time) -> Vec<QueuedFrame> {
        let mut out = Vec::new();
        while let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= now) {
            let (due, queued) = first.remove_entry();
            self.held.retain(|held| held.due != due);
            self.pass(queued, &mut out);
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
