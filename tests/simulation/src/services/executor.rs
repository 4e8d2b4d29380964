//! The executor: runs the tasks of all nodes on one thread, in an order that the seed decides. When
//! no task is ready, it advances the virtual time to the next event.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use psrpc::bus::{Receipt, Sink, WakeList};
use psrpc::proto::{Channel, Frame};
use psrpc::{BusError, Task, Time};
use slab::Slab;

use crate::clock::Clock;
use crate::fault::{Fault, Faults};
use crate::frame_text::FrameText;
use crate::net::{Net, NetEvent, SubscriptionId};
use crate::node_id::Peer;
use crate::rng::Rng;
use crate::scene::{Scene, ScheduledEvent};
use crate::trace::Show;

/// The state that all nodes of a world share. Its lock is never held while code outside the
/// simulator runs.
pub(crate) struct Shared(Mutex<ExecutorState>);

pub(crate) struct ExecutorState {
    pub(crate) scene: Scene<ServiceRunEvent>,
    pub(crate) net: Net<SubscriberId>,
    /// The sinks of the subscriptions that have not ended.
    pub(super) sinks: BTreeMap<SubscriberId, Arc<Sink>>,
    pub(super) nodes: Vec<NodeState>,
    pub(super) tasks: Slab<TaskSlot>,
    /// The tasks that are ready, in no particular order.
    ready: Vec<TaskId>,
    pub(super) losses: Vec<PlannedLoss>,
    pub(super) rng: Rng,
    counter: u64,
    /// Called with every published frame.
    pub(crate) tap: Option<Tap>,
}

/// A callback for every published frame.
pub(crate) type Tap = Box<dyn FnMut(&Frame) + Send>;

/// The id of a subscriber on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SubscriberId(u64);

/// A scheduled event of a run of services.
pub(crate) enum ServiceRunEvent {
    /// An event of the bus.
    Net(NetEvent),
    /// The bus reports the outcome of a publish.
    Published(Receipt, Result<Option<u64>, BusError>),
    /// The bus has room again for frames of a node.
    Room(usize),
    /// A sleep is over.
    WakeSleep(Waker),
    /// A task of a slow node becomes ready.
    RunTask(TaskId),
    /// The pause of a node is over.
    Resume(usize),
}

impl From<NetEvent> for ServiceRunEvent {
    fn from(event: NetEvent) -> Self {
        ServiceRunEvent::Net(event)
    }
}

/// The state of a node.
pub(super) struct NodeState {
    pub(super) name: Arc<str>,
    pub(super) clock: Clock,
    /// The number of its crashes.
    pub(super) life: u64,
    /// The duration of each step of its tasks.
    pub(super) slowness: Duration,
    /// The time until which it is paused.
    pub(super) paused: Option<Time>,
    /// The tasks that became ready during a pause.
    held: Vec<TaskId>,
    /// The time until which the bus has no room for its frames.
    pub(super) full: Option<Time>,
    pub(super) waiting_for_room: Vec<Waker>,
}

/// One incarnation of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeLife {
    pub(super) node: usize,
    pub(super) life: u64,
}

impl NodeLife {
    pub(super) fn peer(self) -> Peer {
        Peer(self.node)
    }
}

/// A task, or the main future of the world.
pub(crate) struct TaskSlot {
    number: u64,
    /// `None` for the main future.
    home: Option<NodeLife>,
    /// `None` while the task runs, and for the main future.
    future: Option<Task>,
    waker: Waker,
    queued: bool,
}

/// The id of a task: its slot, and a number that tells it from earlier tasks in the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskId {
    slot: usize,
    number: u64,
}

/// Frames that a test wants to lose.
pub(super) struct PlannedLoss {
    pub(super) left: usize,
    pub(super) matches: Matches,
}

/// A predicate for frames.
pub(super) type Matches = Box<dyn FnMut(&Channel, &Frame) -> bool + Send>;

struct TaskWaker {
    shared: Arc<Shared>,
    task: TaskId,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.shared.lock().wake(self.task);
    }
}

