//! Subscriptions to updates.

use psrpc_proto::{Any, Text};

use super::context::Outputs;
use crate::core::budget::{Budget, Step};
use crate::core::handle::{Handles, RawHandle, SubscriptionHandle};
use crate::event::ClientEvent;
use crate::reason::{Dropped, Reason};

/// The client's subscriptions to updates.
pub(super) struct Listeners(Handles<UpdateListener>);

/// The handle of a listener.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ListenerHandle(RawHandle);

struct UpdateListener {
    subscription: SubscriptionHandle,
    /// The full protobuf name of the updates.
    message: Text,
    /// Updates that the consumer has not taken yet.
    unread: usize,
}

impl Listeners {
    pub(super) const fn new() -> Self {
        Self(Handles::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a listener and subscribes it with `subscribe`.
    pub(super) fn add(
        &mut self,
        message: Text,
        subscribe: impl FnOnce(ListenerHandle) -> SubscriptionHandle,
    ) -> SubscriptionHandle {
        let subscription = subscribe(ListenerHandle(self.0.next()));
        self.0.insert(UpdateListener { subscription, message, unread: 0 });
        subscription
    }

    /// Returns the next listener from `cursor` on, and advances `cursor`.
    pub(super) fn walk(&self, cursor: &mut usize, budget: &mut Budget) -> Step<ListenerHandle> {
        self.0.walk(cursor, budget).map(ListenerHandle)
    }

    /// Removes a listener and returns its subscription.
    pub(super) fn remove(&mut self, ListenerHandle(listener): ListenerHandle) -> Option<SubscriptionHandle> {
        Some(self.0.remove(listener)?.subscription)
    }

    pub(super) fn on_update(
        &mut self,
        outputs: &mut Outputs,
        ListenerHandle(listener): ListenerHandle,
        update: Any,
        limit: usize,
    ) {
        let Some(UpdateListener { subscription, message, unread }) = self.0.get_mut(listener) else { return };
        let subscription = *subscription;
        let dropped = |reason| Dropped::of(reason, Text::EMPTY, Text::EMPTY);
        // Only the name after the last slash matters.
        let matches = update.type_url.as_str().rsplit('/').next() == Some(message.as_str());
        if !matches {
            return outputs.dropped(dropped(Reason::UnexpectedType));
        }
        if *unread >= limit {
            outputs.dropped(dropped(Reason::SlowConsumer));
            outputs.counters.count_lost(Some(1));
            return outputs.event(ClientEvent::Gap { subscription, lost: Some(1) });
        }
        *unread += 1;
        outputs.event(ClientEvent::Update { subscription, payload: update.value });
    }

    /// Makes room for another update.
    pub(super) fn taken(&mut self, ListenerHandle(listener): ListenerHandle) {
        if let Some(listener) = self.0.get_mut(listener) {
            listener.unread = listener.unread.saturating_sub(1);
        }
    }
}
