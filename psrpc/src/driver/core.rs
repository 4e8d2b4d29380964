//! The core of the driver: its lock, and the path of a command through the engine to the bus.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use psrpc_engine::{BusError, Due, Engine, Now, Output, Time};

use super::inbound::Inbound;
use crate::bus::mailbox::Mailbox;
use crate::bus::{Accepted, Bus, BusEvent, Full, Offer, Sink, Status, Subscription, WakeList};
use crate::error::Error;
use crate::guard;
use crate::runtime::Runtime;
use crate::sync::{Lock, LockGuard, assert_unlocked};
use crate::waiting::{WaiterKey, Waiters};

/// The parts of a driver that differ between clients and servers.
pub(crate) trait Role: Sized + Send + 'static {
    type Engine: Engine + Send;
    /// Work to do after the lock is released, since it runs user code or wakes a task.
    type Task: Send + Unpin;
    /// A command that a task produces, to be carried out under the lock.
    type Command: Send + Unpin;

    /// Handles an event of the engine, under the lock.
    fn on_event(&mut self, event: <Self::Engine as Engine>::Event, tasks: &mut Vec<Self::Task>);

    /// Handles an event of the bus, under the lock.
    fn on_bus_event(
        &mut self,
        engine: &mut Self::Engine,
        now: Now,
        event: BusEvent,
        tasks: &mut Vec<Self::Task>,
    );

    /// Performs a task, without the lock. The commands that it adds are carried out soon after,
    /// together with those of other tasks.
    fn perform(driver: &Arc<Driver<Self>>, task: Self::Task, commands: &mut Vec<Self::Command>);

    /// Carries out a command, under the lock. Returns the command if it came too late, since
    /// dropping it may run user code.
    fn carry_out(state: &mut DriverState<Self>, now: Now, command: Self::Command) -> Option<Self::Command>;

    /// Returns `true` if nothing more will happen, so that the driver can stop.
    fn is_finished(&self) -> bool;
}

/// An engine with its bus and runtime.
///
/// A command takes the lock, calls the engine, and passes the engine's outputs to the bus before it
/// releases the lock. So frames leave in the order of their commands, and there is no queue between
/// a call and the bus. The lock is never held across an await, or while user code runs. One
/// background task, [`Inbound`], feeds incoming frames and timeouts to the engine.
pub(crate) struct Driver<R: Role> {
    state: Lock<DriverState<R>>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) runtime: Arc<dyn Runtime>,
    capacity: usize,
}

pub(crate) struct DriverState<R: Role> {
    pub(crate) engine: R::Engine,
    pub(crate) role: R,
    /// By the index of the subscription handle.
    subscriptions: Vec<Option<Subscription>>,
    /// The time at which the background task wakes by itself. Commands notify the task only of an
    /// earlier timeout.
    wakes_at: Option<Time>,
    /// Whether the bus has no room for the next frame. Until it has room, frames wait in the
    /// engine. The deadlines of their callers still apply.
    full: bool,
    /// The time of the last command, used once the runtime is gone.
    last_now: Now,
    /// Whether the background task has ended.
    abandoned: bool,
    /// Tasks that wait for the background task to end.
    watchers: Waiters,
}

/// The state that the background task needs after a command.
pub(super) struct DriverStatus {
    /// The time at which to wake: the engine's next timeout, or earlier.
    pub(super) wakes_at: Option<Time>,
    /// Whether the bus has no room.
    pub(super) full: bool,
    /// Whether nothing more will happen.
    pub(super) finished: bool,
}

/// How many tasks are performed before their commands are carried out. A higher number takes the
/// lock less often, but delays the first bid and holds the lock longer.
const COMMANDS: usize = 4;

/// Work to do after a command, once the lock is released.
pub(super) struct Deferred<R: Role> {
    tasks: Vec<R::Task>,
    /// The commands that tasks have produced so far.
    commands: Vec<R::Command>,
}

/// A view of a driver between commands: the engine, read-only, and the role, in which tasks
/// register.
pub(crate) struct StateRef<'a, R: Role> {
    pub(crate) engine: &'a R::Engine,
    pub(crate) role: &'a mut R,
}

