//! The subscriptions of an engine and their states.

use psrpc_proto::Channel;

use crate::core::budget::{Budget, Step};
use crate::core::bus_error::BusError;
use crate::core::handle::{Handles, SubscriptionHandle};
use crate::core::outputs::{CommonEvent, Output, Outputs, SubscriptionKind};

/// The subscriptions of one engine, each with its role.
pub(crate) struct Subscriptions<R> {
    handles: Handles<Subscription<R>>,
    /// The current interruption.
    interruption: Option<Interruption>,
}

/// An interruption, which lasts until no subscription is interrupted.
struct Interruption {
    /// How many subscriptions are interrupted now.
    current: u32,
    /// How many of these are essential.
    essential: u32,
    /// How many subscriptions were interrupted in all.
    total: u32,
    /// The bus's most recent error.
    cause: BusError,
}

struct Subscription<R> {
    role: R,
    state: SubscriptionState,
    interrupted: Option<Essential>,
}

/// Whether calls depend on a subscription.
type Essential = bool;

/// ```text
/// Requested ──live──▶ Live ──unsubscribe──▶ Leaving ──ended──▶ (gone)
///     └────────────── unsubscribe ─────────────▲
/// ```
/// The bus may end a subscription in any state. Unless the subscription is leaving, it counts as
/// lost. A live subscription may be interrupted until it is live again or the engine unsubscribes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SubscriptionState {
    Requested,
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
        let subscription = Subscription { role, state: SubscriptionState::Requested, interrupted: None };
        let subscription = self.handles.insert(subscription).into();
        outputs.push(Output::Subscribe { subscription, channel: channel.clone(), kind });
        subscription
    }

    /// Returns the role of a subscription, until the bus has confirmed its end.
    pub(crate) fn role(&self, subscription: SubscriptionHandle) -> Option<R> {
        self.handles.get(subscription).map(|subscription| subscription.role)
    }

    /// Records that a subscription is live. Returns its role and whether this is the first time, or
    /// `None` if the subscription is leaving or unknown.
    pub(crate) fn live<E: CommonEvent, O: Copy>(
        &mut self,
        outputs: &mut Outputs<E, O>,
        subscription: SubscriptionHandle,
    ) -> Option<(R, Live)> {
        let Subscription { role, state, .. } = self.handles.get_mut(subscription)?;
        let role = *role;
        match state {
            SubscriptionState::Requested => {
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

    /// Records that a live subscription is interrupted, and reports the first interruption.
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
            Interruption { current: 0, essential: 0, total: 0, cause: cause.clone() }
        });
        // Calls fail with the error of an essential subscription if there is one.
        if essential || interruption.essential == 0 {
            interruption.cause = cause;
        }
        if is_new {
            interruption.current += 1;
            interruption.total += 1;
            interruption.essential += u32::from(essential);
        }
    }

    /// Returns the bus's error while an essential subscription is interrupted.
    pub(crate) fn interruption(&self) -> Option<&BusError> {
        self.interruption.as_ref().filter(|found| found.essential > 0).map(|found| &found.cause)
    }

    /// Ends the interruption of a subscription. If it was the last, returns how many were
    /// interrupted in all.
    fn resume(&mut self, subscription: SubscriptionHandle) -> Option<u32> {
        let essential = self.handles.get_mut(subscription)?.interrupted.take()?;
        let interruption = self.interruption.as_mut()?;
        interruption.current -= 1;
        interruption.essential -= u32::from(essential);
        let total = interruption.total;
        self.interruption.take_if(|interruption| interruption.current == 0).map(|_| total)
    }

    /// Unsubscribes, unless that was requested before.
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

    /// Returns the next subscription from `cursor` on, and advances `cursor`.
    pub(crate) fn walk(&self, cursor: &mut usize, budget: &mut Budget) -> Step<SubscriptionHandle> {
        self.handles.walk(cursor, budget).map(SubscriptionHandle::from)
    }

    /// Removes a subscription that the bus has ended, and returns why it ended.
    pub(crate) fn ended(&mut self, subscription: SubscriptionHandle) -> Option<(R, Ended)> {
        self.resume(subscription);
        let Subscription { role, state, .. } = self.handles.remove(subscription)?;
        Some((role, if state == SubscriptionState::Leaving { Ended::Requested } else { Ended::Lost }))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }
}

/// Whether a subscription is live for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    First,
    /// The subscription was interrupted before.
    Again,
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The engine unsubscribed.
    Requested,
    /// The bus gave the subscription up.
    Lost,
}
