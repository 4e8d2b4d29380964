//! A sink that records deliveries.

use std::sync::{Arc, Mutex};

use psrpc::bus::{Delivery, Sink};
use psrpc::proto::Frame;

/// The deliveries since the last count.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Delivery>>>);

/// The number of deliveries of each kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub frames: usize,
    pub raw: usize,
    pub misrouted: usize,
    pub gaps: usize,
}

impl Recorder {
    /// Creates a sink that records its deliveries.
    pub fn sink(&self) -> Sink {
        let recorder = self.clone();
        Sink::new(move |delivery, _| recorder.0.lock().expect("the lock is not poisoned").push(delivery))
    }

    /// Counts the deliveries and clears them.
    pub fn count(&self) -> Counts {
        let mut counts = Counts::default();
        for delivery in self.0.lock().expect("the lock is not poisoned").drain(..) {
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
