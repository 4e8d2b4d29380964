//! The registry: which methods a server serves on which topics, and their subscriptions.

use alloc::string::ToString;
use alloc::vec::Vec;

use psrpc_proto::Channel;

use super::Io;
use crate::error::{BusError, RegisterError};
use crate::event::ServerEvent;
use crate::handle::Handles;
use crate::map::{HashKeys, Map};
use crate::subscriptions::Subscriptions;
use crate::{RegistrationHandle, Route, SubscriptionHandle, SubscriptionKind};

/// What a server serves.
///
/// ```text
/// Joining ──all live──▶ Serving ──deregister──▶ Leaving ──▶ (gone)
///    └──────── a subscription fails, or deregister ──▲
/// ```
/// A registration that leaves gives up its request channels first, keeps its grant channels while requests are in
/// flight, and is gone when the bus has confirmed the end of both. Only then are its names free for another, and only
/// then is the layer above told, also of a failure: what it registers next does not find them taken.
pub(super) struct Registry {
    registrations: Handles<Registration>,
    subscriptions: Subscriptions<Role>,
    names: Names,
}

struct Registration {
    routes: Vec<Route>,
    requests: Channels,
    grants: Channels,
    in_flight: usize,
    state: State,
    /// Why it did not come to serve.
    refused: Option<BusError>,
}

/// The subscriptions of a registration to one kind of channel, and how many of them have not ended.
struct Channels {
    subscriptions: Vec<SubscriptionHandle>,
    open: usize,
}

#[derive(PartialEq, Eq)]
enum State {
    /// So many subscriptions are not live yet.
    Joining {
        missing: usize,
    },
    Serving,
    Leaving,
}

/// What a subscription of a server is for.
#[derive(Clone, Copy)]
pub(super) struct Role {
    pub(super) registration: RegistrationHandle,
    pub(super) carries: Carries,
    route: u32,
}

/// What comes in on a subscription.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    Requests,
    Grants,
}

