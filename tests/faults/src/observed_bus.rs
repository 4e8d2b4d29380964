//! A bus that shows every published frame to the ledger.

use std::sync::Arc;
use std::task::{Context, Poll};

use psrpc::SubscriptionKind;
use psrpc::bus::{Accepted, Bus, BusId, Full, Monitor, Offer, Sink, Subscription, WakeList};
use psrpc::proto::Channel;
use psrpc_simulation::judge::services::ledger::Ledger;

/// A wrapper that forwards everything to another bus.
#[derive(Clone)]
pub struct ObservedBus {
    bus: Arc<dyn Bus>,
    ledger: Ledger,
}

impl ObservedBus {
    /// Wraps `bus`. The ledger sees every frame before it is published.
    pub fn new(bus: Arc<dyn Bus>, ledger: Ledger) -> Self {
        Self { bus, ledger }
    }
}

impl Bus for ObservedBus {
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        self.ledger.frame_published(offer.frame());
        self.bus.publish(offer, wakes)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.bus.poll_ready(cx)
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        self.bus.subscribe(channel, kind, sink, wakes)
    }

    fn monitor(&self) -> Option<&Monitor> {
        self.bus.monitor()
    }

    fn is_in_process(&self) -> bool {
        self.bus.is_in_process()
    }

    fn id(&self) -> Option<BusId> {
        self.bus.id()
    }
}
