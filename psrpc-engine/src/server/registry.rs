//! The registry of the methods and topics that a server serves, with their subscriptions.

use alloc::vec::Vec;

use super::names::Names;
use super::role::{Carries, ChannelRole};
use super::side::Outputs;
use crate::core::budget::{Budget, Step};
use crate::core::bus_error::BusError;
use crate::core::handle::{Handles, RegistrationHandle, StreamHandle, SubscriptionHandle};
use crate::core::map::HashKeys;
use crate::core::subscriptions::{Live, Subscriptions};
use crate::error::RegisterError;
use crate::event::ServerEvent;
use crate::wire::route::Route;

/// The registrations of a server.
///
/// ```text
/// Joining ──all live──▶ Serving ──deregister, or a subscription is lost──▶ Leaving ──▶ (gone)
///    └──────────── deregister, or a subscription fails ──────────────────────▲
/// ```
/// A registration that leaves ends its request subscriptions first, keeps its grant subscriptions
/// while requests are in flight, and is gone when the bus has confirmed the end of both. Only then
/// are its names released and the layer above notified, even of a failure, so that registering
/// again does not conflict.
pub(super) struct Registry {
    registrations: Handles<Registration>,
    subscriptions: Subscriptions<ChannelRole>,
    names: Names,
}

struct Registration {
    routes: Vec<Route>,
    subscriptions: Vec<SubscriptionHandle>,
    /// How many request subscriptions have not ended.
    requests: u32,
    /// How many grant subscriptions have not ended.
    grants: u32,
    in_flight: usize,
    /// The streams whose handlers are not done.
    streams: Vec<StreamHandle>,
    state: RegistrationState,
    /// Why the registration failed before it served.
    failure: Option<BusError>,
}

#[derive(PartialEq, Eq)]
enum RegistrationState {
    /// `missing` subscriptions are not live yet.
    Joining {
        missing: u32,
    },
    Serving,
    Leaving,
}

impl Registry {
    pub(super) fn new(keys: HashKeys) -> Self {
        Self { registrations: Handles::new(), subscriptions: Subscriptions::new(), names: Names::new(keys) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.registrations.is_empty()
    }

    /// Registers `routes`, all or none of them, and subscribes to their channels.
    pub(super) fn register(
        &mut self,
        outputs: &mut Outputs,
        routes: Vec<Route>,
    ) -> Result<RegistrationHandle, RegisterError> {
        let registration = self.registrations.next().into();
        let Self { registrations, subscriptions, names } = self;
        let route_of = |role: ChannelRole| match role.registration == registration {
            true => &routes[role.route as usize],
            false => route_of(registrations, role),
        };
        for (index, role) in ChannelRole::requests(registration, routes.len()).enumerate() {
            if let Err(error) = names.reserve(role, route_of) {
                ChannelRole::requests(registration, index)
                    .for_each(|reserved| names.release(reserved, route_of));
                return Err(error);
            }
        }
        let claimed = routes.iter().filter(|route| route.properties().require_claim).count();
        let (requests, grants) = (routes.len() as u32, claimed as u32);
        let mut handles = Vec::with_capacity(routes.len() + claimed);
        for (role, route) in ChannelRole::requests(registration, routes.len()).zip(&routes) {
            // Grants first: requests may arrive before the registration is complete, and the grants
            // that follow must not be missed.
            for role in role.uses(route).rev() {
                let (channel, kind) = role.subject(route);
                handles.push(subscriptions.subscribe(outputs, role, channel, kind));
            }
        }
        let missing = requests + grants;
        registrations.insert(Registration {
            routes,
            subscriptions: handles,
            requests,
            grants,
            in_flight: 0,
            streams: Vec::new(),
            state: RegistrationState::Joining { missing },
            failure: None,
        });
        if missing == 0 {
            self.joined(outputs, registration);
        }
        Ok(registration)
    }

    /// Returns the registration of exactly these routes.
    pub(super) fn find(&self, routes: &[Route]) -> Option<RegistrationHandle> {
        let registration = self.registration_of(routes.first()?)?;
        self.registrations.get(registration).filter(|found| found.routes == routes)?;
        Some(registration)
    }

    /// Returns the registration of a route.
    pub(super) fn registration_of(&self, route: &Route) -> Option<RegistrationHandle> {
        let role = self.names.find(route.requests(), |role| route_of(&self.registrations, role))?;
        (route_of(&self.registrations, role) == route).then_some(role.registration)
    }

    /// Ends a registration. Its requests in flight go on.
    pub(super) fn deregister(&mut self, outputs: &mut Outputs, handle: RegistrationHandle) {
        let Some(registration) = self.registrations.get_mut(handle) else { return };
        if let RegistrationState::Joining { .. } = registration.state {
            registration.failure = Some(BusError::new("deregistered before the registration was complete"));
        }
        self.leave(outputs, handle);
    }

    /// Returns the next registration from `cursor` on, and advances `cursor`.
    pub(super) fn walk(&self, cursor: &mut usize, budget: &mut Budget) -> Step<RegistrationHandle> {
        self.registrations.walk(cursor, budget).map(RegistrationHandle::from)
    }

    /// Unsubscribes the next subscription from `cursor` on, and advances `cursor`.
    pub(super) fn unsubscribe_next(
        &mut self,
        outputs: &mut Outputs,
        cursor: &mut usize,
        budget: &mut Budget,
    ) -> Step<()> {
        let step = self.subscriptions.walk(cursor, budget);
        step.map(|subscription| self.subscriptions.unsubscribe(outputs, subscription))
    }

    /// Removes all registrations.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.names.keys().clone());
    }

