//! A node: a machine of a simulated world, with the runtime and the bus that clients and servers on
//! it are given.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use psrpc::bus::{Accepted, Bus, Full, Offer, Receipt, Sink, Subscription, WakeList};
use psrpc::proto::{Channel, Frame, Seed};
use psrpc::{BusError, Now, Runtime, SubscriptionKind, Task, Time};

use super::executor::{ExecutorState, NodeLife, ServiceHappening, Shared};
use crate::clock::Clock;
use crate::fault::Fault;
use crate::frame_text::FrameText;
use crate::net::Published;
use crate::node_id::Peer;

/// A machine of a simulated [`World`](crate::World): clocks, tasks and a connection to the bus of
/// its own. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
    node: usize,
}

impl Node {
    pub(super) fn new(shared: Arc<Shared>, name: String, clock: Clock) -> Self {
        let node = shared.lock().add_node(name, clock);
        Self { shared, node }
    }

    /// What clients and servers of this node run on: its clocks, and the tasks of the world.
    pub fn runtime(&self) -> NodeRuntime {
        NodeRuntime { shared: Arc::clone(&self.shared), home: self.home() }
    }

    /// What clients and servers of this node publish and subscribe with.
    pub fn bus(&self) -> NodeBus {
        NodeBus { shared: Arc::clone(&self.shared), home: self.home() }
    }

    /// Runs a future as a task of this node, so that it is slow, pauses and crashes with it. It
    /// runs on when what is given back is dropped, which resolves with its result; with `None`
    /// when the node crashes before.
    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Job<T> {
        let ending = Ending(Arc::new(Mutex::new(Ended { result: None, over: false, waker: None })));
        let job = Job(Arc::clone(&ending.0));
        let task = async move {
            let result = future.await;
            ending.0.lock().unwrap_or_else(PoisonError::into_inner).result = Some(result);
        };
        self.shared.spawn(self.home(), Box::pin(task));
        job
    }

    // --- faults ----------------------------------------------------------------------------------

    /// From here on each step of its tasks takes so long, from what wakes the task on; zero to undo
    /// it.
    pub fn slow(&self, step: Duration) {
        self.change(|state, node| state.nodes[node].slowness = step);
    }

    /// Stops it for so long: its clocks go on and frames come in, but none of its tasks runs.
    pub fn pause(&self, duration: Duration) {
        self.change(|state, node| {
            state.scene.faults.count(Fault::Pause);
            state.pause(node, state.scene.now() + duration);
        });
    }

    /// Ends all that runs on it from one moment to the next: nobody hears a goodbye. Clients and
    /// servers that are started on it afterwards are those of the machine after a restart; what
    /// was left of those before does nothing any more.
    pub fn crash(&self) {
        self.change(|state, _| state.scene.faults.count(Fault::Crash));
        self.shared.crash(self.node);
    }

    /// Holds up what is published to it from here on; it comes all at once after that time.
    pub fn clog(&self, duration: Duration) {
        let peer = self.peer();
        self.change(|state, _| state.net.clog(peer, state.scene.now() + duration));
    }

    /// Sets its wall clock ahead.
    pub fn jump_ahead(&self, duration: Duration) {
        self.jump(nanos(duration));
    }

    /// Sets its wall clock back.
    pub fn jump_back(&self, duration: Duration) {
        self.jump(-nanos(duration));
    }

    fn jump(&self, nanos: i64) {
        self.change(|state, node| {
            state.scene.faults.count(Fault::ClockJump);
            state.nodes[node].clock.jumped += nanos;
        });
    }

    fn change(&self, change: impl FnOnce(&mut ExecutorState, usize)) {
        change(&mut self.shared.lock(), self.node);
    }

    // --- the simulator's own ---------------------------------------------------------------------

    pub(super) fn peer(&self) -> Peer {
        Peer(self.node)
    }

    /// Its place among the nodes of the world.
    pub(crate) fn number(&self) -> usize {
        self.node
    }

    /// Has its wall clock be where it would be had it never jumped.
    pub(crate) fn undo_jumps(&self) {
        self.change(|state, node| state.nodes[node].clock.set_right());
    }

    /// Whether the bus has made a subscription of it live, or ended it, to a channel that this is
    /// in the name of.
    pub(crate) fn has_been_subscribed(&self, channel: &str) -> bool {
        self.shared.lock().net.has_joined(self.peer(), channel)
    }

    fn home(&self) -> NodeLife {
        NodeLife { node: self.node, life: self.shared.lock().nodes[self.node].life }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.shared.lock().nodes[self.node].name).finish()
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The result to come of what was [spawned](Node::spawn).
#[must_use = "it runs whether it is awaited or not; bind it to `_` if nobody waits"]
pub struct Job<T>(Arc<Mutex<Ended<T>>>);

struct Ended<T> {
    result: Option<T>,
    over: bool,
    waker: Option<Waker>,
}

/// Tells that a task has ended when it is dropped, done or not.
struct Ending<T>(Arc<Mutex<Ended<T>>>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        let waker = {
            let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            ended.over = true;
            ended.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Job<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.over {
            return Poll::Ready(ended.result.take());
        }
        let replaced = ended.waker.replace(cx.waker().clone());
        drop(ended);
        drop(replaced);
        Poll::Pending
    }
}

impl<T> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

/// The runtime of a [`Node`]: virtual time by the node's clocks, and the tasks of the world.
#[derive(Clone)]
pub struct NodeRuntime {
    shared: Arc<Shared>,
    home: NodeLife,
}

impl Runtime for NodeRuntime {
    fn now(&self) -> Now {
        let state = self.shared.lock();
        state.nodes[self.home.node].clock.at(state.scene.now())
    }