/// The result of a step.
pub(super) enum Step {
    /// The main future is ready to be polled.
    Main,
    /// A task has run.
    Task,
    /// No task is ready.
    Idle,
}

impl Shared {
    pub(super) fn new(seed: u64, show: Option<Show>) -> Arc<Self> {
        let mut rng = Rng::new(seed);
        let scene = Scene::new(Faults::none(), rng.chance(500), show);
        let net = Net::new(rng.fork());
        Arc::new(Self(Mutex::new(ExecutorState {
            scene,
            net,
            sinks: BTreeMap::new(),
            nodes: Vec::new(),
            tasks: Slab::new(),
            ready: Vec::new(),
            losses: Vec::new(),
            rng,
            counter: 0,
            tap: None,
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ExecutorState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- tasks -----------------------------------------------------------------------------------

    /// Adds a task of a node, unless the node has crashed meanwhile.
    pub(super) fn spawn(self: &Arc<Self>, home: NodeLife, task: Task) {
        if self.lock().is_alive(home) {
            self.add(Some(home), Some(task));
        }
    }

    /// Adds the main future of the world.
    pub(super) fn add_main(self: &Arc<Self>) -> (TaskId, Waker) {
        self.add(None, None)
    }

    pub(super) fn remove_main(&self, main: TaskId) {
        let slot = self.lock().tasks.remove(main.slot);
        drop(slot);
    }

    fn add(self: &Arc<Self>, home: Option<NodeLife>, future: Option<Task>) -> (TaskId, Waker) {
        let mut state = self.lock();
        let task = TaskId { slot: state.tasks.vacant_key(), number: state.next_number() };
        let waker = Waker::from(Arc::new(TaskWaker { shared: Arc::clone(self), task }));
        let slot = TaskSlot { number: task.number, home, future, waker: waker.clone(), queued: false };
        state.tasks.insert(slot);
        state.wake(task);
        (task, waker)
    }

    /// Runs one of the ready tasks.
    pub(super) fn step(&self) -> Step {
        let mut state = self.lock();
        let Some((task, mut future, waker)) = state.take_ready() else { return Step::Idle };
        drop(state);
        let Some(running) = &mut future else { return Step::Main };
        let polled = running.as_mut().poll(&mut Context::from_waker(&waker));
        let mut state = self.lock();
        // The task is gone if its node crashed meanwhile.
        let slot = match (state.find(task), polled) {
            (Some(slot), Poll::Pending) => {
                slot.future = future.take();
                None
            }
            (Some(_), Poll::Ready(())) => Some(state.tasks.remove(task.slot)),
            (None, _) => None,
        };
        drop(state);
        drop((slot, future));
        Step::Task
    }

    // --- time ------------------------------------------------------------------------------------

    /// Advances the time to the next event and handles it. Returns `false` if no event is due by
    /// `end`.
    pub(super) fn advance_time(&self, end: Time) -> bool {
        let mut state = self.lock();
        let Some(event) = state.scene.next_event(end) else { return false };
        match event {
            ServiceRunEvent::Net(event) => {
                let arrival = state.arrive(event);
                drop(state);
                if let Some(arrival) = arrival {
                    arrival.deliver();
                }
            }
            ServiceRunEvent::Published(receipt, result) => {
                drop(state);
                match result {
                    Ok(receivers) => receipt.published(receivers),
                    Err(error) => receipt.failed(error),
                }
            }
            ServiceRunEvent::Room(node) => {
                let now = state.scene.now();
                let node = &mut state.nodes[node];
                node.full = node.full.filter(|until| *until > now);
                let waiting = std::mem::take(&mut node.waiting_for_room);
                drop(state);
                waiting.into_iter().for_each(Waker::wake);
            }
            ServiceRunEvent::WakeSleep(waker) => {
                drop(state);
                waker.wake();
            }
            ServiceRunEvent::RunTask(task) => state.make_ready(task),
            ServiceRunEvent::Resume(node) => state.resume(node),
        }
        true
    }

    /// Returns `true` if any event is scheduled.
    pub(super) fn has_events(&self) -> bool {
        self.lock().scene.has_events()
    }

    /// Returns a sleep until a virtual time.
    pub(super) fn sleep_until(shared: &Arc<Self>, at: Time) -> Sleep {
        Sleep { shared: Arc::clone(shared), at, event: None }
    }

    // --- crashes and the end of the world --------------------------------------------------------

    /// Drops all tasks and subscriptions of a node. Clients and servers of the node that other
    /// tasks still hold have no effect any more.
    pub(super) fn crash(&self, node: usize) {
        let mut state = self.lock();
        state.nodes[node].life += 1;
        state.net.end_all(Peer(node));
        let of_node = |slot: &TaskSlot| slot.home.is_some_and(|home| home.node == node);
        let keys: Vec<_> = state.tasks.iter().filter(|(_, slot)| of_node(slot)).map(|(key, _)| key).collect();
        let tasks: Vec<_> = keys.into_iter().map(|key| state.tasks.remove(key)).collect();
        let sinks = state.take_sinks_without_subscription();
        let node = &mut state.nodes[node];
        (node.paused, node.full) = (None, None);
        let waiting = std::mem::take(&mut node.waiting_for_room);
        node.held.clear();
        drop(state);
        // These drops may run user code, which has no effect any more.
        drop((tasks, sinks, waiting));
    }

    /// Drops everything, to break reference cycles.
    pub(super) fn clear(&self) {
        let nodes = self.lock().nodes.len();
        (0..nodes).for_each(|node| self.crash(node));
        loop {
            let mut state = self.lock();
            let tasks: Vec<_> = state.tasks.drain().collect();
            let plans = state.scene.clear();
            let rest = (std::mem::take(&mut state.losses), state.tap.take());
            drop(state);
            if tasks.is_empty() && plans.is_empty() {
                return;
            }
            drop((tasks, plans, rest));
        }
    }
}

impl ExecutorState {
    pub(super) fn is_alive(&self, home: NodeLife) -> bool {
        self.nodes[home.node].life == home.life
    }

    pub(super) fn add_node(&mut self, name: String, clock: Clock) -> usize {
        self.nodes.push(NodeState {
            name: name.into(),
            clock,
            life: 0,
            slowness: Duration::ZERO,
            paused: None,
            held: Vec::new(),
            full: None,
            waiting_for_room: Vec::new(),
        });
        self.nodes.len() - 1
    }

    pub(super) fn subscriber(&mut self) -> SubscriberId {
        SubscriberId(self.next_number())
    }

    fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn find(&mut self, task: TaskId) -> Option<&mut TaskSlot> {
        self.tasks.get_mut(task.slot).filter(|slot| slot.number == task.number)
    }

    fn wake(&mut self, task: TaskId) {
        let Some(slot) = self.find(task).filter(|slot| !slot.queued) else { return };
        slot.queued = true;
        let slowness = slot.home.map_or(Duration::ZERO, |home| self.nodes[home.node].slowness);
        if slowness.is_zero() {
            self.make_ready(task);
        } else {
            self.scene.schedule_after(slowness, ServiceRunEvent::RunTask(task));
        }
    }

    /// Makes a task ready now, or when the pause of its node is over.
    fn make_ready(&mut self, task: TaskId) {
        let Some(slot) = self.find(task) else { return };
        let home = slot.home;
        match home.map(|home| &mut self.nodes[home.node]) {
            Some(node) if node.paused.is_some() => node.held.push(task),
            _ => self.ready.push(task),
        }
    }

    fn take_ready(&mut self) -> Option<(TaskId, Option<Task>, Waker)> {
        while !self.ready.is_empty() {
            let chosen = self.rng.index(self.ready.len());
            let task = self.ready.swap_remove(chosen);
            let Some(slot) = self.find(task) else { continue };
            slot.queued = false;
            let (future, waker) = (slot.future.take(), slot.waker.clone());
            self.scene.hash().word(task.number);
            return Some((task, future, waker));
        }
        None
    }

    /// Pauses a node until a time. A longer earlier pause stays.
    pub(super) fn pause(&mut self, node: usize, until: Time) {
        let paused = &mut self.nodes[node].paused;
        *paused = Some(paused.map_or(until, |before| before.max(until)));
        self.scene.schedule_at(until, ServiceRunEvent::Resume(node));
        for task in std::mem::take(&mut self.ready) {
            self.make_ready(task);
        }
    }

    fn resume(&mut self, node: usize) {
        let now = self.scene.now();
        let state = &mut self.nodes[node];
        if state.paused.is_some_and(|until| until > now) {
            return;
        }
        state.paused = None;
        let held = std::mem::take(&mut state.held);
        self.ready.extend(held);
    }

    fn take_sinks_without_subscription(&mut self) -> Vec<Arc<Sink>> {
        let Self { sinks, net, .. } = self;
        let ended: Vec<_> =
            sinks.keys().copied().filter(|subscriber| net.find(*subscriber).is_none()).collect();
        ended.into_iter().filter_map(|subscriber| sinks.remove(&subscriber)).collect()
    }

    fn arrive(&mut self, event: NetEvent) -> Option<Arrival> {
        let sink = |state: &Self, id: SubscriptionId| {
            let subscriber = state.net.subscriber(id)?;
            state.sinks.get(&subscriber).map(Arc::clone)
        };
        match event {
            NetEvent::Activated(id) => {
                self.net.activate(id);
                None
            }
            NetEvent::Confirmed(id) => Some(Arrival::Live(sink(self, id)?)),
            NetEvent::Gap(id) => Some(Arrival::Gap(sink(self, id)?)),
            NetEvent::Delivered(id, delivery) => {
                let sink = sink(self, id)?;
                let node = self.net.peer(id).0;
                let name = Arc::clone(&self.nodes[node].name);
                self.scene.log(name, format_args!("gets {}", FrameText(&delivery.frame)));
                Some(Arrival::Frame(sink, delivery.arrival()))
            }
            NetEvent::Deactivated(id) => {
                self.net.deactivate(&mut self.scene, id);
                None
            }
            NetEvent::Ended(id, error) => {
                if error.is_some() && self.net.subscriber(id).is_some() {
                    self.scene.faults.count(Fault::LostSubscribe);
                }
                let subscriber = self.net.end(id)?;
                Some(Arrival::Ended(self.sinks.remove(&subscriber)?, error))
            }
        }
    }
}

/// An event of a subscription, delivered without the lock.
enum Arrival {
    Live(Arc<Sink>),
    Frame(Arc<Sink>, Frame),
    Gap(Arc<Sink>),
    Ended(Arc<Sink>, Option<BusError>),
}

impl Arrival {
    fn deliver(self) {
        let mut wakes = WakeList::new();
        match self {
            Arrival::Live(sink) => sink.live(&mut wakes),
            Arrival::Frame(sink, frame) => sink.deliver(frame, &mut wakes),
            Arrival::Gap(sink) => sink.gap(None, &mut wakes),
            Arrival::Ended(sink, error) => {
                if let (Some(sink), Some(error)) = (Arc::into_inner(sink), error) {
                    sink.fail(error, &mut wakes);
                }
            }
        }
    }
}

/// A sleep until a virtual time. Dropping it cancels its event.
pub(super) struct Sleep {
    shared: Arc<Shared>,
    at: Time,
    event: Option<(ScheduledEvent, Waker)>,
}

impl Sleep {
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        if state.scene.now() >= self.at {
            return Poll::Ready(());
        }
        if self.event.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let before = self.event.take().and_then(|(event, _)| state.scene.cancel(event));
        let event = state.scene.schedule_timer(self.at, ServiceRunEvent::WakeSleep(cx.waker().clone()));
        self.event = Some((event, cx.waker().clone()));
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((event, _)) = &self.event {
            let struck = self.shared.lock().scene.cancel(*event);
            drop(struck);
        }
    }
}