    // --- the streams of a registration -----------------------------------------------------------

    /// Adds a stream to a registration, and returns its index there.
    pub(super) fn add_stream(&mut self, handle: RegistrationHandle, stream: StreamHandle) -> usize {
        let Some(registration) = self.registrations.get_mut(handle) else { return 0 };
        registration.streams.push(stream);
        registration.streams.len() - 1
    }

    /// Removes the stream at an index. The last stream moves to that index, and is returned.
    pub(super) fn remove_stream(&mut self, handle: RegistrationHandle, index: usize) -> Option<StreamHandle> {
        let streams = &mut self.registrations.get_mut(handle)?.streams;
        if index < streams.len() {
            streams.swap_remove(index);
        }
        streams.get(index).copied()
    }

    /// Returns the next stream of a registration, from the last to the first. A removal during the
    /// walk moves only a stream that was visited already.
    pub(super) fn walk_streams(
        &self,
        handle: RegistrationHandle,
        remaining: &mut usize,
        budget: &mut Budget,
    ) -> Step<StreamHandle> {
        let Some(registration) = self.registrations.get(handle) else { return Step::Done };
        *remaining = registration.streams.len().min(*remaining);
        if *remaining == 0 {
            return Step::Done;
        }
        if budget.is_spent() {
            return Step::Spent;
        }
        budget.spend(1);
        *remaining -= 1;
        Step::Next(registration.streams[*remaining])
    }

    /// Returns the role of a subscription, and its route.
    pub(super) fn role(&self, subscription: SubscriptionHandle) -> Option<(ChannelRole, &Route)> {
        let role = self.subscriptions.role(subscription)?;
        Some((role, route_of(&self.registrations, role)))
    }

    /// Returns `true` if a registration is leaving or gone.
    pub(super) fn is_leaving(&self, handle: RegistrationHandle) -> bool {
        self.registrations
            .get(handle)
            .is_none_or(|registration| registration.state == RegistrationState::Leaving)
    }

    pub(super) fn contains(&self, subscription: SubscriptionHandle) -> bool {
        self.subscriptions.role(subscription).is_some()
    }

    pub(super) fn interruption(&self) -> Option<&BusError> {
        self.subscriptions.interruption()
    }

    pub(super) fn on_interrupted(
        &mut self,
        outputs: &mut Outputs,
        subscription: SubscriptionHandle,
        cause: BusError,
    ) {
        self.subscriptions.interrupt(outputs, subscription, true, cause);
    }

    /// Records that a subscription is live. Returns `true` if it was interrupted before.
    pub(super) fn on_live(&mut self, outputs: &mut Outputs, subscription: SubscriptionHandle) -> bool {
        let registration = match self.subscriptions.live(outputs, subscription) {
            Some((ChannelRole { registration, .. }, Live::First)) => registration,
            Some((_, Live::Again)) => return true,
            None => return false,
        };
        let Some(RegistrationState::Joining { missing }) =
            self.registrations.get_mut(registration).map(|found| &mut found.state)
        else {
            return false;
        };
        *missing -= 1;
        if *missing == 0 {
            self.joined(outputs, registration);
        }
        false
    }

