//! The listeners of one channel, and whose turn it is among those of a queue.

use std::sync::Arc;

use psrpc::bus::{RoundRobin, Sink, WakeList};
use psrpc::proto::Frame;
use slab::Slab;

/// Who shares the messages of a subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// Nobody: each subscription gets all of them.
    Plain,
    /// The members of a queue group, by its name.
    Queue(Arc<str>),
}

/// The listeners of one channel.
#[derive(Default)]
pub(crate) struct Listeners {
    pub(crate) all: Slab<Listener>,
    /// Those of a queue that stay and know that they are live.
    pub(crate) turns: RoundRobin<usize>,
}

pub(crate) struct Listener {
    pub(crate) sink: Sink,
    pub(crate) told: Notified,
    /// Its key among the turns.
    pub(crate) turn: Option<usize>,
    pub(crate) leaves: bool,
}

/// What a listener knows of its subscription.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Notified {
    Nothing,
    Live,
    Interrupted,
}

impl Listeners {
    pub(crate) fn revive(&mut self, key: usize, group: &Group, wakes: &mut WakeList) {
        let listener = &mut self.all[key];
        if listener.leaves || listener.told == Notified::Live {
            return;
        }
        listener.told = Notified::Live;
        listener.sink.live(wakes);
        if *group != Group::Plain && listener.turn.is_none() {
            listener.turn = Some(self.turns.insert(key));
        }
    }

    pub(crate) fn deliver(&mut self, frame: Frame, group: &Group, wakes: &mut WakeList) {
        match group {
            Group::Plain => {
                let all = self.all.iter().map(|(_, listener)| listener);
                let mut told = all.filter(|listener| listener.told != Notified::Nothing);
                if let Some(first) = told.next() {
                    told.for_each(|listener| listener.sink.deliver(frame.clone(), wakes));
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

    /// Returns the listener whose turn it is; if nobody's, one that leaves gets what is on its way,
    /// and at last a newcomer what would be lost.
    fn next(&mut self) -> Option<&Listener> {
        if let Some(key) = self.turns.next_turn() {
            return self.all.get(*key);
        }
        let leaves =
            self.all.iter().find(|(_, listener)| listener.leaves && listener.told != Notified::Nothing);
        leaves.or_else(|| self.all.iter().next()).map(|(_, listener)| listener)
    }
}
