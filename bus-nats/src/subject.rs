//! A subject: who listens to it here, on which channel, and how frames find them.

use std::collections::BTreeMap;

use bytes::Bytes;
use psrpc::SubscriptionKind;
use psrpc::bus::{Lock, LockGuard, Sink, Wakes};
use psrpc::proto::{Frame, FrameLimits};
use slab::Slab;
use tokio::sync::Notify;

use crate::error::Fault;

/// The longest subject: a server closes the connection over a line of 4,096 bytes.
const LONGEST: usize = 3_840;

/// Refuses what would be another subject on NATS than it seems, or none: ids of peers get here unchecked.
pub(crate) fn check(subject: &str) -> Result<(), Fault> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
    let problem = if subject.split('.').any(str::is_empty) {
        "has an empty part"
    } else if subject.contains(odd) {
        "has whitespace, a control character, `*` or `>` in it"
    } else if subject.len() > LONGEST {
        let start = subject.chars().take(60).collect::<String>() + "...";
        return Err(Fault::Subject(start, "is longer than 3,840 bytes"));
    } else {
        return Ok(());
    };
    Err(Fault::Subject(subject.to_owned(), problem))
}

/// A subject that is subscribed to in one of the two ways.
pub(crate) struct Subject {
    pub(crate) name: Box<str>,
    pub(crate) kind: SubscriptionKind,
    /// Wakes the subject's task when somebody leaves.
    pub(crate) changed: Notify,
    listeners: Lock<Listeners>,
}

struct Listeners {
    /// By the local names of their channels.
    channels: BTreeMap<Box<str>, Channel>,
    /// Whether the server has the subscription, as far as is known.
    live: bool,
    /// What the server and the client library number it by.
    sid: u64,
}

/// The listeners of a channel.
#[derive(Default)]
struct Channel {
    listeners: Slab<Listener>,
    /// The key of the queue's listener whose turn it is, or of one before it.
    turn: usize,
}

struct Listener {
    sink: Sink,
    /// Whether it was told that it is live.
    told: bool,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Stays,
    /// It wants to leave, and gets what was on its way to it by then.
    Leaves,
    /// It can go once the server has answered, and what came before the answer has been delivered.
    Goes,
}

impl Subject {
    pub(crate) fn new(name: &str, kind: SubscriptionKind) -> Self {
        let listeners = Listeners { channels: BTreeMap::new(), live: false, sid: 0 };
        Self { name: name.into(), kind, changed: Notify::new(), listeners: Lock::new(listeners) }
    }

    /// Adds a listener: while the connection is `up` it is live at once, if the subscription is.
    pub(crate) fn add(&self, channel: &str, sink: Sink, up: bool, wakes: &mut Wakes) -> usize {
        let mut listeners = self.lock();
        let told = listeners.live && up;
        if told {
            sink.live(wakes);
        }
        let listener = Listener { sink, told, stage: Stage::Stays };
        listeners.channels.entry(channel.into()).or_default().listeners.insert(listener)
    }

    /// Lets a listener leave; whether nobody else stays.
    pub(crate) fn leave(&self, channel: &str, key: usize) -> bool {
        let mut listeners = self.lock();
        let listener = listeners.channels.get_mut(channel).and_then(|channel| channel.listeners.get_mut(key));
        if let Some(listener) = listener {
            listener.stage = Stage::Leaves;
        }
        drop(listeners);
        self.changed.notify_one();
        self.is_deserted()
    }

    /// Whether nobody stays.
    pub(crate) fn is_deserted(&self) -> bool {
        !self.lock().all().any(|listener| listener.stage == Stage::Stays)
    }

    /// Whether nobody is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().channels.is_empty()
    }

    /// Whether a round trip is needed: those who want to leave go with it.
    pub(crate) fn begin(&self) -> bool {
        let mut listeners = self.lock();
        let mut needed = !listeners.live;
        for listener in listeners.all_mut().filter(|listener| listener.stage != Stage::Stays) {
            listener.stage = Stage::Goes;
            needed = true;
        }
        needed
    }

    /// The server has the subscription: those who wait hear it, the others of the `gap`, if there was one.
    pub(crate) fn live(&self, gap: bool) {
        let mut wakes = Wakes::new();
        let mut listeners = self.lock();
        listeners.live = true;
        for listener in listeners.all_mut().filter(|listener| listener.stage == Stage::Stays) {
            if !listener.told {
                listener.told = true;
                listener.sink.live(&mut wakes);
            } else if gap {
                listener.sink.gap(None, &mut wakes);
            }
        }
    }

    /// Drops those who go: all that came for them has been delivered. Whether nobody is left.
    pub(crate) fn gone(&self) -> bool {
        let mut wakes = Wakes::new();
        self.lock().remove(Stage::Goes, &mut wakes)
    }

    /// There is no connection, so whoever wants to leave has all that will come. Whether nobody is left.
    pub(crate) fn dim(&self) -> bool {
        let mut wakes = Wakes::new();
        let mut listeners = self.lock();
        listeners.live = false;
        listeners.remove(Stage::Leaves, &mut wakes) | listeners.remove(Stage::Goes, &mut wakes)
    }

    /// The subscription is lost for good, or its task has ended.
    pub(crate) fn fail(&self, fault: impl Fn() -> Fault) {
        let channels = std::mem::take(&mut self.lock().channels);
        for (_, mut channel) in channels {
            channel
                .listeners
                .drain()
                .for_each(|listener| listener.sink.fail(fault().into(), &mut Wakes::new()));
        }
        self.changed.notify_one();
    }

    /// What was lost on the way is missing for everybody.
    pub(crate) fn gap(&self) {
        let mut wakes = Wakes::new();
        self.lock().all().for_each(|listener| listener.sink.gap(None, &mut wakes));
    }

    pub(crate) fn sid(&self) -> u64 {
        self.lock().sid
    }

    pub(crate) fn set_sid(&self, sid: u64) {
        self.lock().sid = sid;
    }

    /// Hands a message to whom it is for.
    pub(crate) fn route(&self, message: Bytes, limits: &FrameLimits) {
        let decoded = Frame::decode(&message, limits);
        let mut wakes = Wakes::new();
        let mut listeners = self.lock();
        match decoded {
            Ok((frame, channel)) => match listeners.channels.get_mut(channel.as_str()) {
                Some(channel) => channel.deliver(frame, self.kind, &mut wakes),
                None if self.kind == SubscriptionKind::Queue => listeners.untaken(frame, &mut wakes),
                // Others get it too.
                None => {}
            },
            // It names no channel. One gets it, to count it: more would make a flood of such frames a larger one.
            Err(_) => {
                if let Some(listener) = listeners.anybody() {
                    listener.sink.deliver(Frame::Raw(message), &mut wakes);
                }
            }
        }
    }

    fn lock(&self) -> LockGuard<'_, Listeners> {
        self.listeners.lock()
    }
}