    /// Handles the end of a subscription, with the bus's `error` if there was one. Returns the
    /// registration if it is lost.
    pub(super) fn on_ended(
        &mut self,
        outputs: &mut Outputs,
        subscription: SubscriptionHandle,
        error: Option<BusError>,
    ) -> Option<RegistrationHandle> {
        let (ChannelRole { registration: handle, carries, .. }, _) =
            self.subscriptions.ended(subscription)?;
        let registration = self.registrations.get_mut(handle)?;
        match carries {
            Carries::Requests => registration.requests = registration.requests.saturating_sub(1),
            Carries::Grants => registration.grants = registration.grants.saturating_sub(1),
        }
        match registration.state {
            RegistrationState::Joining { .. } => {
                let error = error.unwrap_or_else(|| BusError::new("the bus ended the subscription"));
                registration.failure = Some(error);
                self.leave(outputs, handle);
            }
            RegistrationState::Serving => {
                let routes = registration.routes.clone();
                outputs.event(ServerEvent::RegistrationLost { registration: handle, routes });
                self.leave(outputs, handle);
                return Some(handle);
            }
            RegistrationState::Leaving => self.continue_leaving(outputs, handle),
        }
        None
    }

    /// Counts a request of a registration as in flight.
    pub(super) fn request_started(&mut self, handle: RegistrationHandle) {
        if let Some(registration) = self.registrations.get_mut(handle) {
            registration.in_flight += 1;
        }
    }

    /// Counts a request of a registration as over.
    pub(super) fn request_ended(&mut self, outputs: &mut Outputs, handle: RegistrationHandle) {
        if let Some(registration) = self.registrations.get_mut(handle) {
            registration.in_flight -= 1;
            self.continue_leaving(outputs, handle);
        }
    }

    fn joined(&mut self, outputs: &mut Outputs, handle: RegistrationHandle) {
        if let Some(registration) = self.registrations.get_mut(handle) {
            registration.state = RegistrationState::Serving;
            outputs.event(ServerEvent::Registered { registration: handle, result: Ok(()) });
        }
    }

    fn leave(&mut self, outputs: &mut Outputs, handle: RegistrationHandle) {
        let Some(registration) = self.registrations.get_mut(handle) else { return };
        if registration.state == RegistrationState::Leaving {
            return;
        }
        registration.state = RegistrationState::Leaving;
        self.unsubscribe(outputs, handle, Carries::Requests);
        self.continue_leaving(outputs, handle);
    }

    /// Continues the end of a registration that leaves.
    fn continue_leaving(&mut self, outputs: &mut Outputs, handle: RegistrationHandle) {
        let Some(registration) = self.registrations.get(handle) else { return };
        if registration.state != RegistrationState::Leaving
            || registration.requests > 0
            || registration.in_flight > 0
        {
            return;
        }
        self.unsubscribe(outputs, handle, Carries::Grants);
        let Some(registration) = self.registrations.get_mut(handle).filter(|found| found.grants == 0) else {
            return;
        };
        let failure = registration.failure.take();
        self.remove(handle);
        outputs.event(match failure {
            Some(error) => ServerEvent::Registered { registration: handle, result: Err(error) },
            None => ServerEvent::Deregistered { registration: handle },
        });
    }

    fn unsubscribe(&mut self, outputs: &mut Outputs, handle: RegistrationHandle, carries: Carries) {
        let Some(registration) = self.registrations.get(handle) else { return };
        for subscription in &registration.subscriptions {
            if self.subscriptions.role(*subscription).is_some_and(|role| role.carries == carries) {
                self.subscriptions.unsubscribe(outputs, *subscription);
            }
        }
    }

    fn remove(&mut self, registration: RegistrationHandle) {
        let Self { registrations, names, .. } = self;
        let routes = registrations.get(registration).map_or(0, |registration| registration.routes.len());
        for role in ChannelRole::requests(registration, routes) {
            names.release(role, |role| route_of(registrations, role));
        }
        registrations.remove(registration);
    }
}

/// Returns the route of a role. Its registration must exist.
fn route_of(registrations: &Handles<Registration>, role: ChannelRole) -> &Route {
    let registration =
        registrations.get(role.registration).expect("a registration outlives its names and subscriptions");
    &registration.routes[role.route as usize]
}
