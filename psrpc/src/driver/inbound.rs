//! The background task of a driver: feeds incoming frames and timeouts to the engine.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use psrpc_engine::{Due, Engine, Now, Time};

use super::core::{Deferred, Driver, DriverState, DriverStatus, Role};
use crate::bus::mailbox::Item;
use crate::bus::{BusEvent, Delivery};
use crate::log;
use crate::runtime::Task;

/// How many items are delivered before the task yields.
const BUDGET: usize = 256;
/// How many items are delivered under one lock.
const BATCH: usize = 32;

/// The background task, which runs from the start of the driver until the driver is finished.
pub(super) struct Inbound<R: Role> {
    driver: Arc<Driver<R>>,
    sleep: Option<(Time, Task)>,
    arrivals: VecDeque<Item>,
    events: VecDeque<BusEvent>,
    deferred: Deferred<R>,
    /// Whether the driver is finished. If it is not when the task is dropped, the runtime dropped
    /// the task, or the task panicked.
    finished: bool,
}

/// How many times due timers are handled before the task yields.
const ROUNDS: usize = 8;

impl<R: Role> Inbound<R> {
    pub(super) fn new(driver: Arc<Driver<R>>) -> Self {
        let arrivals = VecDeque::with_capacity(BATCH);
        Self {
            driver,
            sleep: None,
            arrivals,
            events: VecDeque::new(),
            deferred: Deferred::default(),
            finished: false,
        }
    }

    /// Delivers queued items to the engine. Returns the driver's status, and `true` if the mailbox
    /// is empty.
    fn deliver(&mut self, cx: &Context<'_>) -> (DriverStatus, bool) {
        let mut batches = 0;
        loop {
            self.driver.mailbox.take(&mut self.arrivals, &mut self.events, BATCH, cx);
            let drained = self.arrivals.len() < BATCH;
            if !self.events.is_empty() {
                self.driver.on_bus_events(&mut self.events, &mut self.deferred);
            }
            let arrivals = &mut self.arrivals;
            let status = self.driver.execute_inbound(&mut self.deferred, |state, now| {
                while let Some(item) = arrivals.pop_front() {
                    deliver(state, now, item);
                }
            });
            batches += 1;
            if drained || batches == BUDGET / BATCH {
                return (status, drained);
            }
        }
    }

    /// Sleeps until the next timeout and handles due timers. Returns the driver's status, and
    /// whether more timers are due.
    fn run_timers(&mut self, mut status: DriverStatus, cx: &mut Context<'_>) -> (DriverStatus, Due) {
        for _ in 0..ROUNDS {
            let Some(wakes_at) = status.wakes_at else { return (status, Due::Nothing) };
            let sleep = match &mut self.sleep {
                Some((until, sleep)) if *until <= wakes_at => sleep,
                slot => &mut slot.insert((wakes_at, self.driver.runtime.sleep_until(wakes_at))).1,
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return (status, Due::Nothing);
            }
            self.sleep = None;
            status = self.driver.execute_inbound(&mut self.deferred, DriverState::handle_timeout);
        }
        (status, Due::More)
    }
}

impl<R: Role> Future for Inbound<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let (status, drained) = this.deliver(cx);
        let (DriverStatus { full, finished, .. }, due) = this.run_timers(status, cx);
        if !drained || due.is_more() {
            cx.waker().wake_by_ref();
        }
        if full && this.driver.bus.poll_ready(cx).is_ready() {
            this.driver.on_room();
            if this.driver.is_full() {
                cx.waker().wake_by_ref();
            }
        }
        this.finished = finished;
        if finished { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<R: Role> Drop for Inbound<R> {
    fn drop(&mut self) {
        if !self.finished {
            self.driver.abandon();
        }
        self.driver.wake_watchers();
        if !self.finished && std::thread::panicking() {
            log::background_task_panicked();
        }
    }
}

fn deliver<R: Role>(state: &mut DriverState<R>, now: Now, item: Item) {
    let engine = &mut state.engine;
    let (recipient, delivery) = match item {
        Item::Delivery(recipient, delivery) => (recipient, delivery),
        Item::Published((token, result)) => return engine.handle_published(now, token, result),
    };
    let subscription = recipient.handle.expect("a driver's subscription has a handle");
    match delivery {
        Delivery::Frame(frame) => engine.handle_frame(now, subscription, frame),
        Delivery::Misrouted(frame) => engine.handle_misrouted(now, subscription, frame),
        Delivery::Live => engine.handle_subscribed(now, subscription, Ok(())),
        Delivery::Interrupted(cause) => engine.handle_interrupted(now, subscription, cause),
        Delivery::Gap(lost) => engine.handle_gap(now, subscription, lost),
        Delivery::Ended(None) => engine.handle_unsubscribed(now, subscription),
        Delivery::Ended(Some(error)) => engine.handle_subscribed(now, subscription, Err(error)),
    }
}
