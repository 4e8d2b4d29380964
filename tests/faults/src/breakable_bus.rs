//! An in-process bus that can be broken and restored, to test the tests without a server.

use std::sync::{Arc, Weak};

use psrpc::bus::{
    Accepted, Bus, BusEvent, BusId, Delivery, Full, Lock, Monitor, Offer, Sink, Subscription, WakeList,
};
use psrpc::proto::Channel;
use psrpc::{BusError, Runtime, SubscriptionKind, Time};
use psrpc_bus_local::LocalBus;

/// A "server" that several [`BreakableBus`]es connect to.
#[derive(Clone, Default)]
pub struct BreakableServer(Arc<ServerState>);

#[derive(Default)]
struct ServerState {
    bus: LocalBus,
    clients: Lock<Vec<Weak<BusState>>>,
}

/// A connection to a [`BreakableServer`].
#[derive(Clone)]
pub struct BreakableBus(Arc<BusState>);

struct BusState {
    server: Arc<ServerState>,
    runtime: Arc<dyn Runtime>,
    monitor: Monitor,
    state: Lock<ConnectionState>,
}

#[derive(Default)]
struct ConnectionState {
    broken_since: Option<Time>,
    sinks: Vec<Weak<Sink>>,
}

impl BreakableServer {
    /// Returns a new connection.
    pub fn connect(&self, runtime: Arc<dyn Runtime>) -> BreakableBus {
        let (monitor, state) = (Monitor::new(), Lock::default());
        let bus = Arc::new(BusState { server: Arc::clone(&self.0), runtime, monitor, state });
        self.0.clients.lock().push(Arc::downgrade(&bus));
        BreakableBus(bus)
    }

    /// Breaks all connections.
    pub fn break_all(&self) {
        self.clients().iter().for_each(|client| client.break_connection());
    }

    /// Restores all connections.
    pub fn restore_all(&self) {
        self.clients().iter().for_each(|client| client.restore());
    }

    fn clients(&self) -> Vec<Arc<BusState>> {
        self.0.clients.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

impl BusState {
    fn break_connection(&self) {
        let (now, cause) = (self.runtime.now(), BusError::new("the connection was broken"));
        let mut wakes = WakeList::new();
        let sinks = {
            let mut state = self.state.lock();
            state.broken_since = Some(now.time);
            live(&mut state.sinks)
        };
        self.monitor.report(BusEvent::ConnectionLost { since: now.wall, cause: cause.clone() }, &mut wakes);
        sinks.iter().for_each(|sink| sink.interrupted(cause.clone(), &mut wakes));
    }

    fn restore(&self) {
        let now = self.runtime.now().time;
        let mut wakes = WakeList::new();
        let (since, sinks) = {
            let mut state = self.state.lock();
            (state.broken_since.take(), live(&mut state.sinks))
        };
        sinks.iter().for_each(|sink| sink.live(&mut wakes));
        let after = since.map_or_else(Default::default, |since| now.since(since));
        self.monitor.report(BusEvent::Reconnected { after }, &mut wakes);
    }

    fn is_broken(&self) -> bool {
        self.state.lock().broken_since.is_some()
    }
}

fn live(sinks: &mut Vec<Weak<Sink>>) -> Vec<Arc<Sink>> {
    sinks.retain(|sink| sink.strong_count() > 0);
    sinks.iter().filter_map(Weak::upgrade).collect()
}

impl Bus for BreakableBus {
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        if self.0.is_broken() {
            return Ok(Accepted::Failed(BusError::new("the connection was broken")));
        }
        self.0.server.bus.publish(offer, wakes)
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        let sink = Arc::new(sink);
        self.0.state.lock().sinks.push(Arc::downgrade(&sink));
        let bus = Arc::downgrade(&self.0);
        let gate = Sink::new(move |delivery, wakes| match delivery {
            Delivery::Live => sink.live(wakes),
            Delivery::Frame(frame) if bus.upgrade().is_some_and(|bus| !bus.is_broken()) => {
                sink.deliver(frame, wakes);
            }
            Delivery::Gap(lost) => sink.gap(lost, wakes),
            // Frames are lost while the connection is broken. The sink ends when it is dropped with
            // this closure. Interruptions do not happen within a process.
            _ => {}
        });
        self.0.server.bus.subscribe(channel, kind, gate, wakes)
    }

    fn monitor(&self) -> Option<&Monitor> {
        Some(&self.0.monitor)
    }

    fn id(&self) -> Option<BusId> {
        Some(BusId::of(&self.0))
    }
}
