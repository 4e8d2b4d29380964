//! The bus: subscriptions, and deliveries with their faults.

use std::collections::BTreeMap;
use std::time::Duration;

use psrpc_engine::proto::{Channel, Frame};
use psrpc_engine::{BusError, SubscriptionKind, Time};

use crate::fault::Fault;
use crate::frame_forger;
use crate::frame_text::FrameText;
use crate::node_id::{NodeId, Peer};
use crate::rng::Rng;
use crate::scene::Scene;
use crate::trace::Kind;

/// A seeded bus that identifies channels by their legacy names. `S` identifies a subscriber.
pub(crate) struct Net<S> {
    subscriptions: Vec<Subscription<S>>,
    channels: BTreeMap<String, Vec<Place>>,
    /// How often it delivers encoded bytes instead of a frame, in permille.
    encoded: u64,
    /// The longest delay of a frame without faults, in grains.
    latency: u64,
    cuts: Vec<Cut>,
    /// The times until which frames to a peer are held up.
    clogs: BTreeMap<Peer, Time>,
    /// The number of published frames.
    published: u64,
    rng: Rng,
}

/// The index of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

/// An event that the bus schedules.
#[derive(Debug)]
pub(crate) enum Post {
    /// A subscription becomes live: it receives frames from now on.
    Joined(Place),
    /// The bus confirms to a subscriber that its subscription is live.
    Confirmed(Place),
    /// A subscription stops: it receives no frames that are published from now on.
    Left(Place),
    /// The bus reports the end of a subscription, with an error unless the subscriber asked for it.
    Ended(Place, Option<BusError>),
    /// A frame arrives.
    Delivered(Place, Box<FrameInTransit>),
    /// The bus reports that frames may be missing.
    Gap(Place),
}

impl Post {
    pub(crate) fn place(&self) -> Place {
        match self {
            Post::Joined(place)
            | Post::Left(place)
            | Post::Confirmed(place)
            | Post::Ended(place, _)
            | Post::Delivered(place, _)
            | Post::Gap(place) => *place,
        }
    }
}

/// The outcome of a publish, and when the publisher learns it.
pub(crate) struct Published {
    pub(crate) after: Duration,
    pub(crate) result: Result<Option<u64>, BusError>,
}

struct Subscription<S> {
    peer: Peer,
    subscriber: S,
    channel: String,
    kind: SubscriptionKind,
    state: SubscriptionState,
    /// Whether the subscriber has unsubscribed.
    is_left: bool,
    /// The earliest time at which the bus confirms it.
    confirmed: Time,
    /// The arrival time of the last frame that keeps its order.
    latest: Time,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SubscriptionState {
    Asked,
    Live,
    /// The subscription receives no more frames, and the subscriber does not know it yet.
    Left,
    Ended,
}

/// Two groups of peers, between which frames are lost in one direction.
struct Cut {
    from: Vec<Peer>,
    to: Vec<Peer>,
    fault: Fault,
}

/// A frame in transit.
#[derive(Clone, Debug)]
pub(crate) struct FrameInTransit {
    /// The published frame. The arriving frame is equal, unless it is raw.
    pub(crate) frame: Frame,
    /// The number of the published frame, or of the one that it was forged after.
    pub(crate) number: u64,
    /// The fault that affected it.
    pub(crate) fault: Option<Fault>,
    encoded: bool,
}

impl FrameInTransit {
    /// Returns the frame as it arrives.
    pub(crate) fn arrival(&self) -> Frame {
        if self.encoded { Frame::Raw(self.frame.encode("")) } else { self.frame.clone() }
    }
}

impl<S: Copy + PartialEq> Net<S> {
    pub(crate) fn new(mut rng: Rng) -> Self {
        Self {
            subscriptions: Vec::new(),
            channels: BTreeMap::new(),
            encoded: rng.pick(&[0, 500, 1000]),
            latency: rng.pick(&[2, 6, 20]),
            cuts: Vec::new(),
            clogs: BTreeMap::new(),
            published: 0,
            rng,
        }
    }

    // --- subscriptions ---------------------------------------------------------------------------

