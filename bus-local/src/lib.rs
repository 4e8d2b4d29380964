//! PSRPC's in-process bus: for tests, for a single process, and as the bus that is there when no other is.
//!
//! Frames are handed over as they are, without encoding. Publishing delivers to every subscriber before it returns, in one
//! order for all. Each subscriber has its own bounded room ([`Sink`]), so one that is behind loses frames of its own,
//! counted, and delays nobody. Channels are told apart by their legacy names.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
#[cfg(not(psrpc_shuttle))]
use std::sync::{Mutex, MutexGuard};

use psrpc::SubscriptionKind;
use psrpc::bus::{Bus, BusId, Full, Receipt, Sink, Subscription};
use psrpc::proto::{Channel, Frame};
#[cfg(psrpc_shuttle)]
use shuttle::sync::{Mutex, MutexGuard};
use slab::Slab;

/// An in-process bus. Cheap to clone; all clones are one bus.
#[derive(Clone, Default)]
pub struct LocalBus(Arc<Mutex<Channels>>);

/// By legacy name.
type Channels = BTreeMap<Box<str>, Subscribers>;

/// The subscribers of one channel.
#[derive(Default)]
struct Subscribers {
    plain: Slab<Sink>,
    queue: Queue,
}

/// The queue subscribers of one channel, which take turns: a ring, so that a turn costs the same however many there are.
#[derive(Default)]
struct Queue {
    members: Slab<Member>,
    /// Whose turn it is; anything when there is nobody.
    turn: usize,
}

struct Member {
    sink: Sink,
    /// Whose turn is before and after this one's.
    before: usize,
    after: usize,
}