impl Registry {
    pub(super) fn new(keys: HashKeys) -> Self {
        Self {
            registrations: Handles::new(),
            subscriptions: Subscriptions::new(),
            names: Names { legacy: Map::new(), wire: Map::new(), subjects: Map::new(), keys },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.registrations.is_empty()
    }

    /// Subscribes to the channels of `routes`, all or none of them.
    pub(super) fn register(
        &mut self,
        io: &mut Io,
        routes: Vec<Route>,
    ) -> Result<RegistrationHandle, RegisterError> {
        for (index, route) in routes.iter().enumerate() {
            if let Err(error) = self.names.claim(route) {
                routes[..index].iter().for_each(|claimed| self.names.release(claimed));
                return Err(error);
            }
        }
        let registration = self.registrations.next().into();
        let mut requests = Channels { subscriptions: Vec::new(), open: 0 };
        let mut grants = Channels { subscriptions: Vec::new(), open: 0 };
        for (index, route) in routes.iter().enumerate() {
            let role = |carries| Role { registration, carries, route: index as u32 };
            // Grants first: where nothing is confirmed in order, a grant must not overtake its subscription.
            if route.properties().require_claim {
                let (role, kind) = (role(Carries::Grants), SubscriptionKind::Plain);
                grants.add(self.subscriptions.subscribe(io, role, route.grants(), kind));
            }
            let (role, kind) = (role(Carries::Requests), request_kind(route));
            requests.add(self.subscriptions.subscribe(io, role, route.requests(), kind));
        }
        let missing = requests.open + grants.open;
        let state = State::Joining { missing };
        let refused = None;
        self.registrations.insert(Registration { routes, requests, grants, in_flight: 0, state, refused });
        if missing == 0 {
            self.joined(io, registration);
        }
        Ok(registration)
    }

    /// Gives up a registration. Its requests in flight go on.
    pub(super) fn deregister(&mut self, io: &mut Io, handle: RegistrationHandle) {
        let Some(registration) = self.registrations.get_mut(handle) else { return };
        if let State::Joining { .. } = registration.state {
            registration.refused = Some(BusError::new("deregistered before it was registered"));
        }
        self.leave(io, handle);
    }

    pub(super) fn deregister_all(&mut self, io: &mut Io) {
        let registrations: Vec<_> = self.registrations.handles().collect();
        for registration in registrations {
            self.deregister(io, registration.into());
        }
    }

    /// Forgets all registrations, and asks for the end of all subscriptions without waiting for it.
    pub(super) fn forget(&mut self, io: &mut Io) {
        self.subscriptions.unsubscribe_all(io);
        *self = Self::new(self.names.keys.clone());
    }

    /// What a subscription is for, and the route it serves.
    pub(super) fn role(&self, subscription: SubscriptionHandle) -> Option<(Role, &Route)> {
        let role = self.subscriptions.role(subscription)?;
        let registration = self.registrations.get(role.registration)?;
        Some((role, &registration.routes[role.route as usize]))
    }

    /// Whether a registration is given up.
    pub(super) fn is_leaving(&self, handle: RegistrationHandle) -> bool {
        self.registrations.get(handle).is_none_or(|registration| registration.state == State::Leaving)
    }

    pub(super) fn knows(&self, subscription: SubscriptionHandle) -> bool {
        self.subscriptions.role(subscription).is_some()
    }

    pub(super) fn on_live(&mut self, io: &mut Io, subscription: SubscriptionHandle) {
        let Some(Role { registration, .. }) = self.subscriptions.live(subscription) else { return };
        let Some(State::Joining { missing }) =
            self.registrations.get_mut(registration).map(|found| &mut found.state)
        else {
            return;
        };
        *missing -= 1;
        if *missing <= usize::from(planted!(RegisteredEarly)) {
            self.joined(io, registration);
        }
    }

    /// The bus has ended a subscription: as asked, or else because of `error`. Gives the registration that is lost by it.
    pub(super) fn on_ended(
        &mut self,
        io: &mut Io,
        subscription: SubscriptionHandle,
        error: Option<BusError>,
    ) -> Option<RegistrationHandle> {
        let (Role { registration: handle, carries, .. }, _) = self.subscriptions.ended(subscription)?;
        let registration = self.registrations.get_mut(handle)?;
        match carries {
            Carries::Requests => registration.requests.open -= 1,
            Carries::Grants => registration.grants.open -= 1,
        }
        match registration.state {
            State::Joining { .. } => {
                let error = error.unwrap_or_else(|| BusError::new("the bus ended the subscription"));
                registration.refused = Some(error);
                self.leave(io, handle);
            }
            State::Serving => {
                io.event(ServerEvent::Lost { registration: handle });
                self.leave(io, handle);
                return Some(handle);
            }
            State::Leaving => self.leave_on(io, handle),
        }
        None
    }

    /// A request of a registration is in flight.
    pub(super) fn hold(&mut self, handle: RegistrationHandle) {
        if let Some(registration) = self.registrations.get_mut(handle) {
            registration.in_flight += 1;
        }
    }

    /// A request of a registration is over.
    pub(super) fn release(&mut self, io: &mut Io, handle: RegistrationHandle) {
        if let Some(registration) = self.registrations.get_mut(handle) {
            registration.in_flight -= 1;
            self.leave_on(io, handle);
        }
    }

    fn joined(&mut self, io: &mut Io, handle: RegistrationHandle) {
        if let Some(registration) = self.registrations.get_mut(handle) {
            registration.state = State::Serving;
            io.event(ServerEvent::Registered { registration: handle, result: Ok(()) });
        }
    }

    fn leave(&mut self, io: &mut Io, handle: RegistrationHandle) {
        let Some(registration) = self.registrations.get_mut(handle) else { return };
        if registration.state == State::Leaving {
            return;
        }
        registration.state = State::Leaving;
        for subscription in &registration.requests.subscriptions {
            self.subscriptions.unsubscribe(io, *subscription);
        }
        self.leave_on(io, handle);
    }

    /// Takes a registration that leaves as far as it can go now.
    fn leave_on(&mut self, io: &mut Io, handle: RegistrationHandle) {
        let Some(registration) = self.registrations.get_mut(handle) else { return };
        if registration.state != State::Leaving
            || registration.requests.open > 0
            || registration.in_flight > 0 && !planted!(GrantsLeftEarly)
        {
            return;
        }
        for subscription in &registration.grants.subscriptions {
            self.subscriptions.unsubscribe(io, *subscription);
        }
        if registration.grants.open > 0 {
            return;
        }
        let Some(Registration { routes, refused, .. }) = self.registrations.remove(handle) else { return };
        if !planted!(NamesLeak) {
            routes.iter().for_each(|route| self.names.release(route));
        }
        io.event(match refused {
            Some(error) => ServerEvent::Registered { registration: handle, result: Err(error) },
            None => ServerEvent::Deregistered { registration: handle },
        });
    }
}

impl Channels {
    fn add(&mut self, subscription: SubscriptionHandle) {
        self.subscriptions.push(subscription);
        self.open += 1;
    }
}

fn request_kind(route: &Route) -> SubscriptionKind {
    if route.is_queue() { SubscriptionKind::Queue } else { SubscriptionKind::Plain }
}

/// The names that are taken, so that no two registrations of a server get each other's frames.
struct Names {
    /// Routes, by the legacy name of their request channel.
    legacy: Map<Route>,
    /// Routes, by the server and local name of their request channel.
    wire: Map<Route>,
    /// Subjects, by name.
    subjects: Map<Subject>,
    keys: HashKeys,
}

/// A NATS subject in use. All its users subscribe to it in the same way, since on NATS two ways do not mix.
struct Subject {
    channel: Channel,
    kind: SubscriptionKind,
    /// The routes that use it.
    users: Vec<Route>,
}

impl Names {
    fn claim(&mut self, route: &Route) -> Result<(), RegisterError> {
        let requests = route.requests();
        let legacy = self.keys.hash(requests.legacy().as_bytes());
        if let Some(other) = self.legacy.get(legacy, |other| other.requests().legacy() == requests.legacy()) {
            let same = (other.method(), other.topic()) == (route.method(), route.topic());
            return Err(if same {
                RegisterError::Duplicate { route: route.clone() }
            } else {
                conflict(route, other, requests.legacy())
            });
        }
        let wire = self.keys.identity(requests.server().as_bytes(), requests.local().as_bytes()) as u64;
        if let Some(other) = self.wire.get(wire, |other| same_wire(other.requests(), requests)) {
            return Err(conflict(route, other, requests.server()));
        }
        for (channel, kind) in subjects(route) {
            if let Some(subject) = self.subject(channel).filter(|subject| subject.kind != kind) {
                return Err(conflict(route, &subject.users[0], channel.server()));
            }
        }
        self.legacy.insert(legacy, route.clone());
        self.wire.insert(wire, route.clone());
        for (channel, kind) in subjects(route) {
            match self.subject(channel) {
                Some(subject) => subject.users.push(route.clone()),
                None => {
                    let hash = self.keys.hash(channel.server().as_bytes());
                    let (channel, users) = (channel.clone(), [route.clone()].to_vec());
                    self.subjects.insert(hash, Subject { channel, kind, users });
                }
            }
        }
        Ok(())
    }

