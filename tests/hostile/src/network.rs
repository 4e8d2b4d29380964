//! A bus that behaves like one between processes.

use std::task::{Context, Poll};

use psrpc_bus_local::LocalBus;
use psrpc_tokio::SubscriptionKind;
use psrpc_tokio::bus::{Accepted, Bus, BusId, Full, Offer, Sink, Subscription, WakeList};
use psrpc_tokio::proto::Channel;

/// The in-process bus without the features for peers in one process, such as cancellation.
#[derive(Clone, Default)]
pub(crate) struct Network(LocalBus);

impl Bus for Network {
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        self.0.publish(offer, wakes)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_ready(cx)
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        self.0.subscribe(channel, kind, sink, wakes)
    }

    fn id(&self) -> Option<BusId> {
        self.0.id()
    }
}
