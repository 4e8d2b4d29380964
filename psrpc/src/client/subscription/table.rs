//! The subscriptions of one client: from the engine's events to the tasks that wait for them.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use psrpc_engine::{ClientEvent, Failure, SubscriptionHandle};
use slab::Slab;

use crate::error::Error;
use crate::waiting;

/// What was told of subscriptions, and who waits for it.
#[derive(Default)]
pub(crate) struct SubscriptionTable {
    queues: Slab<UpdateQueue>,
    /// The listeners whose subscriptions have not ended, by the index of the subscriptions' handles.
    subscriptions: Vec<Option<(SubscriptionHandle, usize)>>,
}

/// Somebody who listens. The engine bounds how many updates wait.
struct UpdateQueue {
    subscription: SubscriptionHandle,
    live: bool,
    ended: bool,
    events: VecDeque<SubscriptionEvent>,
    waker: Option<Waker>,
}

/// What a subscription has to tell.
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

    /// Takes an event of a subscription to updates, and gives who waits for it.
    pub(crate) fn on_event(&mut self, event: ClientEvent) -> Option<Waker> {
        let (ClientEvent::Subscribed { subscription }
        | ClientEvent::Update { subscription, .. }
        | ClientEvent::Gap { subscription, .. }
        | ClientEvent::Unsubscribed { subscription, .. }) = &event
        else {
            return None;
        };
        // Nobody listens any more where it was dropped, and others than these have gaps too.
        let slot = self.subscriptions.get_mut(subscription.index())?;
        let key = slot.filter(|(known, _)| known == subscription)?.1;
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

    /// Whether the subscription is live, or why it is not to be.
    ///
    /// What it gives beside is to be dropped without the lock, here and below.
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

    /// What was told next; nothing when the subscription is over.
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

    /// Nobody listens any more. What it gives is to be dropped without the lock.
    pub(super) fn remove(&mut self, key: usize) -> (VecDeque<SubscriptionEvent>, Option<Waker>) {
        let UpdateQueue { subscription, ended, events, waker, .. } = self.queues.remove(key);
        if !ended {
            self.subscriptions[subscription.index()] = None;
        }
        (events, waker)
    }
}

impl UpdateQueue {
    /// Adds a gap, to the one that is there if no update came after it.
    fn gap(&mut self, lost: Option<u64>) {
        match self.events.back_mut() {
            Some(SubscriptionEvent::Gap(known)) => {
                *known = known.zip(lost).map(|(known, more)| known.saturating_add(more));
            }
            _ => self.events.push_back(SubscriptionEvent::Gap(lost)),
        }
    }
}
