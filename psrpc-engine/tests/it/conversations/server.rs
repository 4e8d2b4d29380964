//! Our server in the place of a Go server.

use std::collections::BTreeSet;
use std::time::Duration;

use psrpc_engine::proto::{Frame, FrameLimits, Response};
use psrpc_engine::{Server, ServerConfig, SubscriptionKind};
use psrpc_vectors::{Bus, Event, Publish};

use super::server_user::User;
use super::transcript::{Compared, Transcript};
use super::{
    Kind, RecordedPeer, decode, epoch, for_each_peer, micros, name, publishes, route_of, subscribed,
};
use crate::fixture::{Driven, ms};

#[test]
fn our_server_answers_as_go_servers_did() {
    let replayed = for_each_peer(Kind::Unary, "server", |peer| Replay::new(peer).run());
    assert_eq!(replayed, 43 + 45 + 44 + 46 + 31 + 31 + 111 + 113);
}

#[test]
fn our_server_answers_multi_calls_as_go_servers_did() {
    let replayed = for_each_peer(Kind::Multi, "server", |peer| Replay::new(peer).run());
    assert_eq!(replayed, 4 * 17 + 2 + 2 * 27);
}

#[test]
fn our_server_takes_and_ends_streams_as_go_servers_did() {
    let replayed = for_each_peer(Kind::Stream, "server", |peer| Replay::new(peer).run());
    assert_eq!(replayed, 4 * 13 + 2 + 2 * 20);
}

#[test]
fn our_server_publishes_updates_as_go_servers_did() {
    let replayed = for_each_peer(Kind::Updates, "server", |peer| Replay::new(peer).run());
    assert_eq!(replayed, 4 * 4 + 2 * 8);
}

struct Replay<'a> {
    server: Driven<Server>,
    transcript: Transcript<'a>,
    user: User<'a>,
    peer: RecordedPeer<'a>,
    /// The time at which the server is shut down or killed.
    ends_at: Option<Duration>,
}

impl<'a> Replay<'a> {
    fn new(peer: RecordedPeer<'a>) -> Self {
        let service = if Kind::of(peer.conversation) == Kind::Updates { "Gossip" } else { "Hats" };
        let mut config =
            ServerConfig { id: peer.participant.id.as_str().into(), ..ServerConfig::new(service) };
        match peer.id() {
            "stream-slow-consumer" => config.limits.streams.unread_per_stream = 1,
            "compression-over-cap" => config.limits.frame.frame_bytes = 2000,
            _ => {}
        }
        let mut server = Driven::new(Server::new(config, [2; 32]).unwrap());
        server.epoch = epoch(peer.conversation).unwrap_or(server.epoch);
        let mut transcript = Transcript::of(&peer, in_causal_order(&peer).into_iter());
        transcript.retain(|publish| !is_only_in_go(&peer, publish));
        if peer.id() == "request-duplicated-by-recorder" {
            // Go runs it twice on NATS, where no lock filters duplicates.
            let mut first = BTreeSet::new();
            transcript.retain(|publish| first.insert(publish.type_url.clone()));
        }
        let user = User::new(peer.bus, peer.conversation, peer.participant.note.skip_claim);
        let ends = matches!(peer.id(), "server-shutdown-while-running" | "server-killed-while-running");
        let first = publishes(peer.conversation).next();
        let ends_at = first.filter(|_| ends).map(|(_, request)| micros(request.at_us) + ms(100));
        Self { server, transcript, user, peer, ends_at }
    }

    fn run(mut self) {
        self.register();
        let (id, from) = (self.peer.id().to_owned(), self.peer.from());
        for (index, publish) in in_causal_order(&self.peer) {
            self.run_until(micros(publish.at_us));
            if publish.from == from {
                self.user.act(&mut self.server, publish);
            } else if let Some(subscription) = self.subscription_for(index, publish) {
                self.server.deliver(subscription, self.transcript.incoming(publish));
            }
            self.transcript.check(self.server.published(), |ours, _| check_deviation(&id, ours));
        }
        // A killed server closes once the bus has confirmed its unsubscribes.
        self.server.confirm_unsubscribed();
        self.server.advance_to(Duration::from_secs(10));
        self.user.handle_events(&mut self.server, None);
        self.transcript.check(self.server.published(), |ours, _| check_deviation(&id, ours));
        self.transcript.finish();
        self.user.check_outcome(&self.peer.context());
        let engine = &self.server.engine;
        let remaining = [engine.in_flight(), engine.streams(), engine.sending(), engine.publishing()];
        assert_eq!(remaining, [0; 4], "{}", self.peer.context());
    }