    pub(crate) fn subscribe<H: From<Post>>(
        &mut self,
        scene: &mut Scene<H>,
        peer: Peer,
        subscriber: S,
        channel: &Channel,
        kind: SubscriptionKind,
    ) -> Place {
        let place = Place(self.subscriptions.len());
        let rng = &mut self.rng;
        rng.turn_to(scene.now());
        let late = scene.faults.strikes(Fault::LateSubscribe, rng);
        let joined = scene.now() + if late { rng.grains(100..4000) } else { rng.grains(0..100) };
        // Frames may arrive before the subscriber learns that the subscription is live.
        let confirmed = joined + rng.grains(0..8);
        let channel = channel.legacy().to_owned();
        if scene.faults.would_strike(Fault::LostSubscribe, rng) {
            // It fails at once, or after it has been live for a while. It is counted when it fails,
            // since it may end before.
            let lost = rng.maybe(500, |rng| confirmed + rng.grains(0..4000)).unwrap_or(joined);
            scene.at(lost, Post::Ended(place, Some(BusError::new(Fault::LostSubscribe.name()))));
        }
        scene.at(joined, Post::Joined(place));
        scene.at(confirmed, Post::Confirmed(place));
        self.channels.entry(channel.clone()).or_default().push(place);
        let (state, latest) = (SubscriptionState::Asked, Time::ZERO);
        self.subscriptions.push(Subscription {
            peer,
            subscriber,
            channel,
            kind,
            state,
            is_left: false,
            confirmed,
            latest,
        });
        place
    }

    /// Ends a subscription some time later. Frames that are published until then still arrive
    /// before the subscriber learns of the end.
    pub(crate) fn unsubscribe<H: From<Post>>(&mut self, scene: &mut Scene<H>, place: Place) {
        self.rng.turn_to(scene.now());
        let left = scene.now() + self.rng.grains(0..200);
        let Subscription { confirmed, is_left, .. } = &mut self.subscriptions[place.0];
        *is_left = true;
        scene.at(left.max(*confirmed), Post::Left(place));
    }

    pub(crate) fn left<H: From<Post>>(&mut self, scene: &mut Scene<H>, place: Place) {
        self.rng.turn_to(scene.now());
        let told = scene.now() + self.latency();
        let Subscription { state, latest, .. } = &mut self.subscriptions[place.0];
        if *state != SubscriptionState::Ended {
            *state = SubscriptionState::Left;
            scene.at(told.max(*latest), Post::Ended(place, None));
        }
    }

    /// Returns the subscription of a subscriber, unless it has ended.
    pub(crate) fn place_of(&self, subscriber: S) -> Option<Place> {
        let is_it = |known: &Subscription<S>| {
            known.subscriber == subscriber && known.state != SubscriptionState::Ended
        };
        self.subscriptions.iter().rposition(is_it).map(Place)
    }

    /// Returns `true` if a peer has, or had, a live or refused subscription to a channel whose name
    /// contains `channel`.
    pub(crate) fn has_joined(&self, peer: Peer, channel: &str) -> bool {
        let is_it = |known: &Subscription<S>| {
            known.peer == peer && known.channel.contains(channel) && known.state != SubscriptionState::Asked
        };
        self.subscriptions.iter().any(is_it)
    }

    /// Returns the peer of a subscription.
    pub(crate) fn peer_of(&self, place: Place) -> Peer {
        self.subscriptions[place.0].peer
    }

    pub(crate) fn joined(&mut self, place: Place) {
        let state = &mut self.subscriptions[place.0].state;
        if *state == SubscriptionState::Asked {
            *state = SubscriptionState::Live;
        }
    }

    /// Returns `true` if the subscription receives the next frame published to its channel.
    pub(crate) fn is_live(&self, place: Place) -> bool {
        self.subscriptions[place.0].state == SubscriptionState::Live
    }

    /// Returns the channel of a subscription of a peer that is neither live nor unsubscribed.
    pub(crate) fn not_live_yet(&self, peer: Peer) -> Option<&str> {
        let is_it = |known: &&Subscription<S>| {
            known.peer == peer && known.state == SubscriptionState::Asked && !known.is_left
        };
        self.subscriptions.iter().find(is_it).map(|known| known.channel.as_str())
    }

    /// Ends a subscription and returns its subscriber.
    pub(crate) fn end(&mut self, place: Place) -> Option<S> {
        let subscriber = self.subscriber(place)?;
        let Subscription { state, channel, .. } = &mut self.subscriptions[place.0];
        *state = SubscriptionState::Ended;
        if let Some(places) = self.channels.get_mut(channel) {
            places.retain(|known| *known != place);
        }
        Some(subscriber)
    }

    /// Ends all subscriptions of a crashed peer.
    pub(crate) fn forget(&mut self, peer: Peer) {
        for place in (0..self.subscriptions.len()).map(Place) {
            if self.subscriptions[place.0].peer == peer {
                self.end(place);
            }
        }
    }

    /// Returns the subscriber, or `None` after the subscription has ended: frames still in transit
    /// are lost.
    pub(crate) fn subscriber(&self, place: Place) -> Option<S> {
        let Subscription { subscriber, state, .. } = self.subscriptions[place.0];
        (state != SubscriptionState::Ended).then_some(subscriber)
    }

