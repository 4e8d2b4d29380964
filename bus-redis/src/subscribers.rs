//! Subscribers: which sinks are subscribed to which channel, and what the server knows of it. Pure
//! state.
//!
//! However many subscribers a channel has, the server knows of one subscription:
//!
//! ```text
//!              subscribe                  confirmed
//!   Absent ───────────────────▶ Asked ──────────────────▶ Live
//!     ▲                         ▲    │ refused              │
//!     │             back-off or │    ▼                      │
//!     │             a newcomer  Refused                     │
//!     └─────── the connection is lost, or all leave ────────┘
//! ```
//!
//! A refusal fails the subscribers that were never live. The others are interrupted, and the server
//! is asked again.

use std::collections::BTreeMap;

use psrpc::bus::{Sink, Turns, Wakes};
use psrpc::proto::Frame;
use psrpc::{BusError, SubscriptionKind};
use slab::Slab;

/// Names a subscriber of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubscriberId {
    kind: SubscriptionKind,
    slot: usize,
    /// Tells it from others that had its slot.
    number: u64,
}

/// The subscribers, by channel.
#[derive(Default)]
pub(crate) struct Table {
    channels: BTreeMap<Box<str>, Subscribers>,
    numbers: u64,
    /// Why nothing comes in any more, once the bus has stopped.
    stopped: Option<BusError>,
}

/// The subscribers of one channel.
#[derive(Default)]
struct Subscribers {
    plain: Slab<Member>,
    queue: Slab<Member>,
    /// The slots of the queue's members that have been live and stay.
    turns: Turns<usize>,
    /// How many members stay.
    staying: usize,
    at_server: AtServer,
    /// How often the server was asked: an answer to an earlier time says nothing.
    generation: u64,
    /// How often the server has refused since the subscription was live.
    refusals: u32,
}

struct Member {
    number: u64,
    sink: Sink,
    state: State,
    /// Its key among the turns.
    turn: Option<usize>,
    /// It has unsubscribed, and gets what had come in by then.
    leaving: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was never live.
    New,
    Live,
    Interrupted,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum AtServer {
    #[default]
    Absent,
    Asked,
    Live,
    Refused,
}

/// What follows from a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// It is the first since the subscription was live.
    pub(crate) first: bool,
    /// The number of refusals by now, if the server is to be asked again.
    pub(crate) again_after: Option<u32>,
}

impl Table {
    /// Adds a subscriber. Returns the generation of the subscription if the server must be asked
    /// for it now. Once the bus has stopped, the sink fails, and there is no subscriber.
    pub(crate) fn insert(
        &mut self,
        channel: &str,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut Wakes,
    ) -> Option<(SubscriberId, Option<u64>)> {
        if let Some(cause) = &self.stopped {
            sink.fail(cause.clone(), wakes);
            return None;
        }
        self.numbers += 1;
        let number = self.numbers;
        let subscribers = self.channels.entry(channel.into()).or_default();
        let member = Member { number, sink, state: State::New, turn: None, leaving: false };
        let slot = subscribers.members(kind).insert(member);
        subscribers.staying += 1;
        let generation = match subscribers.at_server {
            AtServer::Live => {
                subscribers.revive(kind, slot, wakes);
                None
            }
            AtServer::Asked => None,
            AtServer::Absent | AtServer::Refused => Some(subscribers.ask()),
        };
        Some((SubscriberId { kind, slot, number }, generation))
    }

    /// A subscriber leaves. It is to be removed once what came in for it was delivered: at the
    /// server's confirmation that it is unsubscribed, or now if others stay. `None` if there is no
    /// such subscriber.
    pub(crate) fn leave(&mut self, channel: &str, id: SubscriberId) -> Option<Leaving> {
        let subscribers = self.channels.get_mut(channel)?;
        let member = subscribers.members(id.kind).get_mut(id.slot).filter(|it| it.number == id.number)?;
        member.leaving = true;
        let turn = member.turn.take();
        turn.and_then(|turn| subscribers.turns.remove(turn));
        subscribers.staying -= 1;
        if subscribers.staying > 0 {
            return Some(Leaving::OthersStay);
        }
        subscribers.at_server = AtServer::Absent;
        Some(Leaving::Last)
    }

