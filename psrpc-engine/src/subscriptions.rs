//! Subscriptions: which an engine has, and how far each of them is.

use psrpc_proto::Channel;

use crate::budget::{Budget, Step};
use crate::handle::Handles;
use crate::output::{DroppedEvent, Io, Output};
use crate::{SubscriptionHandle, SubscriptionKind};

/// The subscriptions of one engine, each with the role that its frames play.
pub(crate) struct Subscriptions<R>(Handles<Subscription<R>>);

struct Subscription<R> {
    role: R,
    state: State,
}

/// ```text
/// Asked ──live──▶ Live ──leave──▶ Leaving ──ended──▶ (gone)
///   └──────leave──────────────────▲
/// ```
/// From any state the bus may end it, which an engine takes as a loss unless it was leaving.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Asked,
    Live,
    Leaving,
}

impl<R: Copy> Subscriptions<R> {
    pub(crate) const fn new() -> Self {
        Self(Handles::new())
    }

    pub(crate) fn subscribe<E: DroppedEvent, O: Copy>(
        &mut self,
        io: &mut Io<E, O>,
        role: R,
        channel: &Channel,
        kind: SubscriptionKind,
    ) -> SubscriptionHandle {
        let subscription = self.0.insert(Subscription { role, state: State::Asked }).into();
        io.push(Output::Subscribe { subscription, channel: channel.clone(), kind });
        subscription
    }

    /// The role of a subscription whose frames are wanted, or were until the bus has confirmed that they are not.
    pub(crate) fn role(&self, subscription: SubscriptionHandle) -> Option<R> {
        self.0.get(subscription).map(|subscription| subscription.role)
    }

    /// Notes that a subscription is live; `None` when that does not matter any more.
    pub(crate) fn live(&mut self, subscription: SubscriptionHandle) -> Option<R> {
        let subscription = self.0.get_mut(subscription)?;
        if subscription.state != State::Asked {
            return None;
        }
        subscription.state = State::Live;
        Some(subscription.role)
    }

    /// Asks the bus to end a subscription, unless that was asked before.
    pub(crate) fn unsubscribe<E: DroppedEvent, O: Copy>(
        &mut self,
        io: &mut Io<E, O>,
        subscription: SubscriptionHandle,
    ) {
        match self.0.get_mut(subscription) {
            Some(Subscription { state: State::Leaving, .. }) | None => {}
            Some(leaving) => {
                leaving.state = State::Leaving;
                io.push(Output::Unsubscribe { subscription });
            }
        }
    }

    /// Walks on from `place` to the next subscription.
    pub(crate) fn walk(&self, place: &mut usize, budget: &mut Budget) -> Step<SubscriptionHandle> {
        self.0.walk(place, budget).map(SubscriptionHandle::from)
    }

    /// Forgets a subscription that the bus has ended, and tells whether that was asked for.
    pub(crate) fn ended(&mut self, subscription: SubscriptionHandle) -> Option<(R, Ended)> {
        let Subscription { role, state } = self.0.remove(subscription)?;
        Some((role, if state == State::Leaving { Ended::Left } else { Ended::Lost }))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The engine left it.
    Left,
    /// The bus gave it up.
    Lost,
}
