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

/// A bus with faults, around another. Cheap to clone; all clones are one bus.
///
/// Without rules it does what the wrapped bus does. A frame first meets the interceptor, then the
/// rules in the order in which they were injected; a copy that one makes meets the later ones by
/// itself. Frames that suffer no fault keep their order.
///
/// A frame that a rule or an interceptor let pass, and for which the wrapped bus has no room, waits
/// for it; the faulty bus is [full](Full) meanwhile.
///
/// Interceptors and rules run right after the publish or delivery that they look at. No lock of a client, a server or the
/// wrapped bus is held then. The filters of rules run under the lock of this bus, and must not use it. The interceptor of
/// subscriptions runs within the subscription, under a lock of the client: it must neither wait, nor use the bus, a client or
/// a server, nor wake a task but by the [`WakeList`]. A frame is lost if an interceptor panics.
///
/// When the last clone is dropped, and every client, server and subscription that uses it, the
/// frames that it holds are lost; the task in the background that sends them ends then, or when
/// there are none.
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
    /// Who waits for room.
    waiting_for_room: Vec<Waker>,
    pub(crate) queue: DelayQueue,
    pub(crate) pump: PumpState,
    /// What has come in and was not looked at yet.
    arrivals: VecDeque<Arrival>,
    /// Whether a thread looks at arrivals.
    is_looking: bool,
}

/// Whether there is a pump, and what wakes it.
#[derive(Default)]
pub(crate) enum PumpState {
    #[default]
    Idle,
    Running(Option<Waker>),
}

/// Something that a rule or an interceptor may have to look at.
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
    /// A bus without faults yet, around `bus`. It waits by `runtime`, and draws by `seed`: same
    /// seed, same rules and same order of frames, same faults.
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
            is_looking: false,
        };
        Self(Arc::new(Shared { bus: Arc::new(bus), runtime: Arc::new(runtime), state: Lock::new(state) }))
    }

    /// Puts a rule into effect, after those that are.
    pub fn inject(&self, rule: Rule) -> RuleId {
        self.0.lock().rules.add(rule)
    }

    /// Takes a rule out of effect; frames that it made late stay so.
    pub fn remove(&self, rule: RuleId) {
        let removed = self.0.lock().rules.remove(rule);
        drop(removed);
    }

    /// Takes every rule and interceptor out of effect, and [unblocks](Self::unblock).
    pub fn heal(&self) {
        let removed = {
            let mut state = self.0.lock();
            (state.rules.take(), std::mem::take(&mut state.interceptors))
        };
        drop(removed);
        self.unblock();
    }

    /// There is no room for anything that is published from here on, as on a bus that is
    /// [full](Full).
    pub fn block(&self) {
        self.0.lock().blocked = true;
    }

    /// There is room again.
    pub fn unblock(&self) {
        self.0.lock().blocked = false;
        self.0.wake_for_room();
    }

    /// Every frame is handed to `interceptor`, with its receipt, before it is published; what that
    /// gives back is published instead. The interceptor has to report what became of a frame
    /// that it keeps. It replaces the one before.
    pub fn intercept_publish(
        &self,
        interceptor: impl Fn(&Channel, Frame, Receipt) -> Option<(Frame, Receipt)> + Send + Sync + 'static,
    ) {
        let replaced = self.0.lock().interceptors.publish.replace(Arc::new(interceptor));
        drop(replaced);
    }

    /// Every subscription is handed to `interceptor` before it is made, as the [`Sink`] that it is
    /// to fill; what that gives back is filled instead. A sink that it keeps is no subscription
    /// of the wrapped bus: the interceptor may refuse it ([`Sink::fail`]), or play the bus. It
    /// replaces the one before; subscriptions that are there stay.
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

    /// Every frame is handed to `interceptor` before it is delivered, once for each subscriber;
    /// what that gives back is delivered instead. It replaces the one before.
    pub fn intercept_delivery(
        &self,
        interceptor: impl Fn(&Channel, Frame) -> Option<Frame> + Send + Sync + 'static,
    ) {
        let replaced = self.0.lock().interceptors.delivery.replace(Arc::new(interceptor));
        drop(replaced);
    }

    /// What was done so far.
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
            waiting::wait(&mut state.waiting_for_room, cx);
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
    /// Looks at what has come in, once no lock is held.
    fn wake(self: Arc<Self>) {
        {
            let mut state = self.lock();
            if std::mem::replace(&mut state.is_looking, true) {
                return;
            }
        }
        loop {
            let mut state = self.lock();
            let Some(arrival) = state.arrivals.pop_front() else {
                state.is_looking = false;
                return;
            };
            drop(state);
            // A receipt or a waker that panics must not keep the others from being looked at.
            let _ = catch(|| match arrival {
                Arrival::Publish(channel, frame, receipt) => self.on_publish(channel, frame, receipt),
                Arrival::Delivery(subscriber, Delivery::Frame(frame)) => self.on_delivery(&subscriber, frame),
                // A frame that nobody took is none of this channel's.
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

    /// Does to a frame what the rules say.
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

    /// WakeList those who wait for room, who look for themselves whether there is any.
    pub(crate) fn wake_for_room(&self) {
        let waiting = std::mem::take(&mut self.lock().waiting_for_room);
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn lock(&self) -> LockGuard<'_, FaultyBusState> {
        self.state.lock()
    }
}

impl FaultyBusState {
    /// Whether frames pass as if this bus was not there.
    fn is_transparent(&self) -> bool {
        let is_idle = self.arrivals.is_empty() && !self.is_looking && self.queue.is_empty();
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