impl LocalBus {
    /// A bus of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bus that a URL names: `local:`, or `local` for short, a bus of its own.
    ///
    /// # Errors
    ///
    /// When the URL has another scheme, or says more than `local:` can take.
    pub fn from_url(url: &str) -> Result<Self, UrlError> {
        match url.split_once(':') {
            Some(("local", "")) => Ok(Self::new()),
            None if url == "local" => Ok(Self::new()),
            Some(("local", rest)) => Err(UrlError::Rest { url: url.to_owned(), rest: rest.to_owned() }),
            Some((scheme, _)) => Err(UrlError::Scheme { url: url.to_owned(), scheme: scheme.to_owned() }),
            None => Err(UrlError::NoScheme { url: url.to_owned() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Channels> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsubscribe(&self, channel: &Channel, kind: SubscriptionKind, key: usize) {
        let mut channels = self.lock();
        let Some(subscribers) = channels.get_mut(channel.legacy()) else { return };
        let sink = subscribers.remove(kind, key);
        if subscribers.plain.is_empty() && subscribers.queue.members.is_empty() {
            channels.remove(channel.legacy());
        }
        // Its end comes after all that was delivered, since nothing can be while the lock is held.
        drop(sink);
    }
}

impl Bus for LocalBus {
    fn is_in_process(&self) -> bool {
        true
    }

    fn id(&self) -> Option<BusId> {
        Some(BusId::of(&self.0))
    }

    fn publish(&self, channel: &Channel, frame: Frame, receipt: Receipt) -> Result<(), Box<Full>> {
        let mut channels = self.lock();
        let receivers = match channels.get_mut(channel.legacy()) {
            Some(subscribers) => subscribers.deliver(frame),
            None => 0,
        };
        drop(channels);
        receipt.published(Some(receivers));
        Ok(())
    }

    fn subscribe(&self, channel: &Channel, kind: SubscriptionKind, sink: Sink) -> Subscription {
        let mut channels = self.lock();
        sink.live();
        let key = channels.entry(channel.legacy().into()).or_default().insert(kind, sink);
        let (bus, channel) = (self.clone(), channel.clone());
        Subscription::new(move || bus.unsubscribe(&channel, kind, key))
    }
}

impl Subscribers {
    fn insert(&mut self, kind: SubscriptionKind, sink: Sink) -> usize {
        match kind {
            SubscriptionKind::Plain => self.plain.insert(sink),
            SubscriptionKind::Queue => self.queue.insert(sink),
        }
    }

    fn remove(&mut self, kind: SubscriptionKind, key: usize) -> Option<Sink> {
        match kind {
            SubscriptionKind::Plain => self.plain.try_remove(key),
            SubscriptionKind::Queue => self.queue.remove(key),
        }
    }

    /// Hands a frame to every plain subscriber and to one of the queue; gives how many got it.
    fn deliver(&mut self, frame: Frame) -> u64 {
        let queue = self.queue.next();
        let receivers = self.plain.len() as u64 + u64::from(queue.is_some());
        let mut sinks = self.plain.iter().map(|(_, sink)| sink).chain(queue);
        if let Some(first) = sinks.next() {
            sinks.for_each(|sink| sink.deliver(frame.clone()));
            first.deliver(frame);
        }
        receivers
    }
}

impl Queue {
    /// Adds a member, whose turn comes after those of all others.
    fn insert(&mut self, sink: Sink) -> usize {
        let key = self.members.vacant_key();
        let after = if self.members.is_empty() { key } else { self.turn };
        let before = self.members.get(after).map_or(key, |member| member.before);
        self.members.insert(Member { sink, before, after });
        self.members[before].after = key;
        self.members[after].before = key;
        self.turn = after;
        key
    }

    fn remove(&mut self, key: usize) -> Option<Sink> {
        let Member { sink, before, after } = self.members.try_remove(key)?;
        if before != key {
            self.members[before].after = after;
            self.members[after].before = before;
        }
        if self.turn == key {
            self.turn = after;
        }
        Some(sink)
    }

    /// The member whose turn it is.
    fn next(&mut self) -> Option<&Sink> {
        let Member { sink, after, .. } = self.members.get(self.turn)?;
        self.turn = *after;
        Some(sink)
    }
}

impl std::fmt::Debug for LocalBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalBus").field("channels", &self.lock().len()).finish()
    }
}

/// A URL that names no bus of this kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It has no scheme.
    #[error("{url:?} is no bus URL: it has no scheme, such as `local:`")]
    NoScheme {
        /// The URL.
        url: String,
    },
    /// It has a scheme of another bus, or of none.
    #[error("{url:?}: no bus has the scheme `{scheme}:` here, only `local:`")]
    Scheme {
        /// The URL.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// It says more than `local:`.
    #[error("{url:?}: `local:` takes nothing after the colon, and here is {rest:?}")]
    Rest {
        /// The URL.
        url: String,
        /// What it says after the scheme.
        rest: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of the members in the order of their turns, once around.
    fn turns(queue: &mut Queue) -> Vec<usize> {
        (0..queue.members.len())
            .map(|_| {
                let turn = queue.turn;
                assert!(queue.next().is_some());
                turn
            })
            .collect()
    }

    #[test]
    fn members_of_a_queue_take_turns_whoever_joins_and_leaves() {
        let sink = || Sink::new(|_| ());
        let mut queue = Queue::default();
        assert!(queue.next().is_none());
        let [a, b, c] = [(); 3].map(|()| queue.insert(sink()));
        assert_eq!(turns(&mut queue), [a, b, c]);
        assert!(queue.next().is_some(), "that of a");
        let d = queue.insert(sink());
        assert_eq!(turns(&mut queue), [b, c, a, d]);
        assert!(queue.remove(c).is_some() && queue.remove(c).is_none());
        assert!(queue.remove(b).is_some(), "it was its turn");
        assert_eq!(turns(&mut queue), [a, d]);
        assert!(queue.remove(a).is_some() && queue.remove(d).is_some());
        assert!(queue.next().is_none());
        let again = queue.insert(sink());
        assert_eq!(turns(&mut queue), [again]);
    }

    #[test]
    fn only_local_urls_name_a_local_bus() {
        let error = |url| LocalBus::from_url(url).unwrap_err().to_string();
        assert!(LocalBus::from_url("local:").is_ok() && LocalBus::from_url("local").is_ok());
        assert_eq!(error("redis://x"), "\"redis://x\": no bus has the scheme `redis:` here, only `local:`");
        assert_eq!(error("here"), "\"here\" is no bus URL: it has no scheme, such as `local:`");
        assert_eq!(
            error("local://x"),
            "\"local://x\": `local:` takes nothing after the colon, and here is \"//x\""
        );
    }
}
