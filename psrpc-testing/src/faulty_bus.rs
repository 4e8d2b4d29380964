//! The fault-injecting bus.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use psrpc::bus::{
    Accepted, Bus, BusId, Delivery, Full, Lock, LockGuard, Monitor, Offer, Receipt, ReplyTo, Sink,
    Subscription, WakeList,
};
use psrpc::proto::{Channel, Frame};
use psrpc::{Runtime, SubscriptionKind};

use crate::catch::catch;
use crate::delay_queue::DelayQueue;
use crate::injected::Injected;
use crate::link::{Link, Subscriber};
use crate::rule::{Rule, RuleId, Rules};
use crate::waiting;

/// A bus that wraps another one and injects faults. Cheap to clone; all clones are one bus.
///
/// Without rules it behaves like the wrapped bus. A frame first passes the interceptor, then the
/// rules in the order of their injection. A copy made by a rule passes only the later rules. Frames
/// without a fault keep their order.
///
/// If the wrapped bus has no room for a frame, the frame waits and the faulty bus is [full](Full).
///
/// Interceptors and rules process a frame right after the call that published or delivered it, when
/// no lock of a client, a server or the wrapped bus is held. Filters of rules run under the lock of
/// this bus and must not use it. The interceptor of subscriptions runs under the lock of the client
/// or server that subscribes. It must not block, must not use the bus, a client or a server, and
/// may wake tasks only through the [`WakeList`]. If an interceptor panics, the frame is lost.
///
/// Queued frames are lost once all clones of the bus, and all clients, servers and subscriptions
/// that use it, are dropped. The background task that sends queued frames ends then, or when no
/// frames are left.
#[derive(Clone)]
pub struct FaultyBus(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) runtime: Arc<dyn Runtime>,
    state: Lock<FaultyBusState>,
}

pub(crate) struct FaultyBusState {
    rules: Rules,
    interceptors: Interceptors,
    injected: Injected,
    blocked: bool,
    /// The tasks waiting for room.
    waiting_for_room: Vec<Waker>,
    pub(crate) queue: DelayQueue,
    pub(crate) pump: PumpState,
    /// Publishes and deliveries that the interceptors and rules have not processed yet.
    arrivals: VecDeque<Arrival>,
    /// Whether a thread is processing `arrivals`.
    is_processing: bool,
}

/// The state of the pump.
#[derive(Default)]
pub(crate) enum PumpState {
    #[default]
    Idle,
    Running(Option<Waker>),
}

/// A publish or delivery that an interceptor or a rule may apply to.
enum Arrival {
    Publish(Channel, Frame, Receipt),
    Delivery(Arc<Subscriber>, Delivery),
}

#[derive(Clone, Default)]
struct Interceptors {
    publish: Option<Arc<PublishInterceptor>>,
    subscribe: Option<Arc<SubscribeInterceptor>>,
    delivery: Option<Arc<DeliveryInterceptor>>,
}

type PublishInterceptor = dyn Fn(&Channel, Frame, Receipt) -> Option<(Frame, Receipt)> + Send + Sync;
type SubscribeInterceptor =
    dyn Fn(&Channel, SubscriptionKind, Sink, &mut WakeList) -> Option<Sink> + Send + Sync;
type DeliveryInterceptor = dyn Fn(&Channel, Frame) -> Option<Frame> + Send + Sync;

impl FaultyBus {
    /// Returns a bus around `bus` without faults. It uses the clock of `runtime`. The faults depend
    /// only on the seed, the rules and the order of the frames.
    pub fn new(bus: impl Bus, runtime: impl Runtime, seed: u64) -> Self {
        let state = FaultyBusState {
            rules: Rules::new(seed),
            interceptors: Interceptors::default(),
            injected: Injected::default(),
            blocked: false,
            waiting_for_room: Vec::new(),
            queue: DelayQueue::default(),
            pump: PumpState::default(),
            arrivals: VecDeque::new(),
            is_processing: false,
        };
        Self(Arc::new(Shared { bus: Arc::new(bus), runtime: Arc::new(runtime), state: Lock::new(state) }))
    }

