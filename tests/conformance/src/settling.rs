//! A bus that reports the start and the end of each subscription with a delay.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use psrpc::bus::{Accepted, Bus, BusId, Delivery, Full, Lock, Monitor, Offer, Sink, Subscription, WakeList};
use psrpc::proto::Channel;
use psrpc::{Runtime, SubscriptionKind};

/// Wraps a bus that has several servers, such as a cluster of NATS or Redis. The other servers
/// learn of the start and the end of a subscription a moment after its own server, or forward
/// frames to it a moment later. The delay gives them time.
pub(crate) struct SettlingBus {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) runtime: Arc<dyn Runtime>,
    /// The time from the start or the end of a subscription to the report.
    pub(crate) delay: Duration,
}

/// A subscription, which is settling while its report is delayed.
struct Settling {
    runtime: Arc<dyn Runtime>,
    delay: Duration,
    state: Lock<State>,
}

struct State {
    /// `None` after the end.
    sink: Option<Sink>,
    /// The deliveries that wait for the delay to pass. `None` unless the subscription is settling.
    held: Option<Vec<Delivery>>,
}

impl Bus for SettlingBus {
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
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
        let settling = Arc::new(Settling {
            runtime: Arc::clone(&self.runtime),
            delay: self.delay,
            state: Lock::new(State { sink: Some(sink), held: None }),
        });
        let sink = Sink::new(move |delivery, wakes| settling.take(delivery, wakes));
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

impl Settling {
    fn take(self: &Arc<Self>, delivery: Delivery, wakes: &mut WakeList) {
        let mut state = self.state.lock();
        if let Some(held) = &mut state.held {
            held.push(delivery);
        } else if matches!(delivery, Delivery::Live | Delivery::Ended(None)) {
            state.held = Some(vec![delivery]);
            // Spawns the task after the caller has released its lock.
            wakes.push(Waker::from(Arc::clone(self)));
        } else {
            state.put(delivery, wakes);
        }
    }
}

impl Wake for Settling {
    fn wake(self: Arc<Self>) {
        let runtime = Arc::clone(&self.runtime);
        let settled = runtime.sleep_until(runtime.now().time + self.delay);
        // The runtime drops the task if it has shut down.
        let deliver = DeliverOnDrop(self);
        runtime.spawn(Box::pin(async move {
            let _deliver = deliver;
            settled.await;
        }));
    }
}

/// Ends the settling of a subscription when it is dropped.
struct DeliverOnDrop(Arc<Settling>);

impl Drop for DeliverOnDrop {
    fn drop(&mut self) {
        let mut wakes = WakeList::new();
        let mut state = self.0.state.lock();
        for delivery in state.held.take().unwrap_or_default() {
            state.put(delivery, &mut wakes);
        }
    }
}

impl State {
    fn put(&mut self, delivery: Delivery, wakes: &mut WakeList) {
        let Some(sink) = self.sink.take() else { return };
        match delivery {
            Delivery::Live => sink.live(wakes),
            Delivery::Frame(frame) => sink.deliver(frame, wakes),
            Delivery::Misrouted(frame) => sink.misrouted(frame, wakes),
            Delivery::Gap(lost) => sink.gap(lost, wakes),
            Delivery::Interrupted(cause) => sink.interrupted(cause, wakes),
            Delivery::Ended(Some(error)) => return sink.fail(error, wakes),
            Delivery::Ended(None) => return sink.end(wakes),
        }
        self.sink = Some(sink);
    }
}
