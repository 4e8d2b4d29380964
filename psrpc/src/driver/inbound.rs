//! The inbound future: hands what comes in to the engine, and time.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use psrpc_engine::{Due, Engine, Now, Time};

use super::core::{Driver, Outlook, Role, State};
use super::mailbox::Item;
use crate::bus::{BusEvent, Delivery};
use crate::log;
use crate::runtime::Task;

/// How much is handed in before other tasks get their turn.
const BUDGET: usize = 256;
/// How much is handed in under one lock.
const BATCH: usize = 32;

/// Runs in the background from the start of its driver until nothing more is to come.
pub(super) struct Inbound<R: Role> {
    driver: Arc<Driver<R>>,
    sleep: Option<(Time, Task)>,
    arrivals: VecDeque<Item>,
    events: VecDeque<BusEvent>,
    tasks: Vec<R::Task>,
    /// Whether nothing more is to come. Dropped before that, it was dropped by its runtime, or it panicked.
    finished: bool,
}

/// How many times what is due is handled before other tasks get their turn.
const ROUNDS: usize = 8;

impl<R: Role> Inbound<R> {
    pub(super) fn new(driver: Arc<Driver<R>>) -> Self {
        let arrivals = VecDeque::with_capacity(BATCH);
        Self { driver, sleep: None, arrivals, events: VecDeque::new(), tasks: Vec::new(), finished: false }
    }

    /// Hands in what has arrived; whether that was all.
    fn hand_in(&mut self, cx: &Context<'_>) -> bool {
        for _ in 0..BUDGET / BATCH {
            self.driver.mailbox.take(&mut self.arrivals, &mut self.events, BATCH, cx);
            let all = self.arrivals.len() < BATCH;
            if !self.events.is_empty() {
                self.driver.on_bus_events(&mut self.events, &mut self.tasks);
            }
            if !self.arrivals.is_empty() {
                let arrivals = self.arrivals.drain(..);
                let hand_in = |state: &mut State<R>, now| arrivals.for_each(|item| hand_in(state, now, item));
                self.driver.drive_with(&mut self.tasks, hand_in);
            }
            if all {
                return true;
            }
        }
        false
    }

    /// Handles what is due, and sleeps until the next timeout. Gives what is then known of the driver, and whether more is due
    /// than one turn does.
    fn pass_time(&mut self, cx: &mut Context<'_>) -> (Outlook, Due) {
        for round in 0.. {
            // A sleep that is too short does no harm, so it is kept.
            let sleeping = self.sleep.as_ref().map(|(until, _)| *until);
            let outlook = self.driver.note_sleep(sleeping);
            if round == ROUNDS {
                return (outlook, Due::More);
            }
            if let Some(next) = outlook.next
                && sleeping.is_none_or(|until| next < until)
            {
                self.sleep = Some((next, self.driver.runtime.sleep_until(next)));
            }
            // Also when nothing is due any more: a sleep that has ended wakes nobody again, and commands count on one that is kept.
            let Some((_, sleep)) = &mut self.sleep else { return (outlook, Due::Nothing) };
            if sleep.as_mut().poll(cx).is_pending() {
                return (outlook, Due::Nothing);
            }
            self.sleep = None;
            // If more is due, the next timeout is past already.
            let _ = self.driver.drive(|state, now| state.engine.handle_timeout(now));
        }
        unreachable!("a turn has few rounds")
    }
}

impl<R: Role> Future for Inbound<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let all = this.hand_in(cx);
        let (Outlook { full, finished, .. }, due) = this.pass_time(cx);
        if !all || due.is_more() {
            cx.waker().wake_by_ref();
        }
        if full && !planted!(RoomUnasked) && this.driver.bus.poll_room(cx).is_ready() {
            this.driver.room();
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
        if planted!(EndedRuntimeHangs) {
            return;
        }
        if !self.finished {
            self.driver.abandon();
        }
        self.driver.wake_watchers();
        if !self.finished && std::thread::panicking() {
            log::background_task_panicked();
        }
    }
}

fn hand_in<R: Role>(state: &mut State<R>, now: Now, item: Item) {
    let engine = &mut state.engine;
    let (recipient, delivery) = match item {
        Item::Delivery(recipient, delivery) => (recipient, delivery),
        Item::Published((token, result)) => return engine.handle_published(now, token, result),
    };
    let subscription = recipient.handle.expect("a driver names its subscriptions");
    match delivery {
        Delivery::Frame(frame) => engine.handle_frame(now, subscription, frame),
        Delivery::Untaken(frame) => engine.handle_untaken(now, subscription, frame),
        Delivery::Live => engine.handle_subscribed(now, subscription, Ok(())),
        Delivery::Interrupted(cause) => engine.handle_interrupted(now, subscription, cause),
        Delivery::Gap(lost) => engine.handle_gap(now, subscription, lost),
        Delivery::Ended(None) => engine.handle_unsubscribed(now, subscription),
        Delivery::Ended(Some(error)) => engine.handle_subscribed(now, subscription, Err(error)),
    }
}
