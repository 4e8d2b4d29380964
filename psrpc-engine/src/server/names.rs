//! The channel names in use, so that no two registrations of a server get each other's frames.

use alloc::string::ToString;

use psrpc_proto::Channel;

use super::role::{Carries, ChannelRole};
use crate::core::map::{HashKeys, Map};
use crate::error::RegisterError;
use crate::wire::route::Route;

/// The channel names in use. They refer to routes by role; `route_of` looks the route up.
pub(super) struct Names {
    /// Request channels, by legacy name.
    legacy: Map<ChannelRole>,
    /// The users of each NATS subject: at most two for each method of the service, one for requests
    /// and one for grants. All users of a subject must subscribe to it with the same kind, because
    /// NATS cannot mix kinds.
    subjects: Map<ChannelRole>,
    keys: HashKeys,
}

impl Names {
    pub(super) const fn new(keys: HashKeys) -> Self {
        Self { legacy: Map::new(), subjects: Map::new(), keys }
    }

    pub(super) fn keys(&self) -> &HashKeys {
        &self.keys
    }

    /// Reserves the names of the route whose requests `role` carries.
    pub(super) fn reserve<'a>(
        &mut self,
        role: ChannelRole,
        route_of: impl Fn(ChannelRole) -> &'a Route,
    ) -> Result<(), RegisterError> {
        let route = route_of(role);
        let requests = route.requests();
        if let Some(other) = self.find(requests, &route_of).map(&route_of) {
            let same = (other.method(), other.topic()) == (route.method(), route.topic());
            return Err(if same {
                RegisterError::Duplicate { route: route.clone() }
            } else {
                conflict(route, other, requests.legacy())
            });
        }
        let same_local = |other: ChannelRole, of: &Route| {
            other.carries == Carries::Requests && of.requests().local() == requests.local()
        };
        if let Some(other) = self.find_user(requests, &route_of, same_local) {
            return Err(conflict(route, other, requests.server()));
        }
        for used in role.uses(route) {
            let (channel, kind) = used.subject(route);
            let other_kind = |other: ChannelRole, of: &Route| other.subject(of).1 != kind;
            if let Some(other) = self.find_user(channel, &route_of, other_kind) {
                return Err(conflict(route, other, channel.server()));
            }
        }
        self.legacy.insert(self.keys.hash(requests.legacy().as_bytes()), role);
        for used in role.uses(route) {
            let (channel, _) = used.subject(route);
            self.subjects.insert(self.keys.hash(channel.server().as_bytes()), used);
        }
        Ok(())
    }

    /// Releases the names of the route whose requests `role` carries.
    pub(super) fn release<'a>(&mut self, role: ChannelRole, route_of: impl Fn(ChannelRole) -> &'a Route) {
        let route = route_of(role);
        self.legacy.remove(self.keys.hash(route.requests().legacy().as_bytes()), |known| *known == role);
        for used in role.uses(route) {
            let (channel, _) = used.subject(route);
            self.subjects.remove(self.keys.hash(channel.server().as_bytes()), |known| *known == used);
        }
    }

    /// Returns the role that has reserved the legacy name of `requests`.
    pub(super) fn find<'a>(
        &self,
        requests: &Channel,
        route_of: impl Fn(ChannelRole) -> &'a Route,
    ) -> Option<ChannelRole> {
        let hash = self.keys.hash(requests.legacy().as_bytes());
        self.legacy.get(hash, |role| route_of(*role).requests().legacy() == requests.legacy()).copied()
    }

    /// Returns the route of a user of the channel's subject for which `matches` returns `true`.
    fn find_user<'a>(
        &self,
        channel: &Channel,
        route_of: impl Fn(ChannelRole) -> &'a Route,
        matches: impl Fn(ChannelRole, &Route) -> bool,
    ) -> Option<&'a Route> {
        let hash = self.keys.hash(channel.server().as_bytes());
        let is_user = |user: &ChannelRole| {
            let route = route_of(*user);
            user.subject(route).0.server() == channel.server() && matches(*user, route)
        };
        self.subjects.get(hash, is_user).map(|user| route_of(*user))
    }
}

fn conflict(route: &Route, other: &Route, channel: &str) -> RegisterError {
    RegisterError::Conflict { route: route.clone(), other: other.clone(), channel: channel.to_string() }
}