    fn release(&mut self, route: &Route) {
        let requests = route.requests();
        let is_it = |other: &Route| (other.method(), other.topic()) == (route.method(), route.topic());
        self.legacy.remove(self.keys.hash(requests.legacy().as_bytes()), is_it);
        let wire = self.keys.identity(requests.server().as_bytes(), requests.local().as_bytes()) as u64;
        self.wire.remove(wire, is_it);
        for (channel, _) in subjects(route) {
            let Some(subject) = self.subject(channel) else { continue };
            if let Some(place) = subject.users.iter().position(is_it) {
                subject.users.swap_remove(place);
            }
            if subject.users.is_empty() {
                let hash = self.keys.hash(channel.server().as_bytes());
                self.subjects.remove(hash, |subject| subject.channel.server() == channel.server());
            }
        }
    }

    fn subject(&mut self, channel: &Channel) -> Option<&mut Subject> {
        let hash = self.keys.hash(channel.server().as_bytes());
        self.subjects.get_mut(hash, |subject| subject.channel.server() == channel.server())
    }
}

/// The subjects that a route subscribes to, and how.
fn subjects(route: &Route) -> impl Iterator<Item = (&Channel, SubscriptionKind)> {
    let grants = route.properties().require_claim.then(|| (route.grants(), SubscriptionKind::Plain));
    [(route.requests(), request_kind(route))].into_iter().chain(grants)
}

fn same_wire(a: &Channel, b: &Channel) -> bool {
    (a.server(), a.local()) == (b.server(), b.local())
}

fn conflict(route: &Route, other: &Route, channel: &str) -> RegisterError {
    RegisterError::Conflict { route: route.clone(), other: other.clone(), channel: channel.to_string() }
}
