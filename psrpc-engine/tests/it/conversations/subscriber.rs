//! Our client where Go's was, listening to updates.

use psrpc_engine::{Client, ClientEvent, Reason, Route, SubscriptionHandle};
use psrpc_vectors::{Bus, Event};
use serde_json::{Value, json};

use super::{Kind, Place, decode, each_place, fields, publishes, route_of};
use crate::fixture::{Driven, MULTI};

#[test]
fn our_client_hears_the_updates_that_go_clients_heard() {
    let replayed = each_place(Kind::Updates, "client", |place| Replay::new(place).run());
    assert_eq!(replayed, 4 * 7 + 2 * 14);
}

struct Replay<'a> {
    client: Driven<Client>,
    place: Place<'a>,
    /// Two share a bus in one conversation.
    listeners: Vec<SubscriptionHandle>,
    /// What each has heard.
    heard: Vec<Vec<Value>>,
}

impl<'a> Replay<'a> {
    fn new(place: Place<'a>) -> Self {
        let client = place.client("Gossip");
        Self { client, place, listeners: Vec::new(), heard: Vec::new() }
    }

    fn run(mut self) {
        if self.place.id() == "subscription-on-closed-client" {
            return self.check_closed();
        }
        let channels = self.place.subscriptions();
        let carries_updates = |channel: &str| channels.iter().any(|(known, _)| known == channel);
        let updates = publishes(self.place.conversation);
        let updates: Vec<_> = updates.filter(|(_, update)| carries_updates(&update.channel)).collect();
        let (_, first) = updates.first().expect("an update");
        let route = route_of(self.place.bus, &first.channel, &first.local);
        let listeners = if self.shares_a_bus() { 2 } else { 1 };
        for _ in 0..listeners {
            self.listeners.push(self.client.engine.subscribe(&route, "vectors.v1.Update").unwrap());
            self.heard.push(Vec::new());
        }
        self.client.drain();
        self.place.check_subscriptions(&self.client);
        let mut turns = self.listeners.clone().into_iter().cycle();
        for (index, update) in updates {
            if !route.is_queue() || self.is_handed(index, &update.fields) {
                self.client.deliver(turns.next().expect("a listener"), decode(update));
            }
            self.look();
            self.stop();
        }
        self.check_heard();
        assert!(self.client.published().is_empty(), "a subscriber publishes nothing");
    }

    fn check_closed(mut self) {
        self.client.engine.close(self.client.now);
        self.client.drain();
        let route = Route::new("Gossip", "Bulletin", MULTI, &["harbour"]).unwrap();
        let error = self.client.engine.subscribe(&route, "vectors.v1.Update").unwrap_err();
        self.place.check_refused(&error.code(), &error.to_string());
    }

    /// Ends the subscription where that is what happens after the first update.
    fn stop(&mut self) {
        match self.place.id() {
            "subscription-closed-by-listener" | "subscription-context-canceled" => {
                self.client.engine.unsubscribe(self.listeners[0]);
            }
            // In Go the subscription lives on.
            "subscription-client-closed" => self.client.engine.close(self.client.now),
            _ => return,
        }
        self.client.drain();
        self.client.confirm_unsubscribed();
    }

    fn shares_a_bus(&self) -> bool {
        self.place.id() == "subscription-queue-one-bus"
    }

    /// Whether the bus handed an update to this client, rather than to another of the queue or to
    /// none.
    fn is_handed(&self, index: usize, update: &Value) -> bool {
        if self.shares_a_bus() {
            return true;
        }
        match self.place.bus {
            Bus::Redis => {
                let from = self.place.from();
                self.place.conversation.frames.iter().any(|event| match event {
                    Event::Lock(lock) => lock.frame == index && lock.from == from && lock.won,
                    Event::Publish(_) => false,
                })
            }
            // Nothing on the wire tells.
            Bus::Nats => self.is_alone() || self.recorded("").iter().any(|heard| heard == update),
        }
    }

    fn look(&mut self) {
        for event in self.client.events() {
            match event {
                ClientEvent::Update { subscription, payload } => {
                    let listener = self.listeners.iter().position(|known| *known == subscription);
                    self.heard[listener.expect("a listener")].push(fields(self.place.conversation, &payload));
                    self.client.engine.taken_update(subscription);
                }
                ClientEvent::Subscribed { .. }
                | ClientEvent::Unsubscribed { error: None, .. }
                | ClientEvent::Closed { error: None } => {}
                ClientEvent::Dropped(dropped) => {
                    assert_eq!(dropped.reason, Reason::UnexpectedType, "{}", self.place.context());
                }
                other => panic!("{}: {other:?}", self.place.context()),
            }
        }
    }

    /// What Go's client heard.
    fn recorded(&self, suffix: &str) -> Vec<Value> {
        let name = format!("received_by_{}{suffix}", self.place.peer.label);
        self.place.conversation.outcome[name].as_array().cloned().unwrap_or_default()
    }

    /// Whether it is the only listener.
    fn is_alone(&self) -> bool {
        self.place.conversation.participants.iter().filter(|peer| peer.role == "client").count() == 1
    }

    fn check_heard(&self) {
        let outcome = &self.place.conversation.outcome;
        let recorded = match (self.place.id(), self.place.bus) {
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
                let lens: Vec<_> = self.heard[0].iter().map(len).collect();
                return assert_eq!(Value::Array(lens), outcome["received_text_lengths"]);
            }
            // On NATS Go hands each update to both; ours take turns on every bus.
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
        assert_eq!(self.heard, recorded, "{}", self.place.context());
    }
}