    fn seed(&self) -> Seed {
        self.shared.lock().rng.seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        let at = {
            let state = self.shared.lock();
            let clock = &state.nodes[self.home.node].clock;
            // Beyond what clocks can show.
            if deadline.since(clock.at(state.scene.now()).time) > Duration::from_secs(1 << 32) {
                return Box::pin(std::future::pending());
            }
            clock.virtual_time(deadline)
        };
        let mut sleep = Shared::sleep_until(&self.shared, at);
        Box::pin(poll_fn(move |cx| sleep.poll(cx)))
    }

    fn spawn(&self, task: Task) {
        self.shared.spawn(self.home, task);
    }
}

impl fmt::Debug for NodeRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeRuntime").finish_non_exhaustive()
    }
}

/// The bus of a world, as a [`Node`] is connected to it.
///
/// Nodes stand for processes of their own: it hands nothing over within the process, and two
/// servers are not noticed that serve what one alone should.
#[derive(Clone)]
pub struct NodeBus {
    shared: Arc<Shared>,
    home: NodeLife,
}

impl NodeBus {
    /// Whether this frame is one that a test wants to be lost.
    fn is_lost(&self, channel: &Channel, frame: &Frame) -> bool {
        // Out of the lock, since the test may look at the world.
        let mut losses = std::mem::take(&mut self.shared.lock().losses);
        let loss =
            losses.iter_mut().find_map(|loss| (loss.matches)(channel, frame).then_some(&mut loss.left));
        let lost = loss.map(|left| *left -= 1).is_some();
        losses.retain(|loss| loss.left > 0);
        let state = &mut *self.shared.lock();
        losses.append(&mut state.losses);
        state.losses = losses;
        lost
    }
}

impl Bus for NodeBus {
    fn publish(&self, offer: Offer<'_>, _: &mut WakeList) -> Result<Accepted, Full> {
        let full = {
            let state = &mut *self.shared.lock();
            if !state.is_alive(self.home) { None } else { Some(state.is_full(self.home.node)) }
        };
        match full {
            // Its node is gone, and hears nothing.
            None => return Ok(Accepted::Failed(BusError::new("the node is gone"))),
            Some(true) => return Err(Full),
            Some(false) => {}
        }
        let (channel, frame, receipt) = offer.take_for_later();
        let lost = self.is_lost(&channel, &frame);
        let mut state = self.shared.lock();
        state.publish(self.home, &channel, &frame, receipt, lost);
        // Its owner may be the simulator itself, which looks at the world then.
        let Some(mut tap) = state.tap.take() else { return Ok(Accepted::Later) };
        drop(state);
        tap(&frame);
        self.shared.lock().tap = Some(tap);
        Ok(Accepted::Later)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        let now = state.scene.now();
        let node = &mut state.nodes[self.home.node];
        if node.full.is_none_or(|until| until <= now) {
            return Poll::Ready(());
        }
        if !node.waiting_for_room.iter().any(|known| known.will_wake(cx.waker())) {
            node.waiting_for_room.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        let mut state = self.shared.lock();
        if !state.is_alive(self.home) {
            drop(state);
            sink.end(wakes);
            return Subscription::new(|| {});
        }
        let inlet = state.inlet();
        let ExecutorState { scene, net, nodes, sinks, .. } = &mut *state;
        let name = Arc::clone(&nodes[self.home.node].name);
        scene.log(name, format_args!("subscribes to {channel} ({kind:?})"));
        scene.hash().word(1);
        let place = net.subscribe(scene, self.home.peer(), inlet, channel, kind);
        sinks.insert(inlet, Arc::new(sink));
        drop(state);
        let (shared, home) = (Arc::clone(&self.shared), self.home);
        Subscription::new(move || {
            let state = &mut *shared.lock();
            if state.is_alive(home) && state.net.subscriber(place).is_some() {
                state.scene.hash().word(2);
                state.net.unsubscribe(&mut state.scene, place);
            }
        })
    }
}

impl fmt::Debug for NodeBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBus").finish_non_exhaustive()
    }
}

impl ExecutorState {
    /// Whether the bus has no room for a frame of a node; it may be full from this one on.
    fn is_full(&mut self, node: usize) -> bool {
        let now = self.scene.now();
        if self.nodes[node].full.is_some_and(|until| until > now) {
            return true;
        }
        let Some(delay) = self.net.full_for(&mut self.scene) else { return false };
        self.scene.after(delay, ServiceHappening::Room(node));
        self.nodes[node].full = Some(now + delay);
        true
    }

    fn publish(&mut self, home: NodeLife, channel: &Channel, frame: &Frame, receipt: Receipt, lost: bool) {
        let Self { scene, net, nodes, .. } = self;
        let name = Arc::clone(&nodes[home.node].name);
        scene.log(name, format_args!("publishes {} on {channel}", FrameText(frame)));
        scene.hash().word(home.node as u64);
        scene.hash().frame(frame);
        let published = if lost {
            scene.faults.count(Fault::Drop);
            scene.log("bus", format_args!("lost: {}", FrameText(frame)));
            Published { after: Duration::ZERO, result: Ok(None) }
        } else {
            net.publish(scene, home.peer(), channel.legacy(), frame)
        };
        scene.after(published.after, ServiceHappening::Published(receipt, published.result));
    }
}
