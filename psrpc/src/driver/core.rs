//! The core of the driver: the lock, the way of a command into the engine, and of its outputs to the bus.

use std::sync::{Arc, PoisonError};

use psrpc_engine::{Engine, Now, Output, Time};

use super::inbound::Inbound;
use crate::bus::{Bus, Full, Receipt, Subscription};
use crate::inbox::{Published, Queue};
use crate::runtime::Runtime;
use crate::sync::{Mutex, MutexGuard};

/// What a client and a server do differently: what becomes of an engine's events.
pub(crate) trait Role: Sized + Send + 'static {
    type Engine: Engine + Send;
    /// Something to be done once the lock is free, since it runs user code or wakes a task.
    type Task: Send + Unpin;

    /// Takes an event, under the lock.
    fn on_event(&mut self, event: <Self::Engine as Engine>::Event, tasks: &mut Vec<Self::Task>);

    /// Does a task, without the lock.
    fn perform(driver: &Arc<Driver<Self>>, task: Self::Task);

    /// Whether nothing more is to come, so that the driver can end.
    fn is_finished(&self) -> bool;
}

/// An engine with its bus and runtime.
///
/// A command takes the lock, goes into the engine, and hands what the engine puts out to the bus before it lets go of the
/// lock: so frames leave in the order of their commands, and nothing lies between a call and the bus. The lock is never
/// held across an await or while user code runs. Frames that come in, and time, are handed in by one
/// [`Inbound`] future.
pub(crate) struct Driver<R: Role> {
    state: Mutex<State<R>>,
    pub(super) queue: Arc<Queue>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) runtime: Arc<dyn Runtime>,
    capacity: usize,
}

pub(crate) struct State<R: Role> {
    pub(crate) engine: R::Engine,
    pub(crate) role: R,
    /// By the index of their handles.
    subscriptions: Vec<Option<Subscription>>,
    /// When the inbound future wakes by itself.
    pub(super) wakes_at: Option<Time>,
    /// What became of frames, on its way to the engine.
    published: Vec<Published>,
    /// Whether the bus has no room for the next frame. What is to be published waits in the engine, and so do the
    /// callers, until their deadlines.
    pub(super) full: bool,
}

impl<R: Role> Driver<R> {
    /// Starts a driver, whose subscriptions each have room for `capacity` frames.
    pub(crate) fn start(
        engine: R::Engine,
        role: R,
        bus: Arc<dyn Bus>,
        runtime: Arc<dyn Runtime>,
        capacity: usize,
    ) -> Arc<Self> {
        let state = State {
            engine,
            role,
            subscriptions: Vec::new(),
            wakes_at: None,
            published: Vec::new(),
            full: false,
        };
        let queue = Arc::new(Queue::default());
        let driver = Arc::new(Self { state: Mutex::new(state), queue, bus, runtime, capacity });
        driver.drive(|_, _| ());
        driver.runtime.spawn(Box::pin(Inbound::new(Arc::clone(&driver))));
        driver
    }

    /// Carries out a command, and all that comes of it.
    pub(crate) fn drive<T>(self: &Arc<Self>, command: impl FnOnce(&mut State<R>, Now) -> T) -> T {
        self.drive_with(&mut Vec::new(), command)
    }

    /// The same, with room for tasks that is used again.
    pub(super) fn drive_with<T>(
        self: &Arc<Self>,
        tasks: &mut Vec<R::Task>,
        command: impl FnOnce(&mut State<R>, Now) -> T,
    ) -> T {
        let mut ended = Vec::new();
        let result = {
            let mut state = self.lock();
            let now = self.runtime.now();
            let result = command(&mut state, now);
            self.flush(&mut state, now, tasks, &mut ended);
            let next = state.engine.poll_timeout().map(|timeout| timeout.at);
            let sooner = next.is_some_and(|next| state.wakes_at.is_none_or(|wakes_at| next < wakes_at));
            if sooner && !planted!(EarlierDeadlineSleeps) || state.role.is_finished() {
                self.queue.poke();
            }
            result
        };
        drop(ended);
        for task in tasks.drain(..) {
            R::perform(self, task);
        }
        result
    }

    /// Looks at the state without changing the engine.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut State<R>) -> T) -> T {
        look(&mut self.lock())
    }

    /// Tries again what the bus had no room for.
    pub(super) fn room(self: &Arc<Self>) {
        self.drive(|state, _| {
            state.full = false;
            state.engine.handle_room();
        });
    }

    fn flush(
        &self,
        state: &mut State<R>,
        now: Now,
        tasks: &mut Vec<R::Task>,
        ended: &mut Vec<Option<Subscription>>,
    ) {
        while let Some(output) = state.engine.poll_output() {
            match output {
                Output::Publish { token, channel, frame } => {
                    let receipt = Receipt::driver(Arc::clone(&self.queue), token);
                    let State { engine, published, .. } = state;
                    let accepted =
                        self.queue.publishing(published, || self.bus.publish(&channel, frame, receipt));
                    for (token, result) in published.drain(..) {
                        engine.handle_published(now, token, result);
                    }
                    if let Err(full) = accepted {
                        let Full { frame, receipt } = *full;
                        receipt.withdraw();
                        engine.handle_full(token, channel, frame);
                        state.full = true;
                        self.queue.poke();
                    }
                }
                Output::Subscribe { subscription, channel, kind } => {
                    let sink = self.queue.sink(self.capacity, Some(subscription));
                    let index = subscription.index();
                    if state.subscriptions.len() <= index {
                        state.subscriptions.resize_with(index + 1, || None);
                    }
                    state.subscriptions[index] = Some(self.bus.subscribe(&channel, kind, sink));
                }
                // Dropped once the lock is free, since the bus may do anything then.
                Output::Unsubscribe { subscription } => {
                    ended.push(state.subscriptions[subscription.index()].take());
                }
                Output::Event(event) => state.role.on_event(event, tasks),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
