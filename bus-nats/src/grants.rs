//! What the server lets us publish on.
//!
//! NATS confirms no publish, and refuses one only in a message of its own, which names the subject. So the first frame
//! on a subject is told to be published once a round trip after it has brought no refusal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use psrpc::bus::Receipt;
use tokio::sync::watch;

use crate::link::Link;
use crate::shared::Shared;

/// How many subjects are remembered, of either kind; then all of them are forgotten.
const MOST: usize = 4096;

/// What the server lets us publish on, as far as is known.
#[derive(Default)]
pub(crate) struct Grants(Mutex<Known>);

#[derive(Default)]
struct Known {
    allowed: BTreeSet<Box<str>>,
    /// How many frames were refused whose receipts have not been told so.
    refused: BTreeMap<Box<str>, u64>,
}

impl Grants {
    pub(crate) fn is_allowed(&self, subject: &str) -> bool {
        self.lock().allowed.contains(subject)
    }

    /// A frame was refused.
    pub(crate) fn refuse(&self, subject: &str) {
        let mut known = self.lock();
        known.allowed.remove(subject);
        if known.refused.len() >= MOST {
            known.refused.clear();
        }
        *known.refused.entry(subject.into()).or_default() += 1;
    }

    /// Whether a frame is one of those that were refused; otherwise the subject is allowed.
    fn settle(&self, subject: &str) -> bool {
        let mut known = self.lock();
        if let Some(count) = known.refused.get_mut(subject) {
            *count -= 1;
            if *count == 0 {
                known.refused.remove(subject);
            }
            return true;
        }
        if known.allowed.len() >= MOST {
            known.allowed.clear();
        }
        known.allowed.insert(subject.into());
        false
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the receipts of frames that are on the socket, by subject, once it is known whether they were refused, or
/// never will.
pub(crate) async fn prove(
    shared: Arc<Shared>,
    mut link: watch::Receiver<Link>,
    frames: Vec<(async_nats::Subject, Receipt)>,
) {
    let known = tokio::select! {
        () = shared.echo.clone().round_trip() => true,
        _ = link.changed() => false,
    };
    for (subject, receipt) in frames {
        if known && shared.grants.settle(&subject) {
            receipt.failed(shared.refused(&subject).into());
        } else {
            receipt.published(None);
        }
    }
}
