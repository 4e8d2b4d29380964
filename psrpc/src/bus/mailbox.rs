//! The bounded queue of deliveries for a driver or an inbox.

use std::collections::VecDeque;
use std::mem;
use std::task::{Context, Poll, Waker};

use psrpc_engine::{BusError, SubscriptionHandle, Token};
use slab::Slab;

use super::delivery::Delivery;
use super::event::BusEvent;
use super::wake_list::WakeList;
use crate::sync::{Lock, LockGuard};
use crate::waiting;

/// The maximum number of queued bus events. Events beyond it are dropped. Events that change the
/// status are queued up to twice this number.
const EVENTS: usize = 64;

/// The queue of deliveries for a driver or an [`Inbox`](crate::bus::Inbox), in order of arrival.
///
/// Each subscription has a bounded number of frames in it, and at most one gap before each frame.
#[derive(Default)]
pub(crate) struct Mailbox(Lock<MailboxState>);

#[derive(Default)]
struct MailboxState {
    items: VecDeque<Item>,
    /// Events of the bus, which overtake deliveries.
    events: VecDeque<BusEvent>,
    /// The number of items taken so far; the first queued item has this position.
    taken: u64,
    subscribers: Slab<Subscriber>,
    waker: Option<Waker>,
    notified: bool,
}

pub(crate) enum Item {
    Delivery(Recipient, Delivery),
    Published(Published),
}

/// The subscriber that a delivery is for.
#[derive(Clone, Copy)]
pub(crate) struct Recipient {
    slot: usize,
    /// The driver's handle of the subscription; `None` in an inbox.
    pub(crate) handle: Option<SubscriptionHandle>,
}

/// The result of a publish.
pub(crate) type Published = (Token, Result<Option<u64>, BusError>);

/// One subscription's share of the queue. Kept small, since there may be many.
struct Subscriber {
    handle: Option<SubscriptionHandle>,
    capacity: u32,
    frames: u32,
    /// The position of the subscription's last gap, if no frame of the subscription follows it.
    gap: Option<u64>,
}

