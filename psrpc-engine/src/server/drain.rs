//! The shutdown of a server: its phases, and the entries that remain to be ended, a bounded number
//! at a time.

use alloc::collections::VecDeque;

use super::context::Context;
use super::request::Requests;
use super::side::Owner;
use super::stream;
use super::updates::Updates;
use crate::core::budget::{Budget, Step};
use crate::core::handle::RegistrationHandle;
use crate::core::outputs::Publish;
use crate::core::timers::{TimerId, TimerKind};
use crate::error::Failure;
use crate::event::ServerEvent;
use crate::reason::Reason;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The server takes no new registrations. It closes when nothing is in flight, its
    /// registrations have ended, and the bus has taken the closes of its streams. Once `timer` has
    /// fired, the server drops requests, and no longer waits for the bus to confirm the end of the
    /// subscriptions or to take the closes. Once `linger` has fired, it no longer waits for stream
    /// handlers.
    Draining {
        timer: Option<TimerId>,
        linger: Option<TimerId>,
    },
    /// The server ignores all input, and ends everything without waiting.
    Closing(Cause),
    Closed(Cause),
}

/// Why a server closes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The server was drained or killed.
    Requested,
    RuntimeEnded,
}

/// Entries to end, with the progress so far: a cursor into their table, or how many remain.
pub(super) enum Ending {
    Registrations {
        cursor: usize,
    },
    Streams {
        cursor: usize,
    },
    StreamsOf {
        registration: RegistrationHandle,
        remaining: usize,
    },
    /// Handlers of streams, which the server no longer waits for.
    Handlers {
        cursor: usize,
    },
    Requests {
        cursor: usize,
    },
    Subscriptions {
        cursor: usize,
    },
    Updates {
        cursor: usize,
    },
    /// The server itself.
    Server,
}

/// The entries to end, in order.
pub(super) struct Endings {
    queue: VecDeque<Ending>,
    /// Armed while more work is due at once.
    continue_timer: Option<TimerId>,
}

impl Endings {
    pub(super) const fn new() -> Self {
        Self { queue: VecDeque::new(), continue_timer: None }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn push(&mut self, ending: Ending) {
        self.queue.push_back(ending);
    }

    pub(super) fn extend(&mut self, endings: impl IntoIterator<Item = Ending>) {
        self.queue.extend(endings);
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    /// Records that the timer has fired.
    pub(super) fn timer_fired(&mut self) {
        self.continue_timer = None;
    }

    /// Ends entries, as far as the budget allows.
    pub(super) fn advance(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        updates: &mut Updates,
        phase: &mut Phase,
        budget: &mut Budget,
    ) {
        let cause = if let Phase::Closing(cause) = phase { Some(*cause) } else { None };
        let abandoned = cause == Some(Cause::RuntimeEnded);
        while let Some(ending) = self.queue.front_mut() {
            let step = match ending {
                Ending::Registrations { cursor } => {
                    cx.registry.walk(cursor, budget).map(|known| cx.registry.deregister(cx.outputs, known))
                }
                Ending::Streams { cursor } => cx.streams.walk(cursor, budget).map(|known| match abandoned {
                    true => stream::end_with_runtime(cx, known),
                    false => stream::end(cx, known),
                }),
                Ending::StreamsOf { registration, remaining } => {
                    cx.registry.walk_streams(*registration, remaining, budget).map(|known| {
                        budget.spend(cx.streams.messages_of(known));
                        stream::end(cx, known);
                    })
                }
                Ending::Handlers { cursor } => {
                    cx.streams.walk(cursor, budget).map(|known| stream::stop_handler(cx, known))
                }
                Ending::Requests { cursor } => requests.walk(cursor, budget).map(|known| {
                    let reason = if abandoned { Reason::RuntimeEnded } else { Reason::Killed };
                    requests.drop_request(cx.outputs, known, reason);
                }),
                Ending::Subscriptions { cursor } => cx.registry.unsubscribe_next(cx.outputs, cursor, budget),
                Ending::Updates { cursor } => updates.walk(cursor, budget).map(|known| {
                    let failure = if abandoned { Failure::runtime_of_server } else { Failure::server_closed };
                    updates.fail(cx.outputs, known, failure());
                }),
                Ending::Server => {
                    cx.registry.clear();
                    requests.forget(cx.outputs);
                    cx.streams.forget_received(cx.outputs);
                    // Only the closes are kept: nothing else tells the clients that their streams
                    // have ended.
                    cx.outputs.withdraw(|publish| publish == Publish::Close);
                    cx.outputs.event(ServerEvent::Closed);
                    *phase = Phase::Closed(cause.unwrap_or(Cause::Requested));
                    Step::Done
                }
            };
            match step {
                Step::Next(()) => {}
                Step::Done => drop(self.queue.pop_front()),
                Step::Spent => {
                    // The rest is due at once.
                    self.continue_timer.get_or_insert_with(|| {
                        cx.outputs.timers.arm(cx.now.time, TimerKind::Close, Owner::Ending)
                    });
                    return;
                }
            }
        }
        if let Some(continue_timer) = self.continue_timer.take() {
            cx.outputs.timers.disarm(continue_timer);
        }
    }
}
