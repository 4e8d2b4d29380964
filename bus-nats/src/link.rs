//! The state of the connection: watched, proven by round trips, and told to everybody.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Weak;
use std::time::Duration;

use async_nats::{Client, Event, Request, RequestErrorKind, ServerError};
use psrpc::SubscriptionKind;
use tokio::sync::mpsc::Receiver;

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

/// Returns when the server has done all that this connection asked of it before, and all that it sent before has been
/// handed out. Pends for ever when the connection is lost meanwhile.
///
/// The client library has no call for that: its `flush` ends once the bytes are written. A request to an inbox of our own
/// that nobody listens to is refused by the server we are connected to ("no responders"), in order with all the rest.
pub(crate) async fn round_trip(client: Client) {
    let request = Request::new().timeout(None);
    match client.send_request(client.new_inbox(), request).await {
        Ok(_) => {}
        Err(error) if error.kind() == RequestErrorKind::NoResponders => {}
        Err(_) => pending().await,
    }
}

/// A round trip under way, if any.
#[derive(Default)]
pub(crate) struct Proof(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Proof {
    /// Begins one.
    pub(crate) fn ask(&mut self, client: &Client) {
        self.0 = Some(Box::pin(round_trip(client.clone())));
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

/// Watches the connection until the bus has ended. A client that came from elsewhere sends no `events`: then looking
/// has to do.
pub(crate) async fn watch(shared: Weak<Shared>, mut events: Receiver<Event>) {
    let mut looks = tokio::time::interval(LOOK);
    let (mut proof, mut proving) = (Proof::default(), None);
    loop {
        let mut proven = false;
        let event = tokio::select! {
            () = proof.answered() => { proven = true; None }
            Some(event) = events.recv() => Some(event),
            _ = looks.tick() => None,
        };
        let Some(shared) = shared.upgrade() else { return };
        let lost = event == Some(Event::Disconnected);
        event.into_iter().for_each(|event| take(&shared, event));
        let (connection, link) = (shared.connection(), *shared.link.borrow());
        if matches!(link, Link::Up(number) if lost || connection != Some(number)) {
            shared.link.send_replace(Link::Down);
        }
        if *shared.link.borrow() != Link::Down {
            continue;
        }
        if proven && connection.is_some() && proving == connection {
            shared.link.send_replace(Link::Up(connection.unwrap_or_default()));
        } else if connection.is_none() {
            proof.give_up();
        } else if !proof.is_asked() || proving != connection {
            // The client says that it is connected before it has subscribed again; it does so before it sends this.
            proof.ask(&shared.client);
            proving = connection;
        }
    }
}

fn take(shared: &Shared, event: Event) {
    match event {
        Event::SlowConsumer(sid) => shared.overrun(sid),
        Event::ServerError(ServerError::Other(text)) => {
            if let Some((subject, kind)) = denied(&text) {
                let subject = subject.to_owned();
                shared.fail(kind, &subject, || Fault::Denied {
                    servers: shared.servers.clone(),
                    subject: subject.clone(),
                    text: text.clone(),
                });
            } else {
                shared.note(text);
            }
        }
        Event::ServerError(error) => shared.note(error.to_string()),
        Event::ClientError(error) => shared.note(error.to_string()),
        _ => {}
    }
}

/// The subscription that a server refuses.
fn denied(text: &str) -> Option<(&str, SubscriptionKind)> {
    let rest = text.strip_prefix("Permissions Violation for Subscription to \"")?;
    let (subject, rest) = rest.split_once('"')?;
    let kind = if rest.contains("using queue") { SubscriptionKind::Queue } else { SubscriptionKind::Plain };
    Some((subject, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_subscription() {
        let text = "Permissions Violation for Subscription to \"SRV.Hats\"";
        assert_eq!(denied(text), Some(("SRV.Hats", SubscriptionKind::Plain)));
        let text = "Permissions Violation for Subscription to \"SRV.Hats.Q\" using queue \"bus\"";
        assert_eq!(denied(text), Some(("SRV.Hats.Q", SubscriptionKind::Queue)));
        assert_eq!(denied("Permissions Violation for Publish to \"SRV.Hats\""), None);
    }
}