impl Mailbox {
    /// Adds a subscriber with room for `capacity` frames, and returns its slot.
    pub(super) fn subscribe(&self, capacity: usize, handle: Option<SubscriptionHandle>) -> usize {
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX).max(1);
        let subscriber = Subscriber { handle, capacity, frames: 0, gap: None };
        self.0.lock().subscribers.insert(subscriber)
    }

    /// Moves up to `limit` items into `arrivals`, which must be empty, and all events into
    /// `events`. Registers the task's waker if that empties the queue.
    pub(crate) fn take(
        &self,
        arrivals: &mut VecDeque<Item>,
        events: &mut VecDeque<BusEvent>,
        limit: usize,
        cx: &Context<'_>,
    ) {
        let mut state = self.0.lock();
        if !state.events.is_empty() {
            events.append(&mut state.events);
        }
        if state.items.len() <= limit {
            // Swapping avoids copying the frames, which are large.
            mem::swap(&mut state.items, arrivals);
        } else {
            arrivals.extend(state.items.drain(..limit));
        }
        for item in arrivals.iter() {
            state.on_taken(item);
        }
        state.notified = false;
        if state.items.is_empty() {
            wait(state, cx);
        }
    }

    /// Wakes the driver's background task, so that it looks at the driver's state again.
    pub(crate) fn notify(&self, wakes: &mut WakeList) {
        let mut state = self.0.lock();
        if !state.notified {
            state.notified = true;
            wakes.extend(state.waker.take());
        }
    }

    /// Adds the result of a publish that the bus reported later.
    pub(crate) fn published(&self, published: Published) {
        let mut wakes = WakeList::new();
        let mut state = self.0.lock();
        state.items.push_back(Item::Published(published));
        wakes.extend(state.waker.take());
    }

    /// Adds an event of the bus.
    pub(crate) fn put_event(&self, event: BusEvent, wakes: &mut WakeList) {
        let mut state = self.0.lock();
        if state.events.iter_mut().any(|queued| queued.merge(&event)) {
            return;
        }
        let is_status = matches!(
            event,
            BusEvent::ConnectionLost { .. } | BusEvent::Reconnected { .. } | BusEvent::Stopped { .. }
        );
        if state.events.len() < if is_status { 2 * EVENTS } else { EVENTS } {
            state.events.push_back(event);
            wakes.extend(state.waker.take());
        }
    }

    pub(crate) fn poll_event(&self, cx: &Context<'_>) -> Poll<BusEvent> {
        let mut state = self.0.lock();
        match state.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                wait(state, cx);
                Poll::Pending
            }
        }
    }

    /// Adds a delivery.
    #[inline]
    pub(crate) fn put(&self, slot: usize, delivery: Delivery, wakes: &mut WakeList) {
        let mut state = self.0.lock();
        let subscriber = &mut state.subscribers[slot];
        match &delivery {
            Delivery::Frame(_) | Delivery::Misrouted(_) if subscriber.frames < subscriber.capacity => {
                subscriber.frames += 1;
                subscriber.gap = None;
            }
            // The queue still holds frames of this subscriber, so its task has been woken already.
            Delivery::Frame(_) | Delivery::Misrouted(_) => return state.gap(slot, Some(1)),
            Delivery::Gap(lost) => {
                state.gap(slot, *lost);
                return wakes.extend(state.waker.take());
            }
            Delivery::Live | Delivery::Interrupted(_) | Delivery::Ended(_) => {}
        }
        let recipient = Recipient { slot, handle: subscriber.handle };
        state.items.push_back(Item::Delivery(recipient, delivery));
        wakes.extend(state.waker.take());
    }

    pub(crate) fn poll_delivery(&self, cx: &Context<'_>) -> Poll<Option<Delivery>> {
        let mut state = self.0.lock();
        let item = state.items.pop_front();
        if let Some(item) = &item {
            state.on_taken(item);
        }
        match item {
            Some(Item::Delivery(_, delivery)) => Poll::Ready(Some(delivery)),
            Some(Item::Published(_)) => unreachable!("an inbox publishes nothing"),
            None if state.subscribers.is_empty() => Poll::Ready(None),
            None => {
                wait(state, cx);
                Poll::Pending
            }
        }
    }
}

impl MailboxState {
    /// Updates the bookkeeping for an item taken from the front.
    fn on_taken(&mut self, item: &Item) {
        self.taken += 1;
        let Item::Delivery(Recipient { slot, .. }, delivery) = item else { return };
        match delivery {
            Delivery::Frame(_) | Delivery::Misrouted(_) => self.subscribers[*slot].frames -= 1,
            // Frees the slot for another subscriber.
            Delivery::Ended(_) => drop(self.subscribers.remove(*slot)),
            Delivery::Live | Delivery::Gap(_) | Delivery::Interrupted(_) => {}
        }
    }

    /// Adds a gap, or extends the subscription's last gap if no frame follows it.
    fn gap(&mut self, slot: usize, lost: Option<u64>) {
        let subscriber = &mut self.subscribers[slot];
        let position = subscriber.gap.and_then(|position| position.checked_sub(self.taken));
        if let Some(Item::Delivery(_, Delivery::Gap(total))) =
            position.and_then(|at| self.items.get_mut(at as usize))
        {
            *total = total.zip(lost).map(|(total, lost)| total.saturating_add(lost));
            return;
        }
        subscriber.gap = Some(self.taken + self.items.len() as u64);
        let recipient = Recipient { slot, handle: subscriber.handle };
        self.items.push_back(Item::Delivery(recipient, Delivery::Gap(lost)));
    }
}

/// Registers the task's waker. Drops the replaced waker only after unlocking, since dropping it may
/// use the mailbox.
fn wait(mut state: LockGuard<'_, MailboxState>, cx: &Context<'_>) {
    let replaced = waiting::replace(&mut state.waker, cx);
    drop(state);
    drop(replaced);
}