impl Listeners {
    fn all(&self) -> impl Iterator<Item = &Listener> {
        self.channels.values().flat_map(|channel| channel.listeners.iter().map(|(_, listener)| listener))
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Listener> {
        self.channels
            .values_mut()
            .flat_map(|channel| channel.listeners.iter_mut().map(|(_, listener)| listener))
    }

    /// Drops those at a stage, which ends their subscriptions; whether nobody is left.
    fn remove(&mut self, stage: Stage, wakes: &mut Wakes) -> bool {
        self.channels.retain(|_, channel| {
            let at_stage = |(key, listener): (usize, &Listener)| (listener.stage == stage).then_some(key);
            let keys: Vec<_> = channel.listeners.iter().filter_map(at_stage).collect();
            keys.into_iter().for_each(|key| channel.listeners.remove(key).sink.end(wakes));
            !channel.listeners.is_empty()
        });
        self.channels.is_empty()
    }

    /// Hands a frame that no channel takes to somebody who can say so.
    fn untaken(&self, frame: Frame, wakes: &mut Wakes) {
        if let Some(listener) = self.anybody() {
            listener.sink.untaken(frame, wakes);
        }
    }

    /// A listener of any channel: one that stays and knows that it is live, if there is any.
    fn anybody(&self) -> Option<&Listener> {
        self.all().min_by_key(|listener| (listener.stage != Stage::Stays, !listener.told))
    }
}

impl Channel {
    fn deliver(&mut self, frame: Frame, kind: SubscriptionKind, wakes: &mut Wakes) {
        match kind {
            SubscriptionKind::Plain => {
                let told =
                    self.listeners.iter().map(|(_, listener)| listener).filter(|listener| listener.told);
                let mut sinks = told.map(|listener| &listener.sink);
                if let Some(first) = sinks.next() {
                    sinks.for_each(|sink| sink.deliver(frame.clone(), wakes));
                    first.deliver(frame, wakes);
                }
            }
            SubscriptionKind::Queue => {
                if let Some(key) = self.next() {
                    self.listeners[key].sink.deliver(frame, wakes);
                }
            }
        }
    }

    /// Whose turn it is: of those who know that they are live and stay, if there is any.
    fn next(&mut self) -> Option<usize> {
        let ready = |(_, listener): &(usize, &Listener)| listener.told && listener.stage == Stage::Stays;
        let keys = || self.listeners.iter().filter(ready).map(|(key, _)| key);
        let next = keys().find(|key| *key >= self.turn).or_else(|| keys().next());
        let next = next.or_else(|| self.listeners.iter().next().map(|(key, _)| key))?;
        self.turn = next + 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn of_all_listeners_one_gets_what_does_not_decode() {
        for kind in [SubscriptionKind::Plain, SubscriptionKind::Queue] {
            let subject = Subject::new("SRV.Hats", kind);
            let count = Arc::new(AtomicUsize::new(0));
            for channel in ["Fit.REQ", "Fit.REQ", "Pick.REQ"] {
                let count = Arc::clone(&count);
                let sink = Sink::new(move |delivery, _| {
                    if let psrpc::bus::Delivery::Frame(Frame::Raw(_)) = delivery {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
                subject.add(channel, sink, true, &mut Wakes::new());
            }
            subject.live(false);
            subject.route(Bytes::from_static(b"\xff"), &FrameLimits::DEFAULT);
            assert_eq!(count.load(Ordering::Relaxed), 1, "{kind:?}");
        }
    }

    #[test]
    fn what_would_change_a_subject_is_refused() {
        for subject in
            ["", ".", "a.", ".a", "a..b", "a b", "a\t", "a\r\nPUB b", "a.*", "a.>", "a\u{0}", "a\u{a0}b"]
        {
            assert!(check(subject).is_err(), "{subject:?}");
        }
        assert!(check(&"a".repeat(LONGEST + 1)).unwrap_err().to_string().len() < 200);
        for subject in ["a", "SRV.Hats.u+00e9.Q", "CLI.Hats.CLI_é.RES", &"a".repeat(LONGEST)] {
            assert!(check(subject).is_ok(), "{subject:?}");
        }
    }
}
