//! The table of subscribers by channel, and the state of each subscription at the server. Does no
//! I/O.
//!
//! The server sees one subscription per channel, however many subscribers the channel has:
//!
//! ```text
//!              subscribe                  confirmed
//!   Absent ───────────────────▶ Pending ────────────────▶ Live
//!     ▲                         ▲    │ refused              │
//!     │             back-off or │    ▼                      │
//!     │      a new subscriber   Refused                     │
//!     └──── the connection is lost, or all unsubscribe ─────┘
//! ```
//!
//! A refusal fails the subscribers that were never live. It interrupts the others, and the bus
//! subscribes again later.

use std::collections::BTreeMap;

use psrpc::bus::{RoundRobin, Sink, WakeList};
use psrpc::proto::Frame;
use psrpc::{BusError, SubscriptionKind};
use slab::Slab;

/// Identifies a subscriber of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubscriberId {
    kind: SubscriptionKind,
    slot: usize,
    /// Distinguishes the subscriber from earlier ones in the same slot.
    number: u64,
}

/// The subscribers by channel.
#[derive(Default)]
pub(crate) struct Table {
    channels: BTreeMap<Box<str>, Subscribers>,
    last_number: u64,
    /// The reason why the bus has stopped, if it has.
    stopped: Option<BusError>,
}

/// The subscribers of one channel.
#[derive(Default)]
struct Subscribers {
    plain: Slab<Member>,
    queue: Slab<Member>,
    /// The slots of the queue members that have been live and have not unsubscribed.
    turns: RoundRobin<usize>,
    /// The number of members that have not unsubscribed.
    active: usize,
    at_server: AtServer,
    /// The number of subscribe commands so far. Replies to an earlier command are ignored.
    generation: u64,
    /// The number of refusals since the subscription was last live.
    refusals: u32,
}