    /// Removes a subscriber, and tells it that it has ended.
    pub(crate) fn remove(&mut self, channel: &str, id: SubscriberId, wakes: &mut Wakes) {
        let Some(subscribers) = self.channels.get_mut(channel) else { return };
        let members = subscribers.members(id.kind);
        if members.get(id.slot).is_some_and(|member| member.number == id.number) {
            members.remove(id.slot).sink.end(wakes);
        }
        if subscribers.is_empty() {
            self.channels.remove(channel);
        }
    }

    /// Asks for every subscription anew: there is a connection.
    pub(crate) fn ask_all(&mut self) -> Vec<(Box<str>, u64)> {
        let wanted = self.channels.iter_mut().filter(|(_, subscribers)| subscribers.staying > 0);
        wanted.map(|(channel, subscribers)| (channel.clone(), subscribers.ask())).collect()
    }

    /// Asks again for a subscription that was refused, unless something else has happened since.
    /// Returns its generation.
    pub(crate) fn ask_again(&mut self, channel: &str, generation: u64) -> Option<u64> {
        let subscribers = self.channels.get_mut(channel)?;
        let is_due = subscribers.generation == generation && subscribers.at_server == AtServer::Refused;
        is_due.then(|| subscribers.ask())
    }

    /// The server has confirmed a subscription.
    pub(crate) fn confirmed(&mut self, channel: &str, generation: u64, wakes: &mut Wakes) {
        let Some(subscribers) = self.asked(channel, generation) else { return };
        subscribers.at_server = AtServer::Live;
        subscribers.refusals = 0;
        for kind in [SubscriptionKind::Plain, SubscriptionKind::Queue] {
            let slots: Vec<_> = subscribers.members(kind).iter().map(|(slot, _)| slot).collect();
            slots.into_iter().for_each(|slot| subscribers.revive(kind, slot, wakes));
        }
    }

    /// The server has refused a subscription. Returns `None` if it was not asked for that, or not
    /// any more.
    pub(crate) fn refused(
        &mut self,
        channel: &str,
        generation: u64,
        cause: &BusError,
        wakes: &mut Wakes,
    ) -> Option<Refused> {
        let subscribers = self.asked(channel, generation)?;
        let first = subscribers.refusals == 0;
        subscribers.refusals = subscribers.refusals.saturating_add(1);
        // Those that know of the lost connection are told the better cause.
        subscribers.interrupt(first, cause, wakes);
        subscribers.fail_new(cause, wakes);
        let again = subscribers.staying > 0;
        subscribers.at_server = if again { AtServer::Refused } else { AtServer::Absent };
        let refused = Refused { first, again_after: again.then_some(subscribers.refusals) };
        if subscribers.is_empty() {
            self.channels.remove(channel);
        }
        Some(refused)
    }

    /// The connection was lost.
    pub(crate) fn lost(&mut self, cause: &BusError, wakes: &mut Wakes) {
        for subscribers in self.channels.values_mut() {
            subscribers.at_server = AtServer::Absent;
            subscribers.interrupt(false, cause, wakes);
        }
    }

    /// Fails every subscriber, and all later ones. Returns `false` if that was done before.
    pub(crate) fn stop(&mut self, cause: &BusError, wakes: &mut Wakes) -> bool {
        if self.stopped.is_some() {
            return false;
        }
        self.stopped = Some(cause.clone());
        for mut subscribers in std::mem::take(&mut self.channels).into_values() {
            let members = subscribers.plain.drain().chain(subscribers.queue.drain());
            members.for_each(|member| member.sink.fail(cause.clone(), wakes));
        }
        true
    }

    /// Hands a frame to every plain subscriber. Returns `true` if the channel has a queue too.
    pub(crate) fn deliver(&self, channel: &str, frame: &Frame, wakes: &mut Wakes) -> bool {
        let Some(subscribers) = self.channels.get(channel) else { return false };
        for (_, member) in subscribers.plain.iter().filter(|(_, member)| member.state != State::New) {
            member.sink.deliver(frame.clone(), wakes);
        }
        !subscribers.queue.is_empty()
    }

    /// Hands a frame to the member of the queue whose turn it is.
    pub(crate) fn deliver_to_queue(&mut self, channel: &str, frame: Frame, wakes: &mut Wakes) {
        if let Some(sink) = self.next_of_queue(channel) {
            sink.deliver(frame, wakes);
        }
    }

