//! The bus: who is subscribed to what, and deliveries with all that can go wrong with them.

use std::collections::BTreeMap;
use std::time::Duration;

use psrpc_engine::proto::{Channel, Frame};
use psrpc_engine::{BusError, SubscriptionHandle, SubscriptionKind, Time, Token};

use crate::fault::Fault;
use crate::forge;
use crate::happening::{Happening, NodeId};
use crate::rng::Rng;
use crate::show::Shown;
use crate::stage::Stage;

/// A seeded bus that knows channels by their legacy names.
pub(crate) struct Net {
    subscriptions: Vec<Subscription>,
    channels: BTreeMap<String, Vec<Place>>,
    /// How often it hands over bytes instead of frames, in permille.
    encoded: u64,
    /// The longest time that a frame is under way where nothing goes wrong, in grains.
    latency: u64,
    rng: Rng,
}

/// A subscription, by its place in the bus's list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(usize);

struct Subscription {
    node: NodeId,
    handle: SubscriptionHandle,
    kind: SubscriptionKind,
    state: State,
    /// When its engine has heard at the earliest that it is live.
    confirmed: Time,
    /// When the last frame arrives of those that keep their order.
    latest: Time,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Asked,
    Live,
    Ended,
}

/// A frame that is under way.
pub(crate) struct Delivery {
    /// What was published; what arrives says the same unless it is raw.
    pub(crate) frame: Frame,
    encoded: bool,
}

impl Delivery {
    /// What arrives.
    pub(crate) fn arrival(&self) -> Frame {
        if self.encoded { Frame::Raw(self.frame.encode("")) } else { self.frame.clone() }
    }
}

impl Net {
    pub(crate) fn new(mut rng: Rng) -> Self {
        Self {
            subscriptions: Vec::new(),
            channels: BTreeMap::new(),
            encoded: rng.pick(&[0, 500, 1000]),
            latency: rng.pick(&[2, 6, 20]),
            rng,
        }
    }

    // --- subscriptions ---------------------------------------------------------------------------------------

    pub(crate) fn subscribe(
        &mut self,
        stage: &mut Stage,
        node: NodeId,
        handle: SubscriptionHandle,
        channel: &Channel,
        kind: SubscriptionKind,
    ) {
        let place = Place(self.subscriptions.len());
        let joined = stage.now() + self.rng.grains(0..100);
        // Frames may come in before the engine has heard that they will.
        let confirmed = joined + self.rng.grains(0..8);
        let (state, latest) = (State::Asked, Time::ZERO);
        self.subscriptions.push(Subscription { node, handle, kind, state, confirmed, latest });
        self.channels.entry(channel.legacy().to_owned()).or_default().push(place);
        stage.at(joined, Happening::Joined(place));
        stage.at(confirmed, Happening::Confirmed(place));
    }

    /// Ends a subscription some time later. It gets frames until then.
    pub(crate) fn unsubscribe(&mut self, stage: &mut Stage, node: NodeId, handle: SubscriptionHandle) {
        let is_it = |known: &Subscription| (known.node, known.handle) == (node, handle);
        let Some(index) = self.subscriptions.iter().position(is_it) else { return };
        let ended = (stage.now() + self.rng.grains(0..200)).max(self.subscriptions[index].confirmed);
        stage.at(ended, Happening::Ended(Place(index)));
    }

    pub(crate) fn joined(&mut self, place: Place) {
        self.subscriptions[place.0].state = State::Live;
    }

    /// Ends a subscription, and tells whose it was.
    pub(crate) fn end(&mut self, place: Place) -> Option<(NodeId, SubscriptionHandle)> {
        let subscriber = self.subscriber(place);
        self.subscriptions[place.0].state = State::Ended;
        for places in self.channels.values_mut() {
            places.retain(|known| *known != place);
        }
        subscriber
    }

    /// Whose subscription it is; `None` once it has ended, and what still was under way is lost.
    pub(crate) fn subscriber(&self, place: Place) -> Option<(NodeId, SubscriptionHandle)> {
        let Subscription { node, handle, state, .. } = self.subscriptions[place.0];
        (state != State::Ended).then_some((node, handle))
    }

    // --- frames ----------------------------------------------------------------------------------------------

    /// Whether it takes another frame of a node; else the node hears when it does again.
    pub(crate) fn has_room(&mut self, stage: &mut Stage, node: NodeId) -> bool {
        let full = stage.faults.strikes(Fault::FullBus, &mut self.rng);
        if full {
            stage.log(node, "finds the bus full");
            stage.after(self.rng.grains(0..200), Happening::Room(node));
        }
        !full
    }