    // --- faults between nodes ----------------------------------------------------------------------

    /// Loses frames from one group of peers to another from now on.
    pub(crate) fn cut(&mut self, from: &[Peer], to: &[Peer], fault: Fault) {
        self.cuts.push(Cut { from: from.to_vec(), to: to.to_vec(), fault });
    }

    /// Undoes all cuts.
    pub(crate) fn mend(&mut self) {
        self.cuts.clear();
    }

    /// Holds up frames to a peer until a time, when they arrive all at once.
    pub(crate) fn clog(&mut self, peer: Peer, until: Time) {
        self.clogs.insert(peer, until);
    }

    /// Returns the number of the next published frame.
    pub(crate) fn published(&self) -> u64 {
        self.published
    }

    // --- frames ----------------------------------------------------------------------------------

    /// Draws whether the bus is full. Returns how long, if it is.
    pub(crate) fn full_for<H>(&mut self, scene: &mut Scene<H>) -> Option<Duration> {
        self.rng.turn_to(scene.now());
        scene.faults.strikes(Fault::FullBus, &mut self.rng).then(|| self.rng.grains(0..200))
    }

    pub(crate) fn publish<H: From<Post>>(
        &mut self,
        scene: &mut Scene<H>,
        from: Peer,
        channel: &str,
        frame: &Frame,
    ) -> Published {
        self.rng.turn_to(scene.now());
        let fault = scene.faults.of_publish(&mut self.rng);
        let mut receivers = 0;
        if fault != Some(Fault::PublishError) {
            for place in self.receivers(channel) {
                match self.cut_between(from, self.subscriptions[place.0].peer) {
                    Some(fault) => self.lose(scene, place, fault, frame),
                    None => self.deliver(scene, place, channel, frame),
                }
                receivers += 1;
            }
        }
        let result = match fault {
            Some(fault) => {
                self.strike(scene, fault, frame);
                Err(BusError::new(fault.name()))
            }
            None => Ok(self.rng.maybe(500, |_| receivers)),
        };
        self.published += 1;
        Published { after: self.latency(), result }
    }

    /// Returns every plain subscriber and one member of the queue.
    fn receivers(&mut self, channel: &str) -> Vec<Place> {
        let kind = |place: &Place| self.subscriptions[place.0].kind;
        let (mut receivers, queue): (Vec<_>, Vec<_>) =
            self.live(channel).partition(|place| kind(place) == SubscriptionKind::Plain);
        if !queue.is_empty() {
            receivers.push(self.rng.pick(&queue));
        }
        receivers
    }

    fn live(&self, channel: &str) -> impl Iterator<Item = Place> {
        let places = self.channels.get(channel).into_iter().flatten().copied();
        places.filter(|place| self.is_live(*place))
    }

    fn cut_between(&self, from: Peer, to: Peer) -> Option<Fault> {
        let cut = self.cuts.iter().find(|cut| cut.from.contains(&from) && cut.to.contains(&to))?;
        Some(cut.fault)
    }

    fn deliver<H: From<Post>>(&mut self, scene: &mut Scene<H>, to: Place, channel: &str, frame: &Frame) {
        let fault = scene.faults.of_delivery(&mut self.rng);
        let struck = self.travel(scene, to, frame, fault) || self.accompany(scene, to, channel, frame, fault);
        match fault.filter(|_| struck) {
            Some(fault @ (Fault::Drop | Fault::Gap)) => self.lose(scene, to, fault, frame),
            Some(fault) => self.strike(scene, fault, frame),
            None => {}
        }
    }

    fn strike<H>(&self, scene: &mut Scene<H>, fault: Fault, frame: &Frame) {
        scene.faults.count(fault);
        scene.log("bus", format_args!("{}: {}", fault.name(), FrameText(frame)));
    }

    /// Counts and logs the loss of a frame.
    fn lose<H>(&self, scene: &mut Scene<H>, to: Place, fault: Fault, frame: &Frame) {
        scene.faults.count(fault);
        let to = NodeId::of(self.subscriptions[to.0].peer);
        let loss = || Kind::Loss(self.published, to, fault);
        scene.log_as(loss, "bus", format_args!("{} on the way to {to}: {}", fault.name(), FrameText(frame)));
    }

