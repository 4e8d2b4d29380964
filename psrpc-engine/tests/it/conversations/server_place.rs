//! Our server where a Go server was.

use std::time::Duration;

use psrpc_engine::proto::{Frame, Response};
use psrpc_engine::{Engine, Now, Server, ServerConfig, ServerEvent, SubscriptionKind, Time, WallTime};
use psrpc_vectors::{Bus, Conversation, Event, Publish};

use super::{assert_same, decode, each_unary, local, micros, name, publishes, route_of, subscribed};
use crate::fixture::Driven;

#[test]
fn our_server_does_what_go_servers_did() {
    let mut replayed = 0;
    each_unary(|bus, version, conversation| {
        for participant in conversation.participants.iter().filter(|participant| participant.role == "server")
        {
            Replay::new(bus, version, conversation, &participant.id).run();
            replayed += 1;
        }
    });
    assert_eq!(replayed, (44 + 43) * 2 + 2 * 2, "every server, NATS's own conversation with two more");
}

struct Replay<'a> {
    bus: Bus,
    version: &'a str,
    conversation: &'a Conversation,
    from: String,
    server: Driven<Server>,
    /// When virtual time began, by the wall clock of the recording.
    epoch: i64,
    sent: Vec<(String, String, Frame)>,
}

impl<'a> Replay<'a> {
    fn new(bus: Bus, version: &'a str, conversation: &'a Conversation, id: &str) -> Self {
        let config = ServerConfig { id: id.into(), ..ServerConfig::new("Hats") };
        let server = Driven::new(Server::new(config, [2; 32]).unwrap());
        let first = publishes(conversation).find_map(|(_, publish)| match decode(publish) {
            // An expired request says nothing of the time at which it was sent.
            Frame::Request(_) if conversation.id == "request-expired-from-recorder" => Some(i64::MAX / 2),
            Frame::Request(request) => Some(request.sent_at - micros(publish.at_us).as_nanos() as i64),
            _ => None,
        });
        let from = format!("server:{id}");
        Self { bus, version, conversation, from, server, epoch: first.unwrap_or(0), sent: Vec::new() }
    }

    fn context(&self) -> String {
        format!("{} on {:?}, Go {}, {}", self.conversation.id, self.bus, self.version, self.from)
    }

    fn run(mut self) {
        self.register();
        for (index, publish) in self.as_heard() {
            self.advance_to(publish.at_us);
            if publish.from == self.from {
                self.act(publish);
            } else if let Some(subscription) = self.hears(index, publish) {
                self.server.deliver(subscription, decode(publish));
            }
            self.take_sent();
        }
        self.advance_to(10_000_000);
        self.take_sent();
        let expected: Vec<_> = publishes(self.conversation)
            .map(|(_, publish)| publish)
            .filter(|publish| publish.from == self.from && !self.past_expiry(publish))
            .collect();
        let ours: Vec<_> = self.sent.iter().map(|(channel, _, frame)| (channel, frame.kind())).collect();
        let go: Vec<_> = expected
            .iter()
            .map(|publish| (&publish.channel, &publish.type_url["type.googleapis.com/internal.".len()..]))
            .collect();
        assert_eq!(ours, go, "{}", self.context());
        for ((_, local, frame), recorded) in self.sent.iter().zip(expected) {
            match (self.conversation.id.as_str(), frame) {
                // Go would read it as success.
                ("unary-queue-error-empty-text", Frame::Response(response)) => {
                    assert!(response.result.as_ref().is_err_and(|error| error.text.is_empty()));
                    let sent = psrpc_engine::proto::FrameLimits::DEFAULT;
                    let Ok((Frame::Response(Response { result: Err(error), .. }), _)) =
                        Frame::decode(&frame.encode(local), &sent)
                    else {
                        panic!("an error keeps its code")
                    };
                    assert_eq!((error.code.as_str(), error.text.as_str()), ("not_found", "not_found"));
                }
                _ => assert_same(frame, local, recorded, &self.context()),
            }
        }
        assert_eq!(self.server.engine.in_flight(), 0, "{}", self.context());
    }

    /// What was published, in the order in which this server can have heard and done it: it bids before it hears of
    /// a grant, though where another's bid wins at once the recording may have them the other way round.
    fn as_heard(&self) -> Vec<(usize, &'a Publish)> {
        let mut heard: Vec<_> = publishes(self.conversation).collect();
        heard.sort_by_key(|(index, publish)| {
            let bid = publish.from == self.from && publish.type_url.ends_with("ClaimRequest");
            let grant = publishes(self.conversation).find(|(_, other)| {
                other.type_url.ends_with("ClaimResponse")
                    && other.fields["request_id"] == publish.fields["request_id"]
            });
            match grant {
                Some((grant, _)) if bid && grant < *index => (grant, 0),
                _ => (*index, 1),
            }
        });
        heard
    }