    pub(crate) fn publish(
        &mut self,
        stage: &mut Stage,
        from: NodeId,
        token: Token,
        channel: &Channel,
        frame: &Frame,
    ) {
        let fault = stage.faults.of_publish(&mut self.rng);
        let mut receivers = 0;
        if fault != Some(Fault::PublishError) {
            for place in self.receivers(channel.legacy()) {
                self.deliver(stage, place, channel.legacy(), frame);
                receivers += 1;
            }
        }
        let result = match fault {
            Some(fault) => {
                stage.faults.count(fault);
                Err(BusError::new(fault.name()))
            }
            None => Ok(self.rng.maybe(500, |_| receivers)),
        };
        let delay = self.latency();
        stage.after(delay, Happening::Published(from, token, result));
    }

    /// Every plain subscriber, and one of the queue.
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
        places.filter(|place| self.subscriptions[place.0].state == State::Live)
    }

    fn deliver(&mut self, stage: &mut Stage, to: Place, channel: &str, frame: &Frame) {
        let fault = stage.faults.of_delivery(&mut self.rng);
        let struck = self.travel(stage, to, frame, fault) || self.accompany(stage, to, channel, frame, fault);
        if let Some(fault) = fault.filter(|_| struck) {
            stage.faults.count(fault);
            stage.log("bus", format_args!("{}: {}", fault.name(), Shown(frame)));
        }
    }

    /// Sends a frame on its way, and tells whether the fault struck it there.
    fn travel(&mut self, stage: &mut Stage, to: Place, frame: &Frame, fault: Option<Fault>) -> bool {
        let rng = &mut self.rng;
        let (frame, delay, keeps_order) = match fault {
            Some(Fault::Drop) => return true,
            Some(Fault::Delay) => (frame.clone(), rng.grains(20..2000), true),
            Some(Fault::Reorder) => (frame.clone(), rng.grains(1..80), false),
            // Later than the longest call takes.
            Some(Fault::Late) => (frame.clone(), rng.grains(14_000..24_000), false),
            Some(Fault::Damage) => (forge::damage(frame, rng), Duration::ZERO, true),
            _ => {
                self.in_order(stage, to, frame.clone(), Duration::ZERO);
                return false;
            }
        };
        if keeps_order {
            self.in_order(stage, to, frame, delay);
        } else {
            self.send(stage, to, frame, stage.now() + delay);
        }
        true
    }

    /// Sends what comes with a frame, and tells whether the fault is of that kind and this a frame for it.
    fn accompany(
        &mut self,
        stage: &mut Stage,
        to: Place,
        channel: &str,
        frame: &Frame,
        fault: Option<Fault>,
    ) -> bool {
        let rng = &mut self.rng;
        let to_same = |frame| (to, frame);
        let company = match fault {
            Some(Fault::Duplicate) => Some((self.any_like(to, channel), frame.clone())),
            Some(Fault::Noise) => Some((to, forge::noise(rng))),
            Some(Fault::UnexpectedType) => Some((to, forge::unexpected(frame, rng))),
            Some(Fault::UnknownCall) => forge::unknown_call(frame).map(to_same),
            Some(Fault::SecondBid) => forge::second_bid(frame, rng).map(to_same),
            Some(Fault::NonFiniteAffinity) => forge::non_finite_bid(frame, rng).map(to_same),
            Some(Fault::ForgedAnswer) => self.other_of(to).zip(forge::strange_answer(frame)),
            _ => None,
        };
        let Some((to, company)) = company else { return false };
        let latest = self.rng.pick(&[40, 400, 16_000]);
        let delay = self.rng.grains(0..latest);
        self.send(stage, to, company, stage.now() + delay);
        true
    }

    /// A subscriber that the same frame could come to: on a queue any of its members.
    fn any_like(&mut self, place: Place, channel: &str) -> Place {
        if self.subscriptions[place.0].kind == SubscriptionKind::Plain {
            return place;
        }
        let members: Vec<_> = self.live(channel).collect();
        self.rng.pick(&members)
    }

    /// The other of the two subscriptions of a client.
    fn other_of(&self, place: Place) -> Option<Place> {
        let node = self.subscriptions[place.0].node;
        let is_it = |(index, other): &(usize, &Subscription)| other.node == node && *index != place.0;
        self.subscriptions.iter().enumerate().find(is_it).map(|(index, _)| Place(index))
    }

    fn in_order(&mut self, stage: &mut Stage, to: Place, frame: Frame, delay: Duration) {
        let arrives = stage.now() + self.latency() + delay;
        let latest = &mut self.subscriptions[to.0].latest;
        *latest = arrives.max(*latest);
        let at = *latest;
        self.send(stage, to, frame, at);
    }

    fn send(&mut self, stage: &mut Stage, to: Place, frame: Frame, at: Time) {
        let encoded = self.rng.chance(self.encoded);
        stage.at(at, Happening::Delivered(to, Delivery { frame, encoded }));
    }

    fn latency(&mut self) -> Duration {
        self.rng.grains(0..self.latency)
    }
}
