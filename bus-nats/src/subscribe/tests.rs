//! Tests of subscriptions without a server.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use psrpc::WallTime;
use psrpc::bus::{Delivery, Inbox};
use psrpc::proto::Request;

use super::*;

const QUEUE: SubscriptionKind = SubscriptionKind::Queue;

struct NamedListener {
    name: char,
    id: Option<ListenerId>,
    inbox: Inbox,
}

/// Subscriptions without a server, and their listeners by name.
struct Harness {
    subscriptions: Arc<Subscriptions>,
    listeners: Vec<NamedListener>,
    time: Time,
}

impl Harness {
    fn new() -> Self {
        Self::with(&NatsOptions::new())
    }

    fn with(options: &NatsOptions) -> Self {
        let subscriptions = Subscriptions::new("URL".to_owned(), options, Monitor::new(), Arc::default());
        subscriptions.connected();
        Self { subscriptions: Arc::new(subscriptions), listeners: Vec::new(), time: Time::from_nanos(0) }
    }

    fn channel(topic: &str) -> Channel {
        Channel::request("Hats", "Fit", &[topic], true)
    }

    fn join(&mut self, name: char, topic: &str) {
        let (sink, inbox) = Inbox::new(10);
        let id = self.subscriptions.subscribe(&Self::channel(topic), QUEUE, sink, &mut WakeList::new());
        self.listeners.push(NamedListener { name, id, inbox });
    }

    fn leave(&mut self, name: char) {
        let listener = self.listeners.iter_mut().find(|listener| listener.name == name);
        let id = listener.and_then(|listener| listener.id.take()).expect("the listener has not left");
        self.subscriptions.unsubscribe(id);
    }

    /// Begins a round, up to its round trip.
    fn begin(&self) -> Round {
        self.subscriptions.run_timers(self.time);
        let round = self.subscriptions.begin_round();
        round.requests.iter().for_each(|request| self.subscriptions.requested(request.id, None));
        round
    }

    /// Runs rounds until there is nothing to do. Returns the number of subjects requested in each.
    fn rounds(&self) -> Vec<usize> {
        let mut requested = Vec::new();
        loop {
            let round = self.begin();
            if round.is_empty() {
                return requested;
            }
            requested.push(round.requests.len());
            self.subscriptions.end_round(round, self.time);
        }
    }

    fn now(&self) -> Now {
        Now { time: self.time, wall: WallTime::from_unix_nanos(0) }
    }

    fn refuse(&self, topic: &str) -> bool {
        self.subscriptions.refused(Self::channel(topic).server(), None, "no", self.now())
    }

    fn frame(&self, topic: &str) {
        let channel = Self::channel(topic);
        let key = (channel.server().into(), Group::Queue(GROUP.into()));
        let id = self.subscriptions.table.lock().by_name.get(&key).copied();
        let payload = Frame::Request(Request::default()).encode(channel.local());
        self.subscriptions.route(id.expect("a subject"), payload, &mut WakeList::new());
    }

