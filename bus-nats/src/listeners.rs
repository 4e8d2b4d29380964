//! The listeners of one channel, and the order in which the listeners of a queue take turns.

use std::sync::Arc;

use psrpc::bus::{RoundRobin, Sink, WakeList};
use psrpc::proto::Frame;
use slab::Slab;

/// How the messages of a subject are shared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// Every subscription receives every message.
    Plain,
    /// One member of the queue group with this name receives each message.
    Queue(Arc<str>),
}

/// The listeners of one channel.
#[derive(Default)]
pub(crate) struct Listeners {
    pub(crate) all: Slab<Listener>,
    /// The listeners of a queue that are live and not leaving.
    pub(crate) turns: RoundRobin<usize>,
}

pub(crate) struct Listener {
    pub(crate) sink: Sink,
    pub(crate) state: ListenerState,
    /// The key of the listener in `turns`.
    pub(crate) turn: Option<usize>,
    pub(crate) leaving: bool,
}

/// The state of a listener's subscription, as reported to the listener.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum ListenerState {
    New,
    Live,
    Interrupted,
}

impl Listeners {
    pub(crate) fn mark_live(&mut self, key: usize, group: &Group, wakes: &mut WakeList) {
        let listener = &mut self.all[key];
        if listener.leaving || listener.state == ListenerState::Live {
            return;
        }
        listener.state = ListenerState::Live;
        listener.sink.live(wakes);
        if *group != Group::Plain && listener.turn.is_none() {
            listener.turn = Some(self.turns.insert(key));
        }
    }

    pub(crate) fn deliver(&mut self, frame: Frame, group: &Group, wakes: &mut WakeList) {
        match group {
            Group::Plain => {
                let all = self.all.iter().map(|(_, listener)| listener);
                let mut notified = all.filter(|listener| listener.state != ListenerState::New);
                if let Some(first) = notified.next() {
                    notified.for_each(|listener| listener.sink.deliver(frame.clone(), wakes));
                    first.sink.deliver(frame, wakes);
                }
            }
            Group::Queue(_) => {
                if let Some(listener) = self.next() {
                    listener.sink.deliver(frame, wakes);
                }
            }
        }
    }

    /// Returns the next listener of a queue. If no listener is active, prefers a leaving one, which
    /// is still entitled to frames, over a new one.
    fn next(&mut self) -> Option<&Listener> {
        if let Some(key) = self.turns.next_turn() {
            return self.all.get(*key);
        }
        let leaving =
            self.all.iter().find(|(_, listener)| listener.leaving && listener.state != ListenerState::New);
        leaving.or_else(|| self.all.iter().next()).map(|(_, listener)| listener)
    }
}
