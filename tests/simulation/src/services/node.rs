//! A node: a machine of a simulated world, with the runtime and the bus for its clients and
//! servers.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use psrpc::bus::{Accepted, Bus, Full, Offer, Receipt, Sink, Subscription, WakeList};
use psrpc::proto::{Channel, Frame, Seed};
use psrpc::{BusError, Now, Runtime, SubscriptionKind, Task, Time};

use super::executor::{ExecutorState, NodeLife, ServiceRunEvent, Shared};
use crate::clock::Clock;
use crate::fault::Fault;
use crate::frame_text::FrameText;
use crate::net::PublishOutcome;
use crate::node_id::Peer;

/// A machine of a simulated [`World`](crate::World), with its own clocks, tasks and connection to
/// the bus. Clones refer to the same node.
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

    /// Returns the runtime for clients and servers of this node, with its clocks and tasks.
    pub fn runtime(&self) -> NodeRuntime {
        NodeRuntime { shared: Arc::clone(&self.shared), home: self.home() }
    }

    /// Returns the bus for clients and servers of this node.
    pub fn bus(&self) -> NodeBus {
        NodeBus { shared: Arc::clone(&self.shared), home: self.home() }
    }

    /// Runs a future as a task of this node. The task is slow, pauses and crashes with the node.
    ///
    /// The returned [`Job`] resolves to the output, or to `None` if the node crashes first.
    /// Dropping the job does not stop the task.
    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Job<T> {
        let guard = EndGuard(Arc::new(Mutex::new(JobState { result: None, ended: false, waker: None })));
        let job = Job(Arc::clone(&guard.0));
        let task = async move {
            let result = future.await;
            guard.0.lock().unwrap_or_else(PoisonError::into_inner).result = Some(result);
        };
        self.shared.spawn(self.home(), Box::pin(task));
        job
    }

    // --- faults ----------------------------------------------------------------------------------

    /// Makes each step of this node's tasks take this long, from the wake-up of the task. Zero
    /// restores full speed.
    pub fn slow(&self, step: Duration) {
        self.change(|state, node| state.nodes[node].slowness = step);
    }

    /// Pauses the node: its clocks run on and frames arrive, but none of its tasks runs.
    pub fn pause(&self, duration: Duration) {
        self.change(|state, node| {
            state.scene.faults.count(Fault::Pause);
            state.pause(node, state.scene.now() + duration);
        });
    }

    /// Crashes the node: drops its tasks and subscriptions without a graceful shutdown.
    ///
    /// Clients and servers that are created on the node afterwards belong to the restarted machine.
    /// Remaining clients and servers from before the crash have no effect any more.
    pub fn crash(&self) {
        self.change(|state, _| state.scene.faults.count(Fault::Crash));
        self.shared.crash(self.node);
    }

    /// Holds up frames to this node. They arrive all at once after `duration`.
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
            state.nodes[node].clock.jump_nanos += nanos;
        });
    }

    fn change(&self, change: impl FnOnce(&mut ExecutorState, usize)) {
        change(&mut self.shared.lock(), self.node);
    }

    // --- for the simulator itself ----------------------------------------------------------------

    pub(super) fn peer(&self) -> Peer {
        Peer(self.node)
    }

    /// Returns the index of the node in its world.
    pub(crate) fn number(&self) -> usize {
        self.node
    }

    /// Undoes all jumps of the wall clock.
    pub(crate) fn undo_jumps(&self) {
        self.change(|state, node| state.nodes[node].clock.undo_jumps());
    }

    /// Returns `true` if the node has, or had, a live or refused subscription to a channel whose
    /// name contains `channel`.
    pub(crate) fn has_been_subscribed(&self, channel: &str) -> bool {
        self.shared.lock().net.was_activated(self.peer(), channel)
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

/// A handle to a [spawned](Node::spawn) task. It resolves to the output of the task, or to `None`
/// if the node crashes first.
#[must_use = "the task runs even if the job is not awaited; bind the job to `_` to ignore it"]
pub struct Job<T>(Arc<Mutex<JobState<T>>>);

struct JobState<T> {
    result: Option<T>,
    ended: bool,
    waker: Option<Waker>,
}

/// Resolves the [`Job`] of a task when dropped, whether or not the task has completed.
struct EndGuard<T>(Arc<Mutex<JobState<T>>>);

impl<T> Drop for EndGuard<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.ended = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Job<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            return Poll::Ready(state.result.take());
        }
        let replaced = state.waker.replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl<T> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

/// The runtime of a [`Node`], with the clocks of the node and the tasks of the world.
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
            // Beyond the range of the clocks.
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

/// The bus of a world, as one [`Node`] is connected to it.
///
/// Nodes stand for separate processes, so this is not an in-process bus: clients send no
/// cancellations, and two servers registered for one single-server topic are not detected.
#[derive(Clone)]
pub struct NodeBus {
    shared: Arc<Shared>,
    home: NodeLife,
}

impl NodeBus {
    /// Returns `true` if a test wants to lose this frame.
    fn is_lost(&self, channel: &Channel, frame: &Frame) -> bool {
        // Called without the lock, since the predicate may use the world.
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
            // The node has crashed.
            None => return Ok(Accepted::Failed(BusError::new("the node has crashed"))),
            Some(true) => return Err(Full),
            Some(false) => {}
        }
        let (channel, frame, receipt) = offer.take_for_later();
        let lost = self.is_lost(&channel, &frame);
        let mut state = self.shared.lock();
        state.publish(self.home, &channel, &frame, receipt, lost);
        // Called without the lock, since the callback may use the world.
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
        let subscriber = state.subscriber();
        let ExecutorState { scene, net, nodes, sinks, .. } = &mut *state;
        let name = Arc::clone(&nodes[self.home.node].name);
        scene.log(name, format_args!("subscribes to {channel} ({kind:?})"));
        scene.hash().word(1);
        let id = net.subscribe(scene, self.home.peer(), subscriber, channel, kind);
        sinks.insert(subscriber, Arc::new(sink));
        drop(state);
        let (shared, home) = (Arc::clone(&self.shared), self.home);
        Subscription::new(move || {
            let state = &mut *shared.lock();
            if state.is_alive(home) && state.net.subscriber(id).is_some() {
                state.scene.hash().word(2);
                state.net.unsubscribe(&mut state.scene, id);
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
    /// Returns `true` if the bus has no room for a frame of a node. Draws whether it becomes full
    /// now.
    fn is_full(&mut self, node: usize) -> bool {
        let now = self.scene.now();
        if self.nodes[node].full.is_some_and(|until| until > now) {
            return true;
        }
        let Some(delay) = self.net.draw_full_bus(&mut self.scene) else { return false };
        self.scene.schedule_after(delay, ServiceRunEvent::Room(node));
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
            PublishOutcome { delay: Duration::ZERO, result: Ok(None) }
        } else {
            net.publish(scene, home.peer(), channel.legacy(), frame)
        };
        scene.schedule_after(published.delay, ServiceRunEvent::Published(receipt, published.result));
    }
}
