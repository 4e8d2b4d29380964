//! The subscriptions of one client: events of the engine, queued for the tasks that read them.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use psrpc_engine::{ClientEvent, Failure, SubscriptionHandle};
use slab::Slab;

use crate::error::Error;
use crate::waiting;

/// The subscriptions of one client.
#[derive(Default)]
pub(crate) struct SubscriptionTable {
    queues: Slab<UpdateQueue>,
    /// The queues of subscriptions that have not ended, by the index of the subscription handle.
    subscriptions: Vec<Option<(SubscriptionHandle, usize)>>,
}

/// The queued events of a subscription. The engine bounds their number.
struct UpdateQueue {
    subscription: SubscriptionHandle,
    live: bool,
    ended: bool,
    events: VecDeque<SubscriptionEvent>,
    waker: Option<Waker>,
}

/// An event of a subscription.
pub(super) enum SubscriptionEvent {
    Update(Bytes),
    Gap(Option<u64>),
    Lost(Box<Failure>),
}

impl SubscriptionTable {
    pub(super) fn start(&mut self, subscription: SubscriptionHandle) -> usize {
        let events = VecDeque::new();
        let key =
            self.queues.insert(UpdateQueue { subscription, live: false, ended: false, events, waker: None });
        if self.subscriptions.len() <= subscription.index() {
            self.subscriptions.resize(subscription.index() + 1, None);
        }
        self.subscriptions[subscription.index()] = Some((subscription, key));
        key
    }

    /// Handles an event of a subscription to updates, and returns the task to wake.
    pub(crate) fn on_event(&mut self, event: ClientEvent) -> Option<Waker> {
        let (ClientEvent::Subscribed { subscription }
        | ClientEvent::Update { subscription, .. }
        | ClientEvent::Gap { subscription, .. }
        | ClientEvent::Unsubscribed { subscription, .. }) = &event
        else {
            return None;
        };
        // A subscription that was dropped has no queue. Other kinds of subscriptions have gaps too.
        let slot = self.subscriptions.get_mut(subscription.index())?;
        let key = slot.filter(|(handle, _)| handle == subscription)?.1;
        let queue = &mut self.queues[key];
        match event {
            ClientEvent::Subscribed { .. } => queue.live = true,
            ClientEvent::Update { payload, .. } => queue.events.push_back(SubscriptionEvent::Update(payload)),
            ClientEvent::Gap { lost, .. } => queue.gap(lost),
            ClientEvent::Unsubscribed { error, .. } => {
                *slot = None;
                queue.ended = true;
                queue.events.extend(error.map(SubscriptionEvent::Lost));
            }
            _ => {}
        }
        queue.waker.take()
    }

    /// Returns `Ok` once the subscription is live, or the reason why it ended first.
    ///
    /// This function and those below also return wakers to drop after the lock is released.
    pub(super) fn poll_live(
        &mut self,
        key: usize,
        cx: &Context<'_>,
    ) -> (Poll<Result<(), Error>>, Option<Waker>) {
        let queue = &mut self.queues[key];
        match (queue.live, queue.ended) {
            (true, _) => (Poll::Ready(Ok(())), None),
            (false, true) => {
                let error = match queue.events.pop_front() {
                    Some(SubscriptionEvent::Lost(failure)) => (*failure).into(),
                    _ => Error::client_closed(),
                };
                (Poll::Ready(Err(error)), None)
            }
            (false, false) => (Poll::Pending, waiting::replace(&mut queue.waker, cx)),
        }
    }

    /// Returns the next event, or `None` once the subscription has ended.
    pub(super) fn poll(
        &mut self,
        key: usize,
        cx: &Context<'_>,
    ) -> (Poll<Option<SubscriptionEvent>>, Option<Waker>) {
        let queue = &mut self.queues[key];
        match queue.events.pop_front() {
            Some(event) => (Poll::Ready(Some(event)), None),
            None if queue.ended => (Poll::Ready(None), None),
            None => (Poll::Pending, waiting::replace(&mut queue.waker, cx)),
        }
    }

    /// Removes the queue of a subscription that was dropped. Returns values to drop after the lock
    /// is released.
    pub(super) fn remove(&mut self, key: usize) -> (VecDeque<SubscriptionEvent>, Option<Waker>) {
        let UpdateQueue { subscription, ended, events, waker, .. } = self.queues.remove(key);
        if !ended {
            self.subscriptions[subscription.index()] = None;
        }
        (events, waker)
    }
}

impl UpdateQueue {
    /// Adds a gap, or extends the last one if no update follows it.
    fn gap(&mut self, lost: Option<u64>) {
        match self.events.back_mut() {
            Some(SubscriptionEvent::Gap(total)) => {
                *total = total.zip(lost).map(|(total, lost)| total.saturating_add(lost));
            }
            _ => self.events.push_back(SubscriptionEvent::Gap(lost)),
        }
    }
}