    /// Advances time, and shuts the server down or kills it when the recording did.
    fn run_until(&mut self, until: Duration) {
        if let Some(at) = self.ends_at.take_if(|at| *at <= until) {
            self.server.advance_to(at);
            match self.peer.id() {
                "server-killed-while-running" => self.server.engine.kill(self.server.now),
                _ => self.server.engine.drain(self.server.now),
            }
            self.server.drain();
            self.user.handle_events(&mut self.server, None);
        }
        self.server.advance_to(until);
    }

    /// Registers the methods of the recorded server.
    fn register(&mut self) {
        let recorded = self.peer.subscriptions();
        let requests = |name: &str| name.ends_with("REQ") || name.ends_with("STR");
        let mut routes = Vec::new();
        match self.peer.bus {
            Bus::Redis => {
                let channels = recorded.iter().filter(|(channel, _)| requests(channel));
                routes.extend(channels.map(|(channel, _)| route_of(self.peer.bus, channel, "")));
            }
            // A NATS subject does not name its methods. The methods that every server has are
            // listed here. The recorded frames name the others, which the server may serve on
            // further topics.
            Bus::Nats => {
                let everywhere = ["Fit.REQ", "MakeHatV1.REQ"].map(|local| ("SRV.Hats.Q", local));
                let plain = ["Census.REQ", "Parade.STR", "Pick.REQ"].map(|local| ("SRV.Hats", local));
                let everywhere = everywhere.into_iter().chain(plain);
                let everywhere = everywhere.filter(|_| self.peer.id() != "queue-member-without-the-method");
                // Nothing is published on this subject.
                let owner = ("SRV.Hats.anau+0040shop.Q", "OwnerFit.REQ");
                let unused = self.peer.id() == "selection-options-on-single-server-minimum";
                let everywhere = everywhere.chain(unused.then_some(owner));
                let frames = publishes(self.peer.conversation)
                    .filter(|(_, publish)| requests(&publish.local))
                    .map(|(_, publish)| (publish.channel.as_str(), publish.local.as_str()));
                for (channel, local) in everywhere.chain(frames) {
                    let alike = |subject: &str| {
                        let topic = |subject: &str| subject.trim_end_matches(".Q").split('.').count() > 2;
                        (topic(subject), subject.ends_with(".Q")) == (topic(channel), channel.ends_with(".Q"))
                    };
                    for (subject, _) in recorded.iter().filter(|(subject, _)| alike(subject)) {
                        let route = route_of(self.peer.bus, subject, local);
                        if !routes.contains(&route) {
                            routes.push(route);
                        }
                    }
                }
            }
        }
        if !routes.is_empty() {
            self.server.register(&routes);
        }
        let ours = self.server.subscriptions.iter().map(|(_, channel, kind)| (channel, *kind));
        let ours = subscribed(self.peer.bus, ours);
        if self.peer.id() == "queue-member-without-the-method" {
            // The recorded server has methods on more subjects than the conversation needs.
            assert!(ours.is_subset(&recorded), "{}: {ours:?}", self.peer.context());
        } else {
            assert_eq!(ours, recorded, "{}", self.peer.context());
        }
    }

    /// Returns the subscription on which this server receives another peer's frame. On a queue only
    /// one server receives it.
    fn subscription_for(&self, index: usize, publish: &Publish) -> Option<psrpc_engine::SubscriptionHandle> {
        let RecordedPeer { bus, conversation, .. } = self.peer;
        let (subscription, _, kind) = self.server.subscriptions.iter().find(|(_, channel, _)| {
            name(bus, channel) == publish.channel && (bus == Bus::Redis || channel.local() == publish.local)
        })?;
        let from = self.peer.from();
        let mine = match (kind, bus) {
            (SubscriptionKind::Plain, _) => true,
            (SubscriptionKind::Queue, Bus::Redis) => {
                let mut locks = conversation.frames.iter().filter_map(|event| match event {
                    Event::Lock(lock) if lock.frame == index => Some(lock),
                    _ => None,
                });
                locks.any(|lock| lock.won && lock.from == from)
            }
            (SubscriptionKind::Queue, Bus::Nats) if self.peer.is_only_server() => true,
            (SubscriptionKind::Queue, Bus::Nats) => {
                let id = &publish.fields["request_id"];
                publishes(conversation)
                    .any(|(_, other)| other.from == from && other.fields["request_id"] == *id)
            }
        };
        mine.then_some(*subscription)
    }
}