impl<R: Role> Driver<R> {
    /// Starts a driver. Each of its subscriptions has room for `capacity` frames.
    ///
    /// # Panics
    ///
    /// Panics if the runtime has no timers. The panic happens here, and not in the background, so
    /// that the caller sees it.
    pub(crate) fn start(
        engine: R::Engine,
        role: R,
        bus: Arc<dyn Bus>,
        runtime: Arc<dyn Runtime>,
        capacity: usize,
    ) -> Arc<Self> {
        let last_now = runtime.now();
        drop(runtime.sleep_until(last_now.time));
        let state = DriverState {
            engine,
            role,
            subscriptions: Vec::new(),
            wakes_at: None,
            full: false,
            last_now,
            abandoned: false,
            watchers: Waiters::default(),
        };
        let mailbox = Arc::new(Mailbox::default());
        if let Some(monitor) = bus.monitor() {
            monitor.attach(&mailbox);
        }
        let driver = Arc::new(Self { state: Lock::new(state), mailbox, bus, runtime, capacity });
        driver.execute(|_, _| ());
        driver.runtime.spawn(Box::pin(Inbound::new(Arc::clone(&driver))));
        driver
    }

    /// Carries out a command: publishes its frames and performs its tasks.
    pub(crate) fn execute<T>(self: &Arc<Self>, command: impl FnOnce(&mut DriverState<R>, Now) -> T) -> T {
        self.execute_locked(self.lock_now(), command)
    }

    fn execute_locked<T>(
        self: &Arc<Self>,
        state: LockGuard<'_, DriverState<R>>,
        command: impl FnOnce(&mut DriverState<R>, Now) -> T,
    ) -> T {
        let was_full = state.full;
        self.execute_with(state, &mut Deferred::default(), command, |state, result, wakes| {
            let sooner = state.note_timeout();
            if sooner || state.role.is_finished() || state.full && !was_full {
                self.mailbox.notify(wakes);
            }
            result
        })
    }

    /// Carries out a command of the background task, which needs no notification: it gets the new
    /// status instead. `deferred` is an empty buffer to reuse.
    pub(super) fn execute_inbound(
        self: &Arc<Self>,
        deferred: &mut Deferred<R>,
        command: impl FnOnce(&mut DriverState<R>, Now),
    ) -> DriverStatus {
        self.execute_with(self.lock_now(), deferred, command, |state, (), _| {
            state.note_timeout();
            let DriverState { wakes_at, full, .. } = *state;
            DriverStatus { wakes_at, full, finished: state.role.is_finished() }
        })
    }