    /// Adds a rule after the existing ones.
    pub fn inject(&self, rule: Rule) -> RuleId {
        self.0.lock().rules.add(rule)
    }

    /// Removes a rule. Frames that it has delayed stay delayed.
    pub fn remove(&self, rule: RuleId) {
        let removed = self.0.lock().rules.remove(rule);
        drop(removed);
    }

    /// Removes all rules and interceptors, and [unblocks](Self::unblock) the bus.
    pub fn heal(&self) {
        let removed = {
            let mut state = self.0.lock();
            (state.rules.take(), std::mem::take(&mut state.interceptors))
        };
        drop(removed);
        self.unblock();
    }

    /// Makes the bus [full](Full): publishes find no room until [`unblock`](Self::unblock) is
    /// called.
    pub fn block(&self) {
        self.0.lock().blocked = true;
    }

    /// Makes room again after [`block`](Self::block).
    pub fn unblock(&self) {
        self.0.lock().blocked = false;
        self.0.wake_for_room();
    }

    /// Passes every frame to `interceptor` before it is published, with its receipt. The returned
    /// frame is published instead. If the interceptor returns `None`, it must report the result to
    /// the receipt. Replaces the previous interceptor.
    pub fn intercept_publish(
        &self,
        interceptor: impl Fn(&Channel, Frame, Receipt) -> Option<(Frame, Receipt)> + Send + Sync + 'static,
    ) {
        let replaced = self.0.lock().interceptors.publish.replace(Arc::new(interceptor));
        drop(replaced);
    }

    /// Passes the [`Sink`] of every new subscription to `interceptor`. The wrapped bus delivers to
    /// the returned sink instead. If the interceptor returns `None`, there is no subscription to
    /// the wrapped bus; the interceptor may refuse the subscription ([`Sink::fail`]) or fill the
    /// sink itself. Replaces the previous interceptor. Existing subscriptions are not affected.
    pub fn intercept_subscribe(
        &self,
        interceptor: impl Fn(&Channel, SubscriptionKind, Sink, &mut WakeList) -> Option<Sink>
        + Send
        + Sync
        + 'static,
    ) {
        let replaced = self.0.lock().interceptors.subscribe.replace(Arc::new(interceptor));
        drop(replaced);
    }

    /// Passes every frame to `interceptor` before it is delivered, once per subscriber. The
    /// returned frame is delivered instead. Replaces the previous interceptor.
    pub fn intercept_delivery(
        &self,
        interceptor: impl Fn(&Channel, Frame) -> Option<Frame> + Send + Sync + 'static,
    ) {
        let replaced = self.0.lock().interceptors.delivery.replace(Arc::new(interceptor));
        drop(replaced);
    }

    /// Returns the number of faults injected so far.
    pub fn injected(&self) -> Injected {
        self.0.lock().injected.clone()
    }
}

impl Bus for FaultyBus {
    fn is_in_process(&self) -> bool {
        self.0.bus.is_in_process()
    }

    fn id(&self) -> Option<BusId> {
        self.0.bus.id()
    }

    fn monitor(&self) -> Option<&Monitor> {
        self.0.bus.monitor()
    }

    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        let mut state = self.0.lock();
        if state.is_full() {
            state.injected.blocked += 1;
            return Err(Full);
        }
        if state.is_transparent() {
            drop(state);
            return self.0.bus.publish(offer, wakes);
        }
        let (channel, frame, receipt) = offer.take_for_later();
        state.arrivals.push_back(Arrival::Publish(channel, frame, receipt));
        wakes.push(Waker::from(Arc::clone(&self.0)));
        Ok(Accepted::Later)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.is_full() {
            waiting::register(&mut state.waiting_for_room, cx);
            return Poll::Pending;
        }
        drop(state);
        self.0.bus.poll_ready(cx)
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        let interceptor = self.0.lock().interceptors.subscribe.clone();
        let passed = match interceptor {
            Some(intercept) => catch(|| intercept(channel, kind, sink, wakes)).flatten(),
            None => Some(sink),
        };
        let Some(sink) = passed else { return Subscription::new(|| ()) };
        let subscriber = Arc::new(Subscriber::new(channel.clone(), sink));
        let shared = Arc::clone(&self.0);
        let sink = Sink::new(move |delivery, wakes| {
            let mut state = shared.lock();
            if state.is_transparent() {
                drop(state);
                return subscriber.put(delivery, wakes);
            }
            state.arrivals.push_back(Arrival::Delivery(Arc::clone(&subscriber), delivery));
            wakes.push(Waker::from(Arc::clone(&shared)));
        });
        self.0.bus.subscribe(channel, kind, sink, wakes)
    }
}