/// Returns the published frames in causal order for this server: its bid before a grant, its
/// announcement before its response. The recording may have them reversed.
fn in_causal_order<'a>(peer: &RecordedPeer<'a>) -> Vec<(usize, &'a Publish)> {
    let (conversation, from) = (peer.conversation, peer.from());
    let mut frames: Vec<_> = publishes(conversation).collect();
    frames.sort_by_key(|(index, publish)| {
        let after = match decode(publish) {
            Frame::ClaimRequest(bid) if publish.from == from && bid.handling => "internal.Response",
            Frame::ClaimRequest(_) if publish.from == from => "internal.ClaimResponse",
            _ => return (*index, 1),
        };
        let later = publishes(conversation).find(|(_, other)| {
            other.type_url.ends_with(after) && other.fields["request_id"] == publish.fields["request_id"]
        });
        match later {
            Some((later, _)) if later < *index => (later, 0),
            _ => (*index, 1),
        }
    });
    frames
}

/// Returns `true` for a response that Go publishes and we do not: past its request's expiry, or
/// from a killed server.
fn is_only_in_go(peer: &RecordedPeer<'_>, publish: &Publish) -> bool {
    let Frame::Response(response) = decode(publish) else { return false };
    let late = publishes(peer.conversation).any(|(_, other)| match decode(other) {
        Frame::Request(request) => {
            request.request_id == response.request_id && response.sent_at >= request.expiry
        }
        _ => false,
    });
    let named = [
        "unary-deadline-exceeded",
        "unary-context-deadline",
        "unary-context-deadline-and-longer-timeout",
        "unary-context-deadline-and-shorter-timeout",
        "skip-claim-elected-deadline-exceeded",
    ];
    assert!(!late || named.contains(&peer.id()), "{}", peer.context());
    late || peer.id() == "server-killed-while-running"
}

fn check_deviation(id: &str, ours: &mut Frame) -> Option<Compared> {
    match ours {
        // Go sends no code, and reads a missing code as `unknown`.
        Frame::Response(response) if id == "unary-queue-error-code-ok" => {
            let error = response.result.as_ref().expect_err("an error");
            assert_eq!((error.code.as_str(), error.text.as_str()), ("unknown", "no code"));
            Some(Compared)
        }
        // Go sends an empty text, which it reads as success.
        Frame::Response(response) if id == "unary-queue-error-empty-text" => {
            assert!(response.result.as_ref().is_err_and(|error| error.text.is_empty()));
            let sent = Frame::decode(&ours.encode(""), &FrameLimits::DEFAULT);
            let Ok((Frame::Response(Response { result: Err(error), .. }), _)) = sent else {
                panic!("an error keeps its code")
            };
            assert_eq!((error.code.as_str(), error.text.as_str()), ("not_found", "not_found"));
            Some(Compared)
        }
        _ => None,
    }
}

/// A negative affinity makes no bid, so the recordings contain no frame for it.
#[test]
fn a_negative_affinity_publishes_nothing() {
    let mut silent = 0;
    for_each_peer(Kind::Unary, "client", |peer| {
        if peer.id() == "unary-affinity-none-bid" {
            assert_eq!(publishes(peer.conversation).count(), 1);
            silent += 1;
        }
    });
    assert_eq!(silent, 6);
    let mut server = Driven::server(&[crate::fixture::route("Pick", crate::fixture::AFFINITY)]);
    let request = server.accept("Pick", "REQ_1", Duration::from_secs(1));
    server.bid(request, -0.5);
    assert!(server.frames().is_empty());
    assert!(crate::fixture::is_idle(&mut server.engine));
}
