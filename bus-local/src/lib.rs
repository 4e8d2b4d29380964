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
    /// They take turns.
    queue: Slab<Sink>,
    /// The key of the queue subscriber whose turn it is, or of one before it.
    turn: usize,
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
        let sink = subscribers.of(kind).try_remove(key);
        if subscribers.plain.is_empty() && subscribers.queue.is_empty() {
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
        let key = channels.entry(channel.legacy().into()).or_default().of(kind).insert(sink);
        let (bus, channel) = (self.clone(), channel.clone());
        Subscription::new(move || bus.unsubscribe(&channel, kind, key))
    }
}

impl Subscribers {
    fn of(&mut self, kind: SubscriptionKind) -> &mut Slab<Sink> {
        match kind {
            SubscriptionKind::Plain => &mut self.plain,
            SubscriptionKind::Queue => &mut self.queue,
        }
    }

    /// Hands a frame to every plain subscriber and to one of the queue; gives how many got it.
    fn deliver(&mut self, frame: Frame) -> u64 {
        let queue = self.next_of_queue();
        let receivers = self.plain.len() as u64 + u64::from(queue.is_some());
        let mut sinks = self.plain.iter().map(|(_, sink)| sink).chain(queue.map(|key| &self.queue[key]));
        if let Some(first) = sinks.next() {
            sinks.for_each(|sink| sink.deliver(frame.clone()));
            first.deliver(frame);
        }
        receivers
    }

    fn next_of_queue(&mut self) -> Option<usize> {
        let mut keys = self.queue.iter().map(|(key, _)| key);
        let first = keys.next()?;
        let next = [first].into_iter().chain(keys).find(|key| *key >= self.turn).unwrap_or(first);
        self.turn = next + 1;
        Some(next)
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
