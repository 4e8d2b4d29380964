//! Our client in the place of a Go client that subscribes to updates.

use psrpc_engine::{Client, ClientEvent, Reason, Route, SubscriptionHandle};
use psrpc_vectors::{Bus, Event};
use serde_json::{Value, json};

use super::{Kind, RecordedPeer, decode, fields, for_each_peer, publishes, route_of};
use crate::fixture::{Driven, MULTI};

#[test]
fn our_client_receives_the_updates_that_go_clients_received() {
    let replayed = for_each_peer(Kind::Updates, "client", |peer| Replay::new(peer).run());
    assert_eq!(replayed, 4 * 7 + 2 * 14);
}

struct Replay<'a> {
    client: Driven<Client>,
    peer: RecordedPeer<'a>,
    /// The client's subscriptions: two in the conversation where they share a bus.
    listeners: Vec<SubscriptionHandle>,
    /// The updates that each listener received.
    received: Vec<Vec<Value>>,
}

impl<'a> Replay<'a> {
    fn new(peer: RecordedPeer<'a>) -> Self {
        let client = peer.client("Gossip");
        Self { client, peer, listeners: Vec::new(), received: Vec::new() }
    }

    fn run(mut self) {
        if self.peer.id() == "subscription-on-closed-client" {
            return self.check_closed();
        }
        let channels = self.peer.subscriptions();
        let carries_updates = |channel: &str| channels.iter().any(|(known, _)| known == channel);
        let updates = publishes(self.peer.conversation);
        let updates: Vec<_> = updates.filter(|(_, update)| carries_updates(&update.channel)).collect();
        let (_, first) = updates.first().expect("an update");
        let route = route_of(self.peer.bus, &first.channel, &first.local);
        let listeners = if self.shares_a_bus() { 2 } else { 1 };
        for _ in 0..listeners {
            self.listeners.push(self.client.engine.subscribe(&route, "vectors.v1.Update").unwrap());
            self.received.push(Vec::new());
        }
        self.client.drain();
        self.peer.check_subscriptions(&self.client);
        let mut listeners = self.listeners.clone().into_iter().cycle();
        for (index, update) in updates {
            if !route.is_queue() || self.is_handed(index, &update.fields) {
                self.client.deliver(listeners.next().expect("a listener"), decode(update));
            }
            self.handle_events();
            self.stop();
        }
        self.check_received();
        assert!(self.client.published().is_empty(), "a subscriber publishes nothing");
    }

    fn check_closed(mut self) {
        self.client.engine.close(self.client.now);
        self.client.drain();
        let route = Route::new("Gossip", "Bulletin", MULTI, &["harbour"]).unwrap();
        let error = self.client.engine.subscribe(&route, "vectors.v1.Update").unwrap_err();
        self.peer.check_refused(&error.code(), &error.to_string());
    }

    /// Ends the subscription, if the conversation does so after the first update.
    fn stop(&mut self) {
        match self.peer.id() {
            "subscription-closed-by-listener" | "subscription-context-canceled" => {
                self.client.engine.unsubscribe(self.listeners[0]);
            }
            // In Go the subscription outlives the client.
            "subscription-client-closed" => self.client.engine.close(self.client.now),
            _ => return,
        }
        self.client.drain();
        self.client.confirm_unsubscribed();
    }

    fn shares_a_bus(&self) -> bool {
        self.peer.id() == "subscription-queue-one-bus"
    }

    /// Returns `true` if the bus delivered the update to this client.
    fn is_handed(&self, index: usize, update: &Value) -> bool {
        if self.shares_a_bus() {
            return true;
        }
        match self.peer.bus {
            Bus::Redis => {
                let from = self.peer.from();
                self.peer.conversation.frames.iter().any(|event| match event {
                    Event::Lock(lock) => lock.frame == index && lock.from == from && lock.won,
                    Event::Publish(_) => false,
                })
            }
            // The wire does not show it.
            Bus::Nats => self.is_only_client() || self.recorded("").iter().any(|received| received == update),
        }
    }

    fn handle_events(&mut self) {
        for event in self.client.events() {
            match event {
                ClientEvent::Update { subscription, payload } => {
                    let listener = self.listeners.iter().position(|known| *known == subscription);
                    self.received[listener.expect("a listener")]
                        .push(fields(self.peer.conversation, &payload));
                    self.client.engine.taken_update(subscription);
                }
                ClientEvent::Subscribed { .. }
                | ClientEvent::Unsubscribed { error: None, .. }
                | ClientEvent::Closed { error: None } => {}
                ClientEvent::Dropped(dropped) => {
                    assert_eq!(dropped.reason, Reason::UnexpectedType, "{}", self.peer.context());
                }
                other => panic!("{}: {other:?}", self.peer.context()),
            }
        }
    }

    /// Returns the updates that the Go client received.
    fn recorded(&self, suffix: &str) -> Vec<Value> {
        let name = format!("received_by_{}{suffix}", self.peer.participant.label);
        self.peer.conversation.outcome[name].as_array().cloned().unwrap_or_default()
    }

    /// Returns `true` if no other client took part.
    fn is_only_client(&self) -> bool {
        self.peer.conversation.participants.iter().filter(|peer| peer.role == "client").count() == 1
    }

    fn check_received(&self) {
        let outcome = &self.peer.conversation.outcome;
        let recorded = match (self.peer.id(), self.peer.bus) {
            (
                "subscription-closed-by-listener"
                | "subscription-context-canceled"
                | "subscription-client-closed",
                _,
            ) => {
                vec![vec![outcome["first"].clone()]]
            }
            ("subscription-update-of-unknown-type" | "subscription-update-of-another-type", _) => {
                assert_eq!(self.client.engine.counters().get(Reason::UnexpectedType), 1);
                vec![vec![outcome["second"].clone()]]
            }
            ("compression-threshold-boundary", _) => {
                let len = |update: &Value| json!(update["text"].as_str().map_or(0, str::len));
                let lens: Vec<_> = self.received[0].iter().map(len).collect();
                return assert_eq!(Value::Array(lens), outcome["received_text_lengths"]);
            }
            // On NATS, Go delivers each update to both; ours alternate on every bus.
            ("subscription-queue-one-bus", Bus::Nats) => {
                let all = self.recorded("_first");
                assert_eq!((all.len(), &all), (4, &self.recorded("_second")));
                let every_other = |first| all.iter().skip(first).step_by(2).cloned().collect();
                vec![every_other(0), every_other(1)]
            }
            ("subscription-queue-one-bus", Bus::Redis) => {
                vec![self.recorded("_first"), self.recorded("_second")]
            }
            _ => vec![self.recorded("")],
        };
        assert_eq!(self.received, recorded, "{}", self.peer.context());
    }
}
