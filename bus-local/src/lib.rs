//! PSRPC's in-process bus: for tests, for a single process, and as the bus that is there when no
//! other is.
//!
//! Frames are handed over as they are, without encoding. PublishFuture delivers to every subscriber before it returns, in one
//! order for all. Each subscriber has its own bounded room ([`Sink`]), so one that is behind loses frames of its own,
//! counted, and delays nobody. Channels are told apart by their legacy names.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

use std::collections::BTreeMap;
use std::sync::Arc;

use psrpc::SubscriptionKind;
use psrpc::bus::{Accepted, Bus, BusId, Full, Lock, Offer, RoundRobin, Sink, Subscription, WakeList};
use psrpc::proto::{Channel, Frame};
use slab::Slab;

/// An in-process bus. Cheap to clone; all clones are one bus.
#[derive(Clone, Default)]
pub struct LocalBus(Arc<Lock<Channels>>);

/// The subscribers by the legacy name of their channel.
type Channels = BTreeMap<Box<str>, Subscribers>;

/// The subscribers of one channel.
#[derive(Default)]
struct Subscribers {
    plain: Slab<Sink>,
    queue: RoundRobin<Sink>,
}

impl LocalBus {
    /// Returns a new bus, separate from all others.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a new bus for the URL `local:` or `local`.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL has another scheme, or text after `local:`.
    pub fn from_url(url: &str) -> Result<Self, UrlError> {
        match url.split_once(':') {
            Some(("local", "")) => Ok(Self::new()),
            None if url == "local" => Ok(Self::new()),
            Some(("local", rest)) => Err(UrlError::Rest { url: url.to_owned(), rest: rest.to_owned() }),
            Some((scheme, _)) => Err(UrlError::Scheme { url: url.to_owned(), scheme: scheme.to_owned() }),
            None => Err(UrlError::NoScheme { url: url.to_owned() }),
        }
    }

    fn unsubscribe(&self, channel: &Channel, kind: SubscriptionKind, key: usize) {
        let mut wakes = WakeList::new();
        let mut channels = self.0.lock();
        let Some(subscribers) = channels.get_mut(channel.legacy()) else { return };
        // The end comes after all deliveries, because deliveries need the lock, too.
        if let Some(sink) = subscribers.remove(kind, key) {
            sink.end(&mut wakes);
        }
        if subscribers.plain.is_empty() && subscribers.queue.is_empty() {
            channels.remove(channel.legacy());
        }
    }
}

impl Bus for LocalBus {
    fn is_in_process(&self) -> bool {
        true
    }

    fn id(&self) -> Option<BusId> {
        Some(BusId::of(&self.0))
    }

    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        let mut channels = self.0.lock();
        let receivers = match channels.get_mut(offer.channel().legacy()) {
            Some(subscribers) => subscribers.deliver(offer.take(), wakes),
            None => {
                drop(offer.take());
                0
            }
        };
        Ok(Accepted::Done(Some(receivers)))
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        let mut channels = self.0.lock();
        sink.live(wakes);
        let key = channels.entry(channel.legacy().into()).or_default().insert(kind, sink);
        drop(channels);
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

    /// Delivers a frame to every plain subscriber and to one member of the queue. Returns the
    /// number of receivers.
    fn deliver(&mut self, frame: Frame, wakes: &mut WakeList) -> u64 {
        let queue = self.queue.next_turn();
        let receivers = self.plain.len() as u64 + u64::from(queue.is_some());
        let mut sinks = self.plain.iter().map(|(_, sink)| sink).chain(queue);
        if let Some(first) = sinks.next() {
            sinks.for_each(|sink| sink.deliver(frame.clone(), wakes));
            first.deliver(frame, wakes);
        }
        receivers
    }
}

impl std::fmt::Debug for LocalBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalBus").field("channels", &self.0.lock().len()).finish()
    }
}

/// The URL of a bus is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// The URL has no scheme.
    #[error("invalid bus URL {url:?}: the scheme is missing (expected `local:`)")]
    NoScheme {
        /// The URL.
        url: String,
    },
    /// The URL has the scheme of another bus, or an unknown one.
    #[error("invalid bus URL {url:?}: the scheme `{scheme}:` is not supported (expected `local:`)")]
    Scheme {
        /// The URL.
        url: String,
        /// The scheme.
        scheme: String,
    },
    /// The URL has text after `local:`.
    #[error("invalid bus URL {url:?}: unexpected {rest:?} after `local:`")]
    Rest {
        /// The URL.
        url: String,
        /// The text after the scheme.
        rest: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_urls_are_accepted() {
        let error = |url| LocalBus::from_url(url).unwrap_err().to_string();
        assert!(LocalBus::from_url("local:").is_ok() && LocalBus::from_url("local").is_ok());
        assert_eq!(
            error("redis://x"),
            "invalid bus URL \"redis://x\": the scheme `redis:` is not supported (expected `local:`)"
        );
        assert_eq!(error("here"), "invalid bus URL \"here\": the scheme is missing (expected `local:`)");
        assert_eq!(error("local://x"), "invalid bus URL \"local://x\": unexpected \"//x\" after `local:`");
    }
}