    /// Takes the lock, and records the current time.
    fn lock_now(&self) -> LockGuard<'_, DriverState<R>> {
        let mut state = self.state.lock();
        state.last_now = self.runtime.now();
        state
    }

    /// Carries out a command, and calls `conclude` last under the lock.
    fn execute_with<T, U>(
        self: &Arc<Self>,
        state: LockGuard<'_, DriverState<R>>,
        deferred: &mut Deferred<R>,
        command: impl FnOnce(&mut DriverState<R>, Now) -> T,
        conclude: impl FnOnce(&mut DriverState<R>, T, &mut WakeList) -> U,
    ) -> U {
        // The order of declaration matters: the lock is released first, even if the bus panics.
        let performed = PerformOnDrop { driver: self, deferred };
        let mut wakes = WakeList::new();
        let mut state = state;
        let now = state.last_now;
        let result = command(&mut state, now);
        self.flush(&mut state, now, &mut performed.deferred.tasks, &mut wakes);
        conclude(&mut state, result, &mut wakes)
    }

    /// Passes events of the bus to the role.
    pub(super) fn on_bus_events(
        self: &Arc<Self>,
        events: &mut VecDeque<BusEvent>,
        deferred: &mut Deferred<R>,
    ) {
        let mut bus_work = Deferred::default();
        self.execute_inbound(deferred, |state, now| {
            for event in events.drain(..) {
                state.role.on_bus_event(&mut state.engine, now, event, &mut bus_work.tasks);
            }
        });
        drop(PerformOnDrop { driver: self, deferred: &mut bus_work });
    }

    /// Carries out the commands of tasks, under one lock and with one reading of the clocks.
    pub(crate) fn carry_out_all(self: &Arc<Self>, commands: &mut Vec<R::Command>) {
        let too_late: Vec<_> = self.execute(|state, now| {
            commands.drain(..).filter_map(|command| R::carry_out(state, now, command)).collect()
        });
        too_late.into_iter().for_each(|command| drop(guard::catch(|| drop(command))));
    }

    /// Reads the engine, or changes the role, without a command.
    pub(crate) fn with_state<T>(&self, read: impl FnOnce(StateRef<'_, R>) -> T) -> T {
        let DriverState { engine, role, .. } = &mut *self.state.lock();
        read(StateRef { engine, role })
    }

    /// Returns an error if calls or requests cannot go through now. `read` returns why the engine
    /// is closed, and the cause that interrupts its subscriptions.
    pub(crate) fn health<C: Into<Error>>(
        &self,
        read: impl FnOnce(&R::Engine) -> (Option<C>, Option<BusError>),
    ) -> Result<(), Error> {
        match self.with_state(|state| read(state.engine)) {
            (Some(closed), _) => return Err(closed.into()),
            (None, Some(cause)) => return Err(cause.into()),
            (None, None) => {}
        }
        match self.bus.status() {
            Status::Connected => Ok(()),
            Status::Reconnecting { cause, .. } | Status::Stopped { cause } => Err(cause.into()),
        }
    }

    /// Runs `update` on the engine and the role, without a command. It must not produce outputs or
    /// move timers.
    pub(crate) fn with_engine<T>(&self, update: impl FnOnce(&mut R::Engine, &mut R) -> T) -> T {
        let DriverState { engine, role, .. } = &mut *self.state.lock();
        let next = engine.poll_timeout();
        let result = update(engine, role);
        debug_assert!(
            engine.poll_output().is_none() && engine.poll_timeout() == next,
            "a command must go through `execute`"
        );
        result
    }

    /// Returns `true` if the bus has no room.
    pub(super) fn is_full(&self) -> bool {
        self.state.lock().full
    }

    // --- the end of the runtime ------------------------------------------------------------------

    /// Fails everything in flight, and everything that starts later, since the background task has
    /// ended. A panic in one round does not stop the next.
    pub(super) fn abandon(self: &Arc<Self>) {
        /// The number of panics after which the rest is given up.
        const PANICS: usize = 8;
        let abandon = |state: &mut DriverState<R>, now| {
            state.engine.abandon(now);
            Due::More
        };
        let mut panics = 0;
        let mut due = guard::catch(|| self.execute_locked(self.state.lock(), abandon)).ok();
        while due != Some(Due::Nothing) && panics < PANICS {
            let run_timers = |state: &mut DriverState<R>, now| state.engine.handle_timeout(now);
            due = guard::catch(|| self.execute_locked(self.state.lock(), run_timers)).ok();
            panics += usize::from(due.is_none());
        }
    }

    /// Wakes the tasks that wait for the end of the background task.
    pub(super) fn wake_watchers(&self) {
        let watchers: Vec<_> = {
            let mut state = self.state.lock();
            state.abandoned = true;
            state.watchers.take().collect()
        };
        watchers.into_iter().for_each(Waker::wake);
    }

    /// Waits until the background task has ended. From then on no timer of the runtime fires.
    pub(crate) async fn abandoned(&self) {
        let mut waiter = AbandonWaiter { driver: self, key: WaiterKey::default() };
        poll_fn(|cx| waiter.poll(cx)).await;
    }

    /// Retries the frames for which the bus had no room.
    pub(super) fn on_room(self: &Arc<Self>) {
        self.execute(|state, _| {
            state.full = false;
            state.engine.handle_room();
        });
    }

    fn flush(&self, state: &mut DriverState<R>, now: Now, tasks: &mut Vec<R::Task>, wakes: &mut WakeList) {
        loop {
            self.flush_outputs(state, tasks, wakes);
            if !self.flush_publish(state, now, wakes) {
                return;
            }
        }
    }

    fn flush_outputs(&self, state: &mut DriverState<R>, tasks: &mut Vec<R::Task>, wakes: &mut WakeList) {
        while let Some(output) = state.engine.poll_output() {
            match output {
                Output::Subscribe { subscription, channel, kind } => {
                    let sink = Sink::into_mailbox(&self.mailbox, self.capacity, Some(subscription));
                    let index = subscription.index();
                    if state.subscriptions.len() <= index {
                        state.subscriptions.resize_with(index + 1, || None);
                    }
                    let subscription = self.bus.subscribe(&channel, kind, sink, wakes);
                    // A subscription that the bus ended may still be in this slot.
                    if let Some(ended) = state.subscriptions[index].replace(subscription) {
                        wakes.discard(ended);
                    }
                }
                // Dropped after the lock is released, since that runs code of the bus.
                Output::Unsubscribe { subscription } => {
                    if let Some(ended) = state.subscriptions[subscription.index()].take() {
                        wakes.discard(ended);
                    }
                }
                Output::Event(event) => state.role.on_event(event, tasks),
            }
        }
    }

    /// Offers the next frame to the bus. Returns `false` if there is none, or no room.
    fn flush_publish(&self, state: &mut DriverState<R>, now: Now, wakes: &mut WakeList) -> bool {
        let Some(frame) = state.engine.poll_publish() else { return false };
        let (token, mut taken) = (frame.token(), false);
        let accepted = self.bus.publish(Offer::lent(frame, &self.mailbox, &mut taken), wakes);
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(Full) if !taken => {
                state.full = true;
                state.engine.handle_full();
                return false;
            }
            Err(Full) => {
                Accepted::Failed(BusError::new("the bus took the frame but reported that it is full"))
            }
        };
        if !taken && let Some(misrouted) = state.engine.poll_publish() {
            match accepted {
                Accepted::Failed(_) => misrouted.discard(),
                Accepted::Done(_) | Accepted::Later => drop(misrouted.take()),
            }
        }
        match accepted {
            Accepted::Done(receivers) => state.engine.handle_published(now, token, Ok(receivers)),
            Accepted::Failed(error) => state.engine.handle_published(now, token, Err(error)),
            Accepted::Later => {}
        }
        true
    }
}