    /// Registers what the recorded server had registered, as far as it is unary.
    fn register(&mut self) {
        let recorded: Vec<_> = self
            .conversation
            .subscriptions
            .iter()
            .filter(|subscription| subscription.by == self.from)
            .collect();
        let mut routes = Vec::new();
        match self.bus {
            Bus::Redis => {
                for subscription in &recorded {
                    let method = subscription.channel.split('|').nth(1).expect("a method");
                    if subscription.channel.ends_with("|REQ") && !method.ends_with("Census") {
                        routes.push(route_of(self.bus, &subscription.channel, ""));
                    }
                }
            }
            // A subject does not tell its methods: those that the conversation needs are in its frames.
            Bus::Nats => {
                let requests = publishes(self.conversation)
                    .filter(|(_, publish)| publish.local.ends_with(".REQ"))
                    .filter(|(_, publish)| recorded.iter().any(|known| known.channel == publish.channel));
                for (_, publish) in requests {
                    let route = route_of(self.bus, &publish.channel, &publish.local);
                    if !routes.contains(&route) {
                        routes.push(route);
                    }
                }
            }
        }
        self.server.engine.register(routes).unwrap();
        self.server.drain();
        let ours = self.server.subscriptions.iter().map(|(_, channel, kind)| (channel, *kind));
        let ours = subscribed(self.bus, ours);
        let recorded = recorded
            .iter()
            .map(|subscription| (subscription.channel.clone(), subscription.queue_group.is_some()))
            .filter(|(channel, _)| !channel.contains("Census|") && !channel.contains("Parade|"));
        match self.bus {
            Bus::Redis => assert_eq!(ours, recorded.collect(), "{}", self.context()),
            // The recorded server has methods on more subjects than the conversation needs.
            Bus::Nats => assert!(ours.is_subset(&recorded.collect()), "{}: {ours:?}", self.context()),
        }
    }

    fn advance_to(&mut self, at_us: u64) {
        self.server.advance_to(micros(at_us));
        self.server.now = self.now(at_us);
    }

    fn now(&self, at_us: u64) -> Now {
        let after: Duration = micros(at_us);
        Now { time: Time::ZERO + after, wall: WallTime::from_unix_nanos(self.epoch) + after }
    }

    /// The subscription on which this server hears a frame of another peer; on a queue one server alone does.
    fn hears(&self, index: usize, publish: &Publish) -> Option<psrpc_engine::SubscriptionHandle> {
        let (subscription, _, kind) = self.server.subscriptions.iter().find(|(_, channel, _)| {
            name(self.bus, channel) == publish.channel && local(self.bus, channel) == publish.local
        })?;
        let mine = match (kind, self.bus) {
            (SubscriptionKind::Plain, _) => true,
            (SubscriptionKind::Queue, Bus::Redis) => {
                let mut locks = self.conversation.frames.iter().filter_map(|event| match event {
                    Event::Lock(lock) if lock.frame == index => Some(lock),
                    _ => None,
                });
                locks.any(|lock| lock.won && lock.from == self.from)
            }
            (SubscriptionKind::Queue, Bus::Nats) => {
                let id = &publish.fields["request_id"];
                publishes(self.conversation)
                    .any(|(_, other)| other.from == self.from && other.fields["request_id"] == *id)
            }
        };
        mine.then_some(*subscription)
    }

    /// Does what the recorded server's layer above did when it published this.
    fn act(&mut self, publish: &Publish) {
        let frame = decode(publish);
        loop {
            let events = self.server.events();
            if events.is_empty() {
                return;
            }
            for event in events {
                self.answer(event, &frame);
            }
            self.server.drain();
        }
    }

    fn answer(&mut self, event: ServerEvent, frame: &Frame) {
        match (event, frame) {
            (ServerEvent::Received(received), Frame::ClaimRequest(claim)) => {
                self.server.engine.bid(self.server.now, received.request, claim.affinity);
            }
            // An answer without a bid: to what does not decode, or where no claim is required.
            (ServerEvent::Received(received), Frame::Response(response)) => {
                if received.route.properties().require_claim {
                    let error = response.result.clone().expect_err("only errors come without a bid");
                    self.server.engine.reject(self.sending(response), received.request, error);
                } else {
                    self.server.engine.bid(self.server.now, received.request, 1.0);
                }
            }
            (ServerEvent::Run { request }, Frame::Response(response)) => {
                self.server.engine.respond(self.sending(response), request, response.result.clone());
            }
            _ => {}
        }
    }

    fn sending(&self, response: &Response) -> Now {
        Now { wall: WallTime::from_unix_nanos(response.sent_at), ..self.server.now }
    }

    /// Go publishes responses past their request's expiry, which nobody reads; we do not.
    fn past_expiry(&self, publish: &Publish) -> bool {
        let Frame::Response(response) = decode(publish) else { return false };
        let late = publishes(self.conversation).any(|(_, other)| match decode(other) {
            Frame::Request(request) => {
                request.request_id == response.request_id && response.sent_at >= request.expiry
            }
            _ => false,
        });
        let named = [
            "unary-deadline-exceeded",
            "unary-context-deadline",
            "unary-context-deadline-and-longer-timeout",
        ];
        assert!(!late || named.contains(&self.conversation.id.as_str()), "{}", self.context());
        late
    }

    fn take_sent(&mut self) {
        for (_, channel, frame) in self.server.published() {
            self.sent.push((name(self.bus, &channel), local(self.bus, &channel).to_owned(), frame));
        }
    }
}

/// An affinity below 0 is no bid, so nothing recorded tells the layer above to act; nothing is published either.
#[test]
fn a_negative_affinity_publishes_nothing() {
    let mut silent = 0;
    each_unary(|_, _, conversation| {
        if conversation.id == "unary-affinity-none-bid" {
            assert_eq!(publishes(conversation).count(), 1);
            silent += 1;
        }
    });
    assert_eq!(silent, 4);
    let mut server = Driven::server(&[crate::fixture::route("Pick", crate::fixture::AFFINITY)]);
    let request = server.accept("Pick", "REQ_1", Duration::from_secs(1));
    server.bid(request, -0.5);
    assert!(server.frames().is_empty());
    assert!(server.engine.poll_output().is_none());
}
