//! Our server where a Go server was.

use std::collections::BTreeSet;
use std::time::Duration;

use psrpc_engine::proto::{Frame, FrameLimits, Response};
use psrpc_engine::{Server, ServerConfig, SubscriptionKind};
use psrpc_vectors::{Bus, Event, Publish};

use super::server_user::User;
use super::transcript::{Compared, Transcript};
use super::{Kind, Place, decode, each_place, epoch, micros, name, publishes, route_of, subscribed};
use crate::fixture::{Driven, ms};

#[test]
fn our_server_answers_as_go_servers_did() {
    let replayed = each_place(Kind::Unary, "server", |place| Replay::new(place).run());
    assert_eq!(replayed, 43 + 45 + 44 + 46 + 31 + 31 + 111 + 113);
}

#[test]
fn our_server_answers_multi_calls_as_go_servers_did() {
    let replayed = each_place(Kind::Multi, "server", |place| Replay::new(place).run());
    assert_eq!(replayed, 4 * 17 + 2 + 2 * 27);
}

#[test]
fn our_server_takes_and_ends_streams_as_go_servers_did() {
    let replayed = each_place(Kind::Stream, "server", |place| Replay::new(place).run());
    assert_eq!(replayed, 4 * 13 + 2 + 2 * 20);
}

#[test]
fn our_server_publishes_updates_as_go_servers_did() {
    let replayed = each_place(Kind::Updates, "server", |place| Replay::new(place).run());
    assert_eq!(replayed, 4 * 4 + 2 * 8);
}

struct Replay<'a> {
    server: Driven<Server>,
    transcript: Transcript<'a>,
    user: User<'a>,
    place: Place<'a>,
    /// When the server is shut down or killed.
    ends_at: Option<Duration>,
}

impl<'a> Replay<'a> {
    fn new(place: Place<'a>) -> Self {
        let service = if Kind::of(place.conversation) == Kind::Updates { "Gossip" } else { "Hats" };
        let mut config = ServerConfig { id: place.peer.id.as_str().into(), ..ServerConfig::new(service) };
        match place.id() {
            "stream-slow-consumer" => config.limits.streams.unread_per_stream = 1,
            "compression-over-cap" => config.limits.frame.frame_bytes = 2000,
            _ => {}
        }
        let mut server = Driven::new(Server::new(config, [2; 32]).unwrap());
        server.epoch = epoch(place.conversation).unwrap_or(server.epoch);
        let mut transcript = Transcript::of(&place, as_heard(&place).into_iter());
        transcript.retain(|publish| !past_expiry(&place, publish));
        if place.id() == "request-duplicated-by-recorder" {
            // Go runs it twice on NATS, where no lock keeps the duplicate away.
            let mut first = BTreeSet::new();
            transcript.retain(|publish| first.insert(publish.type_url.clone()));
        }
        let user = User::new(place.bus, place.conversation, place.peer.note.skip_claim);
        let ends = matches!(place.id(), "server-shutdown-while-running" | "server-killed-while-running");
        let first = publishes(place.conversation).next();
        let ends_at = first.filter(|_| ends).map(|(_, request)| micros(request.at_us) + ms(100));
        Self { server, transcript, user, place, ends_at }
    }

    fn run(mut self) {
        self.register();
        let (id, from) = (self.place.id().to_owned(), self.place.from());
        for (index, publish) in as_heard(&self.place) {
            self.pass(micros(publish.at_us));
            if publish.from == from {
                self.user.act(&mut self.server, publish);
            } else if let Some(subscription) = self.hears(index, publish) {
                self.server.deliver(subscription, self.transcript.incoming(publish));
            }
            self.transcript.check(self.server.published(), |ours, _| deviates(&id, ours));
        }
        // A killed server is closed once the bus has confirmed that nothing more comes.
        self.server.confirm_unsubscribed();
        self.server.advance_to(Duration::from_secs(10));
        self.user.look(&mut self.server, None);
        self.transcript.check(self.server.published(), |ours, _| deviates(&id, ours));
        self.transcript.finish();
        self.user.check_outcome(&self.place.context());
        let engine = &self.server.engine;
        let left = [engine.in_flight(), engine.streams(), engine.sending(), engine.publishing()];
        assert_eq!(left, [0; 4], "{}", self.place.context());
    }

    /// Lets time pass, up to the moment at which the server is shut down or killed, and on.
    fn pass(&mut self, until: Duration) {
        if let Some(at) = self.ends_at.take_if(|at| *at <= until) {
            self.server.advance_to(at);
            match self.place.id() {
                "server-killed-while-running" => self.server.engine.kill(self.server.now),
                _ => self.server.engine.drain(self.server.now),
            }
            self.server.drain();
            self.user.look(&mut self.server, None);
        }
        self.server.advance_to(until);
    }