    /// Returns the deliveries since the last call.
    fn deliveries(&mut self) -> String {
        let mut deliveries = Vec::new();
        for NamedListener { name, inbox, .. } in &mut self.listeners {
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
fn live_listeners_that_stay_take_turns_and_others_get_a_frame_only_if_there_is_none() {
    let mut harness = Harness::new();
    harness.join('a', "t");
    let round = harness.begin();
    harness.frame("t");
    assert_eq!(harness.deliveries(), "a:live a:frame", "a message proves the subscription");
    harness.subscriptions.end_round(round, harness.time);
    harness.join('b', "t");
    (0..3).for_each(|_| harness.frame("t"));
    assert_eq!(harness.deliveries(), "a:frame a:frame b:live b:frame");
    harness.leave('b');
    (0..2).for_each(|_| harness.frame("t"));
    harness.rounds();
    assert_eq!(harness.deliveries(), "a:frame a:frame b:ended");
    harness.leave('a');
    harness.rounds();
    assert_eq!(harness.deliveries(), "a:ended");
    assert!(harness.subscriptions.table.lock().subjects.is_empty());
}

#[test]
fn a_refusal_fails_newcomers_interrupts_the_others_once_and_heals() {
    let mut harness = Harness::new();
    harness.join('a', "t");
    assert_eq!((harness.rounds(), harness.deliveries()), (vec![1, 0], "a:live".to_owned()));
    assert!(harness.refuse("t"), "the subscription was live");
    harness.time = Time::from_nanos(1_000_000_000);
    assert_eq!((harness.rounds(), harness.deliveries()), (vec![1, 0], "a:interrupted a:live".to_owned()));
    harness.time = Time::from_nanos(1_500_000_000);
    assert!(harness.refuse("t"), "the subscription was live");
    harness.join('b', "t");
    let round = harness.begin();
    assert!(!harness.refuse("t"));
    harness.subscriptions.end_round(round, harness.time);
    assert_eq!(harness.deliveries(), "a:interrupted b:failed");
    assert!(harness.rounds().iter().all(|requested| *requested == 0), "the delay has not ended");
    harness.time = Time::from_nanos(2_500_000_000);
    assert_eq!((harness.rounds(), harness.deliveries()), (vec![1, 0], "a:live".to_owned()));
    harness.subscriptions.lost(None, &BusError::new("lost"));
    assert_eq!(harness.deliveries(), "a:interrupted");
    harness.subscriptions.connected();
    assert_eq!((harness.rounds(), harness.deliveries()), (vec![1, 0], "a:live".to_owned()));
}

#[test]
fn after_a_refusal_without_a_name_subjects_are_requested_one_at_a_time() {
    let mut harness = Harness::new();
    let late = |harness: &mut Harness| harness.time = harness.time + MAX_REFUSAL_DELAY;
    ["t", "u", "v"].into_iter().zip('a'..).for_each(|(topic, name)| harness.join(name, topic));
    let round = harness.begin();
    assert_eq!(round.requests.len(), 3);
    harness.subscriptions.end_round(round, harness.time);
    harness.subscriptions.refused_unnamed("too many", harness.now());
    harness.subscriptions.refused_unnamed("too many", harness.now());
    assert_eq!((harness.rounds(), harness.deliveries()), (vec![0], String::new()), "all three are withdrawn");
    late(&mut harness);
    assert_eq!((harness.rounds(), harness.deliveries()), (vec![1], String::new()), "its refusal may be late");
    late(&mut harness);
    assert_eq!((harness.rounds(), harness.deliveries()), (vec![0, 2, 0], "a:live b:live c:live".to_owned()));
    // A refusal arrives after they were called live.
    harness.subscriptions.refused_unnamed("too many", harness.now());
    assert_eq!(harness.deliveries(), "b:interrupted c:interrupted");
    harness.rounds();
    late(&mut harness);
    assert_eq!((harness.rounds(), harness.deliveries()), (vec![1], String::new()));
    harness.subscriptions.refused_unnamed("too many", harness.now());
    assert_eq!(
        (harness.rounds(), harness.deliveries()),
        (vec![0, 1], "b:interrupted".to_owned()),
        "interrupted because of this refusal"
    );
    late(&mut harness);
    assert_eq!(
        (harness.rounds(), harness.deliveries()),
        (vec![0, 1, 0], "b:live c:live".to_owned()),
        "requested again"
    );
}

#[test]
fn many_subjects_are_requested_in_rounds_and_a_listener_that_leaves_without_a_connection_is_removed_at_once()
{
    let mut harness = Harness::new();
    (0..150).for_each(|topic| harness.join('a', &topic.to_string()));
    assert_eq!(harness.rounds(), [64, 0, 64, 0, 22, 0]);
    let round = harness.begin();
    harness.subscriptions.lost(Some(round), &BusError::new("lost"));
    harness.deliveries();
    harness.leave('a');
    assert_eq!(harness.deliveries(), "a:ended");
}

#[test]
fn a_message_that_does_not_decode_is_delivered_to_one_listener() {
    let mut harness = Harness::new();
    ['a', 'b', 'c'].into_iter().for_each(|name| harness.join(name, "t"));
    harness.rounds();
    harness.deliveries();
    harness.subscriptions.route(1, Bytes::from_static(b"\xff"), &mut WakeList::new());
    assert_eq!(harness.deliveries(), "a:frame");
}
