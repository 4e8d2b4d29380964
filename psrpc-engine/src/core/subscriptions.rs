//! Subscriptions: which an engine has, and how far each of them is.

use psrpc_proto::Channel;

use crate::core::budget::{Budget, Step};
use crate::core::bus_error::BusError;
use crate::core::handle::{Handles, SubscriptionHandle};
use crate::core::outputs::{CommonEvent, Output, Outputs, SubscriptionKind};

/// The subscriptions of one engine, each with the role that its frames play.
pub(crate) struct Subscriptions<R> {
    handles: Handles<Subscription<R>>,
    /// The interruption, while it lasts.
    interruption: Option<Interruption>,
}

/// An interruption, from the first interrupted subscription on until none is.
struct Interruption {
    /// How many are interrupted.
    now: u32,
    /// How many of these calls cannot do without.
    essential: u32,
    /// How many were interrupted in all.
    total: u32,
    /// What the bus said of the last one.
    cause: BusError,
}

struct Subscription<R> {
    role: R,
    state: SubscriptionState,
    interrupted: Option<Essential>,
}

/// Whether calls cannot do without a subscription.
type Essential = bool;

/// ```text
/// Asked ──live──▶ Live ──leave──▶ Leaving ──ended──▶ (gone)
///   └──────leave──────────────────▲
/// ```
/// From any state the bus may end it, which an engine takes as a loss unless it was leaving. A live
/// subscription may be interrupted, until it is live again or is left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SubscriptionState {
    Asked,
    Live,
    Leaving,
}

impl<R: Copy> Subscriptions<R> {
    pub(crate) const fn new() -> Self {
        Self { handles: Handles::new(), interruption: None }
    }

    pub(crate) fn subscribe<E: CommonEvent, O: Copy>(
        &mut self,
        outputs: &mut Outputs<E, O>,
        role: R,
        channel: &Channel,
        kind: SubscriptionKind,
    ) -> SubscriptionHandle {
        let subscription = Subscription { role, state: SubscriptionState::Asked, interrupted: None };
        let subscription = self.handles.insert(subscription).into();
        outputs.push(Output::Subscribe { subscription, channel: channel.clone(), kind });
        subscription
    }

    /// The role of a subscription whose frames are wanted, or were until the bus has confirmed that
    /// they are not.
    pub(crate) fn role(&self, subscription: SubscriptionHandle) -> Option<R> {
        self.handles.get(subscription).map(|subscription| subscription.role)
    }

    /// Notes that a subscription is live, and returns whether it is so for the first time; `None`
    /// when that does not matter any more.
    pub(crate) fn live<E: CommonEvent, O: Copy>(
        &mut self,
        outputs: &mut Outputs<E, O>,
        subscription: SubscriptionHandle,
    ) -> Option<(R, Live)> {
        let Subscription { role, state, .. } = self.handles.get_mut(subscription)?;
        let role = *role;
        match state {
            SubscriptionState::Asked => {
                *state = SubscriptionState::Live;
                Some((role, Live::First))
            }
            SubscriptionState::Live => {
                if let Some(total) = self.resume(subscription) {
                    outputs.event(E::resumed(total));
                }
                Some((role, Live::Again))
            }
            SubscriptionState::Leaving => None,
        }
    }

    /// Notes that a live subscription is interrupted, and tells the first of them.
    pub(crate) fn interrupt<E: CommonEvent, O: Copy>(
        &mut self,
        outputs: &mut Outputs<E, O>,
        subscription: SubscriptionHandle,
        essential: Essential,
        cause: BusError,
    ) {
        let Some(found) =
            self.handles.get_mut(subscription).filter(|found| found.state == SubscriptionState::Live)
        else {
            return;
        };
        let is_new = found.interrupted.replace(essential).is_none();
        let interruption = self.interruption.get_or_insert_with(|| {
            outputs.event(E::interrupted(cause.clone()));
            Interruption { now: 0, essential: 0, total: 0, cause: cause.clone() }
        });
        // Calls are told of what they cannot do without.
        if essential || interruption.essential == 0 {
            interruption.cause = cause;
        }
        if is_new {
            interruption.now += 1;
            interruption.total += 1;
            interruption.essential += u32::from(essential);
        }
    }

    /// Returns what the bus said, while a subscription is interrupted that calls cannot do without.
    pub(crate) fn interruption(&self) -> Option<&BusError> {
        self.interruption.as_ref().filter(|found| found.essential > 0).map(|found| &found.cause)
    }

    /// A subscription is not interrupted any more. Returns how many were if it was the last of
    /// them.
    fn resume(&mut self, subscription: SubscriptionHandle) -> Option<u32> {
        let essential = self.handles.get_mut(subscription)?.interrupted.take()?;
        let interruption = self.interruption.as_mut()?;
        interruption.now -= 1;
        interruption.essential -= u32::from(essential);
        let total = interruption.total;
        self.interruption.take_if(|interruption| interruption.now == 0).map(|_| total)
    }

    /// Asks the bus to end a subscription, unless that was asked before.
    pub(crate) fn unsubscribe<E: CommonEvent, O: Copy>(
        &mut self,
        outputs: &mut Outputs<E, O>,
        subscription: SubscriptionHandle,
    ) {
        match self.handles.get_mut(subscription) {
            Some(Subscription { state: SubscriptionState::Leaving, .. }) | None => {}
            Some(leaving) => {
                leaving.state = SubscriptionState::Leaving;
                self.resume(subscription);
                outputs.push(Output::Unsubscribe { subscription });
            }
        }
    }

    /// Walks on from `place` to the next subscription.
    pub(crate) fn walk(&self, place: &mut usize, budget: &mut Budget) -> Step<SubscriptionHandle> {
        self.handles.walk(place, budget).map(SubscriptionHandle::from)
    }

    /// Forgets a subscription that the bus has ended, and tells whether that was asked for.
    pub(crate) fn ended(&mut self, subscription: SubscriptionHandle) -> Option<(R, Ended)> {
        self.resume(subscription);
        let Subscription { role, state, .. } = self.handles.remove(subscription)?;
        Some((role, if state == SubscriptionState::Leaving { Ended::Left } else { Ended::Lost }))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }
}

/// Whether a subscription has become live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    First,
    /// It was interrupted.
    Again,
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The engine left it.
    Left,
    /// The bus gave it up.
    Lost,
}
