//! Subscriptions without a server.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use psrpc::WallTime;
use psrpc::bus::{Delivery, Inbox};
use psrpc::proto::Request;

use super::*;

const QUEUE: SubscriptionKind = SubscriptionKind::Queue;

struct Listening {
    name: char,
    id: Option<ListenerId>,
    inbox: Inbox,
}

/// Subscriptions without a server, and who listens, by name.
struct Scene {
    subscriptions: Arc<Subscriptions>,
    listening: Vec<Listening>,
    time: Time,
}

impl Scene {
    fn new() -> Self {
        Self::with(&NatsOptions::new())
    }

    fn with(options: &NatsOptions) -> Self {
        let subscriptions = Subscriptions::new("URL".to_owned(), options, Monitor::new(), Arc::default());
        subscriptions.connected();
        Self { subscriptions: Arc::new(subscriptions), listening: Vec::new(), time: Time::from_nanos(0) }
    }

    fn channel(topic: &str) -> Channel {
        Channel::request("Hats", "Fit", &[topic], true)
    }

    fn join(&mut self, name: char, topic: &str) {
        let (sink, inbox) = Inbox::new(10);
        let id = self.subscriptions.subscribe(&Self::channel(topic), QUEUE, sink, &mut WakeList::new());
        self.listening.push(Listening { name, id, inbox });
    }

    fn leave(&mut self, name: char) {
        let listening = self.listening.iter_mut().find(|listening| listening.name == name);
        let id = listening.and_then(|listening| listening.id.take()).expect("it listens");
        self.subscriptions.unsubscribe(id);
    }

    /// A round up to its round trip.
    fn begin(&self) -> Round {
        self.subscriptions.pass_time(self.time);
        let round = self.subscriptions.begin_round();
        round.asks.iter().for_each(|ask| self.subscriptions.asked(ask.id, None));
        round
    }

    /// Rounds until there is nothing to do. Returns how many subjects each asked for.
    fn rounds(&self) -> Vec<usize> {
        let mut asked = Vec::new();
        loop {
            let round = self.begin();
            if round.is_empty() {
                return asked;
            }
            asked.push(round.asks.len());
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

    /// What the listeners were told since somebody looked.
    fn told(&mut self) -> String {
        let mut told = Vec::new();
        for Listening { name, inbox, .. } in &mut self.listening {
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
fn live_listeners_that_stay_take_turns_and_others_get_a_frame_only_if_there_is_none() {
    let mut scene = Scene::new();
    scene.join('a', "t");
    let round = scene.begin();
    scene.frame("t");
    assert_eq!(scene.told(), "a:live a:frame", "a message proves it");
    scene.subscriptions.end_round(round, scene.time);
    scene.join('b', "t");
    (0..3).for_each(|_| scene.frame("t"));
    assert_eq!(scene.told(), "a:frame a:frame b:live b:frame");
    scene.leave('b');
    (0..2).for_each(|_| scene.frame("t"));
    scene.rounds();
    assert_eq!(scene.told(), "a:frame a:frame b:ended");
    scene.leave('a');
    scene.rounds();
    assert_eq!(scene.told(), "a:ended");
    assert!(scene.subscriptions.table.lock().subjects.is_empty());
}

#[test]
fn a_refusal_fails_newcomers_interrupts_the_others_once_and_heals() {
    let mut scene = Scene::new();
    scene.join('a', "t");
    assert_eq!((scene.rounds(), scene.told()), (vec![1, 0], "a:live".to_owned()));
    assert!(scene.refuse("t"), "it was live");
    scene.time = Time::from_nanos(1_000_000_000);
    assert_eq!((scene.rounds(), scene.told()), (vec![1, 0], "a:interrupted a:live".to_owned()));
    scene.time = Time::from_nanos(1_500_000_000);
    assert!(scene.refuse("t"), "it was live");
    scene.join('b', "t");
    let round = scene.begin();
    assert!(!scene.refuse("t"));
    scene.subscriptions.end_round(round, scene.time);
    assert_eq!(scene.told(), "a:interrupted b:failed");
    assert!(scene.rounds().iter().all(|asked| *asked == 0), "not before its time");
    scene.time = Time::from_nanos(2_500_000_000);
    assert_eq!((scene.rounds(), scene.told()), (vec![1, 0], "a:live".to_owned()));
    scene.subscriptions.lost(None, &BusError::new("lost"));
    assert_eq!(scene.told(), "a:interrupted");
    scene.subscriptions.connected();
    assert_eq!((scene.rounds(), scene.told()), (vec![1, 0], "a:live".to_owned()));
}

#[test]
fn of_a_refusal_without_a_name_each_is_asked_alone() {
    let mut scene = Scene::new();
    let late = |scene: &mut Scene| scene.time = scene.time + LATE;
    ["t", "u", "v"].into_iter().zip('a'..).for_each(|(topic, name)| scene.join(name, topic));
    let round = scene.begin();
    assert_eq!(round.asks.len(), 3);
    scene.subscriptions.end_round(round, scene.time);
    scene.subscriptions.refused_one("too many", scene.now());
    scene.subscriptions.refused_one("too many", scene.now());
    assert_eq!((scene.rounds(), scene.told()), (vec![0], String::new()), "the three depart");
    late(&mut scene);
    assert_eq!((scene.rounds(), scene.told()), (vec![1], String::new()), "its refusal may be late");
    late(&mut scene);
    assert_eq!((scene.rounds(), scene.told()), (vec![0, 2, 0], "a:live b:live c:live".to_owned()));
    // The word comes after they were called live.
    scene.subscriptions.refused_one("too many", scene.now());
    assert_eq!(scene.told(), "b:interrupted c:interrupted");
    scene.rounds();
    late(&mut scene);
    assert_eq!((scene.rounds(), scene.told()), (vec![1], String::new()));
    scene.subscriptions.refused_one("too many", scene.now());
    assert_eq!(
        (scene.rounds(), scene.told()),
        (vec![0, 1], "b:interrupted".to_owned()),
        "now for this reason"
    );
    late(&mut scene);
    assert_eq!(
        (scene.rounds(), scene.told()),
        (vec![0, 1, 0], "b:live c:live".to_owned()),
        "and is asked for again"
    );
}

#[test]
fn many_subjects_are_asked_for_in_rounds_and_who_leaves_while_there_is_no_connection_is_gone_at_once() {
    let mut scene = Scene::new();
    (0..150).for_each(|topic| scene.join('a', &topic.to_string()));
    assert_eq!(scene.rounds(), [64, 0, 64, 0, 22, 0]);
    let round = scene.begin();
    scene.subscriptions.lost(Some(round), &BusError::new("lost"));
    scene.told();
    scene.leave('a');
    assert_eq!(scene.told(), "a:ended");
}

#[test]
fn of_all_listeners_one_gets_what_does_not_decode() {
    let mut scene = Scene::new();
    ['a', 'b', 'c'].into_iter().for_each(|name| scene.join(name, "t"));
    scene.rounds();
    scene.told();
    scene.subscriptions.route(1, Bytes::from_static(b"\xff"), &mut WakeList::new());
    assert_eq!(scene.told(), "a:frame");
}