impl Wake for Shared {
    /// Processes the arrivals. Called when no lock is held.
    fn wake(self: Arc<Self>) {
        {
            let mut state = self.lock();
            if std::mem::replace(&mut state.is_processing, true) {
                return;
            }
        }
        loop {
            let mut state = self.lock();
            let Some(arrival) = state.arrivals.pop_front() else {
                state.is_processing = false;
                return;
            };
            drop(state);
            // A panic of a receipt or a waker must not stop the processing.
            let _ = catch(|| match arrival {
                Arrival::Publish(channel, frame, receipt) => self.on_publish(channel, frame, receipt),
                Arrival::Delivery(subscriber, Delivery::Frame(frame)) => self.on_delivery(&subscriber, frame),
                // Misrouted frames do not belong to the channel, so no rule applies.
                Arrival::Delivery(subscriber, other) => subscriber.put(other, &mut WakeList::new()),
            });
        }
    }
}

impl Interceptors {
    fn is_empty(&self) -> bool {
        self.publish.is_none() && self.delivery.is_none()
    }
}

impl Shared {
    fn on_publish(self: &Arc<Self>, channel: Channel, frame: Frame, receipt: Receipt) {
        let interceptor = self.lock().interceptors.publish.clone();
        let passed = match interceptor {
            Some(intercept) => catch(|| intercept(&channel, frame, receipt)).flatten(),
            None => Some((frame, receipt)),
        };
        if let Some((frame, receipt)) = passed {
            self.forward(Link::Bus(channel), frame, receipt);
        }
    }

    fn on_delivery(self: &Arc<Self>, subscriber: &Arc<Subscriber>, frame: Frame) {
        let interceptor = self.lock().interceptors.delivery.clone();
        let passed = match interceptor {
            Some(intercept) => catch(|| intercept(&subscriber.channel, frame)).flatten(),
            None => Some(frame),
        };
        if let Some(frame) = passed {
            let link = Link::Subscriber(Arc::clone(subscriber));
            self.forward(link, frame, ReplyTo::new(|_| ()).receipt());
        }
    }

    /// Applies the rules to a frame.
    fn forward(self: &Arc<Self>, link: Link, frame: Frame, receipt: Receipt) {
        let now = self.runtime.now().time;
        let mut locked = self.lock();
        let FaultyBusState { rules, queue, injected, .. } = &mut *locked;
        let copies = match rules.decide(&link, frame, injected) {
            Ok(copies) => copies,
            Err(error) => {
                drop(locked);
                return link.fail(error, receipt);
            }
        };
        if copies.is_empty() {
            drop(locked);
            return receipt.published(None);
        }
        let out = queue.enqueue(now, &link, copies, receipt, injected);
        drop(locked);
        self.send(out);
        self.pump();
    }

    /// Wakes the tasks waiting for room.
    pub(crate) fn wake_for_room(&self) {
        let waiting = std::mem::take(&mut self.lock().waiting_for_room);
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn lock(&self) -> LockGuard<'_, FaultyBusState> {
        self.state.lock()
    }
}

impl FaultyBusState {
    /// Returns `true` if frames pass directly to the wrapped bus.
    fn is_transparent(&self) -> bool {
        let is_idle = self.arrivals.is_empty() && !self.is_processing && self.queue.is_empty();
        is_idle && self.rules.is_empty() && self.interceptors.is_empty()
    }

    fn is_full(&self) -> bool {
        self.blocked || self.queue.has_backlog()
    }
}

impl std::fmt::Debug for FaultyBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyBus").field("injected", &self.injected()).finish_non_exhaustive()
    }
}