    /// Schedules the arrival of a frame. Returns `true` if the fault affected the frame itself.
    fn travel<H: From<Post>>(
        &mut self,
        scene: &mut Scene<H>,
        to: Place,
        frame: &Frame,
        fault: Option<Fault>,
    ) -> bool {
        let rng = &mut self.rng;
        let (frame, delay, keeps_order) = match fault {
            Some(Fault::Drop) => return true,
            Some(Fault::Gap) => {
                let at = self.arrival_in_order(scene, to, Duration::ZERO);
                scene.at(at, Post::Gap(to));
                return true;
            }
            Some(Fault::Delay) => (frame.clone(), rng.grains(20..2000), true),
            Some(Fault::Reorder) => (frame.clone(), rng.grains(1..80), false),
            // Later than the longest call.
            Some(Fault::Late) => (frame.clone(), rng.grains(14_000..24_000), false),
            Some(Fault::Damage) => (frame_forger::damage(frame, rng), Duration::ZERO, true),
            _ => {
                self.in_order(scene, to, frame.clone(), None, Duration::ZERO);
                return false;
            }
        };
        if keeps_order {
            self.in_order(scene, to, frame, fault, delay);
        } else {
            self.send(scene, to, frame, fault, scene.now() + delay);
        }
        true
    }

    /// Schedules the extra frames of a fault. Returns `true` if the fault adds frames and applies
    /// to this frame.
    fn accompany<H: From<Post>>(
        &mut self,
        scene: &mut Scene<H>,
        to: Place,
        channel: &str,
        frame: &Frame,
        fault: Option<Fault>,
    ) -> bool {
        let rng = &mut self.rng;
        let to_same = |frame| (to, vec![frame]);
        let company = match fault {
            Some(Fault::Duplicate) => Some((self.any_like(to, channel), vec![frame.clone()])),
            Some(Fault::Noise) => Some((to, vec![frame_forger::noise(rng)])),
            Some(Fault::UnexpectedType) => Some((to, vec![frame_forger::unexpected(frame, rng)])),
            Some(Fault::UnknownCall) => frame_forger::unknown_call(frame).map(to_same),
            Some(Fault::SecondBid) => frame_forger::second_bid(frame, rng).map(to_same),
            Some(Fault::NonFiniteAffinity) => frame_forger::non_finite_bid(frame, rng).map(to_same),
            Some(Fault::ForgedAnswer) => {
                self.responses_of(to).zip(frame_forger::strange_answer(frame).map(|answer| vec![answer]))
            }
            Some(Fault::FloodOfBids | Fault::FloodOfAnswers | Fault::FloodOfOpens) => {
                fault.and_then(|fault| frame_forger::flood(fault, frame, rng)).map(|flood| (to, flood))
            }
            _ => None,
        };
        let Some((to, company)) = company else { return false };
        let latest = self.rng.pick(&[40, 40, 400, 16_000, 16_000]);
        let delay = self.rng.grains(0..latest);
        for frame in company {
            self.send(scene, to, frame, fault, scene.now() + delay);
        }
        true
    }

    /// Returns a subscriber that could receive the same frame: on a queue, any of its members.
    fn any_like(&mut self, place: Place, channel: &str) -> Place {
        if self.subscriptions[place.0].kind == SubscriptionKind::Plain {
            return place;
        }
        let members: Vec<_> = self.live(channel).collect();
        self.rng.pick(&members)
    }

    /// Returns the response subscription of the client that has this subscription.
    fn responses_of(&self, place: Place) -> Option<Place> {
        let peer = self.subscriptions[place.0].peer;
        let is_it = |known: &Subscription<S>| {
            known.peer == peer && known.channel.ends_with("|RES") && known.state == SubscriptionState::Live
        };
        self.subscriptions.iter().position(is_it).map(Place)
    }

    fn in_order<H: From<Post>>(
        &mut self,
        scene: &mut Scene<H>,
        to: Place,
        frame: Frame,
        fault: Option<Fault>,
        delay: Duration,
    ) {
        let at = self.arrival_in_order(scene, to, delay);
        self.send(scene, to, frame, fault, at);
    }

    fn arrival_in_order<H>(&mut self, scene: &mut Scene<H>, to: Place, delay: Duration) -> Time {
        let mut arrives = scene.now() + self.latency() + delay;
        let Subscription { peer, latest, .. } = &mut self.subscriptions[to.0];
        if let Some(until) = self.clogs.get(peer).filter(|until| **until > arrives) {
            arrives = *until;
            scene.faults.count(Fault::Clog);
        }
        *latest = arrives.max(*latest);
        *latest
    }

    fn send<H: From<Post>>(
        &mut self,
        scene: &mut Scene<H>,
        to: Place,
        frame: Frame,
        fault: Option<Fault>,
        at: Time,
    ) {
        let encoded = self.rng.chance(self.encoded);
        let delivery = FrameInTransit { frame, number: self.published, fault, encoded };
        scene.at(at, Post::Delivered(to, Box::new(delivery)));
    }

    fn latency(&mut self) -> Duration {
        self.rng.grains(0..self.latency)
    }
}
