//! What the subscriptions of a server are for.

use psrpc_proto::Channel;

use crate::core::handle::RegistrationHandle;
use crate::core::outputs::SubscriptionKind;
use crate::wire::route::Route;

/// What a subscription of a server is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ChannelRole {
    pub(super) registration: RegistrationHandle,
    pub(super) carries: Carries,
    /// The place of its route.
    pub(super) route: u32,
}

/// What comes in on a subscription.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    Requests,
    Grants,
}

impl ChannelRole {
    /// For the requests of each of so many routes of a registration.
    pub(super) fn requests(registration: RegistrationHandle, routes: usize) -> impl Iterator<Item = Self> {
        (0..routes as u32).map(move |route| Self { registration, carries: Carries::Requests, route })
    }

    /// All that its route has subscriptions for: itself, for requests, and for grants.
    pub(super) fn uses(self, route: &Route) -> impl DoubleEndedIterator<Item = Self> {
        let grants = route.properties().require_claim.then_some(Self { carries: Carries::Grants, ..self });
        [self].into_iter().chain(grants)
    }

    /// The channel of its route that is subscribed to, and how.
    pub(super) fn subject(self, route: &Route) -> (&Channel, SubscriptionKind) {
        match self.carries {
            Carries::Requests if route.is_queue() => (route.requests(), SubscriptionKind::Queue),
            Carries::Requests => (route.requests(), SubscriptionKind::Plain),
            Carries::Grants => (route.grants(), SubscriptionKind::Plain),
        }
    }
}
