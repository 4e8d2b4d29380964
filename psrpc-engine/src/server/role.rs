//! The roles of a server's subscriptions.

use psrpc_proto::Channel;

use crate::core::handle::RegistrationHandle;
use crate::core::outputs::SubscriptionKind;
use crate::wire::route::Route;

/// The role of a server's subscription.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ChannelRole {
    pub(super) registration: RegistrationHandle,
    pub(super) carries: Carries,
    /// The index of the route in the registration.
    pub(super) route: u32,
}

/// The frames that a subscription carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    Requests,
    Grants,
}

impl ChannelRole {
    /// Returns the roles for requests of the first `routes` routes of a registration.
    pub(super) fn requests(registration: RegistrationHandle, routes: usize) -> impl Iterator<Item = Self> {
        (0..routes as u32).map(move |route| Self { registration, carries: Carries::Requests, route })
    }

    /// Returns the roles of all subscriptions of the route: this one, for requests, and one for
    /// grants if the method requires a claim.
    pub(super) fn uses(self, route: &Route) -> impl DoubleEndedIterator<Item = Self> {
        let grants = route.properties().require_claim.then_some(Self { carries: Carries::Grants, ..self });
        [self].into_iter().chain(grants)
    }

    /// Returns the channel of this role, and how to subscribe to it.
    pub(super) fn subject(self, route: &Route) -> (&Channel, SubscriptionKind) {
        match self.carries {
            Carries::Requests if route.is_queue() => (route.requests(), SubscriptionKind::Queue),
            Carries::Requests => (route.requests(), SubscriptionKind::Plain),
            Carries::Grants => (route.grants(), SubscriptionKind::Plain),
        }
    }
}
