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
    listeners: Slab<Listener>,
    /// The listeners whose subscriptions have not ended, by the index of the subscriptions'
    /// handles.
    subscriptions: Vec<Option<(SubscriptionHandle, usize)>>,
}

/// Somebody who listens. The engine bounds how many updates wait.
struct Listener {
    subscription: SubscriptionHandle,
    live: bool,
    over: bool,
    told: VecDeque<Told>,
    waker: Option<Waker>,
}

/// What a subscription has to tell.
pub(super) enum Told {
    Update(Bytes),
    Gap(Option<u64>),
    Lost(Box<Failure>),
}

impl SubscriptionTable {
    pub(super) fn start(&mut self, subscription: SubscriptionHandle) -> usize {
        let told = VecDeque::new();
        let key =
            self.listeners.insert(Listener { subscription, live: false, over: false, told, waker: None });
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
        let place = self.subscriptions.get_mut(subscription.index())?;
        let key = place.filter(|(known, _)| known == subscription)?.1;
        let listener = &mut self.listeners[key];
        match event {
            ClientEvent::Subscribed { .. } => listener.live = true,
            ClientEvent::Update { payload, .. } => listener.told.push_back(Told::Update(payload)),
            ClientEvent::Gap { lost, .. } => listener.gap(lost),
            ClientEvent::Unsubscribed { error, .. } => {
                *place = None;
                listener.over = true;
                listener.told.extend(error.map(Told::Lost));
            }
            _ => {}
        }
        listener.waker.take()
    }

    /// Whether the subscription is live, or why it is not to be.
    ///
    /// What it gives beside is to be dropped without the lock, here and below.
    pub(super) fn poll_live(
        &mut self,
        key: usize,
        cx: &Context<'_>,
    ) -> (Poll<Result<(), Error>>, Option<Waker>) {
        let listener = &mut self.listeners[key];
        match (listener.live, listener.over) {
            (true, _) => (Poll::Ready(Ok(())), None),
            (false, true) => {
                let error = match listener.told.pop_front() {
                    Some(Told::Lost(failure)) => (*failure).into(),
                    _ => Error::client_closed(),
                };
                (Poll::Ready(Err(error)), None)
            }
            (false, false) => (Poll::Pending, waiting::replace(&mut listener.waker, cx)),
        }
    }

    /// What was told next; nothing when the subscription is over.
    pub(super) fn poll(&mut self, key: usize, cx: &Context<'_>) -> (Poll<Option<Told>>, Option<Waker>) {
        let listener = &mut self.listeners[key];
        match listener.told.pop_front() {
            Some(told) => (Poll::Ready(Some(told)), None),
            None if listener.over => (Poll::Ready(None), None),
            None => (Poll::Pending, waiting::replace(&mut listener.waker, cx)),
        }
    }

    /// Nobody listens any more. What it gives is to be dropped without the lock.
    pub(super) fn forget(&mut self, key: usize) -> (VecDeque<Told>, Option<Waker>) {
        let Listener { subscription, over, told, waker, .. } = self.listeners.remove(key);
        if !over {
            self.subscriptions[subscription.index()] = None;
        }
        (told, waker)
    }
}

impl Listener {
    /// Adds a gap, to the one that is there if no update came after it.
    fn gap(&mut self, lost: Option<u64>) {
        match self.told.back_mut() {
            Some(Told::Gap(known)) => {
                *known = known.zip(lost).map(|(known, more)| known.saturating_add(more));
            }
            _ => self.told.push_back(Told::Gap(lost)),
        }
    }
}