impl<R: Role> DriverState<R> {
    /// Records the engine's next timeout. Returns `true` if the background task would sleep past
    /// it.
    fn note_timeout(&mut self) -> bool {
        let Some(next) = self.engine.poll_timeout().map(|timeout| timeout.at) else { return false };
        let sooner = self.wakes_at.is_none_or(|wakes_at| next < wakes_at);
        if sooner {
            self.wakes_at = Some(next);
        }
        sooner
    }

    /// Runs due timers after the background task has woken. If more are due, the next timeout is
    /// already in the past.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        self.wakes_at = None;
        let _ = self.engine.handle_timeout(now);
    }
}

impl<R: Role> Default for Deferred<R> {
    fn default() -> Self {
        Self { tasks: Vec::new(), commands: Vec::new() }
    }
}

/// A guard that performs the tasks when it is dropped. Each task is performed even if another one
/// panics, since no task is ever repeated.
struct PerformOnDrop<'a, R: Role> {
    driver: &'a Arc<Driver<R>>,
    deferred: &'a mut Deferred<R>,
}

impl<R: Role> Drop for PerformOnDrop<'_, R> {
    fn drop(&mut self) {
        let Deferred { tasks, commands } = &mut *self.deferred;
        if tasks.is_empty() {
            return;
        }
        let mut panic = None;
        let mut tasks = tasks.drain(..);
        while tasks.len() > 0 {
            for task in tasks.by_ref().take(COMMANDS) {
                assert_unlocked("a task of a client or server is performed");
                let performed = catch_unwind(AssertUnwindSafe(|| R::perform(self.driver, task, commands)));
                panic = panic.or(performed.err());
            }
            if !commands.is_empty() {
                let carried_out = catch_unwind(AssertUnwindSafe(|| self.driver.carry_out_all(commands)));
                panic = panic.or(carried_out.err());
            }
        }
        drop(tasks);
        if let Some(panic) = panic.filter(|_| !std::thread::panicking()) {
            resume_unwind(panic);
        }
    }
}

/// A task that waits for the background task to end. Dropping it removes its waker.
struct AbandonWaiter<'a, R: Role> {
    driver: &'a Driver<R>,
    key: WaiterKey,
}

impl<R: Role> AbandonWaiter<'_, R> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.driver.state.lock();
        if state.abandoned {
            return Poll::Ready(());
        }
        let replaced = state.watchers.wait(&mut self.key, cx);
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl<R: Role> Drop for AbandonWaiter<'_, R> {
    fn drop(&mut self) {
        if self.key.is_registered() {
            let removed = self.driver.state.lock().watchers.remove(&mut self.key);
            drop(removed);
        }
    }
}