    /// Tells the member of the queue whose turn it is that a frame is lost.
    pub(crate) fn lose_of_queue(&mut self, channel: &str, wakes: &mut Wakes) {
        if let Some(sink) = self.next_of_queue(channel) {
            sink.gap(Some(1), wakes);
        }
    }

    fn next_of_queue(&mut self, channel: &str) -> Option<&Sink> {
        let Subscribers { queue, turns, .. } = self.channels.get_mut(channel)?;
        if let Some(slot) = turns.next_turn() {
            return queue.get(*slot).map(|member| &member.sink);
        }
        // Nobody stays: a member that leaves gets what comes in until it is gone, and a newcomer
        // what would be lost otherwise.
        let leaving = queue.iter().find(|(_, member)| member.leaving && member.state != State::New);
        leaving.or_else(|| queue.iter().next()).map(|(_, member)| &member.sink)
    }

    /// The subscribers of a channel, if the server has been asked for it in this generation and has
    /// not answered.
    fn asked(&mut self, channel: &str, generation: u64) -> Option<&mut Subscribers> {
        let subscribers = self.channels.get_mut(channel)?;
        (subscribers.generation == generation && subscribers.at_server == AtServer::Asked)
            .then_some(subscribers)
    }
}

/// How a subscriber leaves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// The server need not know.
    OthersStay,
    /// The server is told to unsubscribe.
    Last,
}

