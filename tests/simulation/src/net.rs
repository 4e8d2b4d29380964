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
use crate::trace::LineKind;

/// A seeded bus that identifies channels by their legacy names. `S` identifies a subscriber.
pub(crate) struct Net<S> {
    subscriptions: Vec<Subscription<S>>,
    channels: BTreeMap<String, Vec<SubscriptionId>>,
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
pub(crate) struct SubscriptionId(usize);

/// An event that the bus schedules.
#[derive(Debug)]
pub(crate) enum NetEvent {
    /// A subscription becomes live: it receives frames from now on.
    Activated(SubscriptionId),
    /// The bus confirms to a subscriber that its subscription is live.
    Confirmed(SubscriptionId),
    /// A subscription stops: it receives no frames that are published from now on.
    Deactivated(SubscriptionId),
    /// The bus reports the end of a subscription, with an error unless the subscriber asked for it.
    Ended(SubscriptionId, Option<BusError>),
    /// A frame arrives.
    Delivered(SubscriptionId, Box<FrameInTransit>),
    /// The bus reports that frames may be missing.
    Gap(SubscriptionId),
}

impl NetEvent {
    pub(crate) fn id(&self) -> SubscriptionId {
        match self {
            NetEvent::Activated(id)
            | NetEvent::Deactivated(id)
            | NetEvent::Confirmed(id)
            | NetEvent::Ended(id, _)
            | NetEvent::Delivered(id, _)
            | NetEvent::Gap(id) => *id,
        }
    }
}

/// The outcome of a publish, and when the publisher learns it.
pub(crate) struct PublishOutcome {
    pub(crate) delay: Duration,
    pub(crate) result: Result<Option<u64>, BusError>,
}

struct Subscription<S> {
    peer: Peer,
    subscriber: S,
    channel: String,
    kind: SubscriptionKind,
    state: SubscriptionState,
    /// Whether the subscriber has unsubscribed.
    is_unsubscribed: bool,
    /// The time at which the bus confirms that the subscription is live.
    confirmed: Time,
    /// The arrival time of the last frame that keeps its order.
    latest: Time,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SubscriptionState {
    Pending,
    Live,
    /// The subscription receives no more frames, and the subscriber does not know it yet.
    Inactive,
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
    /// The frame before encoding: the published frame, or one that a fault changed or forged.
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

    pub(crate) fn subscribe<E: From<NetEvent>>(
        &mut self,
        scene: &mut Scene<E>,
        peer: Peer,
        subscriber: S,
        channel: &Channel,
        kind: SubscriptionKind,
    ) -> SubscriptionId {
        let id = SubscriptionId(self.subscriptions.len());
        let rng = &mut self.rng;
        rng.reseed_at(scene.now());
        let late = scene.faults.happens(Fault::LateSubscribe, rng);
        let live_at = scene.now() + if late { rng.grains(100..4000) } else { rng.grains(0..100) };
        // Frames may arrive before the subscriber learns that the subscription is live.
        let confirmed = live_at + rng.grains(0..8);
        let channel = channel.legacy().to_owned();
        if scene.faults.draws(Fault::LostSubscribe, rng) {
            // It fails at once, or after it has been live for a while. It is counted when it fails,
            // since it may end before.
            let lost = rng.maybe(500, |rng| confirmed + rng.grains(0..4000)).unwrap_or(live_at);
            scene.schedule_at(lost, NetEvent::Ended(id, Some(BusError::new(Fault::LostSubscribe.name()))));
        }
        scene.schedule_at(live_at, NetEvent::Activated(id));
        scene.schedule_at(confirmed, NetEvent::Confirmed(id));
        self.channels.entry(channel.clone()).or_default().push(id);
        let (state, latest) = (SubscriptionState::Pending, Time::ZERO);
        self.subscriptions.push(Subscription {
            peer,
            subscriber,
            channel,
            kind,
            state,
            is_unsubscribed: false,
            confirmed,
            latest,
        });
        id
    }

    /// Ends a subscription some time later. Frames that are published until then still arrive
    /// before the subscriber learns of the end.
    pub(crate) fn unsubscribe<E: From<NetEvent>>(&mut self, scene: &mut Scene<E>, id: SubscriptionId) {
        self.rng.reseed_at(scene.now());
        let at = scene.now() + self.rng.grains(0..200);
        let Subscription { confirmed, is_unsubscribed, .. } = &mut self.subscriptions[id.0];
        *is_unsubscribed = true;
        scene.schedule_at(at.max(*confirmed), NetEvent::Deactivated(id));
    }

    pub(crate) fn deactivate<E: From<NetEvent>>(&mut self, scene: &mut Scene<E>, id: SubscriptionId) {
        self.rng.reseed_at(scene.now());
        let ended_at = scene.now() + self.latency();
        let Subscription { state, latest, .. } = &mut self.subscriptions[id.0];
        if *state != SubscriptionState::Ended {
            *state = SubscriptionState::Inactive;
            scene.schedule_at(ended_at.max(*latest), NetEvent::Ended(id, None));
        }
    }

    /// Returns the subscription of a subscriber, unless it has ended.
    pub(crate) fn find(&self, subscriber: S) -> Option<SubscriptionId> {
        let matches = |known: &Subscription<S>| {
            known.subscriber == subscriber && known.state != SubscriptionState::Ended
        };
        self.subscriptions.iter().rposition(matches).map(SubscriptionId)
    }

    /// Returns `true` if a peer has, or had, a live or refused subscription to a channel whose name
    /// contains `channel`.
    pub(crate) fn was_activated(&self, peer: Peer, channel: &str) -> bool {
        let matches = |known: &Subscription<S>| {
            known.peer == peer && known.channel.contains(channel) && known.state != SubscriptionState::Pending
        };
        self.subscriptions.iter().any(matches)
    }

    /// Returns the peer of a subscription.
    pub(crate) fn peer(&self, id: SubscriptionId) -> Peer {
        self.subscriptions[id.0].peer
    }

    pub(crate) fn activate(&mut self, id: SubscriptionId) {
        let state = &mut self.subscriptions[id.0].state;
        if *state == SubscriptionState::Pending {
            *state = SubscriptionState::Live;
        }
    }

    /// Returns `true` if the subscription may receive the next frame published to its channel.
    pub(crate) fn is_live(&self, id: SubscriptionId) -> bool {
        self.subscriptions[id.0].state == SubscriptionState::Live
    }

    /// Returns the channel of a subscription of a peer that is neither live nor unsubscribed.
    pub(crate) fn pending_channel(&self, peer: Peer) -> Option<&str> {
        let matches = |known: &&Subscription<S>| {
            known.peer == peer && known.state == SubscriptionState::Pending && !known.is_unsubscribed
        };
        self.subscriptions.iter().find(matches).map(|known| known.channel.as_str())
    }

    /// Ends a subscription and returns its subscriber.
    pub(crate) fn end(&mut self, id: SubscriptionId) -> Option<S> {
        let subscriber = self.subscriber(id)?;
        let Subscription { state, channel, .. } = &mut self.subscriptions[id.0];
        *state = SubscriptionState::Ended;
        if let Some(ids) = self.channels.get_mut(channel) {
            ids.retain(|known| *known != id);
        }
        Some(subscriber)
    }

    /// Ends all subscriptions of a crashed peer.
    pub(crate) fn end_all(&mut self, peer: Peer) {
        for id in (0..self.subscriptions.len()).map(SubscriptionId) {
            if self.subscriptions[id.0].peer == peer {
                self.end(id);
            }
        }
    }

    /// Returns the subscriber, or `None` after the subscription has ended: frames still in transit
    /// are lost.
    pub(crate) fn subscriber(&self, id: SubscriptionId) -> Option<S> {
        let Subscription { subscriber, state, .. } = self.subscriptions[id.0];
        (state != SubscriptionState::Ended).then_some(subscriber)
    }

    // --- faults between nodes --------------------------------------------------------------------

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
    pub(crate) fn next_frame_number(&self) -> u64 {
        self.published
    }

    // --- frames ----------------------------------------------------------------------------------

    /// Draws whether the bus becomes full. Returns for how long, if it does.
    pub(crate) fn draw_full_bus<E>(&mut self, scene: &mut Scene<E>) -> Option<Duration> {
        self.rng.reseed_at(scene.now());
        scene.faults.happens(Fault::FullBus, &mut self.rng).then(|| self.rng.grains(0..200))
    }

    pub(crate) fn publish<E: From<NetEvent>>(
        &mut self,
        scene: &mut Scene<E>,
        from: Peer,
        channel: &str,
        frame: &Frame,
    ) -> PublishOutcome {
        self.rng.reseed_at(scene.now());
        let fault = scene.faults.draw_publish_fault(&mut self.rng);
        let mut receivers = 0;
        if fault != Some(Fault::PublishError) {
            for id in self.receivers(channel) {
                match self.cut_between(from, self.subscriptions[id.0].peer) {
                    Some(fault) => self.lose(scene, id, fault, frame),
                    None => self.deliver(scene, id, channel, frame),
                }
                receivers += 1;
            }
        }
        let result = match fault {
            Some(fault) => {
                self.count_fault(scene, fault, frame);
                Err(BusError::new(fault.name()))
            }
            None => Ok(self.rng.maybe(500, |_| receivers)),
        };
        self.published += 1;
        PublishOutcome { delay: self.latency(), result }
    }

    /// Returns every plain subscriber and one member of the queue.
    fn receivers(&mut self, channel: &str) -> Vec<SubscriptionId> {
        let kind = |id: &SubscriptionId| self.subscriptions[id.0].kind;
        let (mut receivers, queue): (Vec<_>, Vec<_>) =
            self.live(channel).partition(|id| kind(id) == SubscriptionKind::Plain);
        if !queue.is_empty() {
            receivers.push(self.rng.pick(&queue));
        }
        receivers
    }

    fn live(&self, channel: &str) -> impl Iterator<Item = SubscriptionId> {
        let ids = self.channels.get(channel).into_iter().flatten().copied();
        ids.filter(|id| self.is_live(*id))
    }

    fn cut_between(&self, from: Peer, to: Peer) -> Option<Fault> {
        let cut = self.cuts.iter().find(|cut| cut.from.contains(&from) && cut.to.contains(&to))?;
        Some(cut.fault)
    }

    fn deliver<E: From<NetEvent>>(
        &mut self,
        scene: &mut Scene<E>,
        to: SubscriptionId,
        channel: &str,
        frame: &Frame,
    ) {
        let fault = scene.faults.draw_delivery_fault(&mut self.rng);
        let applies = self.send_with_fault(scene, to, frame, fault)
            || self.send_extra(scene, to, channel, frame, fault);
        match fault.filter(|_| applies) {
            Some(fault @ (Fault::Drop | Fault::Gap)) => self.lose(scene, to, fault, frame),
            Some(fault) => self.count_fault(scene, fault, frame),
            None => {}
        }
    }

    fn count_fault<E>(&self, scene: &mut Scene<E>, fault: Fault, frame: &Frame) {
        scene.faults.count(fault);
        scene.log("bus", format_args!("{}: {}", fault.name(), FrameText(frame)));
    }

    /// Counts and logs the loss of a frame.
    fn lose<E>(&self, scene: &mut Scene<E>, to: SubscriptionId, fault: Fault, frame: &Frame) {
        scene.faults.count(fault);
        let to = NodeId::of(self.subscriptions[to.0].peer);
        let loss = || LineKind::Loss(self.published, to, fault);
        scene.log_as(loss, "bus", format_args!("{} to {to}: {}", fault.name(), FrameText(frame)));
    }

    /// Schedules the arrival of a frame. Returns `true` if the fault affected the frame itself.
    fn send_with_fault<E: From<NetEvent>>(
        &mut self,
        scene: &mut Scene<E>,
        to: SubscriptionId,
        frame: &Frame,
        fault: Option<Fault>,
    ) -> bool {
        let rng = &mut self.rng;
        let (frame, delay, keeps_order) = match fault {
            Some(Fault::Drop) => return true,
            Some(Fault::Gap) => {
                let at = self.arrival_in_order(scene, to, Duration::ZERO);
                scene.schedule_at(at, NetEvent::Gap(to));
                return true;
            }
            Some(Fault::Delay) => (frame.clone(), rng.grains(20..2000), true),
            Some(Fault::Reorder) => (frame.clone(), rng.grains(1..80), false),
            // Later than the longest call.
            Some(Fault::Late) => (frame.clone(), rng.grains(14_000..24_000), false),
            Some(Fault::Damage) => (frame_forger::damage(frame, rng), Duration::ZERO, true),
            _ => {
                self.send_in_order(scene, to, frame.clone(), None, Duration::ZERO);
                return false;
            }
        };
        if keeps_order {
            self.send_in_order(scene, to, frame, fault, delay);
        } else {
            self.send(scene, to, frame, fault, scene.now() + delay);
        }
        true
    }

    /// Schedules the extra frames of a fault. Returns `true` if the fault adds frames and applies
    /// to this frame.
    fn send_extra<E: From<NetEvent>>(
        &mut self,
        scene: &mut Scene<E>,
        to: SubscriptionId,
        channel: &str,
        frame: &Frame,
        fault: Option<Fault>,
    ) -> bool {
        let rng = &mut self.rng;
        let to_same = |frame| (to, vec![frame]);
        let extra = match fault {
            Some(Fault::Duplicate) => Some((self.any_receiver(to, channel), vec![frame.clone()])),
            Some(Fault::Noise) => Some((to, vec![frame_forger::noise(rng)])),
            Some(Fault::UnexpectedType) => Some((to, vec![frame_forger::unexpected_type(frame, rng)])),
            Some(Fault::UnknownCall) => frame_forger::unknown_call(frame).map(to_same),
            Some(Fault::SecondBid) => frame_forger::second_bid(frame, rng).map(to_same),
            Some(Fault::NonFiniteAffinity) => frame_forger::non_finite_bid(frame, rng).map(to_same),
            Some(Fault::ForgedResponse) => self
                .response_subscription(to)
                .zip(frame_forger::forged_response(frame).map(|answer| vec![answer])),
            Some(Fault::FloodOfBids | Fault::FloodOfResponses | Fault::FloodOfOpens) => {
                fault.and_then(|fault| frame_forger::flood(fault, frame, rng)).map(|flood| (to, flood))
            }
            _ => None,
        };
        let Some((to, extra)) = extra else { return false };
        let latest = self.rng.pick(&[40, 40, 400, 16_000, 16_000]);
        let delay = self.rng.grains(0..latest);
        for frame in extra {
            self.send(scene, to, frame, fault, scene.now() + delay);
        }
        true
    }

    /// Returns a subscriber that could receive the same frame: on a queue, any of its members.
    fn any_receiver(&mut self, id: SubscriptionId, channel: &str) -> SubscriptionId {
        if self.subscriptions[id.0].kind == SubscriptionKind::Plain {
            return id;
        }
        let members: Vec<_> = self.live(channel).collect();
        self.rng.pick(&members)
    }

    /// Returns the response subscription of the client that has this subscription.
    fn response_subscription(&self, id: SubscriptionId) -> Option<SubscriptionId> {
        let peer = self.subscriptions[id.0].peer;
        let matches = |known: &Subscription<S>| {
            known.peer == peer && known.channel.ends_with("|RES") && known.state == SubscriptionState::Live
        };
        self.subscriptions.iter().position(matches).map(SubscriptionId)
    }

    fn send_in_order<E: From<NetEvent>>(
        &mut self,
        scene: &mut Scene<E>,
        to: SubscriptionId,
        frame: Frame,
        fault: Option<Fault>,
        delay: Duration,
    ) {
        let at = self.arrival_in_order(scene, to, delay);
        self.send(scene, to, frame, fault, at);
    }

    fn arrival_in_order<E>(&mut self, scene: &mut Scene<E>, to: SubscriptionId, delay: Duration) -> Time {
        let mut arrives = scene.now() + self.latency() + delay;
        let Subscription { peer, latest, .. } = &mut self.subscriptions[to.0];
        if let Some(until) = self.clogs.get(peer).filter(|until| **until > arrives) {
            arrives = *until;
            scene.faults.count(Fault::Clog);
        }
        *latest = arrives.max(*latest);
        *latest
    }

    fn send<E: From<NetEvent>>(
        &mut self,
        scene: &mut Scene<E>,
        to: SubscriptionId,
        frame: Frame,
        fault: Option<Fault>,
        at: Time,
    ) {
        let encoded = self.rng.chance(self.encoded);
        let delivery = FrameInTransit { frame, number: self.published, fault, encoded };
        scene.schedule_at(at, NetEvent::Delivered(to, Box::new(delivery)));
    }

    fn latency(&mut self) -> Duration {
        self.rng.grains(0..self.latency)
    }
}
