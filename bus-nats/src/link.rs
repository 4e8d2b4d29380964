//! The state of the connection: watched, proven by round trips, and told to everybody.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::{Event, ServerError};
use psrpc::SubscriptionKind;

use crate::echo::Echo;
use crate::error::Fault;
use crate::shared::Shared;

/// How often the connection is looked at, where no event tells of a change.
const LOOK: Duration = Duration::from_millis(100);

/// The state of the connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Link {
    /// There is none, or it has not been proven yet that the subscriptions are live again.
    Down,
    /// It is there, the so-manieth one.
    Up(u64),
}

/// A round trip under way, if any.
#[derive(Default)]
pub(crate) struct Proof(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Proof {
    /// Begins one.
    pub(crate) fn ask(&mut self, echo: &Echo) {
        self.0 = Some(Box::pin(echo.clone().round_trip()));
    }

    pub(crate) fn give_up(&mut self) {
        self.0 = None;
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.is_some()
    }

    /// Returns at its end.
    pub(crate) async fn answered(&mut self) {
        match &mut self.0 {
            Some(round_trip) => round_trip.await,
            None => pending().await,
        }
        self.0 = None;
    }
}

/// Watches the connection until the bus has ended. A client that came from elsewhere tells of no events: then looking
/// now and again has to do.
pub(crate) async fn watch(shared: Weak<Shared>) {
    let Some(looks) = shared.upgrade().map(|shared| Arc::clone(&shared.look)) else { return };
    let (mut proof, mut proving) = (Proof::default(), None);
    loop {
        let proven = tokio::select! {
            () = proof.answered() => true,
            () = looks.notified() => false,
            () = tokio::time::sleep(LOOK) => false,
        };
        let Some(shared) = shared.upgrade() else { return };
        let connection = shared.connection();
        if matches!(*shared.link.borrow(), Link::Up(number) if connection != Some(number)) {
            shared.down();
        }
        if *shared.link.borrow() != Link::Down {
            continue;
        }
        match connection {
            Some(number) if proven && proving == connection => {
                shared.up(number);
            }
            // The client says that it is connected before it has subscribed again; it does so before it sends this.
            Some(_) if proving != connection || !proof.is_asked() => proof.ask(&shared.echo),
            Some(_) => {}
            None => proof.give_up(),
        }
        proving = connection;
    }
}

/// Takes what the client tells.
pub(crate) fn take(shared: &Shared, event: Event) {
    match event {
        Event::Disconnected => shared.down(),
        Event::SlowConsumer(sid) => shared.overrun(sid),
        Event::ServerError(ServerError::Other(text)) => match Denied::read(&text) {
            Some(Denied::Publish(subject)) => shared.grants.refuse(subject),
            Some(Denied::Subscription(subject, kind)) => shared.fail(kind, subject, || Fault::Denied {
                servers: shared.servers.clone(),
                subject: subject.to_owned(),
                text: text.clone(),
            }),
            None => shared.note(text),
        },
        Event::ServerError(error) => shared.note(error.to_string()),
        Event::ClientError(error) => shared.note(error.to_string()),
        _ => {}
    }
    shared.look.notify_one();
}

/// What a server does not allow.
#[derive(Debug, PartialEq)]
enum Denied<'a> {
    Publish(&'a str),
    Subscription(&'a str, SubscriptionKind),
}

impl<'a> Denied<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix("Permissions Violation for ")?;
        if let Some(rest) = rest.strip_prefix("Publish to \"") {
            return Some(Denied::Publish(rest.split_once('"')?.0));
        }
        let (subject, rest) = rest.strip_prefix("Subscription to \"")?.split_once('"')?;
        let queue = rest.contains("using queue");
        let kind = if queue { SubscriptionKind::Queue } else { SubscriptionKind::Plain };
        Some(Denied::Subscription(subject, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_it_is_about() {
        let text = "Permissions Violation for Subscription to \"SRV.Hats\"";
        assert_eq!(Denied::read(text), Some(Denied::Subscription("SRV.Hats", SubscriptionKind::Plain)));
        let text = "Permissions Violation for Subscription to \"SRV.Hats.Q\" using queue \"bus\"";
        assert_eq!(Denied::read(text), Some(Denied::Subscription("SRV.Hats.Q", SubscriptionKind::Queue)));
        let text = "Permissions Violation for Publish to \"SRV.Hats\"";
        assert_eq!(Denied::read(text), Some(Denied::Publish("SRV.Hats")));
        assert_eq!(Denied::read("Stale Connection"), None);
    }
}