impl Subscribers {
    fn members(&mut self, kind: SubscriptionKind) -> &mut Slab<Member> {
        match kind {
            SubscriptionKind::Plain => &mut self.plain,
            SubscriptionKind::Queue => &mut self.queue,
        }
    }

    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.queue.is_empty()
    }

    fn ask(&mut self) -> u64 {
        self.at_server = AtServer::Asked;
        self.generation += 1;
        self.generation
    }

    /// Tells a member that it is live, unless it knows or leaves.
    fn revive(&mut self, kind: SubscriptionKind, slot: usize, wakes: &mut Wakes) {
        let member = &mut self.members(kind)[slot];
        if member.leaving || member.state == State::Live {
            return;
        }
        member.state = State::Live;
        member.sink.live(wakes);
        if kind == SubscriptionKind::Queue && member.turn.is_none() {
            self.queue[slot].turn = Some(self.turns.insert(slot));
        }
    }

    /// Tells the live members that they are interrupted, and on demand those that know it, with
    /// another cause.
    fn interrupt(&mut self, again: bool, cause: &BusError, wakes: &mut Wakes) {
        let members = self.plain.iter_mut().chain(self.queue.iter_mut()).map(|(_, member)| member);
        let is_to_know = |state| state == State::Live || again && state == State::Interrupted;
        for member in members.filter(|member| !member.leaving && is_to_know(member.state)) {
            member.state = State::Interrupted;
            member.sink.interrupted(cause.clone(), wakes);
        }
    }

    /// Removes the members that were never live and wanted to stay, and tells them why.
    fn fail_new(&mut self, cause: &BusError, wakes: &mut Wakes) {
        for members in [&mut self.plain, &mut self.queue] {
            let is_new = |member: &Member| !member.leaving && member.state == State::New;
            let slots: Vec<_> =
                members.iter().filter(|(_, member)| is_new(member)).map(|(slot, _)| slot).collect();
            self.staying -= slots.len();
            slots.into_iter().for_each(|slot| members.remove(slot).sink.fail(cause.clone(), wakes));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use futures_core::Stream;
    use psrpc::bus::{Delivery, Inbox};
    use psrpc::proto::Any;

    use super::*;

    /// A table, and the members of the queue `q` by name.
    #[derive(Default)]
    struct Queue {
        table: Table,
        members: Vec<(char, SubscriberId, Inbox)>,
        generation: u64,
    }

    impl Queue {
        fn join(&mut self, name: char) {
            let (sink, inbox) = Inbox::new(10);
            let joined = self.table.insert("q", SubscriptionKind::Queue, sink, &mut Wakes::new());
            let (id, generation) = joined.expect("the bus has not stopped");
            self.generation = generation.unwrap_or(self.generation);
            self.members.push((name, id, inbox));
        }

        fn confirm(&mut self) {
            self.table.confirmed("q", self.generation, &mut Wakes::new());
        }

        fn refuse(&mut self) -> Option<Refused> {
            self.table.refused("q", self.generation, &BusError::new("NOPERM"), &mut Wakes::new())
        }

        fn leave(&mut self, name: char) -> Option<Leaving> {
            let (_, id, _) = self.members.iter().find(|(known, ..)| *known == name)?;
            self.table.leave("q", *id)
        }

        fn remove(&mut self, name: char) {
            let (_, id, _) = self.members.iter().find(|(known, ..)| *known == name).expect("a member");
            self.table.remove("q", *id, &mut Wakes::new());
        }

        /// Who gets so many frames, by name.
        fn frames(&mut self, count: usize) -> String {
            let mut takers = String::new();
            for _ in 0..count {
                self.table.deliver_to_queue("q", Frame::Other(Any::default()), &mut Wakes::new());
                let told = self.told();
                let takers_now = told.split(' ').filter_map(|told| told.strip_suffix(":frame"));
                takers.extend(takers_now);
            }
            takers
        }

        /// What the members were told since somebody looked.
        fn told(&mut self) -> String {
            let mut told = Vec::new();
            for (name, _, inbox) in &mut self.members {
                let mut cx = Context::from_waker(Waker::noop());
                while let Poll::Ready(Some(delivery)) = Pin::new(&mut *inbox).poll_next(&mut cx) {
                    let what = match delivery {
                        Delivery::Live => "live",
                        Delivery::Frame(_) => "frame",
                        Delivery::Interrupted(_) => "interrupted",
                        Delivery::Ended(Some(_)) => "failed",
                        Delivery::Ended(None) => "ended",
                        other => panic!("{other:?}"),
                    };
                    told.push(format!("{name}:{what}"));
                }
            }
            told.join(" ")
        }
    }

    #[test]
    fn live_members_that_stay_take_turns_and_others_get_a_frame_only_if_there_is_none() {
        let mut queue = Queue::default();
        queue.join('a');
        assert_eq!(queue.frames(1), "a", "there is no other");
        queue.confirm();
        queue.join('b');
        queue.join('c');
        assert_eq!(queue.told(), "a:live b:live c:live");
        assert_eq!(queue.frames(5), "abcab");
        assert_eq!(queue.leave('c'), Some(Leaving::OthersStay));
        assert_eq!(queue.frames(3), "aba");
        assert_eq!((queue.leave('a'), queue.leave('b')), (Some(Leaving::OthersStay), Some(Leaving::Last)));
        queue.join('d');
        assert_eq!(queue.frames(1).replace(['b', 'c'], "a"), "a", "one that leaves, before a newcomer");
        ['a', 'b', 'c'].into_iter().for_each(|name| queue.remove(name));
        assert_eq!(queue.told(), "a:ended b:ended c:ended");
        assert_eq!(queue.frames(1), "d");
    }

    #[test]
    fn a_refusal_fails_newcomers_and_interrupts_the_others_once() {
        let mut queue = Queue::default();
        queue.join('a');
        queue.confirm();
        queue.join('b');
        queue.told();
        queue.table.lost(&BusError::new("closed"), &mut Wakes::new());
        assert_eq!(queue.told(), "a:interrupted b:interrupted");
        queue.generation = queue.table.ask_all()[0].1;
        queue.join('c');
        assert_eq!(queue.refuse(), Some(Refused { first: true, again_after: Some(1) }));
        assert_eq!(queue.told(), "a:interrupted b:interrupted c:failed", "with the better cause");
        assert_eq!(queue.refuse(), None, "it was not asked again");
        queue.generation = queue.table.ask_again("q", queue.generation).expect("it is due");
        assert_eq!(queue.refuse(), Some(Refused { first: false, again_after: Some(2) }));
        queue.join('d');
        assert_eq!(queue.table.ask_again("q", 2), None, "the newcomer has asked");
        queue.confirm();
        assert_eq!(queue.told(), "a:live b:live d:live");
    }

    #[test]
    fn nothing_is_left_of_a_refused_newcomer_and_of_members_that_left() {
        let mut queue = Queue::default();
        queue.join('a');
        assert_eq!(queue.refuse(), Some(Refused { first: true, again_after: None }));
        assert_eq!(queue.leave('a'), None);
        queue.join('b');
        assert_eq!(queue.leave('b'), Some(Leaving::Last));
        queue.confirm();
        queue.remove('b');
        assert_eq!(queue.told(), "a:failed b:ended");
        assert!(queue.table.channels.is_empty());
    }
}
