//! A listener on a bus, which keeps what it is told.

use std::sync::{Arc, Mutex};

use psrpc::bus::{Delivery, Sink};
use psrpc::proto::Frame;

/// What a listener was told since somebody looked.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<Delivery>>>);

/// How often each thing was told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub frames: usize,
    pub raw: usize,
    pub misrouted: usize,
    pub gaps: usize,
}

impl Told {
    /// A sink that tells this.
    pub fn sink(&self) -> Sink {
        let told = self.clone();
        Sink::new(move |delivery, _| told.0.lock().expect("nobody panics with it").push(delivery))
    }

    /// Counts what was told, and forgets it.
    pub fn count(&self) -> Counts {
        let mut counts = Counts::default();
        for delivery in self.0.lock().expect("nobody panics with it").drain(..) {
            match delivery {
                Delivery::Frame(Frame::Raw(_)) => counts.raw += 1,
                Delivery::Frame(_) => counts.frames += 1,
                Delivery::Misrouted(_) => counts.misrouted += 1,
                Delivery::Gap(_) => counts.gaps += 1,
                Delivery::Live | Delivery::Interrupted(_) | Delivery::Ended(_) => {}
            }
        }
        counts
    }
}
