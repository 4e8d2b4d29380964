//! The sends of one stream: those in its window, which wait for their acks, and those that wait for
//! a place in the window.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::core::handle::SendHandle;

/// The size of the window of a new stream, unless its limit is lower.
const INITIAL: usize = 64;

/// The sends of one stream.
///
/// The window grows by one with each ack, and halves when an unacknowledged send times out. So a
/// receiver that discards messages beyond its capacity is not flooded. The window always has at
/// least one place.
pub(super) struct SendWindow {
    /// The sends that have a place.
    sent: Vec<SendHandle>,
    /// The sends that wait for a place, in order.
    waiting: VecDeque<WaitingSend>,
    size: usize,
    limit: usize,
}

/// A send that waits for a place.
pub(super) struct WaitingSend {
    pub(super) send: SendHandle,
    pub(super) payload: Bytes,
}

impl SendWindow {
    /// Creates a window of at most `limit` sends, which is at least 1.
    pub(super) fn new(limit: usize) -> Self {
        Self { sent: Vec::new(), waiting: VecDeque::new(), size: INITIAL.min(limit), limit }
    }

    /// Returns the number of sends.
    pub(super) fn len(&self) -> usize {
        self.sent.len() + self.waiting.len()
    }

    /// Returns the number of sends that wait for a place.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns `true` if a new send need not wait.
    pub(super) fn has_place(&self) -> bool {
        self.sent.len() < self.size && self.waiting.is_empty()
    }

    /// Gives a new send a place.
    pub(super) fn add(&mut self, send: SendHandle) {
        self.sent.push(send);
    }

    /// Appends a new send to those that wait.
    pub(super) fn wait(&mut self, waiting: WaitingSend) {
        self.waiting.push_back(waiting);
    }

    /// Returns the next send that waits, if there is a place for it.
    pub(super) fn next(&self) -> Option<SendHandle> {
        self.waiting.front().filter(|_| self.sent.len() < self.size).map(|waiting| waiting.send)
    }

    /// Gives the next send that waits a place.
    pub(super) fn admit_next(&mut self) -> Option<WaitingSend> {
        let next = self.waiting.pop_front()?;
        self.sent.push(next.send);
        Some(next)
    }

    /// Grows the window after an ack.
    pub(super) fn grow(&mut self) {
        self.size = (self.size + 1).min(self.limit);
    }

    /// Halves the window after a send with a place has timed out.
    pub(super) fn halve(&mut self) {
        self.size = (self.size / 2).max(1);
    }

    /// Removes a send. Returns `true` if it had a place.
    pub(super) fn remove(&mut self, send: SendHandle) -> bool {
        if let Some(index) = self.sent.iter().position(|known| *known == send) {
            self.sent.swap_remove(index);
            return true;
        }
        if let Some(index) = self.waiting.iter().position(|waiting| waiting.send == send) {
            self.waiting.remove(index);
        }
        false
    }

    /// Removes all sends.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = SendHandle> + use<> {
        let (sent, waiting) = (core::mem::take(&mut self.sent), core::mem::take(&mut self.waiting));
        sent.into_iter().chain(waiting.into_iter().map(|waiting| waiting.send))
    }
}
