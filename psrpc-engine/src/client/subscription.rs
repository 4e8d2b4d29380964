//! Subscriptions to what servers publish.

use psrpc_proto::{Any, Text};

use super::context::Outputs;
use crate::core::budget::{Budget, Step};
use crate::core::handle::{Handles, RawHandle, SubscriptionHandle};
use crate::event::ClientEvent;
use crate::reason::{Dropped, Reason};

/// The subscriptions to updates.
pub(super) struct Listeners(Handles<UpdateListener>);

/// Names a listener.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ListenerHandle(RawHandle);

struct UpdateListener {
    subscription: SubscriptionHandle,
    /// The full protobuf name of the updates.
    message: Text,
    /// Updates that were not taken yet.
    unread: usize,
}

impl Listeners {
    pub(super) const fn new() -> Self {
        Self(Handles::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a listener, whose subscription `subscribe` asks for.
    pub(super) fn add(
        &mut self,
        message: Text,
        subscribe: impl FnOnce(ListenerHandle) -> SubscriptionHandle,
    ) -> SubscriptionHandle {
        let subscription = subscribe(ListenerHandle(self.0.next()));
        self.0.insert(UpdateListener { subscription, message, unread: 0 });
        subscription
    }

    /// Walks on from `place` to the next listener.
    pub(super) fn walk(&self, place: &mut usize, budget: &mut Budget) -> Step<ListenerHandle> {
        self.0.walk(place, budget).map(ListenerHandle)
    }

    /// Removes a listener, and gives its subscription.
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
        // Whatever stands before the last slash does not matter.
        let is_it = update.type_url.as_str().rsplit('/').next() == Some(message.as_str());
        if !is_it {
            return outputs.dropped(dropped(Reason::UnexpectedType));
        }
        if *unread >= limit {
            outputs.dropped(dropped(Reason::SlowConsumer));
            outputs.counters.lose(Some(1));
            return outputs.event(ClientEvent::Gap { subscription, lost: Some(1) });
        }
        *unread += 1;
        outputs.event(ClientEvent::Update { subscription, payload: update.value });
    }

    /// An update was taken, so that there is room for another.
    pub(super) fn taken(&mut self, ListenerHandle(listener): ListenerHandle) {
        if let Some(listener) = self.0.get_mut(listener) {
            listener.unread = listener.unread.saturating_sub(1);
        }
    }
}