    /// Registers what the recorded server had registered.
    fn register(&mut self) {
        let recorded = self.place.subscriptions();
        let requests = |name: &str| name.ends_with("REQ") || name.ends_with("STR");
        let mut routes = Vec::new();
        match self.place.bus {
            Bus::Redis => {
                let channels = recorded.iter().filter(|(channel, _)| requests(channel));
                routes.extend(channels.map(|(channel, _)| route_of(self.place.bus, channel, "")));
            }
            // A subject does not tell its methods: those of every server are known, the others are
            // in the frames, which a server may have on another topic.
            Bus::Nats => {
                let everywhere = ["Fit.REQ", "MakeHatV1.REQ"].map(|local| ("SRV.Hats.Q", local));
                let plain = ["Census.REQ", "Parade.STR", "Pick.REQ"].map(|local| ("SRV.Hats", local));
                let everywhere = everywhere.into_iter().chain(plain);
                let everywhere = everywhere.filter(|_| self.place.id() != "queue-member-without-the-method");
                // Nothing is published there.
                let owner = ("SRV.Hats.anau+0040shop.Q", "OwnerFit.REQ");
                let unused = self.place.id() == "selection-options-on-single-server-minimum";
                let everywhere = everywhere.chain(unused.then_some(owner));
                let frames = publishes(self.place.conversation)
                    .filter(|(_, publish)| requests(&publish.local))
                    .map(|(_, publish)| (publish.channel.as_str(), publish.local.as_str()));
                for (channel, local) in everywhere.chain(frames) {
                    let alike = |subject: &str| {
                        let topic = |subject: &str| subject.trim_end_matches(".Q").split('.').count() > 2;
                        (topic(subject), subject.ends_with(".Q")) == (topic(channel), channel.ends_with(".Q"))
                    };
                    for (subject, _) in recorded.iter().filter(|(subject, _)| alike(subject)) {
                        let route = route_of(self.place.bus, subject, local);
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
        let ours = subscribed(self.place.bus, ours);
        if self.place.id() == "queue-member-without-the-method" {
            // The recorded server has methods on more subjects than the conversation needs.
            assert!(ours.is_subset(&recorded), "{}: {ours:?}", self.place.context());
        } else {
            assert_eq!(ours, recorded, "{}", self.place.context());
        }
    }

    /// The subscription on which this server hears a frame of another peer; on a queue one server
    /// alone does.
    fn hears(&self, index: usize, publish: &Publish) -> Option<psrpc_engine::SubscriptionHandle> {
        let Place { bus, conversation, .. } = self.place;
        let (subscription, _, kind) = self.server.subscriptions.iter().find(|(_, channel, _)| {
            name(bus, channel) == publish.channel && (bus == Bus::Redis || channel.local() == publish.local)
        })?;
        let from = self.place.from();
        let mine = match (kind, bus) {
            (SubscriptionKind::Plain, _) => true,
            (SubscriptionKind::Queue, Bus::Redis) => {
                let mut locks = conversation.frames.iter().filter_map(|event| match event {
                    Event::Lock(lock) if lock.frame == index => Some(lock),
                    _ => None,
                });
                locks.any(|lock| lock.won && lock.from == from)
            }
            (SubscriptionKind::Queue, Bus::Nats) if self.place.is_alone() => true,
            (SubscriptionKind::Queue, Bus::Nats) => {
                let id = &publish.fields["request_id"];
                publishes(conversation)
                    .any(|(_, other)| other.from == from && other.fields["request_id"] == *id)
            }
        };
        mine.then_some(*subscription)
    }
}

/// What was published, in the order in which this server can have heard and done it: it bids before
/// it hears of a grant, and announces before it answers, though the recording may have them the
/// other way round.
fn as_heard<'a>(place: &Place<'a>) -> Vec<(usize, &'a Publish)> {
    let (conversation, from) = (place.conversation, place.from());
    let mut heard: Vec<_> = publishes(conversation).collect();
    heard.sort_by_key(|(index, publish)| {
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
    heard
}

/// Go publishes responses past their request's expiry, which nobody reads, and of a server that was
/// killed; we do not.
fn past_expiry(place: &Place<'_>, publish: &Publish) -> bool {
    let Frame::Response(response) = decode(publish) else { return false };
    let late = publishes(place.conversation).any(|(_, other)| match decode(other) {
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
    assert!(!late || named.contains(&place.id()), "{}", place.context());
    late || place.id() == "server-killed-while-running"
}

fn deviates(id: &str, ours: &mut Frame) -> Option<Compared> {
    match ours {
        // Go says nothing of a code, and reads that as this one.
        Frame::Response(response) if id == "unary-queue-error-code-ok" => {
            let error = response.result.as_ref().expect_err("an error");
            assert_eq!((error.code.as_str(), error.text.as_str()), ("unknown", "no code"));
            Some(Compared)
        }
        // Go would read it as success.
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

/// An affinity below 0 is no bid, so nothing recorded tells the layer above to act; nothing is
/// published either.
#[test]
fn a_negative_affinity_publishes_nothing() {
    let mut silent = 0;
    each_place(Kind::Unary, "client", |place| {
        if place.id() == "unary-affinity-none-bid" {
            assert_eq!(publishes(place.conversation).count(), 1);
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