struct Member {
    number: u64,
    sink: Sink,
    state: SubscriptionState,
    /// The key of the member in `turns`.
    turn: Option<usize>,
    /// The member has unsubscribed but still receives frames that arrived before.
    leaving: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SubscriptionState {
    /// Never live so far.
    New,
    Live,
    Interrupted,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum AtServer {
    #[default]
    Absent,
    Pending,
    Live,
    Refused,
}

/// The consequences of a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Whether this is the first refusal since the subscription was last live.
    pub(crate) first: bool,
    /// The number of refusals so far, if the bus must subscribe again.
    pub(crate) retry: Option<u32>,
}

impl Table {
    /// Adds a subscriber. Also returns a generation if the bus must subscribe at the server now. If
    /// the bus has stopped, fails the sink and returns `None`.
    pub(crate) fn insert(
        &mut self,
        channel: &str,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Option<(SubscriberId, Option<u64>)> {
        if let Some(cause) = &self.stopped {
            sink.fail(cause.clone(), wakes);
            return None;
        }
        self.last_number += 1;
        let number = self.last_number;
        let subscribers = self.channels.entry(channel.into()).or_default();
        let member = Member { number, sink, state: SubscriptionState::New, turn: None, leaving: false };
        let slot = subscribers.members(kind).insert(member);
        subscribers.active += 1;
        let generation = match subscribers.at_server {
            AtServer::Live => {
                subscribers.mark_live(kind, slot, wakes);
                None
            }
            AtServer::Pending => None,
            AtServer::Absent | AtServer::Refused => Some(subscribers.request()),
        };
        Some((SubscriberId { kind, slot, number }, generation))
    }

    /// Marks a subscriber as leaving. Returns `None` if there is no such subscriber.
    ///
    /// The caller removes the subscriber once all its frames are delivered: right away if others
    /// remain, otherwise when the server has confirmed the unsubscribe command.
    pub(crate) fn leave(&mut self, channel: &str, id: SubscriberId) -> Option<Leaving> {
        let subscribers = self.channels.get_mut(channel)?;
        let member = subscribers.members(id.kind).get_mut(id.slot).filter(|it| it.number == id.number)?;
        member.leaving = true;
        let turn = member.turn.take();
        turn.and_then(|turn| subscribers.turns.remove(turn));
        subscribers.active -= 1;
        if subscribers.active > 0 {
            return Some(Leaving::OthersRemain);
        }
        subscribers.at_server = AtServer::Absent;
        Some(Leaving::Last)
    }

    /// Removes a subscriber and ends its sink.
    pub(crate) fn remove(&mut self, channel: &str, id: SubscriberId, wakes: &mut WakeList) {
        let Some(subscribers) = self.channels.get_mut(channel) else { return };
        let members = subscribers.members(id.kind);
        if members.get(id.slot).is_some_and(|member| member.number == id.number) {
            members.remove(id.slot).sink.end(wakes);
        }
        if subscribers.is_empty() {
            self.channels.remove(channel);
        }
    }

    /// Starts every subscription again on a new connection.
    pub(crate) fn resubscribe_all(&mut self) -> Vec<(Box<str>, u64)> {
        let active = self.channels.iter_mut().filter(|(_, subscribers)| subscribers.active > 0);
        active.map(|(channel, subscribers)| (channel.clone(), subscribers.request())).collect()
    }

    /// Starts a refused subscription again, unless it has changed since. Returns its generation.
    pub(crate) fn retry(&mut self, channel: &str, generation: u64) -> Option<u64> {
        let subscribers = self.channels.get_mut(channel)?;
        let is_due = subscribers.generation == generation && subscribers.at_server == AtServer::Refused;
        is_due.then(|| subscribers.request())
    }

    /// Records that the server has confirmed a subscription.
    pub(crate) fn confirmed(&mut self, channel: &str, generation: u64, wakes: &mut WakeList) {
        let Some(subscribers) = self.pending(channel, generation) else { return };
        subscribers.at_server = AtServer::Live;
        subscribers.refusals = 0;
        for kind in [SubscriptionKind::Plain, SubscriptionKind::Queue] {
            let slots: Vec<_> = subscribers.members(kind).iter().map(|(slot, _)| slot).collect();
            slots.into_iter().for_each(|slot| subscribers.mark_live(kind, slot, wakes));
        }
    }

    /// Records that the server has refused a subscription. Returns `None` if the reply is outdated.
    pub(crate) fn refused(
        &mut self,
        channel: &str,
        generation: u64,
        cause: &BusError,
        wakes: &mut WakeList,
    ) -> Option<Refused> {
        let subscribers = self.pending(channel, generation)?;
        let first = subscribers.refusals == 0;
        subscribers.refusals = subscribers.refusals.saturating_add(1);
        // Subscribers that were interrupted by a lost connection get the more specific cause.
        subscribers.interrupt(first, cause, wakes);
        subscribers.fail_new(cause, wakes);
        let again = subscribers.active > 0;
        subscribers.at_server = if again { AtServer::Refused } else { AtServer::Absent };
        let refused = Refused { first, retry: again.then_some(subscribers.refusals) };
        if subscribers.is_empty() {
            self.channels.remove(channel);
        }
        Some(refused)
    }

    /// Interrupts every subscription because the connection was lost.
    pub(crate) fn lost(&mut self, cause: &BusError, wakes: &mut WakeList) {
        for subscribers in self.channels.values_mut() {
            subscribers.at_server = AtServer::Absent;
            subscribers.interrupt(false, cause, wakes);
        }
    }

    /// Fails all current and later subscribers. Returns `false` if the bus had already stopped.
    pub(crate) fn stop(&mut self, cause: &BusError, wakes: &mut WakeList) -> bool {
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

    /// Delivers a frame to every plain subscriber. Returns `true` if the channel also has a queue.
    ///
    /// An interrupted subscriber gets none before it is live again: the gap is reported then, and
    /// must come before all that arrives after it.
    pub(crate) fn deliver(&self, channel: &str, frame: &Frame, wakes: &mut WakeList) -> bool {
        let Some(subscribers) = self.channels.get(channel) else { return false };
        for (_, member) in
            subscribers.plain.iter().filter(|(_, member)| member.state == SubscriptionState::Live)
        {
            member.sink.deliver(frame.clone(), wakes);
        }
        !subscribers.queue.is_empty()
    }

    /// Delivers a frame to the next member of the queue.
    pub(crate) fn deliver_to_queue(&mut self, channel: &str, frame: Frame, wakes: &mut WakeList) {
        if let Some(sink) = self.next_in_queue(channel) {
            sink.deliver(frame, wakes);
        }
    }

    /// Reports a lost frame to the next member of the queue.
    pub(crate) fn report_queue_gap(&mut self, channel: &str, wakes: &mut WakeList) {
        if let Some(sink) = self.next_in_queue(channel) {
            sink.gap(Some(1), wakes);
        }
    }

    fn next_in_queue(&mut self, channel: &str) -> Option<&Sink> {
        let Subscribers { queue, turns, .. } = self.channels.get_mut(channel)?;
        if let Some(slot) = turns.next_turn() {
            return queue.get(*slot).map(|member| &member.sink);
        }
        // All members are leaving or new. Prefer a leaving one, which is still entitled to frames;
        // a new one takes frames that would otherwise be lost.
        let leaving =
            queue.iter().find(|(_, member)| member.leaving && member.state != SubscriptionState::New);
        leaving.or_else(|| queue.iter().next()).map(|(_, member)| &member.sink)
    }

    /// Returns the subscribers of a channel if the server has not replied to this generation yet.
    fn pending(&mut self, channel: &str, generation: u64) -> Option<&mut Subscribers> {
        let subscribers = self.channels.get_mut(channel)?;
        (subscribers.generation == generation && subscribers.at_server == AtServer::Pending)
            .then_some(subscribers)
    }
}

/// The state of a channel after a subscriber left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// The subscription at the server stays.
    OthersRemain,
    /// The bus unsubscribes at the server.
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

    fn request(&mut self) -> u64 {
        self.at_server = AtServer::Pending;
        self.generation += 1;
        self.generation
    }

    /// Marks a member as live, unless it is live already or leaving.
    fn mark_live(&mut self, kind: SubscriptionKind, slot: usize, wakes: &mut WakeList) {
        let member = &mut self.members(kind)[slot];
        if member.leaving || member.state == SubscriptionState::Live {
            return;
        }
        member.state = SubscriptionState::Live;
        member.sink.live(wakes);
        if kind == SubscriptionKind::Queue && member.turn.is_none() {
            self.queue[slot].turn = Some(self.turns.insert(slot));
        }
    }

    /// Interrupts the live members. With `again`, also reports the cause to members that are
    /// already interrupted.
    fn interrupt(&mut self, again: bool, cause: &BusError, wakes: &mut WakeList) {
        let members = self.plain.iter_mut().chain(self.queue.iter_mut()).map(|(_, member)| member);
        let must_report =
            |state| state == SubscriptionState::Live || again && state == SubscriptionState::Interrupted;
        for member in members.filter(|member| !member.leaving && must_report(member.state)) {
            member.state = SubscriptionState::Interrupted;
            member.sink.interrupted(cause.clone(), wakes);
        }
    }

    /// Fails and removes the members that were never live and are not leaving.
    fn fail_new(&mut self, cause: &BusError, wakes: &mut WakeList) {
        for members in [&mut self.plain, &mut self.queue] {
            let is_new = |member: &Member| !member.leaving && member.state == SubscriptionState::New;
            let slots: Vec<_> =
                members.iter().filter(|(_, member)| is_new(member)).map(|(slot, _)| slot).collect();
            self.active -= slots.len();
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
            let joined = self.table.insert("q", SubscriptionKind::Queue, sink, &mut WakeList::new());
            let (id, generation) = joined.expect("the bus has not stopped");
            self.generation = generation.unwrap_or(self.generation);
            self.members.push((name, id, inbox));
        }

        fn confirm(&mut self) {
            self.table.confirmed("q", self.generation, &mut WakeList::new());
        }

        fn refuse(&mut self) -> Option<Refused> {
            self.table.refused("q", self.generation, &BusError::new("NOPERM"), &mut WakeList::new())
        }

        fn leave(&mut self, name: char) -> Option<Leaving> {
            let (_, id, _) = self.members.iter().find(|(known, ..)| *known == name)?;
            self.table.leave("q", *id)
        }

        fn remove(&mut self, name: char) {
            let (_, id, _) = self.members.iter().find(|(known, ..)| *known == name).expect("a member");
            self.table.remove("q", *id, &mut WakeList::new());
        }

        /// Delivers `count` frames and returns the names of the members that received them.
        fn frames(&mut self, count: usize) -> String {
            let mut receivers = String::new();
            for _ in 0..count {
                self.table.deliver_to_queue("q", Frame::Other(Any::default()), &mut WakeList::new());
                let deliveries = self.deliveries();
                let received =
                    deliveries.split(' ').filter_map(|deliveries| deliveries.strip_suffix(":frame"));
                receivers.extend(received);
            }
            receivers
        }

        /// Returns the deliveries since the last call.
        fn deliveries(&mut self) -> String {
            let mut deliveries = Vec::new();
            for (name, _, inbox) in &mut self.members {
                let mut cx = Context::from_waker(Waker::noop());
                while let Poll::Ready(Some(delivery)) = Pin::new(&mut *inbox).poll_next(&mut cx) {
                    let kind = match delivery {
                        Delivery::Live => "live",
                        Delivery::Frame(_) => "frame",
                        Delivery::Interrupted(_) => "interrupted",
                        Delivery::Ended(Some(_)) => "failed",
                        Delivery::Ended(None) => "ended",
                        other => panic!("{other:?}"),
                    };
                    deliveries.push(format!("{name}:{kind}"));
                }
            }
            deliveries.join(" ")
        }
    }

    #[test]
    fn live_members_that_stay_take_turns_and_others_get_a_frame_only_if_there_is_none() {
        let mut queue = Queue::default();
        queue.join('a');
        assert_eq!(queue.frames(1), "a", "the only member");
        queue.confirm();
        queue.join('b');
        queue.join('c');
        assert_eq!(queue.deliveries(), "a:live b:live c:live");
        assert_eq!(queue.frames(5), "abcab");
        assert_eq!(queue.leave('c'), Some(Leaving::OthersRemain));
        assert_eq!(queue.frames(3), "aba");
        assert_eq!((queue.leave('a'), queue.leave('b')), (Some(Leaving::OthersRemain), Some(Leaving::Last)));
        queue.join('d');
        assert_eq!(queue.frames(1).replace(['b', 'c'], "a"), "a", "a leaving member before a new one");
        ['a', 'b', 'c'].into_iter().for_each(|name| queue.remove(name));
        assert_eq!(queue.deliveries(), "a:ended b:ended c:ended");
        assert_eq!(queue.frames(1), "d");
    }

    #[test]
    fn an_interrupted_subscriber_receives_nothing_before_it_is_live_again() {
        let (mut table, mut wakes) = (Table::default(), WakeList::new());
        let (sink, mut inbox) = Inbox::new(10);
        let (_, generation) = table.insert("p", SubscriptionKind::Plain, sink, &mut wakes).expect("it runs");
        table.confirmed("p", generation.expect("it subscribes"), &mut wakes);
        table.lost(&BusError::new("closed"), &mut wakes);
        let generation = table.resubscribe_all()[0].1;
        table.deliver("p", &Frame::Other(Any::default()), &mut wakes);
        table.confirmed("p", generation, &mut wakes);
        table.deliver("p", &Frame::Other(Any::default()), &mut wakes);
        let mut cx = Context::from_waker(Waker::noop());
        let mut next = || Pin::new(&mut inbox).poll_next(&mut cx);
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Live))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Interrupted(_)))));
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Live))), "the frame before was not delivered");
        assert!(matches!(next(), Poll::Ready(Some(Delivery::Frame(_)))));
    }

    #[test]
    fn a_refusal_fails_newcomers_and_interrupts_the_others_once() {
        let mut queue = Queue::default();
        queue.join('a');
        queue.confirm();
        queue.join('b');
        queue.deliveries();
        queue.table.lost(&BusError::new("closed"), &mut WakeList::new());
        assert_eq!(queue.deliveries(), "a:interrupted b:interrupted");
        queue.generation = queue.table.resubscribe_all()[0].1;
        queue.join('c');
        assert_eq!(queue.refuse(), Some(Refused { first: true, retry: Some(1) }));
        assert_eq!(
            queue.deliveries(),
            "a:interrupted b:interrupted c:failed",
            "with the more specific cause"
        );
        assert_eq!(queue.refuse(), None, "no subscribe command is pending");
        queue.generation = queue.table.retry("q", queue.generation).expect("it is due");
        assert_eq!(queue.refuse(), Some(Refused { first: false, retry: Some(2) }));
        queue.join('d');
        assert_eq!(queue.table.retry("q", 2), None, "the new member has already subscribed again");
        queue.confirm();
        assert_eq!(queue.deliveries(), "a:live b:live d:live");
    }

    #[test]
    fn no_state_remains_of_a_refused_newcomer_and_of_members_that_left() {
        let mut queue = Queue::default();
        queue.join('a');
        assert_eq!(queue.refuse(), Some(Refused { first: true, retry: None }));
        assert_eq!(queue.leave('a'), None);
        queue.join('b');
        assert_eq!(queue.leave('b'), Some(Leaving::Last));
        queue.confirm();
        queue.remove('b');
        assert_eq!(queue.deliveries(), "a:failed b:ended");
        assert!(queue.table.channels.is_empty());
    }
}
