//! The shutdown of a server: its phases, and the work of ending everything, a bounded amount at a
//! time.

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
    Asked,
    RuntimeEnded,
}

/// A kind of things to end, and the position in their table or how many remain.
pub(super) enum Ending {
    Registrations {
        place: usize,
    },
    Streams {
        place: usize,
    },
    StreamsOf {
        registration: RegistrationHandle,
        left: usize,
    },
    /// Handlers of streams, which the server no longer waits for.
    Handlers {
        place: usize,
    },
    Requests {
        place: usize,
    },
    Subscriptions {
        place: usize,
    },
    Updates {
        place: usize,
    },
    /// The server itself.
    Server,
}

/// The things to end, in order.
pub(super) struct Endings {
    queue: VecDeque<Ending>,
    /// Armed while more is due at once.
    more: Option<TimerId>,
}

impl Endings {
    pub(super) const fn new() -> Self {
        Self { queue: VecDeque::new(), more: None }
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
        self.more = None;
    }

    /// Ends things, as far as the budget allows.
    pub(super) fn go_on(
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
                Ending::Registrations { place } => {
                    cx.registry.walk(place, budget).map(|known| cx.registry.deregister(cx.outputs, known))
                }
                Ending::Streams { place } => cx.streams.walk(place, budget).map(|known| match abandoned {
                    true => stream::end_with_runtime(cx, known),
                    false => stream::end(cx, known),
                }),
                Ending::StreamsOf { registration, left } => {
                    cx.registry.walk_streams(*registration, left, budget).map(|known| {
                        budget.spend(cx.streams.sends_of(known));
                        stream::end(cx, known);
                    })
                }
                Ending::Handlers { place } => {
                    cx.streams.walk(place, budget).map(|known| stream::stop_handler(cx, known))
                }
                Ending::Requests { place } => requests.walk(place, budget).map(|known| {
                    let reason = if abandoned { Reason::RuntimeEnded } else { Reason::Killed };
                    requests.drop_request(cx.outputs, known, reason);
                }),
                Ending::Subscriptions { place } => cx.registry.unsubscribe_next(cx.outputs, place, budget),
                Ending::Updates { place } => updates.walk(place, budget).map(|known| {
                    let failure = if abandoned { Failure::runtime_of_server } else { Failure::server_closed };
                    updates.fail(cx.outputs, known, failure());
                }),
                Ending::Server => {
                    cx.registry.forget();
                    requests.forget(cx.outputs);
                    cx.streams.forget_received(cx.outputs);
                    // Only the closes are kept: nothing else tells the clients that their streams
                    // have ended.
                    cx.outputs.withdraw(|publish| publish == Publish::Close);
                    cx.outputs.event(ServerEvent::Closed);
                    *phase = Phase::Closed(cause.unwrap_or(Cause::Asked));
                    Step::Done
                }
            };
            match step {
                Step::Next(()) => {}
                Step::Done => drop(self.queue.pop_front()),
                Step::Spent => {
                    // The rest is due at once.
                    self.more.get_or_insert_with(|| {
                        cx.outputs.timers.arm(cx.now.time, TimerKind::Close, Owner::Ending)
                    });
                    return;
                }
            }
        }
        if let Some(more) = self.more.take() {
            cx.outputs.timers.disarm(more);
        }
    }
}
